/**
 * The two ends of a test of mirrors, each a process of its own. The writer gives twelve files, one after the other, the same
 * number, and makes each durable before the next; then the next number. So in any one state of the filesystem the numbers
 * fall from file to file, by one in all at most. The reader reads them in the same order, through a folder that it opens
 * once a round. The mirror may move on between two files, so a later file can be ahead; but each file is of one state, whole,
 * no file is more than one behind what was read before it, and none ever goes back.
 *
 *     node ordered-set.js write DIR       until it is killed
 *     node ordered-set.js read DIR        until stdin ends; then prints what it saw as JSON
 */
import assert from "node:assert/strict";
import { closeSync, constants, fsyncSync, mkdirSync, openSync, readdirSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";

const FILES = 12;
/** More than a block, so that a file can be torn. */
const REPEATS = 500;
const DIGITS = 12;
const BYTES = DIGITS * REPEATS;

export interface Seen {
  readonly rounds: number;
  /** Rounds that ended in ESTALE, as they may. */
  readonly stale: number;
  readonly last: number;
  readonly faults: readonly string[];
}

/**
 * Direct, so that a write is one request, and in a state as a whole or not at all. One that goes through the page cache may be
 * flushed there for a snapshot when only its first page has been copied, if the writer has just lost the processor.
 */
const WRITE_WHOLE = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_DIRECT;

const [, , what, folder] = process.argv;
if (what === "write" && folder !== undefined) write(folder);
else if (what === "read" && folder !== undefined) read(folder);

function write(into: string): void {
  mkdirSync(into, { recursive: true });
  const files = Array.from({ length: FILES }, (_, i) => openSync(join(into, `f${i}`), WRITE_WHOLE, 0o644));
  for (let n = 1; ; n += 1) {
    const bytes = Buffer.from(String(n).padStart(DIGITS, "0").repeat(REPEATS));
    for (const file of files) {
      writeSync(file, bytes, 0, bytes.length, 0);
      fsyncSync(file);
    }
    if (n === 1) process.stdout.write("ready\n");
  }
}

function read(from: string): void {
  let rounds = 0;
  let stale = 0;
  let last: readonly number[] = [];
  const faults: string[] = [];
  process.stdin.on("end", () => {
    process.stdout.write(JSON.stringify({ rounds, stale, last: last[0] ?? 0, faults } satisfies Seen));
    process.exit();
  });
  process.stdin.resume();
  const round = (): void => {
    try {
      const numbers = readSet(from);
      rounds += 1;
      let newest = 0;
      for (const n of numbers) {
        newest = Math.max(newest, n);
        if (n < newest - 1) faults.push(`an older state after a newer one: ${numbers.join(" ")}`);
      }
      if (numbers.some((n, i) => n < (last[i] ?? 0)))
        faults.push(`back from ${last.join(" ")} to ${numbers.join(" ")}`);
      last = numbers;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ESTALE") stale += 1;
      else faults.push(String(error));
    }
    if (faults.length < 100) setImmediate(round);
  };
  round();
}

/** The numbers in the files, all reached through one open folder. */
function readSet(from: string): readonly number[] {
  const directory = openSync(from, "r");
  try {
    const through = `/proc/self/fd/${directory}`;
    assert.equal(readdirSync(through).length, FILES);
    return Array.from({ length: FILES }, (_, i) => readNumber(join(through, `f${i}`)));
  } finally {
    closeSync(directory);
  }
}

function readNumber(path: string): number {
  const file = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(BYTES + 1);
    assert.equal(readSync(file, bytes, 0, bytes.length, 0), BYTES, `length of ${path}`);
    const text = bytes.toString("latin1", 0, BYTES);
    assert.equal(text, text.slice(0, DIGITS).repeat(REPEATS), `${path} is torn`);
    return Number(text.slice(0, DIGITS));
  } finally {
    closeSync(file);
  }
}
