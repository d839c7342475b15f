/**
 * READs that are put off until their blocks have come from the disk.
 *
 * One thread answers all requests, and must not stand still for one of them while others can be answered, or can have
 * their blocks read too. So a READ is first answered from what lies in the host's memory. Where something is missing, the
 * host begins to read it, and the request is kept here, as it came; it is asked again when no other request waits, and then it
 * waits for the disk, which meanwhile reads for all that are kept. While others keep coming it is asked again now and
 * then, and answered if it need not wait any more.
 *
 * Asking again is all there is to it: nothing is remembered of a request that a change, a snapshot or a consistency point
 * which comes between could make wrong, and the answer is that of the moment in which it is given. Requests that are under
 * way together have no order: what must come after the answer to a READ, the kernel sends after it.
 */
import { shaped } from "../../core/shaped.ts";
import { readRequest, requestHeader } from "./abi.ts";

/** As deep as the queues of common disks. Beyond, the first one waits, whoever else does. */
const COUNT_MAX = 32;
/** Other requests that are answered before one that was put off is asked again. */
const PASSED_MAX = 8;
/** A READ is nothing but this. */
export const READ_BYTES: number = requestHeader.size + readRequest.size;

export interface PutOff {
  readonly count: number;
  readonly isFull: boolean;
  /** No more can be kept, or enough others have gone ahead. */
  readonly isDue: boolean;
  /** Another request goes ahead. */
  passed(): void;
  /** Keeps a copy of the READ at the start of `request`. */
  add(request: Uint8Array): void;
  /** Puts the one that came first at the start of `into`. */
  take(into: Uint8Array): void;
}

export function putOffReads(): PutOff {
  const slots = Array.from({ length: COUNT_MAX }, () => new Uint8Array(READ_BYTES));
  let first = 0;
  let count = 0;
  let passedCount = 0;
  return shaped({
    get count() {
      return count;
    },
    get isFull() {
      return count === COUNT_MAX;
    },
    get isDue() {
      return count === COUNT_MAX || passedCount >= PASSED_MAX;
    },
    passed(): void {
      if (count > 0) passedCount += 1;
    },
    add(request): void {
      slots[(first + count) % COUNT_MAX]?.set(request.subarray(0, READ_BYTES));
      count += 1;
    },
    take(into): void {
      into.set(slots[first] as Uint8Array);
      first = (first + 1) % COUNT_MAX;
      count -= 1;
      passedCount = 0;
    },
  });
}
