/** The main thread's end of the log thread: starts it, hears of what is durable for those who wait here, ends it. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { breakLogLine, endLogLine, type LogCounts, logCounts, logMemory } from "./log-line.ts";
import type { FromLog, LogStart } from "./log-thread.ts";

export interface LogLink {
  /** The line, for the server thread: see log-line.ts. */
  readonly line: SharedArrayBuffer;
  counts(): LogCounts;
  /** To be called when the server thread has ended: what it has given is done, then the thread ends. */
  close(): Promise<void>;
}

export type LogFiles = Pick<LogStart, "blockFile" | "identity" | "logFile">;

export interface LogEvents {
  readonly onDurable: (seq: number) => void;
  /** Told once: nothing that waits for the log will be durable. */
  readonly onFailure: (message: string) => void;
}

export function startLog({ blockFile, identity, logFile }: LogFiles, { onDurable, onFailure }: LogEvents): LogLink {
  const line = logMemory();
  const start: LogStart = { blockFile, identity, logFile, line };
  const worker = new Worker(new URL("./log-thread.js", import.meta.url), { workerData: start });
  let isClosing = false;
  const ended = once(worker, "exit"); // from the start: it may have ended before anybody asks it to
  ended.catch(() => {});
  let isFailed = false;
  const fail = (message: string): void => {
    if (isFailed || isClosing) return;
    isFailed = true;
    onFailure(message);
  };
  worker.on("message", (message: FromLog) => {
    if (message.kind === "durable") onDurable(message.seq);
    else fail(message.message);
  });
  worker.on("error", (error) => fail(`the log thread has ended: ${String(error)}`));
  worker.on("exit", () => {
    breakLogLine(line, { canSend: !isClosing });
    fail("the log thread has ended unexpectedly");
  });
  return {
    line,
    counts: () => logCounts(line),
    async close(): Promise<void> {
      if (isClosing) return;
      isClosing = true;
      endLogLine(line);
      await ended.catch(() => {}); // told already
    },
  };
}
