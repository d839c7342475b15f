/** What a path holds, as one word: what a writer says outside, and what is found after a crash. */
import { createHash } from "node:crypto";
import { lstatSync, readFileSync, readlinkSync } from "node:fs";

export const ABSENT = "absent";

/** Contents that a version has: its name again and again. */
export function textOf(version: string, length: number): Buffer {
  return Buffer.alloc(length, `version ${version}\n`);
}

export function wholeState(content: Uint8Array): string {
  return `file:${content.length}:${createHash("sha256").update(content).digest("hex").slice(0, 20)}`;
}

/** Any part of a log is told by where it lies. */
export function logRecord(at: number, length: number): Buffer {
  const record = Buffer.alloc(length);
  for (let i = 0; i < length; i++) record[i] = ((at + i) * 2_654_435_761) >>> 24;
  return record;
}

/** As it is now. Throws what reading throws. */
export function stateOf(path: string): string {
  let stat;
  try {
    stat = lstatSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return ABSENT;
    throw error;
  }
  if (stat.isSymbolicLink()) return `link:${readlinkSync(path)}`;
  if (stat.isDirectory()) return "directory";
  const content = readFileSync(path);
  if (path.endsWith("/log")) return logState(content);
  return wholeState(content);
}

/** A log is as long as it is right. */
function logState(content: Buffer): string {
  const expected = logRecord(0, content.length);
  let same = 0;
  while (same < content.length && content[same] === expected[same]) same += 1;
  return `log:${same}`;
}
