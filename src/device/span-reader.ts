/**
 * Reads runs of blocks in few calls: runs with small gaps between them are one span.
 *
 *     device   a b . d e . g   ...   F H . C
 *              one span              another
 *
 * A call costs as much as several blocks. One call reads a span, each block straight to its place in the caller's memory, and
 * those of the gaps to nowhere. Where that fails it is read run by run: what is bad in a gap is nobody's concern.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../core/block.ts";
import { FsError } from "../core/errors.ts";
import { type BlockDevice, type HowRead, NOWHERE, SCATTERED_BLOCKS_MAX, WAITING } from "./block-device.ts";

/** Longer gaps may cost more to read than a call. */
export const GAP_BLOCKS_MAX = 16;
export const RUN_BLOCKS_MAX: number = SCATTERED_BLOCKS_MAX / 2;
/** Blocks of a span, those in its gaps too, to which one more run may be added. */
const SPAN_BLOCKS_MAX = SCATTERED_BLOCKS_MAX - RUN_BLOCKS_MAX;

/** Between `begin` and `end` runs are added. Any call throws FsError EIO. */
export interface SpanReader {
  /** What is added goes to blocks of `into`, counted from byte `offset`. */
  begin(into: Uint8Array, offset: number, how: HowRead): void;
  /** `count` blocks from `vbn` on, RUN_BLOCKS_MAX at most, go to block `place` and those after it. In the order of VBNs, as far as possible. */
  add(vbn: number, count: number, place: number): void;
  /** All have been read. False: who does not wait cannot have all, and `into` holds anything; what is missing is on its way. */
  end(): boolean;
}

export function spanReader(device: BlockDevice): SpanReader {
  /** Of the blocks of the span, in the order of the device. */
  const places = new Int32Array(SCATTERED_BLOCKS_MAX);
  let first = 0;
  let length = 0;
  let memory: Uint8Array = new Uint8Array(0);
  let start = 0;
  let waiting = WAITING;
  let isResident = true;

  function readSpan(): void {
    try {
      if (device.readScattered === undefined) readEach();
      else if (!device.readScattered(first, places, length, memory, start, waiting)) isResident = false;
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
      readEach();
    }
    length = 0;
  }

  /** Run by run, without the gaps. */
  function readEach(): void {
    for (let i = 0; i < length; ) {
      const place = places[i] as number;
      let run = 1;
      if (place !== NOWHERE) {
        while (i + run < length && places[i + run] === place + run) run += 1;
        device.read(first + i, run, memory, start + place * BLOCK_BYTES);
      }
      i += run;
    }
  }

  return {
    begin(into, offset, how): void {
      memory = into;
      start = offset;
      waiting = how;
      length = 0;
      isResident = true;
    },
    add(vbn, count, place): void {
      assert.ok(count <= RUN_BLOCKS_MAX);
      if (length > 0) {
        const gap = vbn - (first + length);
        if (gap < 0 || gap > GAP_BLOCKS_MAX || length + gap > SPAN_BLOCKS_MAX) readSpan();
        else for (const end = length + gap; length < end; length += 1) places[length] = NOWHERE;
      }
      if (length === 0) first = vbn;
      for (let i = 0; i < count; i += 1) places[length + i] = place + i;
      length += count;
    },
    end(): boolean {
      if (length > 0) readSpan();
      return isResident;
    },
  };
}
