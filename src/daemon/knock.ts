/**
 * Wakes the server thread, which sits in a read of /dev/fuse: an asynchronous statfs of the mount arrives there as a
 * request. One is under way at a time; when it comes back and the wake word is still set, the thread has not seen
 * it (another filesystem may lie over ours), and it is tried again, more and more slowly.
 */
import { statfs } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

const RETRY_MS_MIN = 5;
const RETRY_MS_MAX = 1000;

export interface Knocker {
  /** To be called after the message was posted. Never blocks. */
  knock(): void;
  /** No more knocks: the mount is going. The word is still set. */
  stop(): void;
}

export function knocker(mountPoint: string, wake: SharedArrayBuffer): Knocker {
  const word = new Int32Array(wake);
  let running = false;
  let again = false;
  let stopped = false;
  let retryMs = RETRY_MS_MIN;

  function start(): void {
    running = true;
    again = false;
    statfs(mountPoint, () => void ended());
  }

  async function ended(): Promise<void> {
    const seen = Atomics.load(word, 0) === 0;
    if (seen) retryMs = RETRY_MS_MIN;
    if (!seen && !again && !stopped) {
      await delay(retryMs, undefined, { ref: false });
      retryMs = Math.min(RETRY_MS_MAX, retryMs * 2);
    }
    running = false;
    if (!stopped && Atomics.load(word, 0) === 1) start();
  }

  return {
    knock(): void {
      Atomics.store(word, 0, 1);
      Atomics.notify(word, 0); // it may be waiting for memory, and not in a read
      if (stopped) return;
      if (running) again = true;
      else start();
    },
    stop(): void {
      stopped = true;
    },
  };
}
