// The check must be silent about a good volume, and must name what is wrong with a bad one. Damage is done to the device
// behind the volume's back, and where it needs right checksums, by a small editor that sums the path up to fsinfo again.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { checksum } from "../../src/core/checksum.ts";
import { manualClock } from "../../src/core/clock.ts";
import { UserError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { blockPointer } from "../../src/format/block-pointer.ts";
import { ACTIVE_MAP_INO, INODE_BYTES, INODES_PER_BLOCK, ROOT_INO } from "../../src/format/constants.ts";
import { decodeFsinfo, encodeFsinfo, type Fsinfo } from "../../src/format/fsinfo.ts";
import { inodeRecord } from "../../src/format/inode.ts";
import { insertEntry, removeEntry } from "../../src/tree/directory.ts";
import { DirectoryFile } from "../../src/tree/directory-file.ts";
import { resizeFile, writeFile } from "../../src/tree/file-data.ts";
import type { Inode } from "../../src/tree/inode-file.ts";
import { setXattr } from "../../src/tree/xattr.ts";
import { checkVolume } from "../../src/volume/check.ts";
import type { FindingKind } from "../../src/volume/check-report.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { countingDevice, type MemoryDevice, memoryDevice } from "../support/devices.ts";

const BLOCKS = 4096;

function newVolume(device: BlockDevice = memoryDevice(BLOCKS)): Volume {
  createVolume({ device, clock: manualClock(), random: prng(1) });
  return openVolume({ device, clock: manualClock(), random: prng(2), writable: true });
}

/** A node in a directory, by the tree's own means: the namespace above it has tests of its own. */
function make(
  volume: Volume,
  parent: number,
  name: string,
  mode: number,
  content: Uint8Array = new Uint8Array(0),
): Inode {
  const inodes = volume.active;
  inodes.store.beginOperation();
  const directory = inodes.get(parent) as Inode;
  inodes.reserve(40, "write");
  inodes.markDirty(directory);
  const inode = inodes.allocate();
  inode.mode = mode;
  const isDirectory = mode >>> 12 === 4;
  inode.linkCount = isDirectory ? 2 : 1;
  if (isDirectory) {
    inode.parent = parent;
    directory.linkCount += 1;
  }
  if (content.length > 0) writeFile(inodes, inode, 0, content, 0, content.length);
  insertEntry(new DirectoryFile(inodes, directory), inodes.hashSeed, name, inode.ino, mode >>> 12);
  directory.entryCount += 1;
  return inode;
}

function remove(volume: Volume, parent: number, name: string): void {
  const inodes = volume.active;
  inodes.store.beginOperation();
  const directory = inodes.get(parent) as Inode;
  inodes.reserve(40, "delete");
  inodes.markDirty(directory);
  const { ino } = removeEntry(new DirectoryFile(inodes, directory), inodes.hashSeed, name);
  directory.entryCount -= 1;
  const inode = inodes.get(ino) as Inode;
  inodes.markDirty(inode);
  resizeFile(inodes, inode, 0);
  inodes.free(inode);
}

const noise = (length: number, seed: number): Uint8Array => {
  const random = prng(seed);
  return Uint8Array.from({ length }, () => random.u32());
};

/** Two snapshots and an active filesystem, all different, with every kind of content. */
function sample(device: MemoryDevice = memoryDevice(BLOCKS)): { device: MemoryDevice; volume: Volume } {
  const volume = newVolume(device);
  const inner = make(volume, ROOT_INO, "dir", 0o040755);
  make(volume, inner.ino, "small", 0o100644, noise(100, 1));
  make(volume, inner.ino, "large", 0o100644, noise(300_000, 2));
  make(volume, ROOT_INO, "link", 0o120777, new TextEncoder().encode("dir/small"));
  const tagged = make(volume, ROOT_INO, "tagged", 0o100600, noise(5000, 3));
  for (let i = 0; i < 300; i++) make(volume, inner.ino, `file ${i}`, 0o100644, noise(i, i));
  volume.active.reserve(40, "write");
  volume.active.markDirty(tagged);
  setXattr(volume.active, tagged, "user.note", noise(1000, 4), { create: true, replace: false });
  volume.createSnapshot("one");
  volume.takeCp("snapshot");
  for (let i = 0; i < 100; i++) remove(volume, inner.ino, `file ${i * 2}`);
  make(volume, ROOT_INO, "second", 0o100644, noise(100_000, 5));
  volume.createSnapshot("two");
  volume.takeCp("snapshot");
  remove(volume, ROOT_INO, "second");
  const grown = volume.active.get(tagged.ino) as Inode;
  volume.active.reserve(40, "write");
  volume.active.markDirty(grown);
  writeFile(volume.active, grown, 200_000, noise(70_000, 6), 0, 70_000);
  volume.takeCp("sync");
  return { device, volume };
}

function kindsOf(device: BlockDevice): readonly FindingKind[] {
  return [...new Set(checkVolume(device).findings.map(({ kind }) => kind))];
}

test("a volume that was just formatted is clean, and so is one with snapshots of changing contents", () => {
  const device = memoryDevice(BLOCKS);
  newVolume(device);
  assert.deepEqual(checkVolume(device).findings, []);
  const report = checkVolume(sample().device);
  assert.deepEqual(report.findings, []);
  assert.deepEqual(report.notes, []);
  assert.equal(report.statesChecked, 3);
  assert.equal(report.moved, false);
});

test("a deleted and a restored snapshot leave a clean volume", () => {
  const { device, volume } = sample();
  volume.restoreSnapshot("one");
  volume.takeCp("snapshot");
  assert.deepEqual(checkVolume(device).findings, []);
  volume.deleteSnapshot("two");
  volume.takeCp("snapshot");
  assert.deepEqual(checkVolume(device).findings, []);
  volume.deleteSnapshot("one");
  volume.takeCp("snapshot");
  assert.deepEqual(checkVolume(device).findings, []);
});

test("what snapshots share is read once", () => {
  const device = memoryDevice(BLOCKS);
  const volume = newVolume(device);
  make(volume, ROOT_INO, "large", 0o100644, noise(4_000_000, 1));
  for (let i = 0; i < 50; i++) {
    make(volume, ROOT_INO, `file ${i}`, 0o100644, noise(10, i));
    volume.createSnapshot(`${i}`);
    volume.takeCp("snapshot");
  }
  const counted = countingDevice(device);
  const { findings, blocksRead } = checkVolume(counted);
  assert.deepEqual(findings, []);
  // Each state has a new inode block, directory node and map block, which are read again to be compared with the next.
  assert(blocksRead < 977 + 50 * 20, `${blocksRead} blocks read`);
  assert.deepEqual(counted.writes, []);
});

test("a flipped bit in any block in use is found, and in no other; a note says when more may follow from it", () => {
  const { device, volume } = sample(memoryDevice(1024));
  const used = volume.committed.usedBlocks;
  let found = 0;
  let followed = 0;
  for (let vbn = volume.committed.reservedBlocks; vbn < 1024; vbn++) {
    const damaged = device.clone();
    damaged.corrupt(vbn * BLOCK_BYTES + (vbn % BLOCK_BYTES), 1);
    const { findings, notes } = checkVolume(damaged);
    const kinds = findings.map(({ kind }) => kind);
    if (kinds.includes("checksum")) found += 1;
    else assert.deepEqual(kinds, [], `block ${vbn}`);
    if (kinds.every((kind) => kind === "checksum")) continue;
    assert.match(notes.join(), /metadata that cannot be read: 1;/, `block ${vbn}: ${kinds.join()}`);
    followed += 1;
  }
  assert.equal(found, used);
  assert(followed > 0);
});

test("without data, damage in data is not looked for, but in metadata it is", () => {
  const { device, volume } = sample();
  const large = [...Array(400).keys()]
    .map((ino) => volume.active.get(ino))
    .find((inode) => inode?.tree.sizeBytes === 300_000) as Inode;
  assert.equal(large.tree.height, 1);
  const indirect = blockPointer.get.vbn(large.tree.view, 0);
  const data = firstPointer(device, indirect);
  device.corrupt(data * BLOCK_BYTES);
  assert.deepEqual(checkVolume(device, { readData: false }).findings, []);
  const [finding] = checkVolume(device).findings;
  assert.deepEqual(
    [finding?.kind, finding?.vbn, finding?.path, finding?.state],
    ["checksum", data, "/dir/large", "one"],
  );
  assert.deepEqual(checkVolume(device).notes, []);
  device.corrupt(indirect * BLOCK_BYTES);
  assert(checkVolume(device, { readData: false }).findings.some(({ vbn }) => vbn === indirect));
});

test("a device without fsinfo is refused, one bad copy is a note", () => {
  assert.throws(() => checkVolume(memoryDevice(BLOCKS)), UserError);
  const { device, volume } = sample();
  device.corrupt((volume.committed.reservedBlocks - 1) * BLOCK_BYTES + 100);
  const { findings, notes } = checkVolume(device);
  assert.deepEqual(findings, []);
  assert.match(notes.join(), /copy 2, block 191, does not verify/);
});

test("findings are bounded", () => {
  const { device, volume } = sample();
  for (let vbn = volume.committed.reservedBlocks; vbn < BLOCKS; vbn++) device.corrupt(vbn * BLOCK_BYTES, 1);
  device.write(0, 1, encodeFsinfo({ ...volume.committed, usedBlocks: 1, usedInodes: 1, activeBlocks: 1 }), 0);
  const { findings, leftOut } = checkVolume(device, { findingsMax: 2 });
  assert.equal(findings.length, 2);
  assert(leftOut > 0);
});

interface Editing {
  readonly device: MemoryDevice;
  /** Changes a block and sums its ancestors, up to fsinfo. The path: block indexes from the pointers in the root down. */
  inode(ino: number, change: (view: DataView, at: number) => void): void;
  fsinfo(change: (fsinfo: Fsinfo) => Fsinfo): void;
}

/** An editor of the active filesystem of a small volume, whose inode file has at most one level of indirect blocks. */
function edit(device: MemoryDevice): Editing {
  const read = (vbn: number): Uint8Array => {
    const block = new Uint8Array(BLOCK_BYTES);
    device.read(vbn, 1, block, 0);
    return block;
  };
  const fsinfo = (change: (old: Fsinfo) => Fsinfo): void => {
    const encoded = encodeFsinfo(change(decodeFsinfo(read(0))));
    device.write(0, 1, encoded, 0);
    device.write(decodeFsinfo(encoded).reservedBlocks - 1, 1, encoded, 0);
  };
  /** Writes a changed block to a new place: the old one may be a snapshot's. The old place is reused as it is not. */
  const rewrite = (view: DataView, at: number, change: (block: Uint8Array) => void): void => {
    const block = read(blockPointer.get.vbn(view, at));
    change(block);
    device.write(blockPointer.get.vbn(view, at), 1, block, 0);
    blockPointer.set.checksum(view, at, checksum(block));
  };
  return {
    device,
    fsinfo,
    inode(ino, change): void {
      fsinfo((old) => {
        const pointers = old.inodeFile.pointers.slice();
        const index = Math.floor(ino / INODES_PER_BLOCK);
        const inBlock = (block: Uint8Array): void =>
          change(new DataView(block.buffer), (ino % INODES_PER_BLOCK) * INODE_BYTES);
        if (old.inodeFile.height === 0) rewrite(new DataView(pointers.buffer), index * 8, inBlock);
        else
          rewrite(new DataView(pointers.buffer), 0, (block) => rewrite(new DataView(block.buffer), index * 8, inBlock));
        return { ...old, inodeFile: { ...old.inodeFile, pointers } };
      });
    },
  };
}

function firstPointer(device: BlockDevice, vbn: number): number {
  const block = new Uint8Array(BLOCK_BYTES);
  device.read(vbn, 1, block, 0);
  return blockPointer.get.vbn(new DataView(block.buffer), 0);
}

/** A volume without snapshots, so that its blocks may be edited in place: /dir/file, /other of one block, /empty. */
function plain(): Editing & {
  readonly dir: number;
  readonly file: number;
  readonly other: number;
  readonly empty: number;
} {
  const device = memoryDevice(BLOCKS);
  const volume = newVolume(device);
  const dir = make(volume, ROOT_INO, "dir", 0o040755).ino;
  const file = make(volume, dir, "file", 0o100644, noise(100_000, 1)).ino;
  const other = make(volume, ROOT_INO, "other", 0o100644, noise(3000, 2)).ino;
  const empty = make(volume, ROOT_INO, "empty", 0o100644).ino;
  volume.takeCp("sync");
  assert.deepEqual(checkVolume(device).findings, []);
  return { ...edit(device), dir, file, other, empty };
}

const { set, offset } = inodeRecord;
const rootAt = offset.root;
type Sample = ReturnType<typeof plain>;
const damages: readonly (readonly [string, FindingKind, RegExp, (sample: Sample) => void])[] = [
  [
    "a wrong link count",
    "links",
    /link count 2, 1 is right/,
    (v) => v.inode(v.file, (view, at) => set.linkCount(view, at, 2)),
  ],
  [
    "an inode that lost its name",
    "orphan",
    /not in the orphan file/,
    (v) => v.inode(v.empty, (view, at) => set.linkCount(view, at, 0)),
  ],
  ["a wrong parent", "links", /its parent is 3, it is 1/, (v) => v.inode(v.dir, (view, at) => set.parent(view, at, 3))],
  [
    "a wrong count of entries",
    "directory",
    /says it has 7 entries, it has 1/,
    (v) => v.inode(v.dir, (view, at) => set.entryCount(view, at, 7)),
  ],
  [
    "a wrong count of blocks",
    "inode",
    /says it has 3 blocks/,
    (v) => v.inode(v.file, (view, at) => set.blockCount(view, at, 3)),
  ],
  ["an impossible mode", "inode", /has mode 0/, (v) => v.inode(v.empty, (view, at) => set.mode(view, at, 0o030644))],
  [
    "another type than the entry says",
    "directory",
    /is of type 1/,
    (v) => v.inode(v.empty, (view, at) => set.mode(view, at, 0o010644)),
  ],
  [
    "an impossible height",
    "inode",
    /height 9/,
    (v) => v.inode(v.file, (view, at) => view.setUint8(at + rootAt + 8, 9)),
  ],
  [
    "a file cut short of its blocks",
    "pointer",
    /beyond its end/,
    (v) => v.inode(v.file, (view, at) => view.setUint32(at + rootAt, 4096, true)),
  ],
  [
    "bytes beyond the end",
    "inode",
    /bytes beyond its end/,
    (v) => v.inode(v.other, (view, at) => view.setUint32(at + rootAt, 2000, true)),
  ],
  [
    "a pointer into the reserved area",
    "pointer",
    /in the reserved area/,
    (v) => v.inode(v.other, (view, at) => view.setUint32(at + rootAt + 16, 5, true)),
  ],
  [
    "a pointer out of the volume",
    "pointer",
    /outside of the volume/,
    (v) => v.inode(v.other, (view, at) => view.setUint32(at + rootAt + 16, BLOCKS, true)),
  ],
  [
    "a block shared by two files",
    "pointer",
    /referred to twice/,
    (v) =>
      v.inode(v.empty, (view, at) => {
        v.inode(v.other, (theirs, there) => {
          for (let i = 0; i < 256 - 128; i++) view.setUint8(at + 128 + i, theirs.getUint8(there + 128 + i));
        });
      }),
  ],
  [
    "a time with too many nanoseconds",
    "inode",
    /1000000000 nanoseconds/,
    (v) => v.inode(v.file, (view, at) => view.setUint32(at + offset.mtime + 8, 1e9, true)),
  ],
  [
    "a generation that is yet to be given",
    "inode",
    /generation 77777, which is yet to be given/,
    (v) => v.inode(v.file, (view, at) => set.generation(view, at, 77777)),
  ],
  [
    "a file without a generation",
    "inode",
    /has generation 0/,
    (v) => v.inode(v.file, (view, at) => set.generation(view, at, 0)),
  ],
  [
    "an inode map that ends within a block",
    "inode-map",
    /has 255 bytes, no whole number of blocks/,
    (v) => v.inode(3, (view, at) => view.setUint32(at + rootAt, 255, true)),
  ],
  ["unknown flags", "inode", /unknown flags/, (v) => v.inode(v.file, (view, at) => set.flags(view, at, 64))],
  [
    "attributes in an inode that has none",
    "xattr",
    /directories name it/,
    (v) => v.inode(v.file, (view, at) => set.xattrIno(view, at, v.empty)),
  ],
  [
    "attributes in an inode that cannot be",
    "xattr",
    /which cannot be/,
    (v) => v.inode(v.file, (view, at) => set.xattrIno(view, at, 1e9)),
  ],
  ["a slot of the orphan file", "orphan", /slot 4/, (v) => v.inode(v.file, (view, at) => set.orphanSlot(view, at, 5))],
  [
    "an inode that is named and free",
    "directory",
    /is free, and directories name it 1 times/,
    (v) => v.inode(v.empty, (view, at) => new Uint8Array(view.buffer, at, INODE_BYTES).fill(0)),
  ],
  [
    "a missing active map",
    "inode",
    /the active map, is missing/,
    (v) => v.inode(ACTIVE_MAP_INO, (view, at) => new Uint8Array(view.buffer, at, INODE_BYTES).fill(0)),
  ],
  ["wrong used blocks", "counter", /used/, (v) => v.fsinfo((old) => ({ ...old, usedBlocks: old.usedBlocks + 1 }))],
  [
    "wrong active blocks",
    "counter",
    /blocks are said/,
    (v) => v.fsinfo((old) => ({ ...old, activeBlocks: old.activeBlocks + 1 })),
  ],
  [
    "wrong used inodes",
    "counter",
    /inodes are said/,
    (v) => v.fsinfo((old) => ({ ...old, usedInodes: old.usedInodes + 1 })),
  ],
  ["a role that does not exist", "fsinfo", /role 9/, (v) => v.fsinfo((old) => ({ ...old, role: 9 }))],
  [
    "a snapshot table of nonsense",
    "snapshot-table",
    /cannot be read/,
    (v) => v.fsinfo((old) => ({ ...old, snapshotTable: { ...old.inodeFile } })),
  ],
];

for (const [name, kind, pattern, damage] of damages) {
  test(`the check finds ${name}`, () => {
    const sampleVolume = plain();
    damage(sampleVolume);
    const { findings } = checkVolume(sampleVolume.device);
    assert(
      findings.some((finding) => finding.kind === kind && pattern.test(finding.message)),
      `expected ${kind} ${String(pattern)}, found:\n${findings.map((finding) => `${finding.kind}: ${finding.message}`).join("\n")}`,
    );
  });
}

test("a file tree that loops back into itself ends the check with a finding, not in a circle", () => {
  // With a checksum that anybody can forge, a block may refer to any other. Four levels of 512 pointers to one block
  // would be 2^40 visits.
  const v = plain();
  v.inode(v.file, (view, at) => {
    const indirect = blockPointer.get.vbn(view, at + rootAt + 16);
    view.setUint8(at + rootAt + 8, 4);
    const block = new Uint8Array(BLOCK_BYTES);
    for (let i = 0; i < 512; i++) blockPointer.set.vbn(new DataView(block.buffer), i * 8, indirect);
    v.device.write(indirect, 1, block, 0);
    blockPointer.set.checksum(view, at + rootAt + 16, checksum(block));
  });
  assert(kindsOf(v.device).includes("pointer"));
});

test("a leaked and a lost block are told apart", () => {
  const v = plain();
  const read = (vbn: number): Uint8Array => {
    const block = new Uint8Array(BLOCK_BYTES);
    v.device.read(vbn, 1, block, 0);
    return block;
  };
  v.inode(ACTIVE_MAP_INO, (view, at) => {
    const vbn = blockPointer.get.vbn(view, at + rootAt + 16);
    const block = read(vbn);
    const words = new Uint32Array(block.buffer);
    words[127] = 0xffff_ffff;
    words[200] = 0b111;
    v.device.write(vbn, 1, block, 0);
    blockPointer.set.checksum(view, at + rootAt + 16, checksum(block));
  });
  const [finding] = checkVolume(v.device).findings;
  assert.equal(finding?.kind, "block-map");
  assert.match(finding.message, /35 blocks that nothing refers to, and not 0 that are/);
});

test("progress is told as it goes, and ends at what was read", () => {
  const { device } = sample(memoryDevice(16384));
  const seen: number[] = [];
  const volume = openVolume({ device, clock: manualClock(), random: prng(3), writable: true });
  make(volume, ROOT_INO, "huge", 0o100644, noise(20_000_000, 9));
  volume.takeCp("sync");
  const { blocksRead } = checkVolume(device, {
    onProgress: ({ blocksDone, blocksTotal }) => {
      assert(blocksDone <= blocksTotal);
      seen.push(blocksDone);
    },
  });
  assert(seen.length >= 3);
  assert(seen.every((done, i) => done > (seen[i - 1] ?? 0)));
  assert((seen.at(-1) as number) <= blocksRead);
});

test("file data is read in the order in which it lies, whatever the order in the files", () => {
  const device = memoryDevice(BLOCKS);
  const volume = newVolume(device);
  const file = make(volume, ROOT_INO, "file", 0o100644, noise(256 * BLOCK_BYTES, 1));
  volume.takeCp("sync");
  for (let i = 0; i < 64; i++) {
    volume.active.store.beginOperation();
    volume.active.reserve(40, "write");
    writeFile(volume.active, file, ((i * 151) % 256) * BLOCK_BYTES, noise(BLOCK_BYTES, i), 0, BLOCK_BYTES);
    volume.takeCp("sync"); // metadata lies between any two of them
  }
  const runs: number[] = [];
  const watching: BlockDevice = {
    ...device,
    read(vbn, count, into, at): void {
      if (count > 1) runs.push(vbn);
      device.read(vbn, count, into, at);
    },
  };
  assert.deepEqual(checkVolume(watching).findings, []);
  assert.deepEqual(
    runs,
    runs.toSorted((a, b) => a - b),
  );
  assert(runs.length < 64, `${runs.length} reads of more than one block`);
});
