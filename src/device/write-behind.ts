/**
 * Has the host begin to write to the disk what was written to the block file in long runs, while more is written.
 *
 * Left to itself the host begins when much has gathered, or after seconds, and most of a large file waits for the flush at its end, while
 * nothing else is to be done. So the host is told of each piece of it at once:
 *
 *       first                     end
 *         |------------------------|  what is written next
 *           a PIECE: the disk may begin
 *
 * To begin is to wait where the disk has more to do than it can be given: that is for another thread (daemon/host-write-back.ts).
 */
import { BLOCK_BYTES } from "../core/block.ts";
import type { BlockDevice } from "./block-device.ts";

const PIECE_BLOCKS = (4 << 20) / BLOCK_BYTES;

export interface WriteBehindOptions {
  /** Shorter runs are left to the flush: what is near may be written next, or these again. */
  readonly runBlocksMin: number;
  /** The disk may begin with these blocks, if it has not. */
  readonly begin: (vbn: number, count: number) => void;
}

/** A run goes on the piece before it where it lies behind, with a gap of a piece at most; else it begins a new one. */
export function writeBehind<Device extends BlockDevice>(
  device: Device,
  { runBlocksMin, begin }: WriteBehindOptions,
): Device {
  let first = 0;
  let end = Number.NEGATIVE_INFINITY;
  return {
    ...device,
    write(vbn, count, from, offset): void {
      device.write(vbn, count, from, offset);
      if (count < runBlocksMin) return;
      if (vbn < end || vbn > end + PIECE_BLOCKS) first = vbn;
      end = vbn + count;
      if (end - first < PIECE_BLOCKS) return;
      begin(first, end - first);
      first = end;
    },
  };
}
