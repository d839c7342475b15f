import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { makeBlock } from "../../src/core/block.ts";
import { CorruptionError } from "../../src/core/errors.ts";
import {
  childOffset,
  childRecord,
  childSlot,
  DT_REG,
  DT_SOCK,
  entryHead,
  firstKeyOf,
  isEntryName,
  isEntryType,
  isNameAt,
  KEY_END,
  leafDefect,
  leafSlot,
  lowerBound,
  NODE_CHILDREN_MAX,
  NODE_INTERIOR,
  NODE_LEAF,
  NODE_MAGIC,
  nodeDefect,
  nodeHeader,
  ORDINALS,
  slotOffset,
} from "../../src/format/directory-node.ts";

test("the records have the sizes that the format fixes, and the magic reads TMDN", () => {
  assert.deepEqual([nodeHeader.size, leafSlot.size, entryHead.size, childRecord.size], [16, 2, 14, 12]);
  assert.equal(NODE_CHILDREN_MAX, 340);
  const { view, bytes } = makeBlock();
  nodeHeader.set.magic(view, 0, NODE_MAGIC);
  assert.equal(Buffer.from(bytes.subarray(0, 4)).toString("latin1"), "TMDN");
});

test("the hash is the one that is on disks: it never changes", () => {
  const golden: [number, string, number][] = [
    [0, "a", 2091477572753408],
    [0, "b", 3924644272001536],
    [1, "a", 951060381726976],
    [0xffff_ffff, "README.md", 1913434822161408],
    [0x1234_5678, "\u00ff".repeat(255), 4301491983499264],
  ];
  for (const [seed, name, key] of golden) assert.equal(firstKeyOf(seed, name), key, `${seed} ${name}`);
});

test("first keys are multiples of 256 below 2^52 that depend on seed and name", () => {
  const name = fc
    .array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 255 })
    .map((codes) => String.fromCharCode(...codes));
  const seed = fc.integer({ min: 0, max: 0xffff_ffff });
  fc.assert(
    fc.property(seed, seed, name, name, (seedA, seedB, nameA, nameB) => {
      const key = firstKeyOf(seedA, nameA);
      assert(Number.isSafeInteger(key) && key >= 0 && key < KEY_END);
      assert.equal(key % ORDINALS, 0);
      assert.equal(firstKeyOf(seedA, nameA), key);
      if (seedA !== seedB) assert.notEqual(firstKeyOf(seedB, nameA), key);
      if (nameA !== nameB) assert.notEqual(firstKeyOf(seedA, nameB), key);
    }),
  );
});

test("names as people and programs make them do not collide and spread evenly", () => {
  const families: ((n: number) => string)[] = [
    (n) => String(n),
    (n) => `IMG_${String(n).padStart(8, "0")}.jpg`,
    (n) => n.toString(2).padStart(18, "0"),
    (n) => `${"x".repeat(n % 250)}${Math.floor(n / 250)}`,
    (n) => String.fromCharCode(1 + (n & 63), 65 + ((n >> 6) & 63), 129 + ((n >> 12) & 63)),
    (n) => `${n.toString(36)}${".".repeat(40)}${(n * 7).toString(36)}`,
  ];
  const count = 1 << 18;
  for (const seed of [0, 1, 0x8000_0000, 0xdead_beef]) {
    for (const family of families.slice(seed % 2 === 0 ? 0 : 3)) {
      const hashes = new Float64Array(count);
      const high = new Uint32Array(1024);
      const low = new Uint32Array(1024);
      for (let n = 0; n < count; n++) {
        const hash = firstKeyOf(seed, family(n)) / ORDINALS;
        hashes[n] = hash;
        (high[Math.floor(hash / 2 ** 34)] as number)++;
        (low[hash % 1024] as number)++;
      }
      hashes.sort();
      let equal = 0;
      for (let n = 1; n < count; n++) if (hashes[n] === hashes[n - 1]) equal++;
      assert(equal <= 1, `${equal} of ${count} names like ${family(5)} have the hash of another`); // 0.002 are expected
      for (const buckets of [high, low]) {
        // Chi squared of 1023 degrees of freedom: 1023 +- 45, six deviations allowed.
        const chi = buckets.reduce((sum, found) => sum + (found - 256) ** 2 / 256, 0);
        assert(chi > 750 && chi < 1300, `chi squared ${chi} for names like ${family(5)}, seed ${seed}`);
      }
    }
  }
});

const hashBits = (key: number): bigint => BigInt(key / ORDINALS);
const weigh = (a: bigint, b: bigint): number => (a ^ b).toString(2).replaceAll("0", "").length;

test("each bit of a name or of the seed changes half of the bits of the hash", () => {
  for (const place of [0, 5, 11]) {
    for (let bit = 0; bit < 8; bit++) {
      let changed = 0;
      for (let n = 0; n < 500; n++) {
        const name = `name${String(n).padStart(8, "0")}`;
        const other =
          name.slice(0, place) + String.fromCharCode(name.charCodeAt(place) ^ (1 << bit)) + name.slice(place + 1);
        changed += weigh(hashBits(firstKeyOf(9, name)), hashBits(firstKeyOf(9, other)));
      }
      assert(Math.abs(changed / 500 - 22) < 1, `byte ${place}, bit ${bit}: ${changed / 500} of 44 bits change`);
    }
  }
  for (let bit = 0; bit < 32; bit++) {
    let changed = 0;
    for (let n = 0; n < 500; n++) {
      changed += weigh(hashBits(firstKeyOf(n, `${n}`)), hashBits(firstKeyOf((n ^ (1 << bit)) >>> 0, `${n}`)));
    }
    assert(Math.abs(changed / 500 - 22) < 1, `seed bit ${bit}: ${changed / 500} of 44 bits change`);
  }
});

function leafOf(...entries: [number, string][]): ReturnType<typeof makeBlock> {
  const block = makeBlock();
  let heapStart = 4096;
  entries.forEach(([key, name], slot) => {
    heapStart -= entryHead.size + name.length;
    leafSlot.set.entryOffset(block.view, slotOffset(slot), heapStart);
    entryHead.encode(block.view, heapStart, { key, ino: 5, type: DT_REG, nameBytes: name.length });
    block.bytes.set(Buffer.from(name, "latin1"), heapStart + entryHead.size);
  });
  const header = {
    magic: NODE_MAGIC,
    kind: NODE_LEAF,
    level: 0,
    count: entries.length,
    heapStart,
    deadBytes: 0,
    nextFree: 0,
  };
  nodeHeader.encode(block.view, 0, header);
  return block;
}

test("a leaf is searched by key, and names are compared byte by byte", () => {
  const { view } = leafOf([256, "a"], [512, "b\u00ff"], [513, "c"]);
  assert.equal(nodeDefect(view, 0), undefined);
  assert.equal(leafDefect(view), undefined);
  assert.deepEqual(
    [0, 256, 257, 512, 513, 514].map((key) => lowerBound(view, 1, key)),
    [0, 0, 1, 1, 2, 3],
  );
  const offset = leafSlot.get.entryOffset(view, slotOffset(1));
  for (const [name, same] of [
    ["b\u00ff", true],
    ["b\u00fe", false],
    ["b", false],
    ["b\u00ff\u00ff", false],
  ] as const) {
    assert.equal(isNameAt(view, 1, offset, name), same);
  }
});

test("an interior node gives the child whose range has the key; what is before the first is the first's", () => {
  const { view } = makeBlock();
  const lows = [0, 300, 301, 9000];
  nodeHeader.encode(view, 0, {
    magic: NODE_MAGIC,
    kind: NODE_INTERIOR,
    level: 1,
    count: 4,
    heapStart: 0,
    deadBytes: 0,
    nextFree: 0,
  });
  lows.forEach((low, slot) => childRecord.encode(view, childOffset(slot), { low, node: slot + 1 }));
  assert.deepEqual(
    [0, 299, 300, 301, 8999, 9000, KEY_END - 1].map((key) => childSlot(view, key)),
    [0, 0, 1, 2, 2, 3, 3],
  );
});

test("a header that promises more than a block has is a defect; so is one of another level", () => {
  const { view } = leafOf([256, "a"], [512, "b"]);
  assert.match(nodeDefect(view, 1) ?? "", /of kind 1 at level 1/);
  nodeHeader.set.count(view, 0, 2041);
  assert.match(nodeDefect(view, 0) ?? "", /2041 slots/);
  nodeHeader.set.count(view, 0, 2);
  nodeHeader.set.heapStart(view, 0, 4097);
  assert.match(nodeDefect(view, 0) ?? "", /byte 4097/);
  nodeHeader.set.kind(view, 0, NODE_INTERIOR);
  nodeHeader.set.level(view, 0, 3);
  nodeHeader.set.count(view, 0, NODE_CHILDREN_MAX);
  assert.equal(nodeDefect(view, 3), undefined);
  nodeHeader.set.count(view, 0, NODE_CHILDREN_MAX + 1);
  assert.match(nodeDefect(view, 3) ?? "", /341 children/);
  assert.match(nodeDefect(makeBlock().view, 0) ?? "", /no magic/);
});

const says = (error: unknown): boolean =>
  error instanceof CorruptionError && error.message.startsWith("directory node 42 ");

test("an entry or a name that leaves the block is corruption, said with the node's number", () => {
  const { view } = leafOf([256, "a"], [512, "b"]);
  const offset = leafSlot.get.entryOffset(view, slotOffset(0));
  entryHead.set.nameBytes(view, offset, 200);
  assert.throws(() => isNameAt(view, 42, offset, "a"), says);
  assert.match(leafDefect(view) ?? "", /name of 200 bytes/);
  leafSlot.set.entryOffset(view, slotOffset(0), 65535);
  assert.throws(() => lowerBound(view, 42, 1), says);
  assert.match(leafDefect(view) ?? "", /entry at byte 65535/);
});

test("names have 1 to 255 chars below 256; types are the seven of readdir", () => {
  assert.deepEqual(["", "a", "a".repeat(255), "a".repeat(256), "\u00ff", "\u0100"].map(isEntryName), [
    false,
    true,
    true,
    false,
    true,
    false,
  ]);
  const types = Array.from({ length: 40 }, (_, type) => type).filter(isEntryType);
  assert.deepEqual(types, [1, 2, 4, 6, DT_REG, 10, DT_SOCK]);
  assert.equal(isEntryType(-1), false);
});
