/**
 * Algebra on sets of blocks: a set is a plane of bits in 32-bit words, bit b of word w for member w * 32 + b.
 *
 * A snapshot's bit plane, the active map, what an image carries: all are such sets, and every question about
 * them (what changed, what is free, what would become free) is one loop over words, O(n/32) for n blocks:
 * 10 ms for the planes of a 1 TiB volume. Nothing here allocates; results go into a plane of the caller, which
 * may be one of the arguments.
 */
import assert from "node:assert/strict";

/** A set as words. Views into map blocks are planes too. */
export type Bits = Uint32Array;

export const WORD_BITS = 32;

/** A plane for members 0 to `size` - 1, empty. */
export function makeBits(size: number): Bits {
  return new Uint32Array(Math.ceil(size / WORD_BITS));
}

/** Members in a word. */
export function bitCount(word: number): number {
  let n = word - ((word >>> 1) & 0x5555_5555);
  n = (n & 0x3333_3333) + ((n >>> 2) & 0x3333_3333);
  n = (n + (n >>> 4)) & 0x0f0f_0f0f;
  return Math.imul(n, 0x0101_0101) >>> 24;
}

/** How many members. */
export function count(plane: Bits): number {
  let members = 0;
  for (let i = 0; i < plane.length; i++) members += bitCount(plane[i] as number);
  return members;
}

/** into = a + b: the logical sum. */
export function union(into: Bits, a: Bits, b: Bits): void {
  assert.equal(a.length, into.length);
  assert.equal(b.length, into.length);
  for (let i = 0; i < into.length; i++) into[i] = (a[i] as number) | (b[i] as number);
}

/** into = top - base: what an incremental image must carry. Returns how many members. */
export function difference(into: Bits, top: Bits, base: Bits): number {
  assert.equal(top.length, into.length);
  assert.equal(base.length, into.length);
  let members = 0;
  for (let i = 0; i < into.length; i++) {
    const word = (top[i] as number) & ~(base[i] as number);
    into[i] = word;
    members += bitCount(word);
  }
  return members;
}

/** into = a and b: what has not changed between two states. Returns how many members. */
export function intersection(into: Bits, a: Bits, b: Bits): number {
  assert.equal(a.length, into.length);
  assert.equal(b.length, into.length);
  let members = 0;
  for (let i = 0; i < into.length; i++) {
    const word = (a[i] as number) & (b[i] as number);
    into[i] = word;
    members += bitCount(word);
  }
  return members;
}

/** Whether two planes have the same members. */
export function same(a: Bits, b: Bits): boolean {
  assert.equal(a.length, b.length);
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Whether two planes share a member. */
export function overlaps(a: Bits, b: Bits): boolean {
  assert.equal(a.length, b.length);
  for (let i = 0; i < a.length; i++) if (((a[i] as number) & (b[i] as number)) !== 0) return true;
  return false;
}

/** Membership. */
export function has(plane: Bits, member: number): boolean {
  return (((plane[member >>> 5] as number) >>> (member & 31)) & 1) === 1;
}

export function add(plane: Bits, member: number): void {
  plane[member >>> 5] = (plane[member >>> 5] as number) | (1 << (member & 31));
}

export function remove(plane: Bits, member: number): void {
  plane[member >>> 5] = (plane[member >>> 5] as number) & ~(1 << (member & 31));
}

/** Adds the members from `start` to `end` - 1. */
export function addRange(plane: Bits, start: number, end: number): void {
  assert.ok(start <= end);
  assert.ok(end <= plane.length * WORD_BITS);
  if (start === end) return;
  const first = start >>> 5;
  const last = (end - 1) >>> 5;
  const head = -1 << (start & 31); // bits from start on
  const tail = -1 >>> (31 - ((end - 1) & 31)); // bits up to end - 1
  if (first === last) {
    plane[first] = (plane[first] as number) | (head & tail);
    return;
  }
  plane[first] = (plane[first] as number) | head;
  plane.fill(0xffff_ffff, first + 1, last);
  plane[last] = (plane[last] as number) | tail;
}
