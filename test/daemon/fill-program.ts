/**
 * node fill-program.js write PATH STEP SEED       writes to a file from its beginning until a call fails, says what it was told
 * node fill-program.js verify PATH LENGTH SEED    is that what the first so many bytes are?
 */
import { closeSync, constants, fsyncSync, openSync, readSync, writeSync } from "node:fs";

const CHUNK_BYTES = 1 << 20;

export interface Filled {
  /** Bytes that write(2) has taken. */
  readonly takenBytes: number;
  readonly write: string;
  readonly fsync: string;
  readonly close: string;
}

/** What a file of this seed has in 1 MiB from there on: no two words of a file are the same, nor those of two seeds. */
function fill(words: Uint32Array, offset: number, seed: number): void {
  for (let i = 0; i < words.length; i++) words[i] = ((offset / 4 + i) ^ (seed << 27)) >>> 0;
}

function attempt(call: () => void): string {
  try {
    call();
    return "done";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

function write(path: string, stepBytes: number, seed: number): Filled {
  const words = new Uint32Array(CHUNK_BYTES / 4);
  const bytes = new Uint8Array(words.buffer);
  const file = openSync(path, constants.O_RDWR | constants.O_CREAT);
  let takenBytes = 0;
  const result = attempt(() => {
    for (;;) {
      const within = takenBytes % CHUNK_BYTES;
      if (within === 0) fill(words, takenBytes, seed);
      takenBytes += writeSync(file, bytes, within, Math.min(stepBytes, CHUNK_BYTES - within), takenBytes);
    }
  });
  return { takenBytes, write: result, fsync: attempt(() => fsyncSync(file)), close: attempt(() => closeSync(file)) };
}

/** Offset of the first chunk that is different; -1: there is none. */
function verify(path: string, length: number, seed: number): number {
  const words = new Uint32Array(CHUNK_BYTES / 4);
  const expected = Buffer.from(words.buffer);
  const found = Buffer.alloc(CHUNK_BYTES);
  const file = openSync(path, "r");
  for (let at = 0; at < length; at += CHUNK_BYTES) {
    const count = Math.min(CHUNK_BYTES, length - at);
    fill(words, at, seed);
    if (readSync(file, found, 0, count, at) !== count) return at;
    if (found.compare(expected, 0, count, 0, count) !== 0) return at;
  }
  closeSync(file);
  return -1;
}

const [what = "", path = "", number = "", seed = ""] = process.argv.slice(2);
const result =
  what === "write" ? write(path, Number(number), Number(seed)) : verify(path, Number(number), Number(seed));
process.stdout.write(JSON.stringify(result));
