/**
 * The filesystem as applications get it, between the loop and the volume. Three things are done here:
 *
 * - A full volume is given a chance. What was deleted lately is free only after its consistency point; so when
 *   there is no space, one is taken, if it frees anything, and the operation tried again before ENOSPC is reported.
 * - It can be shut. When the disk has failed, nothing that is written could ever be kept: changes are then refused
 *   with EIO, so that applications hear of it, while everything can still be read.
 * - The kernel writes back the times of a file that it keeps in its cache although the file is gone. That has been
 *   done, as far as anyone can tell; an error would be reported by every sync(2) from then on.
 */
import { EPOCH } from "../core/clock.ts";
import { FsError } from "../core/errors.ts";
import type { Attributes, FileSystem } from "../fs/file-system.ts";

export interface Gate {
  /** To be asked anew for each operation: shutting replaces its functions. */
  readonly fileSystem: FileSystem;
  shut(why: string): void;
}

export interface GateOptions {
  /** Frees what a consistency point can free; false: it would be nothing. */
  readonly makeSpace: () => boolean;
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
  "copyRange",
  "setXattr",
  "removeXattr",
] as const satisfies readonly (keyof FileSystem)[];

/** Consistency points that one operation may wait for: what the second one frees was in use by the first. */
const ATTEMPTS_MAX = 3;

/** What is told of a file that is gone, where something must be. */
const GONE: Attributes = {
  ino: 0,
  mode: 0o100000,
  linkCount: 0,
  uid: 0,
  gid: 0,
  rdev: 0,
  sizeBytes: 0,
  sectorCount: 0,
  atime: EPOCH,
  mtime: EPOCH,
  ctime: EPOCH,
  btime: EPOCH,
};

type Operation = (...given: readonly unknown[]) => unknown;

export function gate(fileSystem: FileSystem, { makeSpace }: GateOptions): Gate {
  const open: { -readonly [K in keyof FileSystem]: FileSystem[K] } = { ...fileSystem };
  const replace = (name: (typeof changing)[number], operation: Operation): void => {
    (open as unknown as Record<string, Operation>)[name] = operation;
  };
  for (const name of changing) {
    const operation = fileSystem[name] as Operation;
    replace(name, (...given) => {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return operation(...given);
        } catch (error) {
          const isFull = error instanceof FsError && error.code === "ENOSPC";
          if (!isFull || attempt === ATTEMPTS_MAX || !makeSpace()) throw error;
        }
      }
    });
  }
  const retrying = { ...open };
  open.setAttributes = (node, changes, caller) => {
    try {
      return retrying.setAttributes(node, changes, caller);
    } catch (error) {
      const isWriteBack = changes.ctime !== undefined; // nobody else can set it
      if (!isWriteBack || !(error instanceof FsError) || error.code !== "ESTALE") throw error;
      return { attributes: GONE, attributesValidMs: 0 };
    }
  };
  return {
    fileSystem: open,
    shut(why): void {
      const refuse = (): never => {
        throw new FsError("EIO", `the volume has failed: ${why}`);
      };
      for (const name of changing) replace(name, refuse);
    },
  };
}
