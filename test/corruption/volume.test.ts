// A volume may hold anything. Rot, which its checksums find: what is read is right, or an error. And malice, with right
// checksums over wrong contents: whatever is said there, opening, reading, changing and checking end soon, with an answer
// or one of our errors, never with an assertion, a TypeError or without end.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { checksum } from "../../src/core/checksum.ts";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError, FsError, UserError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { blockPointer } from "../../src/format/block-pointer.ts";
import { INODE_BYTES, INODES_PER_BLOCK, POINTERS_PER_BLOCK, ROOT_POINTERS } from "../../src/format/constants.ts";
import { decodeFsinfo, encodeFsinfo, fsinfoRecord } from "../../src/format/fsinfo.ts";
import { fileRoot, INODE_INLINE, inodeRecord } from "../../src/format/inode.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { type FileSystem, type NodeId, ROOT_NODE } from "../../src/fs/file-system.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { applyToReal, asName, list, makeBench, type Slots } from "../support/fs-paths.ts";
import type { Operation } from "../support/model-fs.ts";

const BLOCKS = 1024;
const ROTTEN = 300;
const FORGED = 400;
/** Entries that a walk over a forged volume looks at: directories may contain themselves. */
const VISITS_MAX = 500;

function sample({ snapshots }: { readonly snapshots: boolean }): MemoryDevice {
  const device = memoryDevice(BLOCKS);
  const { fs, volume } = makeBench(BLOCKS, device);
  const slots: Slots = new Map();
  const does = (op: Operation): void => assert.equal(applyToReal(fs, slots, op), "");
  does({ kind: "mkdir", path: "/d", mode: 0o755, uid: 0 });
  for (let i = 0; i < 200; i++) does({ kind: "create", path: `/d/a file with number ${i}`, mode: 0o644, uid: 0 });
  for (let i = 0; i < 20; i++)
    does({ kind: "write", path: `/d/a file with number ${i}`, offset: 0, data: new Uint8Array(i * 500).fill(i) });
  if (snapshots) {
    volume.createSnapshot("one");
    volume.takeCp("snapshot");
  }
  does({ kind: "create", path: "/large", mode: 0o644, uid: 0 });
  does({ kind: "write", path: "/large", offset: 0, data: new Uint8Array(200_000).fill(3) });
  does({ kind: "symlink", path: "/link", target: "x".repeat(500) });
  does({ kind: "setxattr", path: "/large", name: "user.note", value: "v".repeat(3000), flags: 0 });
  does({ kind: "tmpfile", path: "/", slot: 1, excl: true });
  does({ kind: "writeSlot", slot: 1, offset: 0, data: new Uint8Array(100_000).fill(9) });
  volume.takeCp("sync");
  return device;
}

/** Ours: an answer to an application, what is damaged, or a refusal. */
function isOurs(error: unknown): boolean {
  return error instanceof FsError || error instanceof CorruptionError || error instanceof UserError;
}

function tolerate<T>(what: string, run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (isOurs(error)) return undefined;
    throw new Error(`${what}: an error that is not ours`, { cause: error });
  }
}

/** Reads all that can be reached, and hands it on. */
function explore(fs: FileSystem, what: string, visit: (path: string, content: Uint8Array) => void): void {
  let visits = 0;
  const into = new Uint8Array(1 << 20);
  const walk = (node: NodeId, path: string): void => {
    for (const { name, type } of tolerate(what, () => list(fs, node, 100)) ?? []) {
      if (++visits > VISITS_MAX) return;
      const entry = tolerate(what, () => fs.lookup(node, asName(name)));
      if (entry === undefined) continue;
      const child = `${path}/${name}`;
      tolerate(what, () => fs.getXattr(entry.nodeId, asName("user.note")));
      if (type === 4) walk(entry.nodeId, child);
      else if (type === 10) tolerate(what, () => visit(child, fs.readLink(entry.nodeId)));
      else {
        const opened = tolerate(what, () => fs.open(entry.nodeId, 0));
        if (opened === undefined) continue;
        const count = tolerate(what, () => fs.read(opened.handle, 0, into.length, into, 0));
        if (count !== undefined) visit(child, into.subarray(0, count));
        fs.release(opened.handle);
      }
    }
  };
  walk(ROOT_NODE, "");
}

test("a volume with flipped bytes gives right data or an error, and the check finds what is in use", () => {
  const device = sample({ snapshots: true });
  const contents = new Map<string, Buffer>();
  const good = openFileSystem({
    volume: openVolume({ device, clock: manualClock(), random: prng(1), writable: false }),
    clock: manualClock(),
  });
  explore(good, "good", (path, content) => contents.set(path, Buffer.from(content)));
  const random = prng(5);
  for (let i = 0; i < ROTTEN; i++) {
    const damaged = device.clone();
    const at = below(random, 400 * BLOCK_BYTES);
    damaged.corrupt(at, 1 + below(random, 255));
    const what = `byte ${at}`;
    const { findings } = checkVolume(damaged);
    const volume = tolerate(what, () =>
      openVolume({ device: damaged, clock: manualClock(), random: prng(1), writable: false }),
    );
    if (volume === undefined) {
      assert.notDeepEqual(findings, [], `${what}: cannot be opened, and no finding`);
      continue;
    }
    let seen = 0;
    explore(openFileSystem({ volume, clock: manualClock() }), what, (path, content) => {
      seen += 1;
      assert.equal(Buffer.compare(content, contents.get(path) as Buffer), 0, `${what}: wrong data in ${path}`);
    });
    if (findings.length === 0) assert.equal(seen, contents.size, `${what}: unreadable, and no finding`);
  }
});

/** Where each block of metadata is pointed at from: a byte on the device, in a block or in fsinfo. */
function parentsOf(device: MemoryDevice): Map<number, number> {
  const parents = new Map<number, number>();
  const block = (vbn: number): DataView => {
    const bytes = new Uint8Array(BLOCK_BYTES);
    device.read(vbn, 1, bytes, 0);
    return new DataView(bytes.buffer);
  };
  const walk = (
    view: DataView,
    at: number,
    base: number,
    level: number,
    count: number,
    leaf: (vbn: number) => void,
  ): void => {
    for (let i = 0; i < count; i++) {
      const vbn = blockPointer.get.vbn(view, at + i * blockPointer.size);
      if (vbn === 0) continue;
      parents.set(vbn, base + at + i * blockPointer.size);
      if (level > 0) walk(block(vbn), 0, vbn * BLOCK_BYTES, level - 1, POINTERS_PER_BLOCK, leaf);
      else leaf(vbn);
    }
  };
  const tree = (view: DataView, at: number, base: number, leaf: (vbn: number) => void): void =>
    walk(view, at + fileRoot.offset.pointers, base, fileRoot.get.height(view, at), ROOT_POINTERS, leaf);
  tree(block(0), fsinfoRecord.offset.inodeFile, 0, (vbn) => {
    const inodes = block(vbn);
    for (let slot = 0; slot < INODES_PER_BLOCK; slot++) {
      const at = slot * INODE_BYTES;
      if (inodeRecord.get.mode(inodes, at) === 0 || (inodeRecord.get.flags(inodes, at) & INODE_INLINE) !== 0) continue;
      const isMetadata = inodeRecord.get.mode(inodes, at) >>> 12 === 4 || inodeRecord.get.generation(inodes, at) === 0;
      tree(inodes, at + inodeRecord.offset.root, vbn * BLOCK_BYTES, (data) => {
        if (!isMetadata) parents.delete(data); // any contents of a file are right
      });
    }
  });
  return parents;
}

/** Sums a changed block and all above it again, as an attacker would. */
function forge(device: MemoryDevice, parents: ReadonlyMap<number, number>, changed: number): void {
  const bytes = new Uint8Array(BLOCK_BYTES);
  for (let vbn = changed; ; ) {
    device.read(vbn, 1, bytes, 0);
    const sum = checksum(bytes);
    const at = parents.get(vbn) as number;
    const parent = Math.floor(at / BLOCK_BYTES);
    device.read(parent, 1, bytes, 0);
    blockPointer.set.checksum(new DataView(bytes.buffer), at % BLOCK_BYTES, sum);
    if (parent === 0) {
      // Fsinfo: its own checksum, and both copies.
      fsinfoRecord.set.checksum(new DataView(bytes.buffer), 0, checksum(bytes.subarray(0, BLOCK_BYTES - 4)));
      device.write(0, 1, encodeFsinfo(decodeFsinfo(bytes)), 0);
      device.write(decodeFsinfo(bytes).reservedBlocks - 1, 1, encodeFsinfo(decodeFsinfo(bytes)), 0);
      return;
    }
    device.write(parent, 1, bytes, 0);
    vbn = parent;
  }
}

/** Changes some bytes of a block to others that are likely to hurt. */
function spoil(random: Random, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer);
  for (let n = 1 + below(random, 4); n > 0; n--) {
    // Where something is written, mostly: zeros are holes and free records.
    let at = below(random, BLOCK_BYTES - 8);
    for (let tries = 0; tries < 50 && bytes[at] === 0; tries++) at = below(random, BLOCK_BYTES - 8);
    switch (below(random, 5)) {
      case 0:
        bytes[at] = below(random, 256);
        break;
      case 1:
        view.setUint32(at & ~3, random.u32(), true);
        break;
      case 2:
        view.setUint32(at & ~3, 0xffff_ffff, true);
        break;
      case 3:
        view.setUint32(at & ~3, below(random, BLOCKS), true);
        break;
      default:
        bytes.copyWithin(at, below(random, BLOCK_BYTES - 64), below(random, BLOCK_BYTES));
    }
  }
}

/** Changes of all kinds, as far as they are possible. */
function change(fs: FileSystem, volume: Volume, what: string): void {
  const slots: Slots = new Map();
  const operations: readonly Operation[] = [
    { kind: "create", path: "/new", mode: 0o644, uid: 0 },
    { kind: "write", path: "/new", offset: 0, data: new Uint8Array(100_000).fill(1) },
    { kind: "write", path: "/large", offset: 70_000, data: new Uint8Array(100).fill(1) },
    { kind: "rename", path: "/d/a file with number 7", into: "/d/a file with number 8", flags: 0 },
    { kind: "setxattr", path: "/large", name: "user.more", value: "w".repeat(200), flags: 0 },
    { kind: "unlink", path: "/d/a file with number 9" },
    { kind: "truncate", path: "/large", sizeBytes: 10_000 },
    { kind: "unlink", path: "/large" },
  ];
  for (const op of operations) tolerate(what, () => applyToReal(fs, slots, op));
  tolerate(what, () => volume.createSnapshot("new"));
  tolerate(what, () => {
    if (volume.failure === undefined) volume.takeCp("sync");
  });
}

test("a volume with forged contents and right checksums is answered with our errors, soon", () => {
  const device = sample({ snapshots: false });
  const parents = parentsOf(device);
  const vbns = [...parents.keys()];
  let found = 0;
  for (let seed = 0; seed < FORGED; seed++) {
    const random = prng(seed);
    const damaged = device.clone();
    const what = `seed ${seed}`;
    for (let n = 1 + below(random, 2); n > 0; n--) {
      const vbn = vbns[below(random, vbns.length)] as number;
      const bytes = new Uint8Array(BLOCK_BYTES);
      damaged.read(vbn, 1, bytes, 0);
      spoil(random, bytes);
      damaged.write(vbn, 1, bytes, 0);
      forge(damaged, parents, vbn);
    }
    const report = tolerate(what, () => checkVolume(damaged));
    if (report === undefined || report.findings.length > 0) found += 1;
    const volume = tolerate(what, () =>
      openVolume({ device: damaged, clock: manualClock(), random: prng(1), writable: true }),
    );
    if (volume === undefined) continue;
    const fs = tolerate(what, () => openFileSystem({ volume, clock: manualClock() }));
    if (fs === undefined) continue;
    explore(fs, what, () => {});
    change(fs, volume, what);
  }
  assert(found > FORGED / 2, `${found} of ${FORGED} were noticed`);
});
