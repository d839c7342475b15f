/**
 * Answers that wait until a consistency point is committed: replies to the kernel and to commands alike. When the
 * volume fails, all of them are told so, and whoever comes later at once.
 */
import type { DurableAt } from "../fs/file-system.ts";

export interface Waiter {
  release(): void;
  fail(message: string): void;
}

export interface WaitingRoom {
  readonly count: number;
  /** Releases the waiter when the consistency point is committed: at once if it is. */
  hold(durableAt: DurableAt, waiter: Waiter): void;
  committed(cpCount: number): void;
  failed(message: string): void;
}

export function waitingRoom(committedCp: number): WaitingRoom {
  const waiting = new Map<number, Waiter[]>();
  let committedAt = committedCp;
  let failure: string | undefined;
  let count = 0;

  function take(cpCount: number): readonly Waiter[] {
    const list = waiting.get(cpCount) ?? [];
    waiting.delete(cpCount);
    count -= list.length;
    return list;
  }

  return {
    get count() {
      return count;
    },
    hold(durableAt, waiter): void {
      if (durableAt <= committedAt) {
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
    committed(cpCount): void {
      committedAt = Math.max(committedAt, cpCount);
      for (const at of waiting.keys()) {
        if (at <= cpCount) for (const waiter of take(at)) waiter.release();
      }
    },
    failed(message): void {
      failure ??= message;
      for (const at of waiting.keys()) for (const waiter of take(at)) waiter.fail(message);
    },
  };
}
