/** The daemon's log: one line an event, with its time. The last line is also in the status. */
import { appendFileSync, closeSync, openSync, readSync, type Stats, statSync } from "node:fs";
import { UserError } from "../core/errors.ts";
import { escaped } from "../core/escaped.ts";

export interface DaemonLog {
  (message: string): void;
}

/** `target`: a file to append to, or "stderr", or nothing. UserError when it cannot be written to begin with. */
export function daemonLog(target: string | undefined): DaemonLog {
  if (target === undefined) return () => {};
  if (target !== "stderr") checkWritable(target);
  return (message) => {
    const line = `${new Date().toISOString()} tidemark: ${escaped(message.replaceAll("\n", " "))}\n`;
    try {
      if (target === "stderr") process.stderr.write(line);
      else appendFileSync(target, line);
    } catch {
      // A log that cannot be written must not stop the filesystem.
    }
  };
}

/**
 * Of a file that is there, so many bytes are looked at: the first line has no zeros, as a volume has. The last one may: a power cut
 * leaves them where the end of a log had not been written yet, and no mount is to fail for it.
 */
const LOOKED_AT_BYTES = 4096;
const NEWLINE = 10;

function checkWritable(path: string): void {
  try {
    const what = statSync(path, { throwIfNoEntry: false });
    if (what?.isFIFO() === true) throw new Error("a FIFO may have to be waited for");
    if (what !== undefined && !isText(path, what)) throw new Error("it is there, and no text");
    appendFileSync(path, "");
  } catch (cause) {
    throw new UserError("failed", `cannot write the log ${path}: ${(cause as Error).message}`, "", { cause });
  }
}

function isText(path: string, what: Stats): boolean {
  if (what.isBlockDevice()) return false;
  if (!what.isFile()) return true;
  const start = new Uint8Array(LOOKED_AT_BYTES);
  const file = openSync(path, "r");
  try {
    const bytes = start.subarray(0, readSync(file, start));
    const end = bytes.indexOf(NEWLINE);
    return !bytes.subarray(0, end < 0 ? bytes.length : end).includes(0);
  } finally {
    closeSync(file);
  }
}
