/** A volume with every kind of structure in it, where they lie, and all that can be read from it, piece by piece. */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { prng } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { POINTERS_PER_BLOCK, ROOT_POINTERS } from "../../src/format/constants.ts";
import { SNAPSHOTS_PER_BLOCK } from "../../src/format/snapshot-record.ts";
import { ACCESS_LIST } from "../../src/fs/access-list.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { type FileSystem, type NodeId, ROOT_NODE } from "../../src/fs/file-system.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { tolerate } from "../hostile/judge.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { applyToReal, asName, list, makeBench, nodeAt, type Slots } from "../support/fs-paths.ts";
import type { Operation } from "../support/model-fs.ts";

const BLOCKS = 4096;
export const SNAPSHOT = "old";
/** The table of so many has an indirect block. */
const TABLE_SNAPSHOTS = ROOT_POINTERS * SNAPSHOTS_PER_BLOCK + 1;
/** Blocks of /deep: a level more than a tree of height 3 has room for, so that it has all four levels of indirect blocks. */
export const DEEP_BLOCKS: readonly number[] = [0, 16 * POINTERS_PER_BLOCK ** 3 + 5];
/** Looked at in /deep: those, and a hole below an indirect block of each level. */
const DEEP_LOOKS: readonly number[] = [
  ...DEEP_BLOCKS,
  1,
  POINTERS_PER_BLOCK,
  POINTERS_PER_BLOCK ** 2,
  POINTERS_PER_BLOCK ** 3,
];

export interface Sample {
  readonly device: MemoryDevice;
  /** To be looked at only. */
  readonly volume: Volume;
  readonly contents: Contents;
}

/** What is read, piece by piece, by its name. */
export type Contents = ReadonlyMap<string, string>;

let sampled: Sample | undefined;

/** Made once: harm is done to clones. */
export function sample(): Sample {
  sampled ??= makeSample();
  return sampled;
}

function makeSample(): Sample {
  const device = memoryDevice(BLOCKS);
  const { fs, volume } = makeBench(BLOCKS, device);
  const slots: Slots = new Map();
  const does = (op: Operation): void => assert.equal(applyToReal(fs, slots, op), "", JSON.stringify(op).slice(0, 100));
  const file = (path: string, data: Uint8Array, offset = 0): void => {
    does({ kind: "create", path, mode: 0o644, uid: 0 });
    does({ kind: "write", path, offset, data });
  };
  does({ kind: "mkdir", path: "/d", mode: 0o755, uid: 0 });
  for (let i = 0; i < 600; i++) does({ kind: "create", path: `/d/a file with number ${i}`, mode: 0o644, uid: 0 });
  for (let i = 130; i < 600; i++) does({ kind: "unlink", path: `/d/a file with number ${i}` });
  for (let i = 0; i < 20; i++)
    does({ kind: "write", path: `/d/a file with number ${i}`, offset: 0, data: new Uint8Array(i * 500).fill(i + 1) });
  file("/kept", new Uint8Array(20_000).fill(0x6b));
  volume.createSnapshot(SNAPSHOT);
  for (let i = 0; i < TABLE_SNAPSHOTS; i++) volume.createSnapshot(`snapshot ${i}`);
  volume.takeCp("snapshot");
  does({ kind: "unlink", path: "/kept" });
  file(
    "/large",
    Uint8Array.from({ length: 300_000 }, (_, i) => i % 251),
  );
  file("/inline", new TextEncoder().encode("the contents of a small file"));
  file("/deep", new Uint8Array(BLOCK_BYTES).fill(1));
  does({
    kind: "write",
    path: "/deep",
    offset: (DEEP_BLOCKS[1] as number) * BLOCK_BYTES,
    data: new Uint8Array(4096).fill(2),
  });
  does({ kind: "symlink", path: "/short", target: "a short target" });
  does({ kind: "symlink", path: "/long", target: "a long target ".repeat(100) });
  does({ kind: "setxattr", path: "/large", name: "user.note", value: "v".repeat(9000), flags: 0 });
  does({ kind: "setxattr", path: "/inline", name: "user.note", value: "a short note", flags: 0 });
  does({ kind: "setAccess", path: "/inline", of: "access", user: 7777, permissions: 0o64_440 });
  does({ kind: "tmpfile", path: "/", slot: 1, excl: true });
  does({ kind: "writeSlot", slot: 1, offset: 0, data: new Uint8Array(100_000).fill(9) });
  volume.takeCp("sync");
  volume.takeCp("sync"); // what the last one freed is not in any state
  return { device, volume: openForReading(device), contents: contentsOf(device) };
}

export function contentsOf(device: BlockDevice): Contents {
  const contents = new Map<string, string>();
  readVolume(device, (piece, value) => contents.set(piece, value));
  return contents;
}

function openForReading(device: BlockDevice): Volume {
  return openVolume({ device, clock: manualClock(), random: prng(1), writable: false });
}

type Visit = (what: string, value: string) => void;

/** Reads names, attributes, files, links, snapshots as a user does. What is answered with an error of ours is passed over. */
function readVolume(device: BlockDevice, visit: Visit): void {
  tolerate("volume", () => {
    const volume = openForReading(device);
    visit("snapshots", JSON.stringify(volume.snapshots().map(({ name, id }) => [name, id])));
    const fs = openFileSystem({ volume, clock: manualClock() });
    tolerate("root", () => readDirectory(fs, ROOT_NODE, "", visit));
    tolerate("snapshot", () =>
      readDirectory(fs, nodeAt(fs, `/.snapshot/${SNAPSHOT}`), `/.snapshot/${SNAPSHOT}`, visit),
    );
  });
}

function readDirectory(fs: FileSystem, node: NodeId, path: string, visit: Visit): void {
  const listed = list(fs, node, 100);
  const names = listed.map(({ name, type }) => `${name} ${type}`);
  visit(`names in ${path}`, names.toSorted().join());
  for (const { name, type } of listed) tolerate(path, () => readEntry(fs, node, `${path}/${name}`, type, visit));
}

function readEntry(fs: FileSystem, parent: NodeId, path: string, type: number, visit: Visit): void {
  const piece = (what: string, get: () => Uint8Array): void => {
    const value = tolerate(what, get);
    if (value !== undefined) visit(`${what} of ${path}`, Buffer.from(value).toString("latin1"));
  };
  const { nodeId, attributes } = fs.lookup(parent, asName(path.slice(path.lastIndexOf("/") + 1)));
  visit(`attributes of ${path}`, JSON.stringify(attributes));
  piece("xattrs", () => fs.listXattrs(nodeId));
  for (const name of ["user.note", ACCESS_LIST]) piece(name, () => fs.getXattr(nodeId, asName(name)));
  if (type === 4) readDirectory(fs, nodeId, path, visit);
  else if (type === 10) piece("target", () => fs.readLink(nodeId));
  else readFile(fs, nodeId, path, piece);
}

function readFile(
  fs: FileSystem,
  node: NodeId,
  path: string,
  piece: (what: string, get: () => Uint8Array) => void,
): void {
  const into = new Uint8Array(BLOCK_BYTES);
  const { handle } = fs.open(node, 0);
  const blocks = Math.ceil(fs.getAttributes(node).attributes.sizeBytes / BLOCK_BYTES);
  for (const index of path === "/deep" ? DEEP_LOOKS : Array.from({ length: blocks }, (_, i) => i)) {
    piece(`block ${index}`, () => {
      const count = fs.read(handle, index * BLOCK_BYTES, BLOCK_BYTES, into, 0);
      return into.subarray(0, count);
    });
  }
  fs.release(handle);
}

/** Fails when anything that can be read is not what it was. Returns the names of what cannot be read any more. */
export function lostOf(device: BlockDevice, contents: Contents, what: string): readonly string[] {
  const lost = new Set(contents.keys());
  const wrong: string[] = [];
  readVolume(device, (piece, value) => {
    if (contents.has(piece) && value !== contents.get(piece)) wrong.push(piece);
    lost.delete(piece);
  });
  assert.deepEqual(wrong, [], `${what}: not what was written`);
  return [...lost];
}
