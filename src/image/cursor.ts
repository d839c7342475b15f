/** Going through the members of a selection. */
import assert from "node:assert/strict";
import { nextGap, nextMember } from "../bitset/runs.ts";
import { REGION_BLOCKS, REGION_WORDS } from "../core/block.ts";
import { regionStart, type Selection } from "./select.ts";

/** Goes through the members of a selection, run by run. */
export interface Cursor {
  /** First block of the run that `take` gave. */
  readonly vbn: number;
  /** Takes the next run, of at most `limit` blocks; returns how many. */
  take(limit: number): number;
  /** First block of the run that `take` would give. There must be one. */
  peek(): number;
  skip(blocks: number): void;
}

export function openCursor(selection: Selection): Cursor {
  const words = new Uint32Array(REGION_WORDS);
  let region = -1;
  let at = REGION_BLOCKS; // within the region
  let vbn = 0;

  function enterNextRegion(): void {
    do region += 1;
    while (selection.regionCounts[region] === 0);
    assert.ok(region < selection.regionCounts.length, "more blocks asked for than selected");
    selection.fill(region, words);
    at = 0;
  }

  /** The next member, within its region, which is entered. */
  function nextStart(): number {
    let start = at < REGION_BLOCKS ? nextMember(words, at) : REGION_BLOCKS;
    while (start === REGION_BLOCKS) {
      enterNextRegion();
      start = nextMember(words, 0);
    }
    return start;
  }

  function take(limit: number): number {
    const start = nextStart();
    const end = Math.min(nextGap(words, start), start + limit);
    vbn = regionStart(region) + start;
    at = end;
    return end - start;
  }

  return {
    get vbn(): number {
      return vbn;
    },
    take,
    peek(): number {
      const start = nextStart();
      return regionStart(region) + start;
    },
    skip(blocks): void {
      let left = blocks;
      while (left > 0 && left >= (selection.regionCounts[region + 1] as number)) {
        region += 1;
        left -= selection.regionCounts[region] as number;
      }
      while (left > 0) left -= take(left);
    },
  };
}
