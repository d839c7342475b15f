/**
 * Reads the data blocks that a row of pointers names, all in a few calls, and verifies them.
 *
 * A file that was written over at random lies in many runs. But the runs are near one another on the device: what was never moved
 * still goes on behind each block that was, and those that were moved were given places together. So the runs are sorted by
 * VBN, and those with small gaps between them are read together (device/span-reader.ts):
 *
 *     file     a b C d e F g H     (C, F and H were moved)
 *     device   a b . d e . g   ...   F H . C
 *              one span              another
 *
 * Then the blocks lie in the order of the file, wherever they were, and what lies together there is summed in one go, and compared
 * with what the sums of its pointers compose to.
 *
 * Where that fails, in whatever way, each block is read again by itself, in the order of the file: so the first bad one is named,
 * and what is bad in a gap is nobody's concern.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { blockAppender, checksum } from "../core/checksum.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import type { BlockDevice, HowRead } from "../device/block-device.ts";
import { spanReader } from "../device/span-reader.ts";
import { blockPointer } from "../format/block-pointer.ts";
import { POINTER_BYTES, POINTERS_PER_BLOCK } from "../format/constants.ts";

/** The checksum of several blocks from those of each. */
const appendBlock = blockAppender();

/** One block by itself, whose errors name it. Throws FsError EIO, CorruptionError. */
export type ReadVerified = (vbn: number, expected: number, into: Uint8Array) => void;

/**
 * Reads what `count` pointers from `slot` on name, all of one parent, to `into` from byte `offset` on, a block each; that of
 * a pointer that is 0 is left alone. Who does not wait may get false: blocks are on their way, and `into` holds anything.
 * Throws FsError EIO, CorruptionError.
 */
export type ReadData = (
  parent: DataView,
  slot: number,
  count: number,
  into: Uint8Array,
  offset: number,
  how: HowRead,
) => boolean;

export function dataReader(device: BlockDevice, checkVbn: (vbn: number) => void, readVerified: ReadVerified): ReadData {
  /** The first block of each run: its VBN, and in the low digits its place. */
  const runs = new Float64Array(POINTERS_PER_BLOCK);
  const spans = spanReader(device);

  /** Returns how many runs there are, sorted. */
  function findRuns(parent: DataView, slot: number, count: number): number {
    let found = 0;
    let isSorted = true;
    let next = 0;
    for (let i = 0; i < count; i++) {
      const vbn = blockPointer.get.vbn(parent, (slot + i) * POINTER_BYTES);
      if (vbn === 0) {
        next = 0;
        continue;
      }
      checkVbn(vbn);
      if (vbn !== next) {
        const key = vbn * POINTERS_PER_BLOCK + i;
        if (found > 0 && key < (runs[found - 1] as number)) isSorted = false;
        runs[found] = key;
        found += 1;
      }
      next = vbn + 1;
    }
    if (!isSorted) runs.subarray(0, found).sort();
    return found;
  }

  const readSpans: ReadData = (parent, slot, count, into, offset, how) => {
    const runCount = findRuns(parent, slot, count);
    spans.begin(into, offset, how);
    for (let i = 0; i < runCount; i += 1) {
      const key = runs[i] as number;
      const vbn = Math.floor(key / POINTERS_PER_BLOCK);
      const place = key % POINTERS_PER_BLOCK;
      let length = 1;
      while (
        place + length < count &&
        blockPointer.get.vbn(parent, (slot + place + length) * POINTER_BYTES) === vbn + length
      ) {
        length += 1;
      }
      spans.add(vbn, length, place);
    }
    return spans.end();
  };

  function readEach(parent: DataView, slot: number, count: number, into: Uint8Array, offset: number): void {
    for (let i = 0; i < count; i++) {
      const at = (slot + i) * POINTER_BYTES;
      const vbn = blockPointer.get.vbn(parent, at);
      if (vbn === 0) continue;
      const start = offset + i * BLOCK_BYTES;
      readVerified(vbn, blockPointer.get.checksum(parent, at), into.subarray(start, start + BLOCK_BYTES));
    }
  }

  return (parent, slot, count, into, offset, how) => {
    try {
      if (!readSpans(parent, slot, count, into, offset, how)) return false;
      if (areGood(parent, slot, count, into, offset)) return true;
    } catch (error) {
      if (!(error instanceof FsError || error instanceof CorruptionError)) throw error;
    }
    readEach(parent, slot, count, into, offset);
    return true;
  };
}

/** Whether all blocks are as their parent expects. */
function areGood(parent: DataView, slot: number, count: number, into: Uint8Array, offset: number): boolean {
  let start = 0;
  let expected = 0;
  for (let i = 0; i <= count; i++) {
    const at = (slot + i) * POINTER_BYTES;
    if (i < count && blockPointer.get.vbn(parent, at) !== 0) {
      const sum = blockPointer.get.checksum(parent, at);
      expected = i === start ? sum : appendBlock(expected, sum);
      continue;
    }
    if (i > start) {
      const found = checksum(into.subarray(offset + start * BLOCK_BYTES, offset + i * BLOCK_BYTES));
      if (found !== expected) return false;
    }
    start = i + 1;
  }
  return true;
}
