/**
 * The work on small files, run as a process of its own in the directory it is given: `node work.js ACTION DIRECTORY COUNT
 * [PREFIX [UNTIL]]`. Prints the seconds taken. A call costs Node about a microsecond, the same for every peer.
 */

import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { chdir } from "node:process";
import { crc32 } from "node:zlib";

/** What it returns is printed; else the seconds it took are. */
type Action = (count: number, prefix: string, until?: string) => number | string | void;

const block = Buffer.alloc(4096, "Tidemark benchmark. ");
const MIB = 1 << 20;

function name(prefix: string, i: number): string {
  return `${prefix}${String(i).padStart(7, "0")}`;
}

function createWith(bytes: Buffer | undefined): Action {
  return (count, prefix) => {
    for (let i = 0; i < count; i++) {
      const descriptor = openSync(name(prefix, i), "w");
      if (bytes !== undefined) writeSync(descriptor, bytes, 0, bytes.length);
      closeSync(descriptor);
    }
  };
}

const actions: Readonly<Record<string, Action>> = {
  create: createWith(block),
  "create-empty": createWith(undefined),
  readdir: (count) => {
    const found = readdirSync(".").length;
    if (found < count) throw new Error(`${found} names of ${count}`);
  },
  rename: (count, prefix) => {
    for (let i = 0; i < count; i++) renameSync(name(prefix, i), name(`${prefix}x`, i));
  },
  unlink: (count, prefix) => {
    for (let i = 0; i < count; i++) unlinkSync(name(prefix, i));
  },
  /** In the order in which the directory gives the names, as rm does. */
  "unlink-listed": () => {
    for (const each of readdirSync(".")) unlinkSync(each);
  },
  /** One of several processes, each in a directory of its own. */
  mixed: (count, prefix) => {
    mkdirSync(prefix);
    chdir(prefix);
    createWith(block)(count, "f");
    for (let i = 0; i < count; i++) statSync(name("f", i));
    for (let i = 0; i < count; i++) unlinkSync(name("f", i));
    chdir("..");
    rmdirSync(prefix);
  },
  /** The slowest of small files made, written and removed for `count` milliseconds: prints its milliseconds. */
  slowest: (durationMs, prefix) => {
    const endMs = performance.now() + durationMs;
    let slowestMs = 0;
    for (let nowMs = performance.now(); nowMs < endMs; ) {
      createWith(block)(1, prefix);
      unlinkSync(name(prefix, 0));
      const doneMs = performance.now();
      slowestMs = Math.max(slowestMs, doneMs - nowMs);
      nowMs = doneMs;
    }
    return slowestMs;
  },
  /**
   * Empty files made, looked at and removed for `count` milliseconds, or until there is a file `until`: prints when each was done,
   * and the milliseconds it took.
   */
  latency: (durationMs, prefix, until = "") => {
    const doneAt: number[] = [];
    const tookMs: number[] = [];
    const endMs = performance.now() + durationMs;
    for (let nowMs = performance.now(); nowMs < endMs && !existsSync(until); ) {
      createWith(undefined)(1, prefix);
      statSync(name(prefix, 0));
      unlinkSync(name(prefix, 0));
      const doneMs = performance.now();
      doneAt.push(performance.timeOrigin + doneMs);
      tookMs.push(doneMs - nowMs);
      nowMs = doneMs;
    }
    return JSON.stringify({ doneAt, tookMs });
  },
  append: (count, prefix) => {
    const descriptor = openSync(prefix, "w");
    for (let i = 0; i < count; i++) {
      writeSync(descriptor, block, 0, block.length);
      fsyncSync(descriptor);
    }
    closeSync(descriptor);
  },
  /** `count` MiB that no filesystem can compress or share. */
  fill: (count, prefix) => {
    const bytes = noise(MIB);
    const descriptor = openSync(prefix, "w");
    for (let i = 0; i < count; i++) {
      bytes.writeUInt32LE(i, 0);
      for (let at = 0; at < MIB; at += 4096) bytes.writeUInt32LE(crc32(String(i * MIB + at)), at);
      writeSync(descriptor, bytes, 0, MIB);
    }
    fdatasyncSync(descriptor);
    closeSync(descriptor);
  },
  /** Rewrites one in a hundred of the blocks of a file of `count` blocks, anywhere in it, durably. */
  scatter: (count, prefix) => {
    const descriptor = scattered(count, count / 100, prefix);
    fdatasyncSync(descriptor);
    closeSync(descriptor);
  },
  /** Rewrites one in sixteen, in the page cache. */
  "scatter-more": (count, prefix) => closeSync(scattered(count, count / 16, prefix)),
};

function scattered(count: number, writes: number, path: string): number {
  const bytes = noise(4096);
  const descriptor = openSync(path, "r+");
  let at = count;
  for (let i = 0; i < writes; i++) {
    at = (Math.imul(at, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt32LE(at, 8);
    writeSync(descriptor, bytes, 0, 4096, Math.floor((at / 2 ** 32) * count) * 4096);
  }
  return descriptor;
}

function noise(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = 1;
  for (let at = 0; at < length; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeUInt32LE(state >>> 0, at);
  }
  return bytes;
}

const [, , actionName = "", directory = "", count = "0", prefix = "f", until = ""] = process.argv;
const action = actions[actionName];
if (action === undefined) throw new Error(`there is no action ${actionName}`);
chdir(directory);
const beganMs = performance.now();
const result = action(Number(count), prefix, until);
process.stdout.write(String(result ?? (performance.now() - beganMs) / 1000));
