/**
 * Sets of numbers for checking: one bit a member, in pages that exist only where there are members. What a hostile volume
 * claims about its size costs nothing; what it has costs one bit.
 */

import { add, has } from "../bitset/plane.ts";
import { REGION_BLOCKS, REGION_SHIFT, REGION_WORDS } from "../core/block.ts";

/** A sparse set. A page has 32768 members: a region of blocks, or what one block of the inode map covers. */
export interface Marks {
  readonly pages: Map<number, Uint32Array>;
}

export function makeMarks(): Marks {
  return { pages: new Map() };
}

export function isMarked(marks: Marks, member: number): boolean {
  const page = marks.pages.get(Math.floor(member / REGION_BLOCKS));
  return page !== undefined && has(page, member % REGION_BLOCKS);
}

/** Adds a member. False: it was there already. */
export function mark(marks: Marks, member: number): boolean {
  const page = pageFor(marks, Math.floor(member / REGION_BLOCKS));
  const bit = member % REGION_BLOCKS;
  if (has(page, bit)) return false;
  add(page, bit);
  return true;
}

export function unmark(marks: Marks, member: number): void {
  const page = marks.pages.get(Math.floor(member / REGION_BLOCKS));
  const bit = member % REGION_BLOCKS;
  if (page !== undefined) page[bit >>> 5] = (page[bit >>> 5] as number) & ~(1 << (bit & 31));
}

export function pageFor(marks: Marks, index: number): Uint32Array {
  let page = marks.pages.get(index);
  if (page === undefined) {
    page = new Uint32Array(REGION_WORDS);
    marks.pages.set(index, page);
  }
  return page;
}

/** Visits the members, page by page. */
export function eachMarked(marks: Marks, visit: (member: number) => void): void {
  for (const [index, page] of marks.pages) {
    for (let w = 0; w < REGION_WORDS; w++) {
      for (let rest = page[w] as number; rest !== 0; rest &= rest - 1) {
        visit(index * 2 ** REGION_SHIFT + w * 32 + 31 - Math.clz32(rest & -rest));
      }
    }
  }
}
