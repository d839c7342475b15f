/** A filesystem driven by paths: what the model's operations are on the real one, and whether the two are equal. */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { type Clock, manualClock } from "../../src/core/clock.ts";
import { FsError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { encodeAccessList } from "../../src/fs/access-list.ts";
import { type FileSystemOptions, type OpenFileSystem, openFileSystem } from "../../src/fs/active.ts";
import {
  type Entry,
  type FileSystem,
  type Handle,
  listedName,
  type Name,
  type NodeId,
  ROOT_NODE,
} from "../../src/fs/file-system.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume, VolumeOptions } from "../../src/volume/volume.ts";
import { memoryDevice } from "./devices.ts";
import { linkCountOf, type Model, type ModelNode, type Operation } from "./model-fs.ts";
import { firstDifference, type SparseBytes, sliceOf } from "./sparse-bytes.ts";

export type TestClock = ReturnType<typeof manualClock>;

/** A filesystem in memory. */
export interface Bench {
  readonly device: BlockDevice;
  readonly clock: TestClock;
  volume: Volume;
  fs: OpenFileSystem;
  /** Opens the device again: what was not committed is lost. */
  reopen(options?: Partial<FileSystemOptions> & Partial<Pick<VolumeOptions, "writable" | "cacheBytesMax">>): void;
}

export function makeBench(blockCount = 16384, device: BlockDevice = memoryDevice(blockCount)): Bench {
  const clock = manualClock();
  const random = prng(7);
  createVolume({ device, clock, random, label: "test" });
  const volume = openVolume({ device, clock, random, writable: true });
  const bench: Bench = {
    device,
    clock,
    volume,
    fs: forgetful(openFileSystem({ volume, clock })),
    reopen({ writable = true, cacheBytesMax, ...options } = {}): void {
      bench.volume = openVolume({ device, clock, random, writable, cacheBytesMax });
      const fs = openFileSystem({ volume: bench.volume, clock, ...options });
      bench.fs = writable ? forgetful(fs) : fs;
    },
  };
  return bench;
}

/** A front door that remembers nothing: what an operation has looked up is forgotten at once. */
export function forgetful(fs: OpenFileSystem): OpenFileSystem {
  const forget = <Found extends Entry>(entry: Found): Found => {
    fs.forget(entry.nodeId, 1);
    return entry;
  };
  return Object.assign(Object.create(fs) as OpenFileSystem, {
    find: (parent, name) => {
      const entry = fs.find(parent, name);
      return entry === undefined ? undefined : forget(entry);
    },
    lookup: (parent, name) => forget(fs.lookup(parent, name)),
    makeNode: (parent, name, mode, rdev, caller) => forget(fs.makeNode(parent, name, mode, rdev, caller)),
    makeDirectory: (parent, name, mode, caller) => forget(fs.makeDirectory(parent, name, mode, caller)),
    symlink: (parent, name, target, caller) => forget(fs.symlink(parent, name, target, caller)),
    link: (node, parent, name) => forget(fs.link(node, parent, name)),
    create: (parent, name, mode, flags, caller) => forget(fs.create(parent, name, mode, flags, caller)),
    createUnnamed: (parent, mode, flags, caller) => forget(fs.createUnnamed(parent, mode, flags, caller)),
  } satisfies Partial<OpenFileSystem>);
}

/** The errno of an operation, or "". Anything but an FsError goes on. */
export function errnoOf(operation: () => unknown): string {
  try {
    operation();
    return "";
  } catch (error) {
    if (error instanceof FsError) return error.code;
    throw error;
  }
}

export function asName(text: string): Name {
  return text as Name;
}

/** Looks a path up, name by name. */
export function entryAt(fs: FileSystem, path: string): Entry {
  let entry = fs.lookup(ROOT_NODE, asName("."));
  for (const name of path.split("/")) if (name !== "") entry = fs.lookup(entry.nodeId, asName(name));
  return entry;
}

export function nodeAt(fs: FileSystem, path: string): NodeId {
  return entryAt(fs, path).nodeId;
}

/** The directory a path ends in, and its last name. */
export function placeAt(fs: FileSystem, path: string): readonly [NodeId, Name] {
  const at = path.lastIndexOf("/");
  return [nodeAt(fs, path.slice(0, at)), asName(path.slice(at + 1))];
}

export function readAll(fs: FileSystem, path: string): Uint8Array {
  return withOpen(fs, path, 0, (handle) => {
    const { sizeBytes } = entryAt(fs, path).attributes;
    const into = new Uint8Array(sizeBytes + 1);
    const count = fs.read(handle, 0, sizeBytes + 1, into, 0);
    return into.subarray(0, count);
  });
}

/** A longer file is read where it has data. */
const WHOLE_BYTES_MAX = 4 << 20;
const PIECE_BYTES = 1 << 16;

/** Contents of an open file of this length. */
export function readSparse(fs: FileSystem, handle: Handle, length: number): SparseBytes {
  const blocks = new Map<number, Uint8Array>();
  const isWhole = length <= WHOLE_BYTES_MAX;
  for (let at = 0; at < length; ) {
    if (!isWhole) at = dataFrom(fs, handle, at) ?? length;
    const bytes = Math.min(length - at, isWhole ? WHOLE_BYTES_MAX : PIECE_BYTES);
    const piece = new Uint8Array(Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES);
    assert.equal(fs.read(handle, at, bytes, piece, 0), bytes, "bytes read");
    piece.fill(0, bytes);
    for (let i = 0; i < piece.length; i += BLOCK_BYTES)
      blocks.set((at + i) / BLOCK_BYTES, piece.subarray(i, i + BLOCK_BYTES));
    at += piece.length;
  }
  return { length, blocks };
}

const SEEK_DATA = 3;

/** The block from an offset on that has data; undefined: none. */
function dataFrom(fs: FileSystem, handle: Handle, at: number): number | undefined {
  try {
    return fs.seek(handle, at, SEEK_DATA);
  } catch (error) {
    if (error instanceof FsError && error.code === "ENXIO") return undefined;
    throw error;
  }
}

const O_RDWR = 2;
const NO_ID = 0xffff_ffff;
const PLAIN = { fromCache: false, killPriv: false } as const;
const ROOT_USER = { uid: 0, gid: 0 } as const;

export function writeAt(fs: FileSystem, path: string, offset: number, data: Uint8Array): void {
  withOpen(fs, path, O_RDWR, (handle) => fs.write(handle, offset, data, 0, data.length, PLAIN));
}

/** Makes a file with contents. */
export function putFile(fs: FileSystem, path: string, data: string | Uint8Array = "", mode = 0o644): NodeId {
  const [dir, name] = placeAt(fs, path);
  const made = fs.create(dir, name, mode, O_RDWR, ROOT_USER);
  const bytes = typeof data === "string" ? new Uint8Array(Buffer.from(data)) : data;
  if (bytes.length > 0) fs.write(made.handle, 0, bytes, 0, bytes.length, PLAIN);
  fs.release(made.handle);
  return made.nodeId;
}

export function makeDir(fs: FileSystem, path: string, mode = 0o755): NodeId {
  const [dir, name] = placeAt(fs, path);
  return fs.makeDirectory(dir, name, mode, ROOT_USER).nodeId;
}

export function withOpen<T>(fs: FileSystem, path: string, flags: number, use: (handle: Handle) => T): T {
  const { handle } = fs.open(nodeAt(fs, path), flags);
  try {
    return use(handle);
  } finally {
    fs.release(handle);
  }
}

export interface Listed {
  readonly name: string;
  readonly ino: number;
  readonly type: number;
  readonly cookie: number;
}

/** All entries but "." and "..", read in portions so that cookies are used. */
export function list(fs: FileSystem, node: NodeId, portion = 7): Listed[] {
  const { handle } = fs.openDirectory(node);
  const found: Listed[] = [];
  let cookie = 0;
  for (let taken = portion; taken === portion; ) {
    taken = 0;
    fs.readDirectory(handle, cookie, { plus: false }, (names, start, end, ino, type, next) => {
      if (taken === portion) return false;
      const name = listedName(names, start, end);
      taken += 1;
      cookie = next;
      if (name !== "." && name !== "..") found.push({ name, ino, type, cookie: next });
      return true;
    });
  }
  fs.releaseDirectory(handle);
  return found;
}

/** Open files of the model's slots. */
export type Slots = Map<number, Handle>;

/** "" or the errno, as `applyToModel`. */
export function applyToReal(fs: FileSystem, slots: Slots, op: Operation): string {
  return errnoOf(() => run(fs, slots, op));
}

function run(fs: FileSystem, slots: Slots, op: Operation): void {
  const slot = (number: number): Handle => {
    const handle = slots.get(number);
    if (handle === undefined) throw new FsError("EBADF", "slot is empty");
    return handle;
  };
  switch (op.kind) {
    case "create": {
      const made = fs.create(...placeAt(fs, op.path), op.mode, O_RDWR, { uid: op.uid, gid: op.uid });
      fs.release(made.handle);
      return;
    }
    case "mkdir":
      fs.makeDirectory(...placeAt(fs, op.path), op.mode, { uid: op.uid, gid: op.uid });
      return;
    case "mknod":
      fs.makeNode(...placeAt(fs, op.path), op.mode, op.rdev, ROOT_USER);
      return;
    case "symlink":
      fs.symlink(...placeAt(fs, op.path), new Uint8Array(Buffer.from(op.target, "latin1")), ROOT_USER);
      return;
    case "link":
      fs.link(nodeAt(fs, op.path), ...placeAt(fs, op.into));
      return;
    case "unlink":
      fs.unlink(...placeAt(fs, op.path));
      return;
    case "rmdir":
      fs.removeDirectory(...placeAt(fs, op.path));
      return;
    case "rename":
      fs.rename(...placeAt(fs, op.path), ...placeAt(fs, op.into), op.flags);
      return;
    case "write":
      writeAt(fs, op.path, op.offset, op.data);
      return;
    case "truncate":
      fs.setAttributes(nodeAt(fs, op.path), { sizeBytes: op.sizeBytes }, ROOT_USER);
      return;
    case "fallocate":
      withOpen(fs, op.path, O_RDWR, (handle) => fs.allocate(handle, op.mode, op.offset, op.length));
      return;
    case "copyRange": {
      const { sizeBytes } = entryAt(fs, op.path).attributes;
      const count = withOpen(fs, op.path, 0, (from) =>
        withOpen(fs, op.into, O_RDWR, (into) => fs.copyRange(from, op.fromOffset, into, op.offset, op.length)),
      );
      assert.equal(count, Math.max(0, Math.min(op.length, sizeBytes - op.fromOffset)), "bytes copied");
      return;
    }
    case "chmod":
      fs.setAttributes(nodeAt(fs, op.path), { mode: op.mode }, ROOT_USER);
      return;
    case "chown":
      fs.setAttributes(nodeAt(fs, op.path), { uid: op.uid, gid: op.gid }, ROOT_USER);
      return;
    case "utimes":
      fs.setAttributes(nodeAt(fs, op.path), { mtime: op.mtime }, ROOT_USER);
      return;
    case "setxattr":
      fs.setXattr(nodeAt(fs, op.path), asName(op.name), new Uint8Array(Buffer.from(op.value, "latin1")), op.flags);
      return;
    case "removexattr":
      fs.removeXattr(nodeAt(fs, op.path), asName(op.name));
      return;
    case "setAccess":
      fs.setXattr(nodeAt(fs, op.path), asName(`system.posix_acl_${op.of}`), accessListOf(op), 0);
      return;
    case "open": {
      const { handle } = fs.open(nodeAt(fs, op.path), O_RDWR);
      const before = slots.get(op.slot);
      if (before !== undefined) fs.release(before);
      slots.set(op.slot, handle);
      return;
    }
    case "tmpfile": {
      const made = fs.createUnnamed(nodeAt(fs, op.path), 0o600, O_RDWR | (op.excl ? 0o200 : 0), ROOT_USER);
      const before = slots.get(op.slot);
      if (before !== undefined) fs.release(before);
      slots.set(op.slot, made.handle);
      slotNodes.set(made.handle, made.nodeId);
      return;
    }
    case "writeSlot":
      fs.write(slot(op.slot), op.offset, op.data, 0, op.data.length, PLAIN);
      return;
    case "linkSlot": {
      const handle = slot(op.slot);
      const node = slotNodes.get(handle);
      if (node === undefined) throw new FsError("EBADF", "not made without a name");
      fs.link(node, ...placeAt(fs, op.into));
      return;
    }
    case "close":
      fs.release(slot(op.slot));
      slots.delete(op.slot);
      return;
  }
}

function accessListOf({ permissions, user }: Extract<Operation, { kind: "setAccess" }>): Uint8Array {
  const ids = [NO_ID, user, NO_ID, NO_ID, NO_ID];
  const tags = [0x01, 0x02, 0x04, 0x10, 0x20];
  return encodeAccessList(
    tags.map((tag, i) => ({ tag, permissions: (permissions >> (12 - 3 * i)) & 7, id: ids[i] as number })),
  );
}

/** Nodes of files made without a name. Handles are numbers that are reused, so an entry may be old: tests only. */
const slotNodes = new Map<Handle, NodeId>();

/** The node of a file that was made without a name and is open in a slot. */
export function nodeOfSlot(slots: Slots, slot: number): NodeId | undefined {
  const handle = slots.get(slot);
  return handle === undefined ? undefined : slotNodes.get(handle);
}

/** Compares all there is: names, attributes, contents, hard links. `top` is where the model's root lies. */
export function assertEqual(fs: FileSystem, model: Model, top = ""): void {
  const inoOf = new Map<ModelNode, number>();
  const seen = new Set<number>();
  compare(fs, model.root, top, inoOf, seen);
  assert.equal(seen.size, inoOf.size, "two nodes of the model are one inode");
}

function compare(
  fs: FileSystem,
  node: ModelNode,
  path: string,
  inoOf: Map<ModelNode, number>,
  seen: Set<number>,
): void {
  const { nodeId, attributes } = entryAt(fs, path);
  const known = inoOf.get(node);
  if (known !== undefined) {
    assert.equal(attributes.ino, known, `${path} is another name of one file`);
    return;
  }
  inoOf.set(node, attributes.ino);
  seen.add(attributes.ino);
  const { mode, uid, gid, rdev, mtime, ctime } = attributes;
  assert.deepEqual(
    { mode, uid, gid, rdev, mtime, ctime, links: attributes.linkCount },
    {
      mode: node.mode,
      uid: node.uid,
      gid: node.gid,
      rdev: node.rdev,
      mtime: node.mtime,
      ctime: node.ctime,
      links: linkCountOf(node),
    },
    `attributes of ${path}`,
  );
  compareXattrs(fs, nodeId, node, path);
  if (node.kind === "directory") {
    const listed = list(fs, nodeId);
    assert.deepEqual(
      listed.map(({ name }) => name).toSorted(),
      [...node.entries.keys()].toSorted(),
      `names in ${path}`,
    );
    for (const { name, type } of listed) {
      const child = node.entries.get(name) as ModelNode;
      assert.equal(type, child.mode >>> 12, `type of ${path}/${name}`);
      compare(fs, child, `${path}/${name}`, inoOf, seen);
    }
    return;
  }
  assert.equal(attributes.sizeBytes, node.data.length, `size of ${path}`);
  if (node.kind === "symlink") assert.deepEqual(fs.readLink(nodeId), sliceOf(node.data), `target of ${path}`);
  if (node.kind !== "file") return;
  const contents = withOpen(fs, path, 0, (handle) => readSparse(fs, handle, attributes.sizeBytes));
  const at = firstDifference(contents, node.data);
  assert.equal(at, undefined, `contents of ${path}, byte ${at}`);
}

function compareXattrs(fs: FileSystem, nodeId: NodeId, node: ModelNode, path: string): void {
  const names = Buffer.from(fs.listXattrs(nodeId)).toString("latin1").split("\0").slice(0, -1);
  assert.deepEqual(names.toSorted(), [...node.xattrs.keys()].toSorted(), `attribute names of ${path}`);
  for (const name of names) {
    const value = Buffer.from(fs.getXattr(nodeId, asName(name))).toString("latin1");
    assert.equal(value, node.xattrs.get(name), `attribute ${name} of ${path}`);
  }
}

/** A clock and bench share their time: each operation has its own. */
export function tick(clock: Clock & { advanceMs(ms: number): void }): void {
  clock.advanceMs(20); // more than relatime takes for the same time
}
