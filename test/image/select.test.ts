import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { has } from "../../src/bitset/plane.ts";
import { REGION_BLOCKS, REGION_WORDS } from "../../src/core/block.ts";
import { checksum } from "../../src/core/checksum.ts";
import { receivedBlocks } from "../../src/image/received-blocks.ts";
import { regionStart, type Selection, selectBlocks } from "../../src/image/select.ts";
import type { Plane } from "../../src/volume/space/plane.ts";

const REGIONS = 3;
/** A few blocks in each region, so that planes often agree in one and differ in another. */
const block = fc.tuple(fc.nat(REGIONS - 1), fc.constantFrom(0, 1, 2, 31, 32, 33, REGION_BLOCKS - 1));
const blocks = fc
  .array(block, { maxLength: 8 })
  .map((list) => new Set(list.map(([region, bit]) => region * REGION_BLOCKS + bit)));

interface Watched extends Plane {
  readonly reads: number[];
}

/** Equal contents have equal pointers, as copy-on-write has it; a region without blocks has none. */
function planeOf(set: ReadonlySet<number>, regionCount = REGIONS): Watched {
  const reads: number[] = [];
  const words = (region: number): Uint32Array => {
    const out = new Uint32Array(REGION_WORDS);
    for (const vbn of set) {
      const bit = vbn - regionStart(region);
      if (bit >= 0 && bit < REGION_BLOCKS) out[bit >>> 5] = (out[bit >>> 5] as number) | (1 << (bit & 31));
    }
    return out;
  };
  return {
    reads,
    regionCount,
    pointer(region) {
      const sum = checksum(new Uint8Array(words(region).buffer));
      return words(region).every((word) => word === 0)
        ? { vbn: 0, checksum: 0 }
        : { vbn: 1 + (sum >>> 8), checksum: sum };
    },
    words(region) {
      reads.push(region);
      return words(region);
    },
  };
}

function membersOf(selection: Selection): number[] {
  const members: number[] = [];
  const words = new Uint32Array(REGION_WORDS).fill(-1);
  for (let region = 0; region < selection.regionCounts.length; region += 1) {
    selection.fill(region, words);
    for (let bit = 0; bit < REGION_BLOCKS; bit += 1) if (has(words, bit)) members.push(regionStart(region) + bit);
  }
  return members;
}

const sorted = (list: Iterable<number>): number[] => [...list].toSorted((a, b) => a - b);

test("(sum of tops) - base, counted exactly before anything is read but maps", () => {
  fc.assert(
    fc.property(
      fc.array(blocks, { minLength: 1, maxLength: 3 }),
      fc.option(blocks, { nil: undefined }),
      (tops, base) => {
        const selection = selectBlocks(
          { tops: tops.map((top) => planeOf(top)), base: base && planeOf(base) },
          () => {},
        );
        const expected = sorted(new Set(tops.flatMap((top) => [...top]).filter((vbn) => base?.has(vbn) !== true)));
        assert.deepEqual(membersOf(selection), expected);
        assert.equal(selection.blockCount, expected.length);
        assert.equal(
          selection.regionCounts.reduce((sum, n) => sum + n, 0),
          expected.length,
        );
      },
    ),
    { numRuns: 60 },
  );
});

test("a region that is the same in all is not read", () => {
  const common = [5, REGION_BLOCKS + 7, 2 * REGION_BLOCKS + 9];
  const base = planeOf(new Set(common));
  const top = planeOf(new Set([...common, REGION_BLOCKS + 8]));
  const second = planeOf(new Set([...common, REGION_BLOCKS + 8]));
  const selection = selectBlocks({ tops: [top, second], base }, () => {});
  assert.equal(selection.blockCount, 1);
  assert.deepEqual([base.reads, top.reads, second.reads], [[1], [1], []]);
});

test("a volume that has grown since the base", () => {
  const base = planeOf(new Set([5]), 1);
  const top = planeOf(new Set([5, 2 * REGION_BLOCKS + 1]));
  assert.deepEqual(membersOf(selectBlocks({ tops: [top], base }, () => {})), [2 * REGION_BLOCKS + 1]);
});

test("what was received is compared with what was selected, from any block on", () => {
  fc.assert(
    fc.property(blocks, blocks, fc.nat(REGIONS * REGION_BLOCKS - 1), (selected, came, from) => {
      const selection = selectBlocks({ tops: [planeOf(selected)], base: undefined }, () => {});
      const above = (set: ReadonlySet<number>): number[] => sorted(set).filter((vbn) => vbn >= from);
      const right = receivedBlocks();
      for (const vbn of above(selected)) right.add(vbn, 1);
      assert.equal(right.differs(selection, from), undefined);
      const wrong = receivedBlocks();
      for (const vbn of above(came)) wrong.add(vbn, 1);
      assert.equal(wrong.differs(selection, from) === undefined, above(came).join() === above(selected).join());
    }),
    { numRuns: 60 },
  );
});

test("a run that goes on in the next region is received whole", () => {
  const received = receivedBlocks();
  received.add(REGION_BLOCKS - 2, 4);
  const plane = planeOf(new Set([REGION_BLOCKS - 2, REGION_BLOCKS - 1, REGION_BLOCKS, REGION_BLOCKS + 1]));
  assert.equal(
    received.differs(
      selectBlocks({ tops: [plane], base: undefined }, () => {}),
      0,
    ),
    undefined,
  );
});
