/** Runs of members: where the next one begins and ends. Two calls enumerate a plane run by run, without allocating. */
import { type Bits, WORD_BITS } from "./plane.ts";

/** The first member that is `from` or more; the end of the plane (length * 32) when there is none. */
export function nextMember(plane: Bits, from: number): number {
  return scan(plane, from, 0);
}

/** The first number from `from` on that is not a member; the end of the plane when all are. */
export function nextGap(plane: Bits, from: number): number {
  return scan(plane, from, -1);
}

/** `flip` -1 looks for clear bits as if they were set. */
function scan(plane: Bits, from: number, flip: number): number {
  const end = plane.length * WORD_BITS;
  if (from >= end) return end;
  let index = from >>> 5;
  let word = ((plane[index] as number) ^ flip) & (-1 << (from & 31));
  while (word === 0) {
    index += 1;
    if (index === plane.length) return end;
    word = (plane[index] as number) ^ flip;
  }
  return index * WORD_BITS + (31 - Math.clz32(word & -word));
}
