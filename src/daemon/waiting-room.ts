/**
 * Answers that wait until changes are durable, by a consistency point or a frame of the log. When the volume fails, all of
 * them are told so, and whoever comes later at once.
 */
import { shaped } from "../core/shaped.ts";
import type { DurableAt } from "../fs/file-system.ts";

export interface Waiter {
  release(): void;
  fail(message: string): void;
}

export interface WaitingRoom {
  readonly count: number;
  /** Releases the waiter when all changes up to this one are durable: at once if they are. */
  hold(durableAt: DurableAt, waiter: Waiter): void;
  /** All changes up to this one are durable. */
  durable(seq: number): void;
  failed(message: string): void;
}

export function waitingRoom(): WaitingRoom {
  const waiting = new Map<number, Waiter[]>();
  let durableSeq = 0;
  let failure: string | undefined;
  let count = 0;

  function take(seq: number): readonly Waiter[] {
    const list = waiting.get(seq) ?? [];
    waiting.delete(seq);
    count -= list.length;
    return list;
  }

  return shaped({
    get count() {
      return count;
    },
    hold(durableAt, waiter): void {
      if (durableAt <= durableSeq) {
        waiter.release();
        return;
      }
      if (failure !== undefined) {
        waiter.fail(failure);
        return;
      }
      const list = waiting.get(durableAt);
      if (list === undefined) waiting.set(durableAt, [waiter]);
      else list.push(waiter);
      count += 1;
    },
    durable(seq): void {
      durableSeq = Math.max(durableSeq, seq);
      for (const at of waiting.keys()) {
        if (at <= seq) for (const waiter of take(at)) waiter.release();
      }
    },
    failed(message): void {
      failure ??= message;
      for (const at of waiting.keys()) for (const waiter of take(at)) waiter.fail(message);
    },
  });
}
