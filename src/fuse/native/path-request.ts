/**
 * What libfuse asks, as plain data: the border between the thread that libfuse calls and the thread that has the
 * filesystem. Paths begin with a slash. A handle is a number that the other side has given out, 1 to 2^31 - 1.
 */

export type PathRequest =
  | { readonly op: "statfs" }
  | { readonly op: "getattr" | "readlink" | "readdir" | "opendir" | "unlink" | "rmdir"; readonly path: string }
  | { readonly op: "fgetattr" | "release" | "releasedir" | "fsync" | "fsyncdir"; readonly handle: number }
  | { readonly op: "mknod"; readonly path: string; readonly mode: number; readonly rdev: number }
  | { readonly op: "mkdir" | "create" | "chmod"; readonly path: string; readonly mode: number }
  | { readonly op: "symlink"; readonly target: string; readonly path: string }
  | { readonly op: "link" | "rename"; readonly path: string; readonly into: string }
  | { readonly op: "chown"; readonly path: string; readonly uid: number; readonly gid: number }
  | { readonly op: "truncate"; readonly path: string; readonly sizeBytes: number }
  | { readonly op: "ftruncate"; readonly handle: number; readonly sizeBytes: number }
  | { readonly op: "utimens"; readonly path: string; readonly atimeMs: number; readonly mtimeMs: number }
  | { readonly op: "open"; readonly path: string; readonly flags: number }
  | { readonly op: "read"; readonly handle: number; readonly offset: number; readonly lengthBytes: number }
  | { readonly op: "write"; readonly handle: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly op: "getxattr"; readonly path: string; readonly name: string; readonly sizeBytesMax: number }
  | { readonly op: "listxattr"; readonly path: string; readonly sizeBytesMax: number }
  | {
      readonly op: "setxattr";
      readonly path: string;
      readonly name: string;
      readonly value: Uint8Array;
      readonly flags: number;
    }
  | { readonly op: "removexattr"; readonly path: string; readonly name: string };

export type PathOperation = PathRequest["op"];
export type RequestOf<Op extends PathOperation> = Extract<PathRequest, { readonly op: Op }>;

/** `result` is a negative errno, 0, a handle, or a count of bytes. What else there is depends on the operation. */
export interface PathReply {
  readonly result: number;
  /** stat and statfs as fuse-native has them; of a directory, the numbers of inodes and types, two an entry. */
  readonly numbers?: Uint32Array;
  readonly bytes?: Uint8Array;
  /** A link's target; the names of a directory, each ended by a slash. */
  readonly text?: string;
}

/** Has a request handled. `answer` is called once, later, in any order. */
export type Ask = (request: PathRequest, answer: (reply: PathReply) => void) => void;
