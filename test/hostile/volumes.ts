/**
 * Hostile volumes: a good one in which some fields, pointers or blocks were changed, with right checksums over all of it.
 *
 * Whatever a volume says, opening, checking, reading, changing, sending and diffing it end soon, with an answer or one of our
 * errors; and one in which the check finds nothing is still consistent after it was changed.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { blockPointer } from "../../src/format/block-pointer.ts";
import { INODE_BYTES, INODES_PER_BLOCK } from "../../src/format/constants.ts";
import { childRecord, entryHead, NODE_LEAF, nodeHeader, slotOffset } from "../../src/format/directory-node.ts";
import { fsinfoRecord } from "../../src/format/fsinfo.ts";
import { fileRoot, inodeRecord } from "../../src/format/inode.ts";
import { SNAPSHOTS_PER_BLOCK, snapshotRecord } from "../../src/format/snapshot-record.ts";
import type { LayoutRow } from "../../src/format/struct.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { type FileSystem, type NodeId, ROOT_NODE } from "../../src/fs/file-system.ts";
import { openSender, planImage } from "../../src/image/send.ts";
import { differencesBetween } from "../../src/tree/state-difference.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import { repairCopies } from "../../src/volume/repair.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { applyToReal, asName, list, makeBench, type Slots } from "../support/fs-paths.ts";
import type { Operation } from "../support/model-fs.ts";
import { tolerate } from "./judge.ts";
import { mutateField, mutateNumber } from "./mutate.ts";
import { type BlockKind, forge, mapVolume, type VolumeMap } from "./volume-map.ts";

const BLOCKS = 2048;
const MUTATIONS_MAX = 3;
/** Blocks that one step may read or write: many times what it needs on a volume of this size. */
const STEP_BLOCKS_MAX = 60_000;
/** Entries that a walk over a hostile volume looks at: directories may contain themselves. */
const VISITS_MAX = 300;

export interface Sample {
  readonly device: MemoryDevice;
  readonly map: VolumeMap;
  readonly byKind: ReadonlyMap<BlockKind, readonly number[]>;
}

/** Every kind of structure, in an active filesystem and two snapshots. */
export function sampleVolume(): Sample {
  const device = memoryDevice(BLOCKS);
  const { fs, volume } = makeBench(BLOCKS, device);
  const slots: Slots = new Map();
  const does = (op: Operation): void => assert.equal(applyToReal(fs, slots, op), "");
  does({ kind: "mkdir", path: "/d", mode: 0o755, uid: 0 });
  does({ kind: "mkdir", path: "/d/e", mode: 0o755, uid: 0 });
  for (let i = 0; i < 200; i++) does({ kind: "create", path: `/d/a file with number ${i}`, mode: 0o644, uid: 0 });
  for (let i = 0; i < 20; i++)
    does({ kind: "write", path: `/d/a file with number ${i}`, offset: 0, data: new Uint8Array(i * 500).fill(i) });
  does({ kind: "create", path: "/large", mode: 0o644, uid: 0 });
  does({ kind: "write", path: "/large", offset: 0, data: new Uint8Array(300_000).fill(3) });
  volume.createSnapshot("one");
  volume.takeCp("snapshot");
  does({ kind: "unlink", path: "/d/a file with number 3" });
  does({ kind: "write", path: "/large", offset: 50_000, data: new Uint8Array(50_000).fill(4) });
  does({ kind: "setxattr", path: "/large", name: "user.note", value: "v".repeat(9000), flags: 0 });
  does({ kind: "symlink", path: "/link", target: "x".repeat(500) });
  volume.createSnapshot("two");
  volume.takeCp("snapshot");
  does({ kind: "link", path: "/large", into: "/d/e/linked" });
  does({ kind: "tmpfile", path: "/", slot: 1, excl: true });
  does({ kind: "writeSlot", slot: 1, offset: 0, data: new Uint8Array(100_000).fill(9) });
  volume.takeCp("sync");
  const map = mapVolume(device);
  const byKind = new Map<BlockKind, number[]>();
  for (const [vbn, kind] of map.kinds) byKind.set(kind, [...(byKind.get(kind) ?? []), vbn]);
  return { device, map, byKind };
}

export function hostileVolume(random: Random, { device, map, byKind }: Sample): MemoryDevice {
  const damaged = device.clone();
  const kinds = [...byKind.keys()];
  for (let n = 1 + below(random, MUTATIONS_MAX); n > 0; n--) {
    const kind = kinds[below(random, kinds.length)] as BlockKind;
    const vbns = byKind.get(kind) ?? [];
    const vbn = vbns[below(random, vbns.length)] as number;
    const bytes = new Uint8Array(BLOCK_BYTES);
    damaged.read(vbn, 1, bytes, 0);
    mutateBlock(random, kind, bytes, map, damaged);
    forge(damaged, map, vbn, bytes);
  }
  return damaged;
}

function mutateBlock(random: Random, kind: BlockKind, bytes: Uint8Array, map: VolumeMap, device: BlockDevice): void {
  const view = new DataView(bytes.buffer);
  const vbns = [...map.kinds.keys()];
  if (below(random, 12) === 0) {
    // Another block in its place: of another kind, or of another time.
    device.read(vbns[below(random, vbns.length)] as number, 1, bytes, 0);
    return;
  }
  switch (kind) {
    case "fsinfo":
      mutateRecord(random, view, 0, fsinfoRecord.layout, vbns);
      break;
    case "snapshots":
      mutateRecord(random, view, usedRecord(random, view), snapshotRecord.layout, vbns);
      break;
    case "inodes":
      mutateInode(random, view, vbns);
      break;
    case "indirect":
      mutatePointer(random, view, filledPointer(random, view), vbns);
      break;
    case "directory":
      mutateNode(random, view);
      break;
    case "active-map":
    case "inode-map":
      mutateNumber(random, view, 4 * below(random, 1 + below(random, 64)), 4, []);
      break;
    case "orphans":
      mutateNumber(random, view, 4 * below(random, 8), 4, [1, 2, 3, 4, 16, 17, 18, 200]);
      break;
    case "attributes":
      mutateNumber(random, view, below(random, 32), 1 + 3 * below(random, 2), []);
      break;
    case "data":
      bytes.fill(below(random, 256));
  }
}

/** A field; where it is the root of a tree, a field or pointer of that. */
function mutateRecord(
  random: Random,
  view: DataView,
  at: number,
  rows: readonly LayoutRow[],
  vbns: readonly number[],
): void {
  const row = rows[below(random, rows.length - 1)] as LayoutRow; // not the checksum
  if (row.kind === "file root") mutateRoot(random, view, at + row.offset, vbns);
  else mutateField(random, view, at, row, vbns);
}

function mutateRoot(random: Random, view: DataView, at: number, vbns: readonly number[]): void {
  if (below(random, 2) === 0) {
    const rows = fileRoot.layout;
    mutateField(random, view, at, rows[below(random, rows.length - 1)] as LayoutRow, []);
  } else mutatePointer(random, view, at + fileRoot.offset.pointers + blockPointer.size * below(random, 16), vbns);
}

/** Another pointer of the volume, whole or in part: cycles, blocks of two fathers, structures that overlap. */
function mutatePointer(random: Random, view: DataView, at: number, vbns: readonly number[]): void {
  if (below(random, 3) === 0) {
    const from = blockPointer.size * below(random, BLOCK_BYTES / blockPointer.size);
    blockPointer.encode(view, at, blockPointer.decode(view, from));
  } else mutateNumber(random, view, at, 4, vbns);
}

function filledPointer(random: Random, view: DataView): number {
  let at = 0;
  for (let tries = 0; tries < 20; tries++) {
    at = blockPointer.size * below(random, BLOCK_BYTES / blockPointer.size);
    if (blockPointer.get.vbn(view, at) !== 0) break;
  }
  return at;
}

function usedRecord(random: Random, view: DataView): number {
  let at = 0;
  for (let tries = 0; tries < 20; tries++) {
    at = snapshotRecord.size * below(random, SNAPSHOTS_PER_BLOCK);
    if (snapshotRecord.get.id(view, at) !== 0) break;
  }
  return at;
}

function mutateInode(random: Random, view: DataView, vbns: readonly number[]): void {
  let at = 0;
  for (let tries = 0; tries < 20; tries++) {
    at = INODE_BYTES * below(random, INODES_PER_BLOCK);
    if (inodeRecord.get.mode(view, at) !== 0) break;
  }
  if (below(random, 2) === 0) mutateRoot(random, view, at + inodeRecord.offset.root, vbns);
  else if (below(random, 8) === 0) {
    // A second inode with the contents of another.
    new Uint8Array(view.buffer, at, INODE_BYTES).set(
      new Uint8Array(view.buffer, INODE_BYTES * below(random, INODES_PER_BLOCK), INODE_BYTES),
    );
  } else mutateRecord(random, view, at, inodeRecord.layout, [1, 2, 3, 4, 16, 17, 18, 40, 217, 218]);
}

function mutateNode(random: Random, view: DataView): void {
  const rows = nodeHeader.layout;
  if (below(random, 3) === 0) {
    mutateField(random, view, 0, rows[below(random, rows.length)] as LayoutRow, [0, 1, 2, 3]);
    return;
  }
  const count = Math.min(300, nodeHeader.get.count(view, 0));
  const index = below(random, Math.max(1, count));
  if (nodeHeader.get.kind(view, 0) !== NODE_LEAF) {
    const child = childRecord.layout;
    mutateField(
      random,
      view,
      nodeHeader.size + index * childRecord.size,
      child[below(random, child.length)] as LayoutRow,
      [0, 1, 2, 3],
    );
    return;
  }
  const slot = slotOffset(index);
  if (below(random, 4) === 0) mutateNumber(random, view, slot, 2, [16, 4000, 4082, 4095]);
  else {
    const at = Math.min(view.getUint16(slot, true), BLOCK_BYTES - entryHead.size - 8);
    const entry = entryHead.layout;
    if (below(random, 4) === 0) mutateNumber(random, view, at + entryHead.size, 1, [0, 0x2e, 0x2f]);
    else mutateField(random, view, at, entry[below(random, entry.length)] as LayoutRow, [1, 2, 3, 4, 16, 17, 18, 217]);
  }
}

/** Everything that is done with volumes, with this one. */
export function exerciseVolume(device: MemoryDevice): void {
  const metered = meter(device.clone());
  const step = <T>(what: string, run: () => T): T | undefined => tolerate(what, () => metered.step(run));
  const report = step("check", () => checkVolume(metered.device));
  step("repair", () => repairCopies(meter(device.clone()).device));
  readEverything(metered.device, step);
  changeEverything(metered.device, step);
  if (report !== undefined && report.findings.length === 0) {
    assert.deepEqual(checkVolume(metered.device).findings, [], "a volume without findings is consistent after changes");
  } else step("check again", () => checkVolume(metered.device));
}

type Step = <T>(what: string, run: () => T) => T | undefined;

function readEverything(device: BlockDevice, step: Step): void {
  const volume = step("open", () => openVolume({ device, clock: manualClock(), random: prng(1), writable: false }));
  if (volume === undefined) return;
  const fs = step("open filesystem", () => openFileSystem({ volume, clock: manualClock() }));
  if (fs === undefined) return;
  explore(fs, step);
  for (const record of volume.snapshots().slice(0, 3)) {
    step("diff", () => differencesBetween(volume.openSnapshot(record), volume.active));
    step("send", () => {
      const sender = openSender(device, planImage(volume, { tops: [record], base: undefined }));
      for (let frame = sender.next(); frame !== undefined; frame = sender.next());
    });
  }
}

/** Reads all that can be reached. */
function explore(fs: FileSystem, step: Step): void {
  let visits = 0;
  const into = new Uint8Array(1 << 20);
  const walk = (node: NodeId): void => {
    step("status", () => fs.status());
    for (const { name, type } of step("list", () => list(fs, node, 100)) ?? []) {
      if (++visits > VISITS_MAX) return;
      const entry = step("lookup", () => fs.lookup(node, asName(name)));
      if (entry === undefined) continue;
      step("xattrs", () => fs.listXattrs(entry.nodeId));
      step("xattr", () => fs.getXattr(entry.nodeId, asName("user.note")));
      if (type === 4) walk(entry.nodeId);
      else if (type === 10) step("readlink", () => fs.readLink(entry.nodeId));
      else readFile(fs, entry.nodeId, into, step);
    }
  };
  walk(ROOT_NODE);
  const snapshots = step("snapshots", () => fs.lookup(ROOT_NODE, asName(".snapshot")));
  if (snapshots !== undefined) walk(snapshots.nodeId);
}

function readFile(fs: FileSystem, node: NodeId, into: Uint8Array, step: Step): void {
  const opened = step("open file", () => fs.open(node, 0));
  if (opened === undefined) return;
  step("read", () => fs.read(opened.handle, 0, into.length, into, 0));
  step("read far", () => fs.read(opened.handle, 2 ** 41, into.length, into, 0));
  step("seek", () => fs.seek(opened.handle, 5000, 3));
  step("seek hole", () => fs.seek(opened.handle, 0, 4));
  fs.release(opened.handle);
}

const CHANGES: readonly Operation[] = [
  { kind: "create", path: "/new", mode: 0o644, uid: 0 },
  { kind: "write", path: "/new", offset: 0, data: new Uint8Array(100_000).fill(1) },
  { kind: "mkdir", path: "/d/new directory", mode: 0o755, uid: 0 },
  { kind: "write", path: "/large", offset: 70_000, data: new Uint8Array(100).fill(1) },
  { kind: "write", path: "/large", offset: 250_000, data: new Uint8Array(150_000).fill(2) },
  { kind: "rename", path: "/d/a file with number 7", into: "/d/a file with number 8", flags: 0 },
  { kind: "rename", path: "/d/e", into: "/moved", flags: 0 },
  { kind: "link", path: "/large", into: "/d/other" },
  { kind: "setxattr", path: "/large", name: "user.more", value: "w".repeat(200), flags: 0 },
  { kind: "unlink", path: "/d/a file with number 9" },
  { kind: "truncate", path: "/large", sizeBytes: 10_000 },
  { kind: "unlink", path: "/large" },
  { kind: "unlink", path: "/link" },
];

function changeEverything(device: BlockDevice, step: Step): void {
  const random = prng(1);
  const volume = step("open", () =>
    openVolume({ device, clock: manualClock(), random, writable: true, evenMirror: true }),
  );
  if (volume === undefined) return;
  const fs = step("open filesystem", () => openFileSystem({ volume, clock: manualClock() }));
  if (fs === undefined) return;
  const slots: Slots = new Map();
  for (const [i, op] of CHANGES.entries()) {
    step(op.kind, () => applyToReal(fs, slots, op));
    if (i === 5) takeCp(volume, step);
  }
  for (let i = 0; i < 20 && step("reclaim", () => fs.reclaimSlice()) === true; i++);
  takeCp(volume, step);
  step("snapshot", () => volume.createSnapshot("new"));
  takeCp(volume, step);
  step("reclaimable", () => volume.reclaimable(volume.snapshots().map(({ name }) => name)));
  step("delete", () => volume.deleteSnapshot("one"));
  takeCp(volume, step);
  step("restore", () => volume.restoreSnapshot("two"));
  takeCp(volume, step);
  step("status", () => volume.status());
}

function takeCp(volume: Volume, step: Step): void {
  if (volume.failure === undefined) step("cp", () => volume.takeCp("sync"));
}

/** A device that lets no step go on for ever. */
function meter(device: MemoryDevice): { readonly device: BlockDevice; step<T>(run: () => T): T } {
  let left = STEP_BLOCKS_MAX;
  const spend = (blocks: number): void => {
    left -= blocks;
    assert(left > 0, `one step reads and writes more than ${STEP_BLOCKS_MAX} blocks of a volume of ${BLOCKS}`);
  };
  return {
    device: {
      ...device,
      read(vbn, count, into, offset): void {
        spend(count);
        device.read(vbn, count, into, offset);
      },
      write(vbn, count, from, offset): void {
        spend(count);
        device.write(vbn, count, from, offset);
      },
      writeGather(vbn, buffers): void {
        spend(buffers.length);
        device.writeGather(vbn, buffers);
      },
    },
    step<T>(run: () => T): T {
      left = STEP_BLOCKS_MAX;
      return run();
    },
  };
}
