/**
 * Requests that let others go ahead, kept where they were read: the connection gets another buffer for the next request, so
 * nothing is copied, however large they are. Which ones, and for how long, is their own affair: kept-writes.ts, short-of-space.ts.
 */
import assert from "node:assert/strict";
import { shaped } from "../../core/shaped.ts";
import { type RequestBuffer, requestBuffers } from "./connection.ts";

export interface KeptRequests {
  readonly count: number;
  /** No more can be kept, or enough others have gone ahead. */
  readonly isDue: boolean;
  /** Another request goes ahead. */
  passed(): void;
  /** Takes the request in hand. Not while as many are kept as can be. */
  keep(lengthBytes: number): void;
  /** Makes the one that came first the request in hand; returns its length. */
  take(): number;
}

export interface KeptOptions {
  readonly countMax: number;
  /** Other requests that go ahead of the first one. */
  readonly passedMax: number;
}

export function keptRequests(connection: RequestBuffer, { countMax, passedMax }: KeptOptions): KeptRequests {
  const lengths = new Int32Array(countMax);
  /** From `first` on, those that are kept; the others are free. Made when the first one is kept: many mounts never keep any. */
  let buffers: readonly RequestBuffer[] | undefined;
  let first = 0;
  let count = 0;
  let passedCount = 0;

  function swap(slot: number): void {
    buffers ??= requestBuffers(countMax);
    const buffer = buffers[slot] as RequestBuffer;
    const { request, requestView } = buffer;
    buffer.request = connection.request;
    buffer.requestView = connection.requestView;
    connection.request = request;
    connection.requestView = requestView;
  }

  return shaped({
    get count() {
      return count;
    },
    get isDue() {
      return count === countMax || (count > 0 && passedCount >= passedMax);
    },
    passed(): void {
      passedCount += 1;
    },
    keep(lengthBytes): void {
      assert(count < countMax, "one that is due is taken before another is kept");
      const slot = (first + count) % countMax;
      if (count === 0) passedCount = 0;
      lengths[slot] = lengthBytes;
      swap(slot);
      count += 1;
    },
    take(): number {
      const slot = first;
      first = (first + 1) % countMax;
      count -= 1;
      passedCount = 0;
      swap(slot);
      return lengths[slot] as number;
    },
  });
}
