// A flipped bit in each kind of structure: the check finds and names it, a reader gets what was written or an error, and what
// has a second copy is put right.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError, FsError } from "../../src/core/errors.ts";
import { below, prng } from "../../src/core/prng.ts";
import { ACTIVE_MAP_INO, INODE_MAP_INO, ORPHAN_INO, ROOT_INO } from "../../src/format/constants.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { type FileSystem, type NodeId, ROOT_NODE } from "../../src/fs/file-system.ts";
import { type BlockTree, eachPointer } from "../../src/tree/block-tree.ts";
import { checkVolume } from "../../src/volume/check.ts";
import type { Finding, FindingKind } from "../../src/volume/check-report.ts";
import { openVolume } from "../../src/volume/open.ts";
import { repairCopies } from "../../src/volume/repair.ts";
import { openSnapshotTable } from "../../src/volume/snapshot-table.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { applyToReal, asName, list, makeBench, type Slots } from "../support/fs-paths.ts";
import type { Operation } from "../support/model-fs.ts";

const BLOCKS = 8192;
/** Bits tried in each kind. */
const TRIES = 12;

interface Sample {
  readonly device: MemoryDevice;
  readonly volume: Volume;
  readonly contents: ReadonlyMap<string, string>;
}

function sample(): Sample {
  const device = memoryDevice(BLOCKS);
  const { fs, volume } = makeBench(BLOCKS, device);
  const slots: Slots = new Map();
  const does = (op: Operation): void => assert.equal(applyToReal(fs, slots, op), "");
  does({ kind: "mkdir", path: "/d", mode: 0o755, uid: 0 });
  for (let i = 0; i < 400; i++) does({ kind: "create", path: `/d/a file with number ${i}`, mode: 0o644, uid: 0 });
  for (let i = 0; i < 20; i++)
    does({ kind: "write", path: `/d/a file with number ${i}`, offset: 0, data: new Uint8Array(i * 500).fill(i + 1) });
  for (let i = 0; i < 20; i++) volume.createSnapshot(`snapshot ${i}`);
  volume.takeCp("snapshot");
  does({ kind: "create", path: "/large", mode: 0o644, uid: 0 });
  does({ kind: "write", path: "/large", offset: 0, data: Uint8Array.from({ length: 3_000_000 }, (_, i) => i % 251) });
  does({ kind: "setxattr", path: "/large", name: "user.note", value: "v".repeat(30_000), flags: 0 });
  does({ kind: "tmpfile", path: "/", slot: 1, excl: true });
  does({ kind: "writeSlot", slot: 1, offset: 0, data: new Uint8Array(100_000).fill(9) });
  volume.takeCp("sync");
  return { device, volume, contents: contentsOf(device) };
}

function contentsOf(device: MemoryDevice): Map<string, string> {
  const contents = new Map<string, string>();
  read(device, (what, value) => contents.set(what, value));
  return contents;
}

/** Reads names, files, attributes, snapshots; errors of ours are passed over. */
function read(device: MemoryDevice, visit: (what: string, value: string) => void): void {
  const attempt = (what: string, get: () => string): void => {
    let value: string;
    try {
      value = get();
    } catch (error) {
      if (error instanceof FsError || error instanceof CorruptionError) return;
      throw error;
    }
    visit(what, value);
  };
  attempt("volume", () => {
    const volume = openVolume({ device, clock: manualClock(), random: prng(1), writable: false });
    attempt("snapshots", () => JSON.stringify(volume.snapshots().map(({ name, id }) => [name, id])));
    const fs = openFileSystem({ volume, clock: manualClock() });
    const oldest = volume.snapshots()[0]?.name ?? "";
    walk(fs, ROOT_NODE, "", attempt);
    attempt("snapshot", () => {
      const { nodeId } = fs.lookup(fs.lookup(ROOT_NODE, asName(".snapshot")).nodeId, asName(oldest));
      walk(fs, nodeId, "/.snapshot/0", attempt);
      return "";
    });
    return "";
  });
}

function walk(fs: FileSystem, node: NodeId, path: string, attempt: (what: string, get: () => string) => void): void {
  attempt(`names in ${path}`, () =>
    list(fs, node, 100)
      .map(({ name }) => name)
      .toSorted()
      .join(),
  );
  attempt(`children of ${path}`, () => {
    for (const { name, type } of list(fs, node, 100)) {
      const child = `${path}/${name}`;
      attempt(`attributes of ${child}`, () => JSON.stringify(fs.lookup(node, asName(name)).attributes));
      attempt(`note of ${child}`, () =>
        Buffer.from(fs.getXattr(fs.lookup(node, asName(name)).nodeId, asName("user.note"))).toString(),
      );
      if (type === 4) walk(fs, fs.lookup(node, asName(name)).nodeId, child, attempt);
      else readBlocks(fs, fs.lookup(node, asName(name)).nodeId, child, attempt);
    }
    return "";
  });
}

function readBlocks(
  fs: FileSystem,
  node: NodeId,
  path: string,
  attempt: (what: string, get: () => string) => void,
): void {
  const into = new Uint8Array(BLOCK_BYTES);
  const { handle } = fs.open(node, 0);
  const blocks = Math.ceil(fs.getAttributes(node).attributes.sizeBytes / BLOCK_BYTES);
  for (let index = 0; index < blocks; index++) {
    attempt(`block ${index} of ${path}`, () => {
      const count = fs.read(handle, index * BLOCK_BYTES, BLOCK_BYTES, into, 0);
      return Buffer.from(into.subarray(0, count)).toString("latin1");
    });
  }
  fs.release(handle);
}

function vbnsOf(volume: Volume, tree: BlockTree, wanted: (level: number) => boolean): number[] {
  const vbns: number[] = [];
  eachPointer(volume.active.store, tree, (level, _index, vbn) => {
    if (wanted(level)) vbns.push(vbn);
    return true;
  });
  return vbns;
}

function treeOf(volume: Volume, ino: number): BlockTree {
  return (volume.active.get(ino) ?? assert.fail(`no inode ${ino}`)).tree;
}

function inoAt(volume: Volume, path: string): number {
  const fs = openFileSystem({ volume, clock: manualClock() });
  let node = ROOT_NODE;
  for (const name of path.split("/").slice(1)) node = fs.lookup(node, asName(name)).nodeId;
  return fs.getAttributes(node).attributes.ino;
}

interface Row {
  readonly what: string;
  readonly vbns: (volume: Volume) => readonly number[];
  readonly kind: FindingKind;
  /** The path that a finding must have; undefined: there is none. */
  readonly path?: string;
  readonly message?: RegExp;
}

const isLeaf = (level: number): boolean => level === 0;
const isIndirect = (level: number): boolean => level > 0;

const rows: readonly Row[] = [
  {
    what: "a data block",
    vbns: (v) => vbnsOf(v, treeOf(v, inoAt(v, "/large")), isLeaf),
    kind: "checksum",
    path: "/large",
  },
  {
    what: "an indirect block",
    vbns: (v) => vbnsOf(v, treeOf(v, inoAt(v, "/large")), isIndirect),
    kind: "checksum",
    path: "/large",
  },
  { what: "a directory node", vbns: (v) => vbnsOf(v, treeOf(v, inoAt(v, "/d")), isLeaf), kind: "checksum", path: "/d" },
  {
    what: "the node of the root directory",
    vbns: (v) => vbnsOf(v, treeOf(v, ROOT_INO), isLeaf),
    kind: "checksum",
    path: "/",
  },
  {
    what: "an xattr block",
    vbns: (v) => vbnsOf(v, treeOf(v, v.active.get(inoAt(v, "/large"))?.xattrIno ?? 0), isLeaf),
    kind: "checksum",
    path: "/large",
  },
  { what: "an inode block", vbns: (v) => vbnsOf(v, v.active.tree, isLeaf), kind: "checksum" },
  { what: "an indirect block of the inode file", vbns: (v) => vbnsOf(v, v.active.tree, isIndirect), kind: "checksum" },
  {
    what: "the active map",
    vbns: (v) => vbnsOf(v, treeOf(v, ACTIVE_MAP_INO), isLeaf),
    kind: "checksum",
    message: /active map/,
  },
  {
    what: "the inode map",
    vbns: (v) => vbnsOf(v, treeOf(v, INODE_MAP_INO), isLeaf),
    kind: "checksum",
    message: /inode map/,
  },
  { what: "the orphan file", vbns: (v) => vbnsOf(v, treeOf(v, ORPHAN_INO), isLeaf), kind: "checksum" },
];

for (const { what, vbns, kind, path, message } of rows) {
  test(`a flipped bit in ${what} is found and named, and nobody reads anything wrong`, () => {
    const { device, volume, contents } = sample();
    const blocks = vbns(volume);
    assert(blocks.length > 0, "there is such a block");
    const random = prng(what.length);
    for (let i = 0; i < TRIES; i++) {
      const vbn = blocks[below(random, blocks.length)] as number;
      const damaged = device.clone();
      damaged.corrupt(vbn * BLOCK_BYTES + below(random, BLOCK_BYTES), 1 << below(random, 8));
      const { findings } = checkVolume(damaged);
      const found = findings.filter((finding) => finding.kind === kind && isAbout(finding, vbn, message));
      assert(found.length > 0, `block ${vbn}: ${JSON.stringify(findings)}`);
      if (path !== undefined)
        assert(
          found.some((finding) => finding.path === path),
          JSON.stringify(found),
        );
      sameOrNothing(damaged, contents);
      assert.deepEqual(repairCopies(damaged), [], "there is no second copy of it");
    }
  });
}

function isAbout(finding: Finding, vbn: number, message: RegExp | undefined): boolean {
  return finding.vbn === vbn || (message !== undefined && message.test(finding.message));
}

function sameOrNothing(device: MemoryDevice, contents: ReadonlyMap<string, string>): number {
  let seen = 0;
  read(device, (what, value) => {
    if (what.startsWith("children of") || what === "snapshot" || what === "volume") return;
    seen += 1;
    assert.equal(value, contents.get(what), what);
  });
  return seen;
}

test("a block of the snapshot table has two copies: either serves alone, a bad one is found and repaired", () => {
  const { device, contents } = sample();
  const { committed } = openVolume({ device, clock: manualClock(), random: prng(1), writable: false });
  const copies = openSnapshotTable(device, committed).copies();
  assert(copies.length >= 6, `${copies.length} copies`);
  for (const { vbn } of copies) {
    const damaged = device.clone();
    damaged.corrupt(vbn * BLOCK_BYTES + 8);
    const findings = checkVolume(damaged).findings.filter((finding) => finding.vbn === vbn);
    assert.deepEqual(
      findings.map((finding) => finding.kind),
      ["snapshot-table"],
    );
    const before = sameOrNothing(damaged, contents);
    assert.deepEqual(
      repairCopies(damaged).map((copy) => [copy.what, copy.vbn]),
      [["snapshot-table", vbn]],
    );
    assert.deepEqual(checkVolume(damaged).findings, []);
    assert.equal(sameOrNothing(damaged, contents), before, "nothing was missing before the repair");
  }
});

test("where both copies are bad no snapshot is guessed, and the check says what is wrong", () => {
  const { device } = sample();
  const { committed } = openVolume({ device, clock: manualClock(), random: prng(1), writable: false });
  const [copy] = openSnapshotTable(device, committed).copies();
  assert(copy !== undefined);
  for (const vbn of [copy.vbn, copy.otherVbn]) device.corrupt(vbn * BLOCK_BYTES + 8);
  assert.throws(() => openVolume({ device, clock: manualClock(), random: prng(1), writable: false }), CorruptionError);
  assert.throws(() => repairCopies(device), CorruptionError);
  assert(
    checkVolume(device).findings.some(
      ({ kind, message }) => kind === "snapshot-table" && message.includes("cannot be read"),
    ),
  );
});

test("either copy of fsinfo serves alone, and the other is repaired", () => {
  const { device, contents, volume } = sample();
  for (const vbn of [0, volume.committed.reservedBlocks - 1]) {
    const damaged = device.clone();
    damaged.corrupt(vbn * BLOCK_BYTES + 600);
    const { notes } = checkVolume(damaged);
    assert(
      notes.some((note) => note.includes(`block ${vbn},`)),
      notes.join(),
    );
    assert.equal(sameOrNothing(damaged, contents), sameOrNothing(device, contents));
    assert.deepEqual(
      repairCopies(damaged).map((copy) => [copy.what, copy.vbn]),
      [["fsinfo", vbn]],
    );
    assert.deepEqual(checkVolume(damaged).notes, []);
  }
});
