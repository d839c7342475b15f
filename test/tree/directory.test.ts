import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Block, makeBlock } from "../../src/core/block.ts";
import { CorruptionError, FsError } from "../../src/core/errors.ts";
import { ino } from "../../src/core/numbers.ts";
import { below, prng } from "../../src/core/prng.ts";
import {
  childOffset,
  childRecord,
  DT_DIR,
  DT_REG,
  entryHead,
  KEY_END,
  leafSlot,
  nodeHeader,
  slotOffset,
} from "../../src/format/directory-node.ts";
import {
  BEFORE_FIRST_KEY,
  checkDirectory,
  cookieOf,
  type DirectoryEntry,
  eachEntry,
  insertEntry,
  insertNodesMax,
  keyAfterCookie,
  lookupEntry,
  type NodeFile,
  removeEntry,
  removeNodesMax,
  replaceEntry,
} from "../../src/tree/directory.ts";
import { checkNodes } from "../../src/tree/directory-check.ts";
import { insertAt } from "../../src/tree/directory-insert.ts";
import { removeAt } from "../../src/tree/directory-remove.ts";
import { locate, rootLevel } from "../../src/tree/directory-search.ts";

const SEED = 0x1234_5678;

/** A file in memory that holds its user to the contract: it copies on write, and notices writes to what is not dirty. */
interface StrictFile extends NodeFile {
  nodeCount: number;
  blocks: Block[];
  /** Nodes dirtied and appended in this operation. */
  touched: number;
  /** Runs an operation; call number `failAt` of this file fails. */
  run<T>(operation: () => T, failAt?: number): T;
}

function strictFile(): StrictFile {
  let lent = new Map<Block, Uint8Array>();
  let dirty = new Set<number>();
  let failAt = Number.POSITIVE_INFINITY;
  let calls = 0;
  const touch = (): void => {
    if (calls++ === failAt) throw new FsError("EIO", "injected");
  };
  const file: StrictFile = {
    nodeCount: 0,
    blocks: [],
    touched: 0,
    node(index) {
      assert(index >= 0 && index < file.nodeCount, `node ${index} of ${file.nodeCount}`);
      touch();
      const block = file.blocks[index] as Block;
      if (!dirty.has(index) && !lent.has(block)) lent.set(block, block.bytes.slice());
      return block;
    },
    prefetch: () => {},
    dirtyNode(index) {
      assert(index >= 0 && index < file.nodeCount, `node ${index} of ${file.nodeCount}`);
      touch();
      if (!dirty.has(index)) {
        file.touched++;
        dirty.add(index);
        const block = makeBlock();
        block.bytes.set((file.blocks[index] as Block).bytes);
        file.blocks[index] = block;
      }
      return file.blocks[index] as Block;
    },
    appendNode() {
      touch();
      file.touched++;
      const index = file.nodeCount++;
      const block = makeBlock();
      file.blocks.push(block);
      dirty.add(index);
      return { index, block };
    },
    truncateNodes(count) {
      touch();
      for (let index = count; index < file.nodeCount; index++) {
        const gone = file.blocks[index] as Block;
        if (!dirty.delete(index)) continue;
        gone.bytes.fill(0xee); // its buffer is used for something else now
      }
      file.blocks.length = count;
      file.nodeCount = count;
    },
    run(operation, at = Number.POSITIVE_INFINITY) {
      lent = new Map();
      dirty = new Set();
      failAt = at;
      calls = 0;
      file.touched = 0;
      try {
        return operation();
      } finally {
        failAt = Number.POSITIVE_INFINITY;
        for (const [block, bytes] of lent) assert.deepEqual(block.bytes, bytes, "wrote to a node that is not dirty");
      }
    },
  };
  return file;
}

/** The same without the strictness, for speed and for damage. */
function plainFile(): NodeFile & { blocks: Block[] } {
  const blocks: Block[] = [];
  return {
    blocks,
    get nodeCount() {
      return blocks.length;
    },
    node: (index) => {
      const block = blocks[index];
      if (block === undefined) throw new CorruptionError(`no block ${index}`);
      return block;
    },
    prefetch: () => {},
    dirtyNode: (index) => blocks[index] as Block,
    appendNode() {
      blocks.push(makeBlock());
      return { index: blocks.length - 1, block: blocks.at(-1) as Block };
    },
    truncateNodes(count) {
      blocks.length = count;
    },
  };
}

function findingsOf(dir: NodeFile): { findings: string[]; names: string[] } {
  const findings: string[] = [];
  const names: string[] = [];
  checkDirectory(
    dir,
    SEED,
    (finding) => findings.push(finding),
    (name) => names.push(name),
  );
  return { findings, names };
}

function list(dir: NodeFile, afterKey = BEFORE_FIRST_KEY): [string, DirectoryEntry][] {
  const found: [string, DirectoryEntry][] = [];
  eachEntry(dir, afterKey, (name, number, type, key) => {
    found.push([name, { key, ino: number, type }]);
    return true;
  });
  return found;
}

type Model = Map<string, DirectoryEntry>;

function assertEqualsModel(dir: NodeFile, model: Model): void {
  const { findings, names } = findingsOf(dir);
  assert.deepEqual(findings, []);
  assert.equal(names.length, model.size);
  const expected = [...model].toSorted(([, a], [, b]) => a.key - b.key);
  assert.deepEqual(list(dir), expected);
}

function insert(dir: StrictFile, model: Model, name: string, number: number, type = DT_REG): void {
  const bound = dir.run(() => insertNodesMax(dir));
  const key = dir.run(() => insertEntry(dir, SEED, name, ino(number), type));
  assert(dir.touched <= bound, `an insertion touched ${dir.touched} nodes, ${bound} were promised`);
  model.set(name, { key, ino: ino(number), type });
}

function remove(dir: StrictFile, model: Model, name: string): void {
  const bound = dir.run(() => removeNodesMax(dir));
  const removed = dir.run(() => removeEntry(dir, SEED, name));
  assert(dir.touched <= bound, `a removal touched ${dir.touched} nodes, ${bound} were promised`);
  assert.deepEqual(removed, model.get(name));
  model.delete(name);
}

/** A name of so many bytes that begins with a number, unless it has no room for that. */
function longName(number: number, bytes: number): string {
  return String(number)
    .padEnd(bytes, "\u00e9")
    .slice(0, Math.max(bytes, String(number).length));
}

const isCode = (code: string) => (error: unknown) => error instanceof FsError && error.code === code;

test("an empty directory has no nodes and finds nothing", () => {
  const dir = strictFile();
  assert.equal(lookupEntry(dir, SEED, "a"), undefined);
  assert.deepEqual(list(dir), []);
  assert.equal(insertNodesMax(dir), 1);
  assert.equal(removeNodesMax(dir), 0);
  assert.throws(() => removeEntry(dir, SEED, "a"), isCode("ENOENT"));
  assert.throws(() => replaceEntry(dir, SEED, "a", ino(5), DT_REG), isCode("ENOENT"));
  assert.deepEqual(findingsOf(dir), { findings: [], names: [] });
});

test("an entry is found, replaced under its old key, removed, and leaves no node behind", () => {
  const dir = strictFile();
  const key = dir.run(() => insertEntry(dir, SEED, "name", ino(7), DT_REG));
  assert.deepEqual(lookupEntry(dir, SEED, "name"), { key, ino: 7, type: DT_REG });
  assert.equal(lookupEntry(dir, SEED, "Name"), undefined);
  assert.equal(lookupEntry(dir, SEED, "nam"), undefined);
  dir.run(() => replaceEntry(dir, SEED, "name", ino(8), DT_DIR));
  assert.equal(dir.touched, 1);
  assert.deepEqual(lookupEntry(dir, SEED, "name"), { key, ino: 8, type: DT_DIR });
  assert.throws(() => removeEntry(dir, SEED, "other"), isCode("ENOENT"));
  assert.deepEqual(
    dir.run(() => removeEntry(dir, SEED, "name")),
    { key, ino: 8, type: DT_DIR },
  );
  assert.equal(dir.nodeCount, 0);
});

test("what is not a name, a type or an inode is refused by assertion, and so is a name that exists", () => {
  const dir = strictFile();
  for (const name of ["", "x".repeat(256), "\u0100"]) {
    assert.throws(() => insertEntry(dir, SEED, name, ino(7), DT_REG), assert.AssertionError);
  }
  assert.throws(() => insertEntry(dir, SEED, "a", ino(0), DT_REG), assert.AssertionError);
  for (const type of [0, 3, 16, 33, -1]) {
    assert.throws(() => insertEntry(dir, SEED, "a", ino(7), type), assert.AssertionError);
  }
  insertEntry(dir, SEED, "a", ino(7), DT_REG);
  assert.throws(() => insertEntry(dir, SEED, "a", ino(8), DT_REG), assert.AssertionError);
  assertEqualsModel(dir, new Map(list(dir)));
});

test("names of every byte but 0 and slash, of 1 and of 255 bytes, are kept exactly", () => {
  const dir = strictFile();
  const model: Model = new Map();
  for (let code = 1; code < 256; code++) {
    if (code === 0x2e || code === 0x2f) continue;
    insert(dir, model, String.fromCharCode(code), code);
    insert(dir, model, String.fromCharCode(code).repeat(255), 1000 + code, DT_DIR);
  }
  assertEqualsModel(dir, model);
  for (const [name, entry] of model) assert.deepEqual(lookupEntry(dir, SEED, name), entry);
});

test("cookies leave 0, 1 and 2 to the start and the dots, and come back as keys", () => {
  assert.equal(keyAfterCookie(0), BEFORE_FIRST_KEY);
  assert.equal(keyAfterCookie(2), BEFORE_FIRST_KEY);
  for (const key of [0, 1, 255, 2 ** 40, KEY_END - 1]) {
    assert(cookieOf(key) > 2);
    assert(Number.isSafeInteger(cookieOf(key)));
    assert.equal(keyAfterCookie(cookieOf(key)), key);
  }
});

// The number of a name gives its length, so that short and long ones lie side by side.
const nameOf = (number: number): string => longName(number, 1 + ((number * 97) % 255));

test("random operations do what they do to a Map, and every state checks clean", () => {
  const nameNumber = fc.nat(400);
  const step = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant("put" as const),
        name: nameNumber,
        ino: fc.integer({ min: 1, max: 0xffff_ffff }),
      }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("remove" as const), name: nameNumber }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("list" as const), name: nameNumber }) },
  );
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 1500, size: "max" }), (steps) => {
      const dir = strictFile();
      const model: Model = new Map();
      steps.forEach((now, n) => {
        const name = nameOf(now.name);
        const existing = model.get(name);
        if (now.kind === "list") {
          const after = existing?.key ?? BEFORE_FIRST_KEY;
          const expected = [...model].filter(([, { key }]) => key > after).toSorted(([, a], [, b]) => a.key - b.key);
          assert.deepEqual(list(dir, after), expected);
        } else if (now.kind === "put" && existing === undefined) insert(dir, model, name, now.ino);
        else if (now.kind === "put" && existing !== undefined) {
          dir.run(() => replaceEntry(dir, SEED, name, ino(now.ino), DT_DIR));
          model.set(name, { key: existing.key, ino: ino(now.ino), type: DT_DIR });
        } else if (existing !== undefined) remove(dir, model, name);
        else assert.throws(() => dir.run(() => removeEntry(dir, SEED, name)), isCode("ENOENT"));
        assert.deepEqual(lookupEntry(dir, SEED, name), model.get(name));
        if (n % 100 === 0) assertEqualsModel(dir, model);
      });
      assertEqualsModel(dir, model);
      for (const name of model.keys()) remove(dir, model, name);
      assert.equal(dir.nodeCount, 0);
    }),
    { numRuns: 30 },
  );
});

test("a tree of three levels grows, shrinks at random, grows from its free list and shrinks to nothing", () => {
  const dir = strictFile();
  const model: Model = new Map();
  const random = prng(3);
  for (let n = 0; n < 9000; n++) insert(dir, model, longName(n, 240 + (n % 16)), n + 1);
  assert.equal(rootLevel(dir), 2);
  assertEqualsModel(dir, model);
  const nodeCount = dir.nodeCount;
  const names = [...model.keys()];
  const removeRandom = (): void => {
    const at = below(random, names.length);
    const name = names[at] as string;
    names[at] = names.at(-1) as string;
    names.pop();
    remove(dir, model, name);
  };
  for (let n = 0; n < 7000; n++) removeRandom();
  assertEqualsModel(dir, model);
  assert.equal(dir.nodeCount, nodeCount); // freed nodes are kept ...
  for (let n = 0; n < 5000; n++) {
    const name = longName(10_000 + n, 240);
    insert(dir, model, name, n + 1);
    names.push(name);
  }
  assert.equal(dir.nodeCount, nodeCount); // ... and used again
  assertEqualsModel(dir, model);
  while (names.length > 100) removeRandom();
  assertEqualsModel(dir, model);
  while (names.length > 5) removeRandom();
  assert.equal(dir.nodeCount, 1); // a root that is a leaf is alone
  assertEqualsModel(dir, model);
  while (names.length > 0) removeRandom();
  assert.equal(dir.nodeCount, 0);
});

test("removal in the order of readdir, forwards and backwards, merges down to nothing", () => {
  for (const direction of [1, -1]) {
    const dir = strictFile();
    const model: Model = new Map();
    for (let n = 0; n < 6500; n++) insert(dir, model, longName(n, 250), n + 1);
    assert.equal(rootLevel(dir), 2);
    const names = list(dir).map(([name]) => name);
    if (direction < 0) names.reverse();
    names.forEach((name, n) => {
      remove(dir, model, name);
      if (n % 1000 === 0) assertEqualsModel(dir, model);
    });
    assert.equal(dir.nodeCount, 0);
  }
});

test("leaves split and merge for names of every length", () => {
  for (let bytes = 1; bytes <= 255; bytes++) {
    const dir = strictFile();
    const model: Model = new Map();
    for (let n = 0; n < (bytes < 60 ? 600 : 120); n++) insert(dir, model, longName(n, bytes), n + 1);
    assert(dir.nodeCount > 1);
    assertEqualsModel(dir, model);
    for (const name of model.keys()) remove(dir, model, name);
    assert.equal(dir.nodeCount, 0);
  }
});

test("names of equal hash get keys side by side, up to 256 of them, also across leaves", () => {
  for (const bytes of [8, 255]) {
    const dir = strictFile();
    const firstKey = 77 * 256;
    const keys = new Map<string, number>();
    const put = (name: string, at: number): number =>
      dir.run(() => insertAt(dir, at, { name, ino: ino(9), type: DT_REG }));
    const check = (): void => {
      const findings: string[] = [];
      checkNodes(
        dir,
        (name) => (name.startsWith("before") ? firstKey - 256 : name.startsWith("after") ? firstKey + 256 : firstKey),
        (finding) => findings.push(finding),
        () => {},
      );
      assert.deepEqual(findings, []);
    };
    for (let n = 0; n < 40; n++) {
      put(`before${longName(n, bytes - 6)}`, firstKey - 256);
      put(`after${longName(n, bytes - 5)}`, firstKey + 256);
    }
    for (let n = 0; n < 256; n++) {
      const name = longName(n, bytes);
      assert.equal(locate(dir, firstKey, name), -1);
      keys.set(name, put(name, firstKey));
    }
    check();
    assert.deepEqual(
      [...keys.values()],
      Array.from({ length: 256 }, (_, n) => firstKey + n),
    );
    const before = dir.blocks.map((block) => block.bytes.slice());
    assert.throws(() => put("one more", firstKey), isCode("ENOSPC"));
    assert.deepEqual(
      dir.blocks.map((block) => block.bytes),
      before,
    );
    put("after all", firstKey + 256); // other hashes are not concerned

    for (const [name, key] of keys) {
      assert(locate(dir, firstKey, name) >= 0);
      if (key % 3 === 0) assert.equal(dir.run(() => removeAt(dir, firstKey, name))?.key, key);
    }
    check();
    for (const [name, key] of keys) assert.equal(locate(dir, firstKey, name) >= 0, key % 3 !== 0);
    const holes = [...keys.values()].filter((key) => key % 3 === 0);
    holes.forEach((hole, n) => assert.equal(put(`new ${n}`, firstKey), hole)); // the lowest first
    check();
  }
});

test("an operation that fails at any node leaves every byte as it was", () => {
  // The workload reaches splits of leaves, interior nodes and the root, use of free nodes, merges, unlinking, collapse.
  const dir = strictFile();
  const model: Model = new Map();
  const random = prng(11);
  const names: string[] = [];
  const seen = new Map<string, number>();
  const levelOf = (): string => (dir.nodeCount > 0 ? String(rootLevel(dir)) : "none");
  const attempt = (kind: string, operation: () => unknown): void => {
    const blocks = dir.blocks.slice();
    const level = levelOf();
    dir.run(operation);
    const label = `${kind} ${level}-${levelOf()} touches ${dir.touched}`;
    const times = seen.get(label) ?? 0;
    if (times > 8) return;
    seen.set(label, times + 1);
    const after = { blocks: dir.blocks, nodeCount: dir.nodeCount };
    const bytes = blocks.map((block) => block.bytes.slice());
    for (let failAt = 0, failed = true; failed; failAt++) {
      dir.blocks = blocks.slice();
      dir.nodeCount = blocks.length;
      failed = false;
      try {
        dir.run(operation, failAt);
      } catch (error) {
        assert(isCode("EIO")(error), String(error));
        failed = true;
        assert.equal(dir.nodeCount, bytes.length);
        dir.blocks.forEach((block, index) => {
          assert.deepEqual(block.bytes, bytes[index], `${label}: failed at call ${failAt}, node ${index} is changed`);
        });
      }
    }
    assert.equal(dir.nodeCount, after.nodeCount);
    dir.blocks.forEach((block, index) => assert.deepEqual(block.bytes, (after.blocks[index] as Block).bytes));
  };
  const grow = (until: number): void => {
    for (let n = names.length; n < until; n++) {
      const name = longName(below(random, 0x4000_0000), 240);
      if (model.has(name)) continue;
      let key = 0;
      attempt("insert", () => (key = insertEntry(dir, SEED, name, ino(5), DT_REG)));
      model.set(name, { key, ino: ino(5), type: DT_REG });
      names.push(name);
    }
  };
  const shrink = (until: number): void => {
    while (names.length > until) {
      const at = below(random, names.length);
      const name = names[at] as string;
      names[at] = names.at(-1) as string;
      names.pop();
      attempt("remove", () => removeEntry(dir, SEED, name));
      model.delete(name);
    }
  };
  grow(200);
  shrink(0);
  grow(9000);
  shrink(3000);
  grow(5000);
  shrink(0);
  assert.equal(dir.nodeCount, 0);
  const expected = [
    "insert none-0 touches 1",
    "insert 0-1 touches 3", // the root, as a leaf, is split
    "insert 1-2 touches 5", // the root is split with a leaf
    "insert 2-2 touches 5", // an interior node is split with a leaf
    "remove 2-2 touches 4", // leaves are merged
    "remove 2-1 touches 5", // and then interior nodes, and the root goes down a level
    "remove 1-0 touches 1", // the root becomes the only leaf
    "remove 0-none touches 0",
  ];
  for (const label of expected) assert(seen.has(label), `"${label}" is not among ${[...seen.keys()].join("; ")}`);
});

test("readdir in pieces sees what stays exactly once, whatever is added and removed between the pieces", () => {
  const random = prng(5);
  for (let round = 0; round < 6; round++) {
    const dir = strictFile();
    const model: Model = new Map();
    const stays = new Set<string>();
    for (let n = 0; n < 1500; n++) {
      const name = longName(n, 100 + (n % 100));
      insert(dir, model, name, n + 1);
      if (n % 4 === 0) stays.add(name);
    }
    const seen: string[] = [];
    let cookie = 2;
    for (let added = 0; ; ) {
      const piece: [string, number][] = [];
      eachEntry(dir, keyAfterCookie(cookie), (name, _ino, _type, key) => {
        if (piece.length === 20) return false;
        piece.push([name, cookieOf(key)]);
        return true;
      });
      if (piece.length === 0) break;
      for (const [name] of piece) seen.push(name);
      cookie = (piece.at(-1) as [string, number])[1];
      // As rm -r does: what was read is removed at once. Others remove ahead, and create anywhere.
      for (const [name] of piece) if (!stays.has(name)) remove(dir, model, name);
      const goes = [...model.keys()].filter((name) => !stays.has(name));
      for (let n = 0; n < 5 && goes.length > n; n++) {
        const name = goes[below(random, goes.length)] as string;
        if (model.has(name)) remove(dir, model, name);
      }
      for (let n = 0; n < round * 2; n++) insert(dir, model, `added ${longName(added++, 200)}`, 9);
      if (added > 4000) break;
    }
    assert.equal(new Set(seen).size, seen.length, "an entry was seen twice");
    const seenSet = new Set(seen);
    for (const name of stays) assert(seenSet.has(name), `${name} was not seen`);
    assertEqualsModel(dir, model);
  }
});

test("visiting stops when it is told to", () => {
  const dir = plainFile();
  for (let n = 0; n < 1000; n++) insertEntry(dir, SEED, `file ${n}`, ino(n + 1), DT_REG);
  let visits = 0;
  eachEntry(dir, BEFORE_FIRST_KEY, () => ++visits < 300);
  assert.equal(visits, 300);
  eachEntry(dir, KEY_END - 1, () => assert.fail("nothing is after the last key"));
});

/** A directory of a few levels and a free list. */
function sample(): NodeFile & { blocks: Block[] } {
  const dir = plainFile();
  for (let n = 0; n < 1200; n++) insertEntry(dir, SEED, longName(n, 60), ino(n + 1), DT_REG);
  for (let n = 0; n < 900; n++) removeEntry(dir, SEED, longName(n, 60));
  assert.equal(rootLevel(dir), 1);
  assert(nodeHeader.get.nextFree((dir.blocks[0] as Block).view, 0) !== 0);
  return dir;
}

const leafIndex = (dir: ReturnType<typeof sample>): number =>
  childRecord.get.node((dir.blocks[0] as Block).view, childOffset(1));
const leaf = (dir: ReturnType<typeof sample>): DataView => (dir.blocks[leafIndex(dir)] as Block).view;
const entry = (view: DataView, slot = 0): number => leafSlot.get.entryOffset(view, slotOffset(slot));
const root = (dir: ReturnType<typeof sample>): DataView => (dir.blocks[0] as Block).view;

test("the check names each kind of damage", () => {
  const { set, get } = nodeHeader;
  const damages: [RegExp, (dir: ReturnType<typeof sample>) => void][] = [
    [/has no magic/, (dir) => set.magic(leaf(dir), 0, 0)],
    [/is of kind 3/, (dir) => set.kind(leaf(dir), 0, 3)],
    [/says level 1, not 0/, (dir) => set.level(leaf(dir), 0, 1)],
    [/node 0 says level 9/, (dir) => set.level(root(dir), 0, 9)],
    [/is empty/, (dir) => set.count(leaf(dir), 0, 0)],
    [/slots and entries from byte/, (dir) => set.count(leaf(dir), 0, 2000)],
    [/dead bytes/, (dir) => set.deadBytes(leaf(dir), 0, 4000)],
    [/its header says/, (dir) => set.deadBytes(leaf(dir), 0, get.deadBytes(leaf(dir), 0) + 1)],
    [/in use and names free node 1/, (dir) => set.nextFree(leaf(dir), 0, 1)],
    [/entry at byte 4090/, (dir) => leafSlot.set.entryOffset(leaf(dir), slotOffset(0), 4090)],
    [/name of 0 bytes/, (dir) => entryHead.set.nameBytes(leaf(dir), entry(leaf(dir)), 0)],
    [/key .* after key/, (dir) => entryHead.set.key(leaf(dir), entry(leaf(dir), 1), 0)],
    [/is not one of those from/, (dir) => leaf(dir).setUint8(entry(leaf(dir)) + entryHead.size, 0x21)],
    [/no possible name/, (dir) => leaf(dir).setUint8(entry(leaf(dir)) + entryHead.size, 0x2f)],
    [/inode 0/, (dir) => entryHead.set.ino(leaf(dir), entry(leaf(dir)), 0)],
    [/no such file type: 5/, (dir) => entryHead.set.type(leaf(dir), entry(leaf(dir)), 5)],
    [/overlap/, (dir) => leafSlot.set.entryOffset(leaf(dir), slotOffset(0), entry(leaf(dir), 1))],
    [/first child from above 0/, (dir) => childRecord.set.low(root(dir), childOffset(0), 5)],
    [
      /is not from/,
      (dir) =>
        childRecord.set.low(root(dir), childOffset(1), childRecord.get.low(root(dir), childOffset(1)) + 256 * 2 ** 36),
    ],
    [/a child for keys from/, (dir) => childRecord.set.low(root(dir), childOffset(2), 1)],
    [/names node 0 of/, (dir) => childRecord.set.node(root(dir), childOffset(0), 0)],
    [/names node 4000000000 of/, (dir) => childRecord.set.node(root(dir), childOffset(0), 4_000_000_000)],
    [/named elsewhere too/, (dir) => childRecord.set.node(root(dir), childOffset(0), leafIndex(dir))],
    [/neither in its tree nor free/, (dir) => set.nextFree(root(dir), 0, 0)],
    [/named elsewhere too/, (dir) => set.nextFree(root(dir), 0, leafIndex(dir))],
    [
      /named elsewhere too/,
      (dir) => {
        const head = get.nextFree(root(dir), 0);
        set.nextFree((dir.blocks[head] as Block).view, 0, head);
      },
    ],
    [/on the free list and not free/, (dir) => set.kind((dir.blocks[get.nextFree(root(dir), 0)] as Block).view, 0, 1)],
    [/interior and has a heap/, (dir) => set.deadBytes(root(dir), 0, 1)],
    [/no block/, (dir) => dir.blocks.fill(undefined as unknown as Block, leafIndex(dir), leafIndex(dir) + 1)],
    [/root is a leaf/, (dir) => dir.blocks.splice(0, 1, dir.blocks[leafIndex(dir)] as Block)],
  ];
  for (const [expected, damage] of damages) {
    const dir = sample();
    assert.deepEqual(findingsOf(dir).findings, []);
    damage(dir);
    assert.match(findingsOf(dir).findings.join("\n"), expected);
  }
});

test("a name that is there twice is found, although each key is right", () => {
  const dir = plainFile();
  const key = insertEntry(dir, SEED, "a", ino(1), DT_REG);
  insertEntry(dir, SEED, "b", ino(2), DT_REG);
  const { view } = dir.blocks[0] as Block;
  for (let slot = 0; slot < 2; slot++) {
    const offset = leafSlot.get.entryOffset(view, slotOffset(slot));
    entryHead.set.key(view, offset, key + slot);
    view.setUint8(offset + entryHead.size, 0x61);
  }
  assert.deepEqual(findingsOf(dir).findings, ['directory node 0, entry "a": the name is there twice']);
});

const survive = (operation: () => unknown): void => {
  try {
    operation();
  } catch (error) {
    assert(error instanceof CorruptionError || error instanceof FsError, String((error as Error).stack));
  }
};

test("damaged nodes give CorruptionError or an answer, never a hang, a crash or a failed assertion", () => {
  const random = prng(17);
  const pristine = sample().blocks.map((block) => block.bytes.slice());
  const fields = [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
  for (let round = 0; round < 3000; round++) {
    const dir = plainFile();
    for (const bytes of pristine) {
      const block = makeBlock();
      block.bytes.set(bytes);
      dir.blocks.push(block);
    }
    for (let flips = 1 + below(random, 8); flips > 0; flips--) {
      const { bytes } = dir.blocks[below(random, 3) === 0 ? 0 : below(random, dir.blocks.length)] as Block;
      const place = below(random, 4);
      const at =
        place === 0
          ? (fields[below(random, fields.length)] as number)
          : place === 1
            ? nodeHeader.size + below(random, 300)
            : below(random, 4096);
      bytes[at] = below(random, 3) === 0 ? 0 : below(random, 256);
    }
    checkDirectory(
      dir,
      SEED,
      () => {},
      () => {},
    );
    let visits = 0;
    survive(() => eachEntry(dir, BEFORE_FIRST_KEY, () => ++visits < 100_000));
    assert(visits < 100_000);
    for (let n = 0; n < 60; n++) {
      const name = longName(850 + below(random, 350), 60);
      let exists = true;
      survive(() => (exists = lookupEntry(dir, SEED, name) !== undefined));
      if (exists) survive(() => removeEntry(dir, SEED, name));
      else survive(() => insertEntry(dir, SEED, `${n} ${name}`, ino(3), DT_REG));
    }
    survive(() => insertNodesMax(dir));
    survive(() => removeNodesMax(dir));
    checkDirectory(
      dir,
      SEED,
      () => {},
      () => {},
    );
  }
});

test("200,000 entries are inserted, found, listed and removed at memory speed", (t) => {
  const count = 200_000;
  const dir = plainFile();
  const names = Array.from({ length: count }, (_, n) => `some-file-${n}.txt`);
  const random = prng(1);
  const mixed = names.slice();
  for (let n = count - 1; n > 0; n--) {
    const other = below(random, n + 1);
    [mixed[n], mixed[other]] = [mixed[other] as string, mixed[n] as string];
  }
  const timed = (what: string, operation: () => void): void => {
    const start = performance.now();
    operation();
    const perSecond = Math.round((count / (performance.now() - start)) * 1000);
    t.diagnostic(`${what}: ${perSecond} a second`);
    assert(perSecond > 20_000, `${what}: only ${perSecond} a second`); // a tenth of a slow machine's, to catch O(n)
  };
  timed("insert", () => names.forEach((name, n) => insertEntry(dir, SEED, name, ino(n + 1), DT_REG)));
  t.diagnostic(`${dir.nodeCount} nodes, ${Math.round((dir.nodeCount * 4096) / count)} bytes an entry`);
  timed("lookup", () => mixed.forEach((name) => assert(lookupEntry(dir, SEED, name) !== undefined)));
  let listed = 0;
  timed("readdir", () => eachEntry(dir, BEFORE_FIRST_KEY, () => ++listed > 0));
  assert.equal(listed, count);
  assert.deepEqual(findingsOf(dir).findings, []);
  timed("remove", () => mixed.forEach((name) => removeEntry(dir, SEED, name)));
  assert.equal(dir.nodeCount, 0);
});

test("a listing asks for each leaf some way before it is read", () => {
  const file = plainFile();
  for (let i = 0; i < 60_000; i++) insertEntry(file, 7, `name-${i}`, ino(16 + i), 8);
  const asked: number[] = [];
  const read = new Set<number>();
  const late: number[] = [];
  const watched: NodeFile = {
    ...file,
    nodeCount: file.nodeCount,
    node(index) {
      const block = file.node(index);
      const isLeaf = nodeHeader.get.level(block.view, 0) === 0;
      if (isLeaf && !read.has(index) && !asked.includes(index)) late.push(index);
      if (isLeaf) read.add(index);
      return block;
    },
    prefetch(index) {
      assert(!read.has(index), `node ${index} has been read`);
      asked.push(index);
    },
  };
  let last = BEFORE_FIRST_KEY;
  for (let isOver = false; !isOver; ) {
    let left = 900; // names of a reply
    isOver = true;
    eachEntry(watched, last, (_name, _ino, _type, key) => {
      if (left === 0) {
        isOver = false;
        return false;
      }
      left -= 1;
      last = key;
      return true;
    });
  }
  assert(read.size > 500, `${read.size} leaves`);
  assert(
    late.length < 10,
    `${late.length} of ${read.size} leaves were not asked for: the first ones of a parent may be`,
  );
  assert(asked.length - new Set(asked).size < asked.length / 4, "few are asked for again, where a reply ends");
});
