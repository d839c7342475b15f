/**
 * Whose turn it is: requests that were kept let others go ahead, and so does work that has time, but not without end.
 */
import type { Connection } from "./connection.ts";
import type { KeptRequests } from "./kept-requests.ts";
import { canWait } from "./kept-writes.ts";
import { type PutOff, READ_BYTES } from "./put-off.ts";

/** Requests that let others go ahead. */
export interface Kept {
  readonly reads: PutOff;
  readonly writes: KeptRequests;
  readonly shortOfSpace: KeptRequests;
}

/** Whether a request waits, or comes within so many microseconds. */
export type IsRequestWaiting = (withinUs: number) => boolean;

/** Work that has time, and is done in slices. */
export interface Slices {
  readonly isMore: () => boolean;
  /** It is the turn of one, whoever waits. */
  readonly isDue: () => boolean;
  /** For so long nobody must ask before it is the turn of one. */
  readonly quietUs: () => number;
  readonly next: () => void;
}

export interface Source {
  /** Reads a request, which becomes the one in hand, and waits for it; its length, NOTHING or UNMOUNTED. */
  readonly receive: () => number;
  /** Undefined: nothing is kept. */
  readonly isRequestWaiting: IsRequestWaiting | undefined;
  /** Only where it can be told whether a request waits. */
  readonly slices: Slices | undefined;
}

/** Instead of a length: there will be no more; look again. */
export const UNMOUNTED = -1;
export const NOTHING = 0;

/**
 * What is to be handled next: its length, as `receive` tells it. Those that were kept are when no other request waits or enough
 * have gone ahead: first the WRITEs and RELEASEs, of which may come space; the READs last, for they may wait for the disk.
 * NOTHING: it was the turn of a slice.
 */
export function nextRequest(connection: Connection, { reads, writes, shortOfSpace }: Kept, source: Source): number {
  const { receive, isRequestWaiting, slices } = source;
  connection.mayPutOff = isRequestWaiting !== undefined;
  connection.mayAwaitSpace = isRequestWaiting !== undefined;
  for (;;) {
    if (slices?.isDue() === true) {
      slices.next();
      return NOTHING;
    }
    const keptCount = reads.count + writes.count + shortOfSpace.count;
    const isAnother = keptCount > 0 && isRequestWaiting?.(0) === true;
    const isQuiet = !isAnother && writes.count === 0;
    if (shortOfSpace.isDue || (shortOfSpace.count > 0 && isQuiet)) {
      connection.mayAwaitSpace = false;
      return shortOfSpace.take();
    }
    if (reads.count > 0 && (reads.isDue || isQuiet)) {
      connection.mayPutOff = !isQuiet && !reads.isFull;
      reads.take(connection.request);
      return READ_BYTES;
    }
    if (writes.count > 0 && (writes.isDue || !isAnother)) {
      reads.passed();
      shortOfSpace.passed();
      return writes.take();
    }
    if (slices?.isMore() === true && isRequestWaiting?.(slices.quietUs()) === false) {
      slices.next();
      return NOTHING;
    }
    const lengthBytes = receive();
    if (isRequestWaiting !== undefined && canWait(connection, lengthBytes)) {
      writes.keep(lengthBytes);
      continue;
    }
    reads.passed();
    writes.passed();
    shortOfSpace.passed();
    return lengthBytes;
  }
}
