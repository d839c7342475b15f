/**
 * Choosing blocks: a storage image is a set of blocks got by algebra on snapshots, (top1 + top2 + ...) - base.
 *
 * A snapshot's plane is the active map inside its own tree, so the sets are read, never computed: no tree is
 * walked, no inode looked at. And the planes of two snapshots share the map blocks of every region (32768 blocks)
 * in which nothing was allocated or freed between them: a region whose pointer is the same in the base and in
 * all tops has an empty difference and is skipped unread. Selecting costs what has changed.
 *
 * The base is always a snapshot: only what is held cannot have been written over, and "in both planes" means
 * "the same bytes" only for blocks that were in use all the time between. Older bases need not be subtracted:
 * what top has in common with them, it has in common with the newest one.
 */

import { difference, union } from "../bitset/plane.ts";
import { REGION_BLOCKS, REGION_SHIFT, REGION_WORDS } from "../core/block.ts";
import type { Plane } from "../volume/space/plane.ts";

/** A chosen set of blocks, by region, in VBN order. */
export interface Selection {
  /** Blocks in the set: exact. */
  readonly blockCount: number;
  /** Blocks in each region. */
  readonly regionCounts: Uint32Array;
  /** The members of one region, written into `into` (1024 words). Reads the map blocks again: nothing is kept. */
  fill(region: number, into: Uint32Array): void;
}

/**
 * Selects (sum of `tops`) - `base`; without a base, the sum. All planes are of one volume. Reads map blocks only.
 * `beginOperation` is called before each region: the planes' words are valid until the next.
 */
export function selectBlocks(
  { tops, base }: { readonly tops: readonly Plane[]; readonly base: Plane | undefined },
  beginOperation: () => void,
): Selection {
  const regionCount = Math.max(0, ...tops.map((top) => top.regionCount));
  const regionCounts = new Uint32Array(regionCount);
  const words = new Uint32Array(REGION_WORDS);
  let blockCount = 0;
  for (let region = 0; region < regionCount; region += 1) {
    const members = fillRegion(region, words);
    regionCounts[region] = members;
    blockCount += members;
  }
  return {
    blockCount,
    regionCounts,
    fill(region, into): void {
      if (regionCounts[region] === 0) into.fill(0);
      else fillRegion(region, into);
    },
  };

  function fillRegion(region: number, into: Uint32Array): number {
    into.fill(0);
    const present = distinct(tops, base, region);
    if (present.length === 0) return 0;
    beginOperation();
    for (const top of present) union(into, into, top.words(region));
    const minus = base !== undefined && region < base.regionCount ? base.words(region) : none;
    return difference(into, into, minus);
  }
}

const none = new Uint32Array(REGION_WORDS);

/** The tops that may have members in the region which neither the base nor another of them has: often none. */
function distinct(tops: readonly Plane[], base: Plane | undefined, region: number): Plane[] {
  const seen: { readonly vbn: number; readonly checksum: number }[] = [];
  if (base !== undefined && region < base.regionCount) seen.push(base.pointer(region));
  return tops.filter((top) => {
    if (region >= top.regionCount) return false;
    const pointer = top.pointer(region);
    if (pointer.vbn === 0) return false; // no block of the region is in use
    if (seen.some(({ vbn, checksum }) => vbn === pointer.vbn && checksum === pointer.checksum)) return false;
    seen.push(pointer);
    return true;
  });
}

/** First block of a region. */
export function regionStart(region: number): number {
  return region * REGION_BLOCKS;
}

export function regionOf(vbn: number): number {
  return vbn >>> REGION_SHIFT;
}
