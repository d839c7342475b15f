/** The server thread of a mount under test: the loop over a memory filesystem, with what a test wants to know. */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { Clock } from "../../src/core/clock.ts";
import { changeSeq } from "../../src/core/numbers.ts";
import type { FileSystem } from "../../src/fs/file-system.ts";
import type { Errand } from "../../src/fuse/kernel/connection.ts";
import { serve } from "../../src/fuse/kernel/loop.ts";
import { type MemoryFileSystem, memoryFileSystem } from "../support/memory-file-system.ts";

/** Words of the shared counters. */
export const counter = {
  wake: 0,
  writeBytesMax: 1,
  readBytesMax: 2,
  misaligned: 3,
  writtenKiB: 4,
  nodes: 5,
  handles: 6,
  wakes: 7,
  seeks: 8,
  markKiB: 9,
  requests: 10,
} as const;

export interface ServerData {
  readonly descriptor: number;
  readonly shared: Int32Array;
  readonly readOnly: boolean;
  /** fsync waits for consistency point 1. */
  readonly holdsFsync: boolean;
  /** Whether dirty pages are written back before a SEEK_DATA is answered. */
  readonly flushes: boolean;
  /** What every write takes, in milliseconds. */
  readonly writeDelayMs: number;
  /** An operation of this name fails with a bug. */
  readonly bugIn: string;
}

export type ServerMessage =
  | { readonly kind: "held"; readonly cp: number; readonly reply: Uint8Array }
  | { readonly kind: "errand"; readonly errand: Errand; readonly request: Uint8Array }
  | { readonly kind: "log"; readonly text: string }
  | { readonly kind: "ended"; readonly why: string };

const post = (message: ServerMessage): void => parentPort?.postMessage(message, []);

const clock: Clock = {
  now() {
    const us = Math.round((performance.timeOrigin + performance.now()) * 1000);
    return { seconds: Math.floor(us / 1e6), nanoseconds: (us % 1e6) * 1000 };
  },
};

function watched(fs: MemoryFileSystem, { shared, writeDelayMs, bugIn }: ServerData): FileSystem {
  const nothing = new Int32Array(new SharedArrayBuffer(4));
  const max = (word: number, value: number): void => {
    shared[word] = Math.max(shared[word] ?? 0, value);
  };
  return {
    ...fs,
    find(parent, name) {
      if (name === "mark") Atomics.store(shared, counter.markKiB, Atomics.load(shared, counter.writtenKiB));
      return fs.find(parent, name);
    },
    read(handle, offset, length, into, intoOffset) {
      max(counter.readBytesMax, length);
      if ((into.byteOffset + intoOffset) % 4096 !== 0) Atomics.add(shared, counter.misaligned, 1);
      return fs.read(handle, offset, length, into, intoOffset);
    },
    write(handle, offset, from, fromOffset, length, how) {
      max(counter.writeBytesMax, length);
      if ((from.byteOffset + fromOffset) % 4096 !== 0) Atomics.add(shared, counter.misaligned, 1);
      if (writeDelayMs > 0) Atomics.wait(nothing, 0, 0, writeDelayMs);
      fs.write(handle, offset, from, fromOffset, length, how);
      Atomics.add(shared, counter.writtenKiB, Math.ceil(length / 1024));
    },
    seek(handle, offset, whence) {
      Atomics.add(shared, counter.seeks, 1);
      return fs.seek(handle, offset, whence);
    },
    removeDirectory(parent, name) {
      if (bugIn === "removeDirectory") throw new TypeError("a planted bug");
      fs.removeDirectory(parent, name);
    },
  };
}

if (parentPort !== null) {
  const port = parentPort;
  const next = (): { readonly message: Uint8Array } | undefined => receiveMessageOnPort(port);
  const data = workerData as ServerData;
  const { shared } = data;
  const fs = memoryFileSystem({ clock, durableAt: () => (data.holdsFsync ? changeSeq(1) : 0) });
  try {
    const why = serve({
      descriptor: data.descriptor,
      fileSystem: watched(fs, data),
      writeBack: !data.readOnly,
      wake: shared,
      onWake(again) {
        Atomics.add(shared, counter.wakes, 1);
        const word = Atomics.exchange(shared, counter.wake, 0);
        for (let got = next(); got !== undefined; got = next()) again(got.message, 0);
        return word === 2 ? "stop" : "continue";
      },
      ...(data.flushes && {
        send: (errand: Errand, request: Uint8Array) => post({ kind: "errand", errand, request }),
      }),
      afterRequest: () => Atomics.add(shared, counter.requests, 1),
      hold: (cp, reply) => post({ kind: "held", cp, reply: new Uint8Array(reply) }),
      log: (text) => post({ kind: "log", text }),
    });
    shared[counter.nodes] = fs.nodeCount();
    shared[counter.handles] = fs.openCount();
    post({ kind: "ended", why });
  } catch (error) {
    post({ kind: "ended", why: String(error) });
  }
}
