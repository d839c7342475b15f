/**
 * WRITEs of the kernel's cache, and RELEASEs, kept until nobody else waits.
 *
 * The kernel hands over all requests in one queue, as they came. Behind a WRITE of its cache waits who wrote back, or nobody, and
 * nobody behind a RELEASE; behind all others there is an application. So the loop reads on, keeps those, and handles one when no
 * other request waits or enough have gone ahead. They are kept where they were read: the connection gets another buffer for the
 * next request. The kernel has RELEASEs in the background with the WRITEs, so that many come together where files were closed
 * while it wrote back.
 *
 * That changes no order that anybody relies on. Requests that are under way together have none: what must come after a
 * WRITE (a change of the length, a RELEASE, an FSYNC, a read of what is not in the cache any more) the kernel sends after its
 * reply, and close(2) returns before a RELEASE is sent.
 */
import { shaped } from "../../core/shaped.ts";
import { opcode, requestHeader, WRITE_CACHE, writeRequest } from "./abi.ts";
import { BACKGROUND_MAX, type RequestBuffer, requestBuffers } from "./connection.ts";

/** As many as there can be: what the kernel has under way in the background. */
const COUNT_MAX = BACKGROUND_MAX;
/** Other requests that are answered before a WRITE that was kept: who writes back is not to starve. */
const PASSED_MAX = 2;

export interface KeptWrites {
  readonly count: number;
  /** Enough others have gone ahead. */
  readonly isDue: boolean;
  /** Another request goes ahead. */
  passed(): void;
  /** Takes the request in hand, which nobody waits for; false: there is no room. */
  keep(lengthBytes: number): boolean;
  /** Makes the one that came first the request in hand; returns its length. */
  take(): number;
}

export function keptWrites(connection: RequestBuffer): KeptWrites {
  const lengths = new Int32Array(COUNT_MAX);
  /** From `first` on, those that are kept; the others are free. */
  const buffers = requestBuffers(COUNT_MAX);
  let first = 0;
  let count = 0;
  let passedCount = 0;

  function swap(slot: number): void {
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
      return count > 0 && passedCount >= PASSED_MAX;
    },
    passed(): void {
      passedCount += 1;
    },
    keep(lengthBytes): boolean {
      if (count === COUNT_MAX) return false;
      const slot = (first + count) % COUNT_MAX;
      if (count === 0) passedCount = 0;
      lengths[slot] = lengthBytes;
      swap(slot);
      count += 1;
      return true;
    },
    take(): number {
      const slot = first;
      first = (first + 1) % COUNT_MAX;
      count -= 1;
      passedCount = 0;
      swap(slot);
      return lengths[slot] as number;
    },
  });
}

/** Whether the request in hand is a WRITE of the kernel's cache, or a RELEASE. */
export function canWait({ requestView: view }: RequestBuffer, lengthBytes: number): boolean {
  if (lengthBytes < requestHeader.size) return false;
  const code = requestHeader.get.opcode(view, 0);
  if (code === opcode.RELEASE || code === opcode.RELEASEDIR) return true;
  if (code !== opcode.WRITE || lengthBytes < requestHeader.size + writeRequest.size) return false;
  return (writeRequest.get.writeFlags(view, requestHeader.size) & WRITE_CACHE) !== 0;
}
