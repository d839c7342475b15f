/**
 * node replace-program.js DIRECTORY TIMES     fills the filesystem with a file, deletes it, and writes to another at once, so many
 *                                             times; says how many of the writes there failed
 */
import { closeSync, constants, openSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";

const { O_CREAT, O_WRONLY, O_TRUNC, O_DIRECT } = constants;
const CHUNK = new Uint8Array(1 << 20).fill(7);
const CHUNKS_AFTER = 4;

/** True: all was written. */
function writeChunks(file: number, count: number, lengthBytes = CHUNK.length): boolean {
  try {
    for (let i = 0; i < count; i++) writeSync(file, CHUNK, 0, lengthBytes);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") return false;
    throw error;
  }
}

function replace(directory: string): boolean {
  const [first, second] = [join(directory, "first"), join(directory, "second")];
  const into = openSync(second, O_CREAT | O_WRONLY | O_TRUNC | O_DIRECT);
  const filler = openSync(first, O_CREAT | O_WRONLY | O_DIRECT);
  for (const lengthBytes of [CHUNK.length, 4096]) writeChunks(filler, Number.POSITIVE_INFINITY, lengthBytes);
  closeSync(filler);
  unlinkSync(first);
  const isWritten = writeChunks(into, CHUNKS_AFTER);
  closeSync(into);
  return isWritten;
}

const [directory = "", times = ""] = process.argv.slice(2);
let failedCount = 0;
for (let i = 0; i < Number(times); i++) if (!replace(directory)) failedCount += 1;
process.stdout.write(String(failedCount));
