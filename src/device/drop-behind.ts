/**
 * Takes out of the host's memory what was read from the block file and will not be asked for again.
 *
 * What a long READ is answered with lies in the kernel's cache of the mount then. The host would have it a second time: whoever reads
 * a file from end to end would take twice its length of memory, from what others use. And a virtual machine that
 * gives free memory back gets it again page by page when it is touched, which takes longer than to read it from the disk
 * (native-notes/performance.md): the fewer pages are used over and over, the better. So what lies some way behind is dropped.
 *
 *       first                        end - LAG                  end
 *         |---------------------------|--------------------------|
 *           dropped, a STEP at a time    kept: READs that are under way together come in any order
 *
 * The host keeps what it reads ahead in folios, and drops them whole or not at all: so each time it begins one folio further back.
 * Nothing is lost where this is wrong but the time to read it again.
 */
import { BLOCK_BYTES } from "../core/block.ts";

/**
 * Shorter reads may be of small files, or at random: what is near may be wanted next. And libfuse 2.9, which asks for 128 KiB at most,
 * has the kernel keep nothing from one open to the next (fuse-native).
 */
export const LONG_BLOCKS_MIN: number = (256 << 10) / BLOCK_BYTES;
/** More than the kernel has under way of one file. */
const LAG_BLOCKS = (16 << 20) / BLOCK_BYTES;
const STEP_BLOCKS = (4 << 20) / BLOCK_BYTES;
const FOLIO_BLOCKS_MAX = (2 << 20) / BLOCK_BYTES;

/** Read side by side. */
const STRETCHES = 8;

/** To be told of what has been read. `drop`: these blocks are not needed in memory. */
export function dropBehind(drop: (vbn: number, count: number) => void): (vbn: number, count: number) => void {
  const stretches = Array.from({ length: STRETCHES }, () => ({
    first: Number.POSITIVE_INFINITY,
    end: Number.NEGATIVE_INFINITY,
  }));
  let oldest = 0;

  function stretchAt(vbn: number): { first: number; end: number } {
    for (const stretch of stretches) {
      if (vbn >= stretch.first - LAG_BLOCKS && vbn <= stretch.end + LAG_BLOCKS) return stretch;
    }
    const stretch = stretches[oldest] as (typeof stretches)[number];
    oldest = (oldest + 1) % STRETCHES;
    stretch.first = vbn;
    stretch.end = vbn;
    return stretch;
  }

  return (vbn, count) => {
    if (count < LONG_BLOCKS_MIN) return;
    const stretch = stretchAt(vbn);
    const first = Math.min(stretch.first, vbn);
    stretch.end = Math.max(stretch.end, vbn + count);
    const droppedEnd = stretch.end - LAG_BLOCKS;
    const isStep = droppedEnd - first >= STEP_BLOCKS + FOLIO_BLOCKS_MAX;
    if (isStep) drop(first, droppedEnd - first);
    stretch.first = isStep ? droppedEnd - FOLIO_BLOCKS_MAX : first;
  };
}
