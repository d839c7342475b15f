/** Open files and directories: small numbers, reused, as file descriptors are. */

import { FsError } from "../core/errors.ts";
import { shaped } from "../core/shaped.ts";
import type { Handle, NodeId } from "./file-system.ts";
import type { State, States } from "./nodes.ts";

/** A directory .snapshot is in no state; the kernel knows its node as long as it is open. */
export type OpenFile =
  | { readonly kind: "file" | "directory"; readonly state: State; readonly ino: number; readonly flags: number }
  | { readonly kind: "snapshots"; readonly node: NodeId };

/** A file or directory of a state. */
export type OpenInode = Extract<OpenFile, { readonly state: State }>;

export interface Handles {
  open(file: OpenFile): Handle;
  /** Throws FsError EBADF. */
  get(handle: Handle): OpenFile;
  /** An open file or directory that is an inode. Throws FsError EBADF. */
  inode(handle: Handle): OpenInode;
  /** An open file. Throws FsError EBADF. */
  file(handle: Handle): OpenInode;
  /** Takes the handle back. Throws FsError EBADF. */
  close(handle: Handle): void;
  readonly count: number;
}

export function openHandles(states: States): Handles {
  const files: (OpenFile | undefined)[] = [];
  const free: number[] = [];

  function get(handle: Handle): OpenFile {
    const file = files[handle - 1];
    if (file === undefined) throw new FsError("EBADF", `handle ${handle} is not open`);
    return file;
  }

  function inode(handle: Handle): OpenInode {
    const file = get(handle);
    if (file.kind === "snapshots") throw new FsError("EBADF", "the directory of snapshots holds no data");
    return file;
  }

  return shaped({
    open(file): Handle {
      const index = free.pop() ?? files.length;
      files[index] = file;
      if (file.kind !== "snapshots") states.opened(file.state, file.ino);
      return (index + 1) as Handle;
    },
    get,
    inode,
    file(handle): OpenInode {
      const file = inode(handle);
      if (file.kind !== "file") throw new FsError("EISDIR", "the handle is one of a directory");
      return file;
    },
    close(handle): void {
      const file = get(handle);
      files[handle - 1] = undefined;
      free.push(handle - 1);
      if (file.kind !== "snapshots") states.released(file.state, file.ino);
    },
    get count(): number {
      return files.length - free.length;
    },
  });
}
