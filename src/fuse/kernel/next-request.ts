/** Whose turn it is among the requests: those that were kept let others go ahead, but not without end. */
import type { Connection } from "./connection.ts";
import { isFromCache, type KeptWrites } from "./kept-writes.ts";
import { type PutOff, READ_BYTES } from "./put-off.ts";

/** Requests that let others go ahead. */
export interface Kept {
  readonly reads: PutOff;
  readonly writes: KeptWrites;
}

export interface Source {
  /** Reads a request, which becomes the one in hand, and waits for it; its length, NOTHING or UNMOUNTED. */
  readonly receive: () => number;
  /** Undefined: nothing is kept. */
  readonly isRequestWaiting: (() => boolean) | undefined;
}

/** Instead of a length: there will be no more; look again. */
export const UNMOUNTED = -1;
export const NOTHING = 0;

/**
 * What is to be handled next: its length, as `receive` tells it. Those that were kept are when no other request waits or enough
 * have gone ahead: the READs after the WRITEs, for they may wait for the disk.
 */
export function nextRequest(connection: Connection, { reads, writes }: Kept, source: Source): number {
  const { receive, isRequestWaiting } = source;
  connection.mayPutOff = isRequestWaiting !== undefined;
  for (;;) {
    const isAnother = reads.count + writes.count > 0 && isRequestWaiting?.() === true;
    const isRead = reads.count > 0 && (reads.isDue || (!isAnother && writes.count === 0));
    if (isRead) {
      connection.mayPutOff = (isAnother || writes.count > 0) && !reads.isFull;
      reads.take(connection.request);
      return READ_BYTES;
    }
    if (writes.count > 0 && (writes.isDue || !isAnother)) {
      reads.passed();
      return writes.take();
    }
    const lengthBytes = receive();
    if (isRequestWaiting !== undefined && isFromCache(connection, lengthBytes) && writes.keep(lengthBytes)) continue;
    reads.passed();
    writes.passed();
    return lengthBytes;
  }
}
