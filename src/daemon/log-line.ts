/**
 * The server thread's line to the log thread: frames of the change log to be made durable, and behind them the answers
 * that wait for them, all in the order in which they were given.
 *
 *     server thread                                    log thread
 *     write(frame), answer(...) --- post, count, wake ---> takes all there is; one flush if any frame needs it; frames
 *                               <--- done: how many ------ that follow each other in one write; then the answers
 *
 * So callers that ask while a write is under way share the next one, and nobody but them waits for the disk. Too much
 * that is under way holds the server thread back.
 */
import type { MessagePort } from "node:worker_threads";
import { errorReply, sendReply } from "../fuse/kernel/loop.ts";
import type { LogFrame } from "../volume/change-log/frames.ts";

export type ToLog =
  | { readonly kind: "frame"; readonly frame: LogFrame }
  /** A reply to the kernel, by way of this descriptor. */
  | { readonly kind: "reply"; readonly descriptor: number; readonly reply: Uint8Array }
  /** Whoever waits for these changes is at the main thread. */
  | { readonly kind: "tell"; readonly seq: number };

export type FromLog =
  | { readonly kind: "durable"; readonly seq: number }
  | { readonly kind: "failed"; readonly message: string };

/** What both ends share: messages posted and, by the log thread, done; counted around. */
export const WORD_POSTED = 0;
export const WORD_DONE = 1;
/** Not 0: the log thread is gone, and does nothing more. */
export const WORD_GONE = 2;
export const LINE_WORDS = 3;

/** Messages under way: more than there are requests that the kernel has under way at once. */
const UNDER_WAY_MAX = 1024;

export interface LogLine {
  write(frame: LogFrame): void;
  /** Sent when all frames before are durable; EIO in its place when they cannot be. */
  answer(answer: Extract<ToLog, { readonly kind: "reply" | "tell" }>): void;
}

export function logLine(port: MessagePort, shared: SharedArrayBuffer): LogLine {
  const words = new Int32Array(shared);
  let posted = 0;

  function post(message: ToLog): void {
    if (Atomics.load(words, WORD_GONE) !== 0) {
      if (message.kind === "reply") sendReply(message.descriptor, errorReply(message.reply));
      return; // the main thread knows, and answers who waits there
    }
    port.postMessage(message, message.kind === "frame" ? [message.frame.bytes.buffer] : []);
    posted = (posted + 1) | 0;
    Atomics.store(words, WORD_POSTED, posted);
    Atomics.notify(words, WORD_POSTED);
    for (;;) {
      const done = Atomics.load(words, WORD_DONE);
      if (((posted - done) | 0) < UNDER_WAY_MAX || Atomics.load(words, WORD_GONE) !== 0) return;
      Atomics.wait(words, WORD_DONE, done);
    }
  }

  return {
    write: (frame) => post({ kind: "frame", frame }),
    answer: post,
  };
}
