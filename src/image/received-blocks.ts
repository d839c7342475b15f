/**
 * Remembers which blocks have come, so that they can be compared with what the planes of the tops say should have:
 * 4 bytes a region (128 MiB), not a bit a block, because blocks come in ascending order and a region, once left, is
 * only a checksum.
 */

import { addRange } from "../bitset/plane.ts";
import { REGION_BLOCKS, REGION_WORDS } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { regionOf, regionStart, type Selection } from "./select.ts";

export interface ReceivedBlocks {
  /** In ascending order. */
  add(vbn: number, count: number): void;
  /** The first region in which what has come from `from` on is not what the selection says; undefined: all agree. */
  differs(selection: Selection, from: number): number | undefined;
}

export function receivedBlocks(): ReceivedBlocks {
  const sums = new Map<number, number>();
  const words = new Uint32Array(REGION_WORDS);
  let region = 0;
  let any = false;

  function leave(): void {
    if (any) sums.set(region, sumOf(words));
    words.fill(0);
    any = false;
  }

  return {
    add(vbn, count): void {
      for (let at = vbn; at < vbn + count; ) {
        if (regionOf(at) !== region) {
          leave();
          region = regionOf(at);
        }
        const start = regionStart(region);
        const end = Math.min(vbn + count, start + REGION_BLOCKS);
        addRange(words, at - start, end - start);
        any = true;
        at = end;
      }
    },
    differs(selection, from): number | undefined {
      leave();
      const expected = new Uint32Array(REGION_WORDS);
      for (let at = regionOf(from); at < selection.regionCounts.length; at += 1) {
        selection.fill(at, expected);
        if (at === regionOf(from)) clearBelow(expected, from - regionStart(at));
        if ((sums.get(at) ?? EMPTY_SUM) !== sumOf(expected)) return at;
      }
      return undefined;
    },
  };
}

function clearBelow(words: Uint32Array, member: number): void {
  const index = member >>> 5;
  words.fill(0, 0, index);
  words[index] = (words[index] as number) & (-1 << (member & 31));
}

function sumOf(words: Uint32Array): number {
  return checksum(new Uint8Array(words.buffer, words.byteOffset, words.byteLength));
}

const EMPTY_SUM = sumOf(new Uint32Array(REGION_WORDS));
