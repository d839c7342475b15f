// Cutting large files short, and holes into them: in one step, however much there is, and freed by and by.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { FsError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { type OpenFileSystem, openFileSystem } from "../../src/fs/active.ts";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from "../../src/fs/modes.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import { crashDevice, type MemoryDevice, memoryDevice, PowerCut } from "../support/devices.ts";
import {
  asName,
  type Bench,
  entryAt,
  errnoOf,
  makeBench,
  nodeAt,
  putFile,
  withOpen,
  writeAt,
} from "../support/fs-paths.ts";

const ROOT = { uid: 0, gid: 0 };
const SECTORS_PER_BLOCK = 8;

/** A file of holes with single bytes in it: `marks` has where they are, and what. */
interface Marked {
  sizeBytes: number;
  readonly marks: Map<number, number>;
}

function mark(fs: OpenFileSystem, file: Marked, offset: number, value: number): void {
  writeAt(fs, "/f", offset, Uint8Array.of(value));
  file.marks.set(offset, value);
  file.sizeBytes = Math.max(file.sizeBytes, offset + 1);
}

/** One byte in each of so many stretches. */
function putMarked(fs: OpenFileSystem, count: number, everyBlocks: number): Marked {
  const file: Marked = { sizeBytes: 0, marks: new Map() };
  putFile(fs, "/f");
  for (let i = 0; i < count; i++) mark(fs, file, i * everyBlocks * BLOCK_BYTES + i, (i % 255) + 1);
  return file;
}

function truncate(fs: OpenFileSystem, sizeBytes: number): void {
  fs.setAttributes(nodeAt(fs, "/f"), { sizeBytes }, ROOT);
}

function punch(fs: OpenFileSystem, offset: number, length: number): void {
  withOpen(fs, "/f", 2, (handle) => fs.allocate(handle, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
}

function forget({ marks }: Marked, from: number, to: number): void {
  for (const offset of marks.keys()) if (offset >= from && offset < to) marks.delete(offset);
}

function assertMarks(fs: OpenFileSystem, { sizeBytes, marks }: Marked): void {
  assert.equal(entryAt(fs, "/f").attributes.sizeBytes, sizeBytes);
  withOpen(fs, "/f", 0, (handle) => {
    const found = new Map<number, number>();
    const block = new Uint8Array(BLOCK_BYTES);
    for (let at = 0; at < sizeBytes; ) {
      try {
        at = fs.seek(handle, at, 3); // SEEK_DATA
      } catch (error) {
        assert(error instanceof FsError && error.code === "ENXIO");
        break;
      }
      at -= at % BLOCK_BYTES;
      const count = fs.read(handle, at, BLOCK_BYTES, block, 0);
      for (let i = 0; i < count; i++) if (block[i] !== 0) found.set(at + i, block[i] as number);
      at += BLOCK_BYTES;
    }
    assert.deepEqual(found, marks);
  });
}

function assertClean({ device, volume }: Bench): void {
  volume.takeCp("sync");
  assert.deepEqual(checkVolume(device).findings, []);
}

/** A place in a file of up to a hundred thousand blocks: at, before and behind the ends of what one indirect block covers. */
function somewhere(random: Random): number {
  const block = below(random, 2) === 0 ? below(random, 200) * 512 : below(random, 100_000);
  return Math.max(0, block * BLOCK_BYTES + below(random, 3) * 100 - 100);
}

test("random cuts and holes of every size leave what was not cut, and counts that are right", () => {
  for (let seed = 1; seed <= 4; seed++) {
    const random = prng(seed);
    const bench = makeBench();
    const free = bench.volume.status().freeBlocks;
    const file = putMarked(bench.fs, 200, 500);
    for (let i = 0; i < 120; i++) {
      const { fs } = bench;
      const at = somewhere(random);
      const to = somewhere(random);
      switch (below(random, 8)) {
        case 0:
          truncate(fs, at);
          forget(file, at, Number.POSITIVE_INFINITY);
          file.sizeBytes = at;
          break;
        case 1:
        case 2:
          if (to <= at) break;
          punch(fs, at, to - at);
          forget(file, at, to);
          break;
        case 3:
          fs.reclaimSlice();
          break;
        case 4:
          assertMarks(fs, file);
          assertClean(bench);
          break;
        case 5:
          bench.volume.takeCp("sync");
          bench.reopen();
          break;
        default:
          for (let k = 0; k < 30; k++) mark(fs, file, somewhere(random), below(random, 255) + 1);
      }
    }
    assertMarks(bench.fs, file);
    assertClean(bench);
    while (bench.fs.reclaimSlice());
    assertClean(bench);
    assertMarks(bench.fs, file);
    bench.fs.unlink(ROOT_NODE, asName("f"));
    while (bench.fs.reclaimSlice());
    assertClean(bench);
    bench.volume.takeCp("sync");
    assert(free - bench.volume.status().freeBlocks < 20, "all is free again");
  }
});

test("a cut writes as little as a small one, and the file counts what it held until that is freed", () => {
  const bench = makeBench(65536);
  const { fs, volume } = bench;
  const file = putMarked(fs, 3000, 512);
  volume.takeCp("sync");
  const before = entryAt(fs, "/f").attributes.sectorCount;
  assert(before > 6000 * SECTORS_PER_BLOCK);
  punch(fs, 300 * 512 * BLOCK_BYTES + 50, 2000 * 512 * BLOCK_BYTES);
  forget(file, 300 * 512 * BLOCK_BYTES + 50, 2300 * 512 * BLOCK_BYTES + 50);
  assert(volume.dirtyBytes < 30 * BLOCK_BYTES, `${volume.dirtyBytes} bytes are dirty`);
  assertMarks(fs, file);
  const reply = fs.getAttributes(nodeAt(fs, "/f"));
  assert(reply.attributes.sectorCount >= before);
  assert.equal(reply.attributesValidMs, 0, "the kernel is to ask again");
  fs.unlink(ROOT_NODE, asName("f"));
  volume.takeCp("sync");
  bench.reopen();
  while (bench.fs.reclaimSlice()) bench.volume.takeCp("timer");
  assertClean(bench);
});

function opened(bench: Bench, device: BlockDevice): Bench {
  const clock = manualClock();
  const volume = openVolume({ device, clock, random: prng(1), writable: true });
  return { ...bench, device, volume, fs: openFileSystem({ volume, clock }) };
}

/** A device whose reads can be made to fail: the one after so many more. */
function failingReads(device: BlockDevice): BlockDevice & { failAfter(reads: number): void } {
  let left = Number.POSITIVE_INFINITY;
  return {
    ...device,
    blockCount: device.blockCount,
    read(vbn, count, into, offset): void {
      left -= 1;
      if (left < 0) throw new FsError("EIO", "read failed by the test");
      device.read(vbn, count, into, offset);
    },
    failAfter: (reads) => void (left = reads),
  };
}

test("where an indirect block cannot be read, nothing is cut", () => {
  for (const [from, length] of [
    [1100 * 300 * BLOCK_BYTES + 7, undefined],
    [500 * 300 * BLOCK_BYTES, 700 * 300 * BLOCK_BYTES],
    [500 * 300 * BLOCK_BYTES + 9, 3 * 300 * BLOCK_BYTES], // so few that they are freed at once
  ] as const) {
    let failures = 0;
    const made = makeBench();
    const file = putMarked(made.fs, 2200, 300);
    made.volume.takeCp("sync");
    for (let reads = 0; ; reads++) {
      const device = failingReads((made.device as MemoryDevice).clone());
      const bench = opened(made, device);
      const { fs } = bench;
      const node = nodeAt(fs, "/f");
      const { handle } = fs.open(node, 2);
      device.failAfter(reads);
      const found = errnoOf(() =>
        length === undefined
          ? fs.setAttributes(node, { sizeBytes: from }, ROOT)
          : fs.allocate(handle, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, length),
      );
      device.failAfter(Number.POSITIVE_INFINITY);
      if (found === "") {
        forget(file, from, from + (length ?? Number.POSITIVE_INFINITY));
        if (length === undefined) file.sizeBytes = from;
      } else {
        assert.equal(found, "EIO");
        failures += 1;
      }
      assertMarks(fs, file);
      assertClean(bench);
      if (found === "") break;
    }
    assert(failures > 2, `${failures} reads`);
  }
});

test("a crash while a cut is made durable or what it took is freed leaves the file as before or after it", () => {
  const bench = makeBench(16384);
  const before = putMarked(bench.fs, 1500, 300);
  bench.volume.takeCp("sync");
  const cutAt = 700 * 300 * BLOCK_BYTES + 2;
  const after: Marked = { sizeBytes: cutAt, marks: new Map(before.marks) };
  forget(after, cutAt, Number.POSITIVE_INFINITY);
  const sizes = new Set<number>();
  let points = 0;
  for (let budget = 0, done = false; !done; budget++) {
    const base = (bench.device as MemoryDevice).clone();
    const disk = crashDevice({ random: prng(budget), base });
    disk.cutAfter(budget);
    try {
      const { fs, volume } = opened(bench, disk);
      truncate(fs, cutAt);
      for (let i = 0; i < 4; i++) {
        volume.takeCp("timer");
        fs.reclaimSlice();
      }
      done = true;
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
    }
    points += 1;
    const image = disk.crash();
    assert.deepEqual(checkVolume(image).findings, [], `crash at device operation ${budget}`);
    const left = opened(bench, image);
    const { sizeBytes } = entryAt(left.fs, "/f").attributes;
    assertMarks(left.fs, sizeBytes === cutAt ? after : before);
    sizes.add(sizeBytes);
    while (left.fs.reclaimSlice());
    assertClean(left);
  }
  assert(points > 20, `${points} crashes`);
  assert.deepEqual(sizes, new Set([before.sizeBytes, cutAt]));
});

test("a full volume can cut any file", () => {
  const bench = makeBench(4096, memoryDevice(4096));
  const { fs, volume } = bench;
  const file = putMarked(fs, 900, 300);
  putFile(fs, "/fill");
  for (let at = 0; errnoOf(() => writeAt(fs, "/fill", at, new Uint8Array(BLOCK_BYTES).fill(2))) === ""; )
    at += BLOCK_BYTES;
  volume.takeCp("sync");
  punch(fs, 100 * 300 * BLOCK_BYTES, 300 * 300 * BLOCK_BYTES);
  forget(file, 100 * 300 * BLOCK_BYTES, 400 * 300 * BLOCK_BYTES);
  truncate(fs, 600 * 300 * BLOCK_BYTES);
  forget(file, 600 * 300 * BLOCK_BYTES, Number.POSITIVE_INFINITY);
  file.sizeBytes = 600 * 300 * BLOCK_BYTES;
  assertMarks(fs, file);
  while (fs.reclaimSlice());
  assertClean(bench);
});
