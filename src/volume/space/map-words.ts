/** Bits of one region's map block, 1024 words. Bit b of word w is block w * 32 + b of the region. */
import { REGION_BLOCKS, REGION_WORDS } from "../../core/block.ts";

/** How many bits are 1. */
export function bitCount(word: number): number {
  let n = word - ((word >>> 1) & 0x5555_5555);
  n = (n & 0x3333_3333) + ((n >>> 2) & 0x3333_3333);
  n = (n + (n >>> 4)) & 0x0f0f_0f0f;
  return Math.imul(n, 0x0101_0101) >>> 24;
}

/** Sets `count` bits from `start` on. */
export function setBits(words: Uint32Array, start: number, count: number): void {
  let bit = start;
  const end = start + count;
  while (bit < end) {
    const within = bit & 31;
    const some = Math.min(32 - within, end - bit);
    const mask = some === 32 ? 0xffff_ffff : ((1 << some) - 1) << within;
    words[bit >>> 5] = (words[bit >>> 5] as number) | mask;
    bit += some;
  }
}

export interface Run {
  readonly start: number;
  readonly length: number;
}

export const NO_RUN: Run = { start: 0, length: 0 };

/** The first run of clear bits from `from` on, at most `countMax` long; length 0: there is none. */
export function clearRunFrom(words: Uint32Array, from: number, countMax: number): Run {
  let word = from >>> 5;
  if (word >= REGION_WORDS) return NO_RUN;
  let clear = ~(words[word] as number) & (-1 << (from & 31));
  while (clear === 0) {
    word += 1;
    if (word >= REGION_WORDS) return NO_RUN;
    clear = ~(words[word] as number);
  }
  const start = word * 32 + 31 - Math.clz32(clear & -clear);
  const endMax = Math.min(REGION_BLOCKS, start + countMax);
  let end = start + 1;
  while (end < endMax) {
    if ((end & 31) === 0 && words[end >>> 5] === 0) {
      end += 32;
      continue;
    }
    if (((words[end >>> 5] as number) & (1 << (end & 31))) !== 0) break;
    end += 1;
  }
  return { start, length: Math.min(end, endMax) - start };
}
