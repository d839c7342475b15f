// A volume may hold anything. Rot, which its checksums find: what is read is right, or an error. Malice, with right checksums
// over wrong contents, is the subject of test/hostile; here are the cases that it found.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { below, prng } from "../../src/core/prng.ts";
import { INODE_BYTES, ORPHAN_INO } from "../../src/format/constants.ts";
import { fileRoot, inodeRecord } from "../../src/format/inode.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { type FileSystem, type NodeId, ROOT_NODE } from "../../src/fs/file-system.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import { openPlane } from "../../src/volume/space/plane.ts";
import { tolerate } from "../hostile/judge.ts";
import { type BlockKind, forge, mapVolume } from "../hostile/volume-map.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { applyToReal, asName, list, makeBench, type Slots } from "../support/fs-paths.ts";
import type { Operation } from "../support/model-fs.ts";

const BLOCKS = 1024;
const ROTTEN = 300;
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

/** A volume in which one block was changed, with right checksums above it. */
function forged(device: MemoryDevice, vbn: number, change: (view: DataView) => void): MemoryDevice {
  const damaged = device.clone();
  const bytes = new Uint8Array(BLOCK_BYTES);
  damaged.read(vbn, 1, bytes, 0);
  change(new DataView(bytes.buffer));
  forge(damaged, mapVolume(device), vbn, bytes);
  return damaged;
}

function blockOf(device: MemoryDevice, kind: BlockKind): number {
  for (const [vbn, is] of mapVolume(device).kinds) if (is === kind) return vbn;
  return assert.fail(`no block of ${kind}`);
}

test("an orphan file of absurd length is refused before its slots are counted, and found by the check", () => {
  const device = sample({ snapshots: false });
  const damaged = forged(device, blockOf(device, "inodes"), (view) => {
    fileRoot.set.sizeBytes(view, ORPHAN_INO * INODE_BYTES + inodeRecord.offset.root, 2 ** 44);
  });
  const volume = openVolume({ device: damaged, clock: manualClock(), random: prng(1), writable: true });
  assert.throws(() => openFileSystem({ volume, clock: manualClock() }), /the orphan file claims/);
  assert(
    checkVolume(damaged).findings.some(({ kind, message }) => kind === "orphan" && message.includes("said to have")),
  );
});

test("a hole in the orphan file is refused, too", () => {
  const device = sample({ snapshots: false });
  const damaged = forged(device, blockOf(device, "inodes"), (view) => {
    fileRoot.set.sizeBytes(view, ORPHAN_INO * INODE_BYTES + inodeRecord.offset.root, 3 * BLOCK_BYTES);
  });
  const volume = openVolume({ device: damaged, clock: manualClock(), random: prng(1), writable: true });
  assert.throws(() => openFileSystem({ volume, clock: manualClock() }), /the orphan file has a hole at block 2/);
  assert(checkVolume(damaged).findings.some(({ kind }) => kind === "orphan"));
});

test("a bit plane with blocks outside of the volume, or in the reserved area, is not believed", () => {
  const device = sample({ snapshots: true });
  for (const bit of [3, BLOCKS, BLOCKS + 1000, 32767]) {
    const damaged = forged(device, blockOf(device, "active-map"), (view) => {
      view.setUint8(bit >>> 3, view.getUint8(bit >>> 3) | (1 << (bit & 7)));
    });
    const volume = openVolume({ device: damaged, clock: manualClock(), random: prng(1), writable: false });
    const records = [...volume.snapshots().map(({ root }) => root), volume.committed.inodeFile];
    const refusals = records.filter((root) => {
      const plane = openPlane(volume.active.store, root, BLOCKS);
      return tolerate("plane", () => plane.words(0)) === undefined;
    });
    assert.equal(refusals.length, 1, `bit ${bit}`);
    assert(checkVolume(damaged).findings.some(({ kind }) => kind === "block-map"));
  }
});
