// What the filesystem tells of a volume that is damaged while it is in use: who asked gets EIO for what is bad and nothing
// else, and the administrator hears once of each place, with path and block.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError, FsError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { type OpenFileSystem, openFileSystem } from "../../src/fs/active.ts";
import type { Damage, DamageCounts } from "../../src/fs/damage.ts";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
import { vbnAt } from "../../src/tree/block-tree.ts";
import { openVolume } from "../../src/volume/open.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { applyToReal, asName, makeBench, type Slots } from "../support/fs-paths.ts";

const BLOCKS = 4096;
const FILE_BLOCKS = 600;

interface Seen {
  readonly fs: OpenFileSystem;
  readonly damages: Damage[];
  counts: DamageCounts | undefined;
}

/** /dir/file, of which each block has its own byte; also in the snapshot "one". */
function sample(): { device: MemoryDevice; vbnOf: (index: number) => number } {
  const device = memoryDevice(BLOCKS);
  const { fs, volume } = makeBench(BLOCKS, device);
  const slots: Slots = new Map();
  applyToReal(fs, slots, { kind: "mkdir", path: "/dir", mode: 0o755, uid: 0 });
  applyToReal(fs, slots, { kind: "create", path: "/dir/file", mode: 0o644, uid: 0 });
  const data = new Uint8Array(FILE_BLOCKS * BLOCK_BYTES);
  for (let i = 0; i < FILE_BLOCKS; i++) data.fill(i, i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
  applyToReal(fs, slots, { kind: "write", path: "/dir/file", offset: 0, data });
  volume.createSnapshot("one");
  volume.takeCp("snapshot");
  const dir = fs.lookup(ROOT_NODE, asName("dir"));
  const { ino } = fs.lookup(dir.nodeId, asName("file")).attributes;
  const { tree } = volume.active.get(ino) ?? assert.fail("no file");
  return { device, vbnOf: (index) => vbnAt(volume.active.store, tree, index) };
}

function open(device: BlockDevice): Seen {
  const volume = openVolume({ device, clock: manualClock(), random: prng(1), writable: true });
  const damages: Damage[] = [];
  const seen: { counts: DamageCounts | undefined } = { counts: undefined };
  const fs = openFileSystem({
    volume,
    clock: manualClock(),
    onDamage: (counts, first) => {
      seen.counts = counts;
      if (first !== undefined) damages.push(first);
    },
  });
  return Object.assign(seen, { fs, damages });
}

function read(fs: OpenFileSystem, path: readonly string[], index: number, blocks: number): Uint8Array {
  let node = ROOT_NODE;
  for (const name of path) node = fs.lookup(node, asName(name)).nodeId;
  const { handle } = fs.open(node, 0);
  const into = new Uint8Array(blocks * BLOCK_BYTES);
  try {
    fs.read(handle, index * BLOCK_BYTES, into.length, into, 0);
  } finally {
    fs.release(handle);
  }
  return into;
}

test("a block with a wrong checksum fails alone, is told with path and block, and counted, once", () => {
  const { device, vbnOf } = sample();
  device.corrupt(vbnOf(300) * BLOCK_BYTES + 7);
  const seen = open(device);
  const file = ["dir", "file"];
  for (let i = 0; i < FILE_BLOCKS; i++) {
    if (i === 300) assert.throws(() => read(seen.fs, file, i, 1), CorruptionError);
    else assert.equal(read(seen.fs, file, i, 1)[17], i % 256);
  }
  assert.throws(() => read(seen.fs, file, 290, 20), CorruptionError);
  assert.throws(() => read(seen.fs, [".snapshot", "one", ...file], 300, 1), CorruptionError);
  assert.deepEqual(seen.counts, { checksum: 1, unreadable: 0, structure: 0 });
  assert.equal(seen.damages.length, 1);
  const [damage] = seen.damages;
  assert.equal(damage?.path, "/dir/file");
  assert.equal(damage?.vbn, vbnOf(300));
  assert.equal(damage?.operation, "read");
  assert.match(damage?.message ?? "", /has checksum .* its parent expects/);
});

test("damage met first in a snapshot is told with the path there", () => {
  const { device, vbnOf } = sample();
  device.corrupt(vbnOf(3) * BLOCK_BYTES);
  const seen = open(device);
  assert.throws(() => read(seen.fs, [".snapshot", "one", "dir", "file"], 3, 1), CorruptionError);
  assert.equal(seen.damages[0]?.path, "/.snapshot/one/dir/file");
});

test("a block that the device cannot read is EIO for itself, and named also when a long run was asked for", () => {
  const { device, vbnOf } = sample();
  const bad = vbnOf(40);
  const failing: BlockDevice = {
    ...device,
    read(vbn, count, into, offset): void {
      if (vbn <= bad && bad < vbn + count) throw new FsError("EIO", "read of the disk failed");
      device.read(vbn, count, into, offset);
    },
  };
  const seen = open(failing);
  assert.throws(() => read(seen.fs, ["dir", "file"], 30, 20), { code: "EIO", vbn: bad });
  assert.throws(() => read(seen.fs, ["dir", "file"], 40, 1), { code: "EIO", vbn: bad });
  assert.equal(read(seen.fs, ["dir", "file"], 41, 1)[0], 41);
  assert.deepEqual(seen.counts, { checksum: 0, unreadable: 1, structure: 0 });
  assert.deepEqual(
    seen.damages.map(({ kind, vbn, path }) => ({ kind, vbn, path })),
    [{ kind: "unreadable", vbn: bad, path: "/dir/file" }],
  );
});

test("a bad block that is overwritten whole is good again; in part, it cannot be", () => {
  const { device, vbnOf } = sample();
  device.corrupt(vbnOf(5) * BLOCK_BYTES);
  const { fs, counts } = open(device);
  assert.equal(counts, undefined);
  const { nodeId } = fs.lookup(fs.lookup(ROOT_NODE, asName("dir")).nodeId, asName("file"));
  const { handle } = fs.open(nodeId, 2);
  const how = { fromCache: false, killPriv: false };
  assert.throws(() => fs.write(handle, 5 * BLOCK_BYTES + 10, new Uint8Array(10), 0, 10, how), CorruptionError);
  fs.write(handle, 5 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(99), 0, BLOCK_BYTES, how);
  fs.release(handle);
  assert.equal(read(fs, ["dir", "file"], 5, 1)[0], 99);
});
