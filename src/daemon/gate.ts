/**
 * A filesystem that can be shut. When the disk has failed, nothing that is written could ever be kept: changes are
 * then refused with EIO, so that applications hear of it, while everything can still be read.
 */
import { FsError } from "../core/errors.ts";
import type { FileSystem } from "../fs/file-system.ts";

export interface Gate {
  /** To be asked anew for each operation: shutting replaces its functions. */
  readonly fileSystem: FileSystem;
  shut(why: string): void;
}

const changing = [
  "setAttributes",
  "makeNode",
  "makeDirectory",
  "symlink",
  "link",
  "unlink",
  "removeDirectory",
  "rename",
  "create",
  "createUnnamed",
  "write",
  "fsync",
  "syncAll",
  "allocate",
  "setXattr",
  "removeXattr",
] as const satisfies readonly (keyof FileSystem)[];

/** Costs nothing until it is shut: the functions of the filesystem are called directly. */
export function gate(fileSystem: FileSystem): Gate {
  const open: { -readonly [K in keyof FileSystem]: FileSystem[K] } = { ...fileSystem };
  return {
    fileSystem: open,
    shut(why): void {
      const refuse = (): never => {
        throw new FsError("EIO", `the volume has failed: ${why}`);
      };
      for (const name of changing) open[name] = refuse;
    },
  };
}
