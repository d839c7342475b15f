/** The main thread's end of the log thread: starts it, hears of what is durable for those who wait here, ends it. */
import { once } from "node:events";
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { type FromLog, LINE_WORDS, WORD_DONE, WORD_GONE, WORD_POSTED } from "./log-line.ts";
import type { LogStart } from "./log-thread.ts";

export interface LogLink {
  /** The other end of the line, for the server thread. */
  readonly line: { readonly port: MessagePort; readonly words: SharedArrayBuffer };
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
  const words = new SharedArrayBuffer(4 * LINE_WORDS);
  const { port1: forServer, port2: forLog } = new MessageChannel();
  const { port1: near, port2: far } = new MessageChannel();
  const start: LogStart = { blockFile, identity, logFile, line: forLog, last: far, words };
  const worker = new Worker(new URL("./log-thread.js", import.meta.url), {
    workerData: start,
    transferList: [forLog, far],
  });
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
    const word = new Int32Array(words);
    Atomics.store(word, WORD_GONE, 1);
    Atomics.notify(word, WORD_DONE);
    fail("the log thread has ended unexpectedly");
  });
  return {
    line: { port: forServer, words },
    async close(): Promise<void> {
      if (isClosing) return;
      isClosing = true;
      near.postMessage("stop", []);
      const word = new Int32Array(words);
      Atomics.add(word, WORD_POSTED, 1);
      Atomics.notify(word, WORD_POSTED);
      await ended.catch(() => {}); // told already
      near.close();
    },
  };
}
