/** The daemon's log: one line an event, with its time. The last line is also in the status. */
import { appendFileSync, statSync } from "node:fs";
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

function checkWritable(path: string): void {
  try {
    if (statSync(path, { throwIfNoEntry: false })?.isFIFO() === true)
      throw new Error("a FIFO may have to be waited for");
    appendFileSync(path, "");
  } catch (cause) {
    throw new UserError("failed", `cannot write the log ${path}: ${(cause as Error).message}`, "", { cause });
  }
}
