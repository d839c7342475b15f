/**
 * The calls of libfuse as fuse-native passes them on: arguments into a request, the reply into what ends the call. They
 * are as in fuse-native.c, which is not always what its description says: fsync has the handle last, opendir has no
 * flags, utimens has the access time twice.
 */
import { TWO_32 } from "../../core/numbers.ts";
import type { Signal } from "./fuse-native.d.ts";
import type { Ask, PathReply, PathRequest } from "./path-request.ts";
import { putEntryNumbers, STAT_NUMBERS } from "./stat-numbers.ts";

/** In fuse_thread_locals_t, as the prebuilt addon and every compiler for 64 bits lay it out. */
const ATIME_OFFSET = 104;
const MTIME_OFFSET = 112;

export type Operation = (signal: Signal, ...values: never[]) => void;
export type Operations = Readonly<Record<PathRequest["op"], Operation>>;

/** The memory of the thread whose utimens is being called. */
export interface ThreadTimes {
  memory: Buffer | undefined;
}

/** The buffers of a call go back with its end, whatever the end is. */
export function failureValues(name: string, values: readonly unknown[]): readonly unknown[] {
  const buffer = values.find((value) => value instanceof Uint8Array)?.buffer;
  if (buffer === undefined) return [];
  return name === "read" || name === "write" ? [0, buffer] : [buffer];
}

// What ends a call, by what it gives back.
const plain =
  (signal: Signal) =>
  ({ result }: PathReply): void =>
    signal(result);

const opened =
  (signal: Signal) =>
  ({ result }: PathReply): void =>
    result < 0 ? signal(result) : signal(0, result);

const numbers =
  (signal: Signal) =>
  ({ result, numbers: array }: PathReply): void =>
    array === undefined ? signal(result) : signal(result, array);

const valueInto =
  (signal: Signal, buffer: Buffer) =>
  ({ result, bytes }: PathReply): void => {
    if (bytes !== undefined) buffer.set(bytes);
    signal(result, buffer.buffer);
  };

/** One row a call. Each ends its call once, when its request is answered. */
export function operationsOf(ask: Ask, times: ThreadTimes): Operations {
  const path = (op: "unlink" | "rmdir") => (signal: Signal, at: string) => ask({ op, path: at }, plain(signal));
  const withMode = (op: "mkdir" | "chmod") => (signal: Signal, at: string, mode: number) =>
    ask({ op, path: at, mode }, plain(signal));
  const handle = (op: "release" | "releasedir") => (signal: Signal, _: string, at: number) =>
    ask({ op, handle: at }, plain(signal));
  const sync = (op: "fsync" | "fsyncdir") => (signal: Signal, _: string, _dataOnly: number, at: number) =>
    ask({ op, handle: at }, plain(signal));
  const two = (op: "link" | "rename") => (signal: Signal, from: string, into: string) =>
    ask({ op, path: from, into }, plain(signal));

  return {
    statfs: (signal: Signal) => ask({ op: "statfs" }, numbers(signal)),
    getattr: (signal: Signal, at: string) => ask({ op: "getattr", path: at }, numbers(signal)),
    fgetattr: (signal: Signal, _: string, at: number) => ask({ op: "fgetattr", handle: at }, numbers(signal)),
    readlink: (signal: Signal, at: string) =>
      ask({ op: "readlink", path: at }, ({ result, text }) =>
        text === undefined ? signal(result) : signal(result, text),
      ),
    mknod: (signal: Signal, at: string, mode: number, rdev: number) =>
      ask({ op: "mknod", path: at, mode, rdev }, plain(signal)),
    mkdir: withMode("mkdir"),
    symlink: (signal: Signal, target: string, at: string) => ask({ op: "symlink", target, path: at }, plain(signal)),
    link: two("link"),
    unlink: path("unlink"),
    rmdir: path("rmdir"),
    rename: two("rename"),
    chmod: withMode("chmod"),
    chown: (signal: Signal, at: string, uid: number, gid: number) =>
      ask({ op: "chown", path: at, uid, gid }, plain(signal)),
    truncate: (signal: Signal, at: string, low: number, high: number) =>
      ask({ op: "truncate", path: at, sizeBytes: wide(low, high) }, plain(signal)),
    ftruncate: (signal: Signal, _: string, at: number, low: number, high: number) =>
      ask({ op: "ftruncate", handle: at, sizeBytes: wide(low, high) }, plain(signal)),
    utimens: (signal: Signal, at: string, low: number, high: number) => {
      const atimeMs = signed(low, high);
      ask({ op: "utimens", path: at, atimeMs, mtimeMs: modificationMs(times.memory, atimeMs) }, plain(signal));
    },
    create: (signal: Signal, at: string, mode: number) => ask({ op: "create", path: at, mode }, opened(signal)),
    open: (signal: Signal, at: string, flags: number) => ask({ op: "open", path: at, flags }, opened(signal)),
    read: (signal: Signal, _: string, at: number, buffer: Buffer, length: number, low: number, high: number) =>
      ask({ op: "read", handle: at, offset: wide(low, high), lengthBytes: length }, ({ result, bytes }) => {
        if (bytes !== undefined) buffer.set(bytes);
        signal(result, 0, buffer.buffer);
      }),
    write: (signal: Signal, _: string, at: number, buffer: Buffer, length: number, low: number, high: number) =>
      ask(
        { op: "write", handle: at, offset: wide(low, high), bytes: new Uint8Array(buffer.subarray(0, length)) },
        ({ result }) => signal(result, 0, buffer.buffer),
      ),
    release: handle("release"),
    fsync: sync("fsync"),
    // What comes after the path is what the handle was, not the flags.
    opendir: (signal: Signal, at: string) => ask({ op: "opendir", path: at }, opened(signal)),
    readdir: (signal: Signal, at: string) =>
      ask({ op: "readdir", path: at }, (reply) => {
        if (reply.text === undefined) signal(reply.result);
        else signal(0, ...listingOf(reply.text, reply.numbers ?? new Uint32Array()));
      }),
    releasedir: handle("releasedir"),
    fsyncdir: sync("fsyncdir"),
    setxattr: (signal: Signal, at: string, name: string, buffer: Buffer, _position: number, flags: number) =>
      ask({ op: "setxattr", path: at, name, value: new Uint8Array(buffer), flags }, ({ result }) =>
        signal(result, buffer.buffer),
      ),
    getxattr: (signal: Signal, at: string, name: string, buffer: Buffer) =>
      ask({ op: "getxattr", path: at, name, sizeBytesMax: buffer.length }, valueInto(signal, buffer)),
    listxattr: (signal: Signal, at: string, buffer: Buffer) =>
      ask({ op: "listxattr", path: at, sizeBytesMax: buffer.length }, valueInto(signal, buffer)),
    removexattr: (signal: Signal, at: string, name: string) =>
      ask({ op: "removexattr", path: at, name }, plain(signal)),
  } satisfies Readonly<Record<PathRequest["op"], Operation>>;
}

function wide(low: number, high: number): number {
  return high * TWO_32 + low;
}

/** Milliseconds before 1970 come as those of a far future. */
function signed(low: number, high: number): number {
  return (high | 0) * TWO_32 + low;
}

/** As the waiting thread has it; the access time, where the memory is laid out otherwise. */
function modificationMs(memory: Buffer | undefined, atimeMs: number): number {
  if (memory === undefined || memory.length < MTIME_OFFSET + 8) return atimeMs;
  if (Number(memory.readBigInt64LE(ATIME_OFFSET)) !== atimeMs) return atimeMs;
  return Number(memory.readBigInt64LE(MTIME_OFFSET));
}

/** Names, and for each a struct stat in one large array. */
function listingOf(text: string, entries: Uint32Array): readonly [readonly string[], readonly Uint32Array[]] {
  const names = text.split("/");
  names.pop();
  const memory = new Uint32Array(names.length * STAT_NUMBERS);
  const stats = names.map((_, index) => {
    const stat = memory.subarray(index * STAT_NUMBERS, (index + 1) * STAT_NUMBERS);
    putEntryNumbers(stat, entries[2 * index] ?? 0, entries[2 * index + 1] ?? 0);
    return stat;
  });
  return [names, stats];
}
