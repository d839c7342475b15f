import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES, REGION_BLOCKS } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError, FsError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { ACTIVE_MAP_INO } from "../../src/format/constants.ts";
import type { FileRootRecord } from "../../src/format/inode.ts";
import { eachPointer } from "../../src/tree/block-tree.ts";
import { punchHole, readFile, resizeFile, writeFile } from "../../src/tree/file-data.ts";
import type { InodeFile } from "../../src/tree/inode-file.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import { openPlane, planeOf } from "../../src/volume/space/plane.ts";
import type { Volume, VolumeOptions } from "../../src/volume/volume.ts";
import { memoryDevice } from "../support/devices.ts";

const clock = manualClock();

function fresh(blocks: number, random: Random): BlockDevice {
  const device = memoryDevice(blocks);
  createVolume({ device, clock, random });
  return device;
}

function open(device: BlockDevice, random: Random, memory: Pick<VolumeOptions, "cacheBytesMax"> = {}): Volume {
  return openVolume({ device, clock, random, writable: true, ...memory });
}

function makeFile(volume: Volume): number {
  volume.active.store.beginOperation();
  const inode = volume.active.allocate();
  inode.mode = 0o100644;
  inode.linkCount = 1;
  return inode.ino;
}

function contents(inodes: InodeFile, ino: number): Uint8Array | undefined {
  inodes.store.beginOperation();
  const inode = inodes.get(ino);
  if (inode === undefined) return undefined;
  const bytes = new Uint8Array(inode.tree.sizeBytes);
  readFile(inodes, inode, 0, bytes.length, bytes, 0);
  return bytes;
}

function write(volume: Volume, ino: number, offset: number, bytes: Uint8Array): void {
  volume.active.store.beginOperation();
  const inode = volume.active.get(ino);
  assert(inode !== undefined);
  writeFile(volume.active, inode, offset, bytes, 0, bytes.length);
}

/** The blocks reachable from a root, found by walking, against those in its plane. */
function assertPlaneIsReachable(volume: Volume, root: FileRootRecord, inodes: InodeFile): void {
  const { blockCount } = volume.committed;
  const { store } = inodes;
  const reachable = new Set<number>();
  const walk = (tree: Parameters<typeof eachPointer>[1]): void =>
    eachPointer(store, tree, (_level, _index, vbn) => {
      assert(!reachable.has(vbn), `block ${vbn} is referenced twice`);
      reachable.add(vbn);
      return true;
    });
  walk(inodes.tree);
  for (let ino = 1; ino < (inodes.tree.sizeBytes / BLOCK_BYTES) * 16; ino++) {
    store.beginOperation();
    const inode = inodes.get(ino);
    if (inode === undefined || inode.inline) continue;
    const before = reachable.size;
    walk(inode.tree);
    assert.equal(inode.tree.blockCount, reachable.size - before, `block count of inode ${ino}`);
  }
  const plane = openPlane(store, root, blockCount);
  let marked = 0;
  for (let region = 0; region < plane.regionCount; region++) {
    plane.words(region).forEach((word, w) => {
      for (let b = 0; b < 32; b++) {
        if ((word & (1 << b)) === 0) continue;
        marked += 1;
        assert(
          reachable.has(region * 32768 + w * 32 + b),
          `block ${region * 32768 + w * 32 + b} is marked but not reachable`,
        );
      }
    });
  }
  assert.equal(marked, reachable.size, "every reachable block is marked");
}

function assertConsistent(device: BlockDevice): void {
  const volume = openVolume({ device, clock, random: prng(1), writable: false });
  assertPlaneIsReachable(volume, volume.committed.inodeFile, volume.active);
  const used = new Set<number>();
  const roots = [volume.committed.inodeFile, ...volume.snapshots().map((record) => record.root)];
  for (const root of roots) {
    const plane = openPlane(volume.active.store, root, volume.committed.blockCount);
    for (let region = 0; region < plane.regionCount; region++) {
      plane.words(region).forEach((word, w) => {
        for (let b = 0; b < 32; b++) if ((word & (1 << b)) !== 0) used.add(region * 32768 + w * 32 + b);
      });
    }
  }
  assert.equal(volume.committed.usedBlocks, used.size, "fsinfo counts the used blocks");
  for (const record of volume.snapshots()) assertPlaneIsReachable(volume, record.root, volume.openSnapshot(record));
}

test("an empty volume opens again and its map marks exactly the reachable blocks", () => {
  for (const blocks of [64, 1000, 40_000, 100_000]) {
    const device = fresh(blocks, prng(blocks));
    assertConsistent(device);
    const volume = open(device, prng(2));
    assert.equal(volume.status().blockCount, blocks);
    assert.equal(volume.dirty, false);
  }
});

test("a volume of 16 TiB formats and opens at once, sparse", () => {
  const device = fresh(0xffff_ffff, prng(1));
  const volume = open(device, prng(1));
  const ino = makeFile(volume);
  write(volume, ino, 0, new Uint8Array(1 << 20).fill(7));
  volume.takeCp("sync");
  assert.equal(contents(open(device, prng(1)).active, ino)?.length, 1 << 20);
});

test("small, large, overwritten and sparse files read back before and after a consistency point", () => {
  const random = prng(7);
  const device = fresh(20_000, random);
  let volume = open(device, random);
  const model = new Map<number, Uint8Array>();
  for (let i = 0; i < 12; i++) model.set(makeFile(volume), new Uint8Array(0));
  for (let round = 0; round < 300; round++) {
    const ino = [...model.keys()][below(random, model.size)] as number;
    let before = model.get(ino) as Uint8Array;
    if (below(random, 5) === 0) {
      const size = below(random, 3) === 0 ? below(random, 300) : below(random, 400_000);
      volume.active.store.beginOperation();
      const inode = volume.active.get(ino);
      assert(inode !== undefined);
      resizeFile(volume.active, inode, size);
      const after = new Uint8Array(size);
      after.set(before.subarray(0, size));
      model.set(ino, after);
    } else {
      const large = below(random, 3);
      const offset = below(random, 2) === 0 ? below(random, 100) : below(random, 300_000);
      const bytes = new Uint8Array(1 + below(random, large === 0 ? 200 : large === 1 ? 9000 : 200_000)).map(() =>
        random.u32(),
      );
      write(volume, ino, offset, bytes);
      const after = new Uint8Array(Math.max(before.length, offset + bytes.length));
      after.set(before);
      after.set(bytes, offset);
      model.set(ino, after);
    }
    before = model.get(ino) as Uint8Array;
    assert.deepEqual(contents(volume.active, ino), before, `round ${round}`);
    if (below(random, 20) === 0) {
      volume.takeCp("timer");
      assertConsistent(device);
    }
    if (below(random, 60) === 0) {
      volume.takeCp("timer");
      volume = open(device, random);
      for (const [known, expected] of model) assert.deepEqual(contents(volume.active, known), expected);
    }
  }
});

test("a snapshot keeps its contents while the active filesystem changes, and gives back exactly its own blocks", () => {
  const random = prng(11);
  const device = fresh(40_000, random);
  const volume = open(device, random);
  const ino = makeFile(volume);
  const history = new Map<string, Uint8Array>();
  for (let i = 0; i < 10; i++) {
    write(
      volume,
      ino,
      below(random, 10) * 4096,
      new Uint8Array(4096 * (1 + below(random, 40))).map(() => random.u32()),
    );
    history.set(`s${i}`, contents(volume.active, ino) as Uint8Array);
    volume.createSnapshot(`s${i}`);
    volume.takeCp("snapshot");
    assertConsistent(device);
  }
  for (const i of [3, 4, 0, 9, 5]) {
    const forecast = volume.reclaimable([`s${i}`]);
    const before = volume.status().usedBlocks;
    volume.deleteSnapshot(`s${i}`);
    volume.takeCp("snapshot");
    history.delete(`s${i}`);
    const { usedBlocks } = volume.status();
    // The CP itself moves some metadata: the inode file is untouched, so nothing but the deletion counts.
    assert.equal(before - usedBlocks, forecast, `deleting s${i}`);
    assertConsistent(device);
    for (const [name, bytes] of history) {
      const record = volume.findSnapshot(name);
      assert(record !== undefined);
      assert.deepEqual(contents(volume.openSnapshot(record), ino), bytes, name);
    }
  }
  volume.restoreSnapshot("s2");
  volume.takeCp("snapshot");
  assertConsistent(device);
  assert.deepEqual(contents(volume.active, ino), history.get("s2"));
  const later = volume.findSnapshot("s8");
  assert(later !== undefined, "a newer snapshot stays");
  assert.deepEqual(contents(volume.openSnapshot(later), ino), history.get("s8"));
  write(volume, ino, 0, new Uint8Array(100_000).fill(9));
  volume.createSnapshot("after");
  volume.takeCp("snapshot");
  assertConsistent(device);
  for (const [name, bytes] of history)
    assert.deepEqual(contents(volume.openSnapshot(volume.findSnapshot(name) as never), ino), bytes, name);
});

test("changes go on while a consistency point is in flight, and what it freed is not used before the commit", () => {
  const random = prng(13);
  const device = fresh(3000, random);
  const volume = open(device, random);
  const ino = makeFile(volume);
  write(volume, ino, 0, new Uint8Array(400 * 4096).fill(1));
  volume.takeCp("sync");
  for (let round = 2; round < 40; round++) {
    write(volume, ino, 0, new Uint8Array(400 * 4096).fill(round));
    const frozen = volume.freezeCp("timer");
    write(volume, ino, 100, new Uint8Array(100_000).fill(round + 100));
    // The device as a crash would leave it now: fsinfo is still that of the round before.
    const crashed = openVolume({ device, clock, random, writable: false });
    assert.equal(contents(crashed.active, ino)?.[300 * 4096], round - 1);
    for (const vbn of frozen.fsinfoVbns) device.writeDurable(vbn, frozen.fsinfo);
    volume.commitCp(frozen);
    assertConsistent(device);
    assert.equal(contents(openVolume({ device, clock, random, writable: false }).active, ino)?.[200], round);
    volume.takeCp("timer");
  }
});

test("a full volume says ENOSPC at the write, changes nothing, and can still delete", () => {
  const random = prng(17);
  const device = fresh(400, random);
  const volume = open(device, random);
  const files: number[] = [];
  let full = false;
  while (!full) {
    try {
      const ino = makeFile(volume);
      files.push(ino);
      write(volume, ino, 0, new Uint8Array(5 * 4096).fill(files.length));
    } catch (error) {
      assert(error instanceof FsError);
      assert.equal(error.code, "ENOSPC");
      full = true;
    }
    assert(files.length < 200, "the volume never fills");
  }
  assert(files.length > 40, `only ${files.length} files fit`);
  volume.takeCp("sync");
  assertConsistent(device);
  for (const ino of files) {
    volume.active.store.beginOperation();
    const inode = volume.active.get(ino);
    if (inode === undefined) continue;
    resizeFile(volume.active, inode, 0);
    volume.active.free(inode);
  }
  volume.takeCp("sync");
  assertConsistent(device);
  assert(volume.status().freeBlocks > 358);
});

test("snapshot names are checked", () => {
  const volume = open(fresh(1000, prng(1)), prng(1));
  for (const name of ["", ".", "..", "a/b", "a\0b", "x".repeat(256)])
    assert.throws(() => volume.createSnapshot(name), { code: "EINVAL" });
  volume.createSnapshot("a");
  volume.takeCp("snapshot");
  assert.throws(() => volume.createSnapshot("a"), { code: "EEXIST" });
  assert.throws(() => volume.deleteSnapshot("b"), { code: "ENOENT" });
  assert.throws(() => volume.restoreSnapshot("b"), { code: "ENOENT" });
});

test("a damaged map block fails the operations that come after a deletion, never the middle of one", () => {
  const device = memoryDevice(80_000);
  createVolume({ device, clock, random: prng(3) });
  const first = open(device, prng(3));
  const ino = makeFile(first);
  write(first, ino, 0, new Uint8Array(35_000 * BLOCK_BYTES)); // into the second region
  first.takeCp("sync");
  const store = first.active.store;
  const map = first.active.get(ACTIVE_MAP_INO)?.tree ?? assert.fail("no map");
  const { vbn } = planeOf(store, map, 80_000).pointer(1);
  device.corrupt(vbn * BLOCK_BYTES + 7);
  const volume = open(device, prng(3));
  volume.active.store.beginOperation();
  const inode = volume.active.get(ino) ?? assert.fail("no file");
  resizeFile(volume.active, inode, 0); // gives up blocks of both regions, and is done
  assert.equal(inode.tree.blockCount, 0);
  assert.throws(() => volume.active.reserve(1, "write"), CorruptionError);
  assert.throws(() => volume.active.reserve(1, "write"), CorruptionError, "it stays so");
  assert.throws(() => volume.takeCp("sync"), CorruptionError);
  assert(volume.failure !== undefined);
  const after = openVolume({ device, clock, random: prng(1), writable: false });
  assert.equal(contents(after.active, ino)?.length, 35_000 * BLOCK_BYTES, "the state on disk is as it was");
});

test("the inode file grows in a volume that has been reopened, and loses no inode", () => {
  const device = fresh(4000, prng(5));
  const first = open(device, prng(5));
  const files = Array.from({ length: 240 }, () => makeFile(first)); // 16 blocks of inodes: all that fits below the root
  first.takeCp("sync");
  const again = open(device, prng(5));
  for (let i = 0; i < 20; i++) files.push(makeFile(again));
  again.takeCp("sync");
  assertConsistent(device);
  const after = openVolume({ device, clock, random: prng(1), writable: false });
  for (const ino of files) assert(after.active.get(ino) !== undefined, `inode ${ino} is gone`);
});

test("on a full volume, looking for free blocks makes no map blocks dirty that have none", () => {
  const random = prng(5);
  const regions = 12;
  const whole = memoryDevice(regions * REGION_BLOCKS);
  // Long runs are data that nobody reads here: they are not kept.
  const device: BlockDevice = {
    ...whole,
    write: (vbn, count, from, offset) => {
      if (count < 16) whole.write(vbn, count, from, offset);
    },
  };
  createVolume({ device, clock, random });
  const volume = open(device, random);
  const ino = makeFile(volume);
  const chunk = new Uint8Array(256 * BLOCK_BYTES);
  let offset = 0;
  for (; volume.status().availableBlocks > 600; offset += chunk.length) write(volume, ino, offset, chunk);
  volume.takeCp("sync");
  volume.takeCp("sync");
  // What is freed lies in one region; what is written goes there, around all the full ones.
  volume.active.store.beginOperation();
  const inode = volume.active.get(ino);
  assert(inode !== undefined);
  punchHole(volume.active, inode, 0, 64 * BLOCK_BYTES);
  volume.takeCp("sync");
  const one = new Uint8Array(BLOCK_BYTES).fill(7);
  let most = 0;
  for (let round = 0; round < 500; round++) {
    write(volume, ino, (round % 64) * BLOCK_BYTES, one);
    const cp = volume.freezeCp("sync");
    volume.device.flush();
    volume.commitCp(cp);
    most = Math.max(most, cp.blocksWritten);
  }
  assert(most < regions, `${most} blocks were written for one of data`);
  volume.close();
});

test("the changes of the active map wait for the consistency point, however many inodes are looked at before it", () => {
  const device = fresh(4000, prng(9));
  const first = open(device, prng(9));
  const files = Array.from({ length: 400 }, () => makeFile(first)); // more than are kept in memory
  first.takeCp("sync");
  const volume = open(device, prng(9), { cacheBytesMax: 1 << 20 });
  const change = (ino: number): void => {
    volume.active.store.beginOperation();
    volume.active.reserve(1, "write"); // what has been given up so far leaves the map
    volume.active.markDirty(volume.active.get(ino) ?? assert.fail("no file"));
  };
  change(files[0] as number);
  change(files[0] as number);
  for (const ino of files) assert(contents(volume.active, ino) !== undefined);
  change(files[399] as number);
  volume.takeCp("sync");
  assertConsistent(device);
  const { activeBlocks, usedBlocks } = volume.committed;
  assert.equal(activeBlocks, usedBlocks);
});
