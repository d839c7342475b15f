/**
 * Has the disk read scattered blocks that are sent next, while what came before is summed and written.
 *
 * Left to themselves they are waited for one by one. Which blocks come next is known, so they are asked for some way ahead:
 *
 *             sent                asked for
 *        ------|---- LEAD_BLOCKS ----|-------- the selection, in the order of VBNs
 *
 * Long spans are not: the host reads ahead in them by itself, in larger pages, and that costs less. Metadata has been read already,
 * as the trees were walked (expected-blocks.ts).
 */
import { BLOCK_BYTES } from "../core/block.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { GAP_BLOCKS_MAX } from "../device/span-reader.ts";
import { openCursor } from "./cursor.ts";
import type { Selection } from "./select.ts";

/** So much more of the host's memory is taken. */
const LEAD_BLOCKS = (8 << 20) / BLOCK_BYTES;
/** Longer ones are left to the host. */
const SPAN_BLOCKS_MAX = 32;

/** To be told how many blocks of the selection have been sent, before the next are read. The first `skipped` are not wanted. */
export function openReadAhead(
  device: BlockDevice,
  selection: Selection,
  skipped: number,
): (blocksDone: number) => void {
  const { readAhead } = device;
  if (readAhead === undefined) return () => {};
  const cursor = openCursor(selection);
  cursor.skip(skipped);
  let looked = skipped;
  let first = 0; // of the last span, which may go on
  let end = 0;

  return (blocksDone) => {
    const lead = Math.min(selection.blockCount, blocksDone + LEAD_BLOCKS);
    while (looked < lead) {
      const count = cursor.take(lead - looked);
      looked += count;
      if (cursor.vbn - end > GAP_BLOCKS_MAX) {
        if (end > first && end - first <= SPAN_BLOCKS_MAX) readAhead(first, end - first);
        first = cursor.vbn;
      }
      end = cursor.vbn + count;
    }
  };
}
