import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  add,
  addRange,
  type Bits,
  bitCount,
  count,
  difference,
  has,
  intersection,
  makeBits,
  overlaps,
  remove,
  same,
  union,
} from "../../src/bitset/plane.ts";
import { nextGap, nextMember } from "../../src/bitset/runs.ts";

const SIZE = 160;
const members = fc.uniqueArray(fc.nat(SIZE - 1), { maxLength: SIZE });

function bitsOf(list: Iterable<number>): Bits {
  const bits = makeBits(SIZE);
  for (const member of list) add(bits, member);
  return bits;
}

function listOf(bits: Bits): number[] {
  return Array.from({ length: bits.length * 32 }, (_, member) => member).filter((member) => has(bits, member));
}

const sorted = (list: Iterable<number>): number[] => [...list].toSorted((a, b) => a - b);

test("sum, difference and intersection are those of sets, with exact counts, also into an argument", () => {
  fc.assert(
    fc.property(members, members, (a, b) => {
      const [left, right] = [bitsOf(a), bitsOf(b)];
      const out = makeBits(SIZE).fill(0xdead_beef);
      union(out, left, right);
      assert.deepEqual(listOf(out), sorted(new Set([...a, ...b])));
      assert.equal(difference(out, left, right), listOf(out).length);
      assert.deepEqual(listOf(out), sorted(a.filter((member) => !b.includes(member))));
      assert.equal(intersection(out, left, right), listOf(out).length);
      assert.deepEqual(listOf(out), sorted(a.filter((member) => b.includes(member))));
      assert.equal(overlaps(left, right), listOf(out).length > 0);
      assert.equal(count(left), a.length);
      assert.equal(same(left, right), sorted(a).join() === sorted(b).join());
      difference(left, left, right);
      assert.deepEqual(listOf(left), sorted(a.filter((member) => !b.includes(member))));
    }),
  );
});

test("members are added, found and removed; ranges are added whole", () => {
  fc.assert(
    fc.property(members, fc.nat(SIZE), fc.nat(SIZE), (list, x, y) => {
      const [start, end] = x < y ? [x, y] : [y, x];
      const bits = bitsOf(list);
      addRange(bits, start, end);
      const expected = new Set(list);
      for (let member = start; member < end; member += 1) expected.add(member);
      assert.deepEqual(listOf(bits), sorted(expected));
      for (const member of list) {
        remove(bits, member);
        assert.equal(has(bits, member), false);
        expected.delete(member);
      }
      assert.deepEqual(listOf(bits), sorted(expected));
    }),
  );
});

test("runs: the next member and the next gap enumerate a set", () => {
  fc.assert(
    fc.property(members, fc.nat(SIZE + 5), (list, from) => {
      const bits = bitsOf(list);
      const set = new Set(list);
      const first = (wanted: boolean): number => {
        for (let at = from; at < SIZE; at += 1) if (set.has(at) === wanted) return at;
        return SIZE;
      };
      assert.equal(nextMember(bits, from), first(true));
      assert.equal(nextGap(bits, from), first(false));
      const found: number[] = [];
      for (let at = nextMember(bits, 0); at < SIZE; at = nextMember(bits, at)) {
        const end = nextGap(bits, at);
        for (; at < end; at += 1) found.push(at);
      }
      assert.deepEqual(found, sorted(list));
    }),
  );
});

test("bits of a word are counted", () => {
  assert.equal(bitCount(0), 0);
  assert.equal(bitCount(0xffff_ffff), 32);
  assert.equal(bitCount(-1), 32);
  assert.equal(bitCount(0x8000_0001), 2);
});

test("planes of different size do not mix", () => {
  assert.throws(() => union(makeBits(32), makeBits(64), makeBits(32)));
  assert.throws(() => difference(makeBits(32), makeBits(32), makeBits(64)));
  assert.throws(() => intersection(makeBits(64), makeBits(32), makeBits(64)));
  assert.throws(() => addRange(makeBits(32), 0, 33));
});
