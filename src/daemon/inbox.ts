/** The server thread's queue of messages, and the word in shared memory that says that some wait. */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { WORD_WAKE } from "../fuse/kernel/loop.ts";
import type { ToServer } from "./thread-messages.ts";

export interface Inbox {
  readonly word: Int32Array;
  /** Clears the word; to be called before the queue is emptied, so that no message is missed. */
  clear(): void;
  /** The next message, those that were put off first. */
  take(): ToServer | undefined;
  /** The next message that was not put off; blocks the thread until there is one. */
  wait(): ToServer;
  /** Keeps a message for later; the word stays set until it is taken. */
  putOff(message: ToServer): void;
}

export function openInbox(port: MessagePort, wake: SharedArrayBuffer): Inbox {
  const word = new Int32Array(wake);
  const late: ToServer[] = []; // as many as commands may be under way
  const next = (): ToServer | undefined => receiveMessageOnPort(port)?.message as ToServer | undefined;
  const nextAfterClear = (): ToServer | undefined => {
    Atomics.store(word, WORD_WAKE, 0);
    return next(); // posted before the word was cleared
  };
  return {
    word,
    clear: () => void Atomics.store(word, WORD_WAKE, 0),
    take: () => late.shift() ?? next(),
    wait(): ToServer {
      for (;;) {
        const message = next() ?? nextAfterClear();
        if (message !== undefined) {
          Atomics.store(word, WORD_WAKE, 1); // more may wait in the queue, or was put off
          return message;
        }
        Atomics.wait(word, WORD_WAKE, 0);
      }
    },
    putOff(message): void {
      late.push(message);
      Atomics.store(word, WORD_WAKE, 1); // the loop is not always emptying the queue: a slice may have put it off
    },
  };
}
