import assert from "node:assert/strict";
import { test } from "node:test";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError } from "../../src/core/errors.ts";
import { below, prng } from "../../src/core/prng.ts";
import { FILE_BYTES_MAX } from "../../src/format/constants.ts";
import { vbnAt } from "../../src/tree/block-tree.ts";
import { punchHole, readFile, resizeFile, seekData, writeFile } from "../../src/tree/file-data.ts";
import type { Inode } from "../../src/tree/inode-file.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { memoryDevice } from "../support/devices.ts";

const clock = manualClock();

function volumeWithFile(blocks = 20_000): { volume: Volume; inode: Inode } {
  const device = memoryDevice(blocks);
  createVolume({ device, clock, random: prng(1) });
  const volume = openVolume({ device, clock, random: prng(2), writable: true });
  const inode = volume.active.allocate();
  inode.mode = 0o100644;
  inode.linkCount = 1;
  return { volume, inode };
}

function read({ active }: Volume, inode: Inode, offset: number, length: number): Uint8Array {
  active.store.beginOperation();
  const into = new Uint8Array(length);
  return into.subarray(0, readFile(active, inode, offset, length, into, 0));
}

function write({ active }: Volume, inode: Inode, offset: number, bytes: Uint8Array): void {
  active.store.beginOperation();
  writeFile(active, inode, offset, bytes, 0, bytes.length);
}

test("a file of up to 128 bytes takes no block, and gets one when it grows", () => {
  const { volume, inode } = volumeWithFile();
  write(volume, inode, 0, new Uint8Array(128).fill(3));
  assert.equal(inode.inline, true);
  assert.equal(inode.tree.blockCount, 0);
  write(volume, inode, 128, Uint8Array.of(4));
  assert.equal(inode.inline, false);
  assert.equal(inode.tree.blockCount, 1);
  assert.deepEqual(read(volume, inode, 126, 10), Uint8Array.of(3, 3, 4));
});

test("holes, punched ranges and seeks agree with a plain array of bytes, at every consistency point", () => {
  const { volume, inode } = volumeWithFile();
  const random = prng(23);
  const span = 40 * 4096;
  let model = new Uint8Array(0);
  for (let round = 0; round < 400; round++) {
    const offset = below(random, span);
    const length = 1 + below(random, below(random, 2) === 0 ? 100 : 60_000);
    const what = below(random, 4);
    if (what < 2) {
      const bytes = new Uint8Array(length).fill(1 + below(random, 255));
      write(volume, inode, offset, bytes);
      const grown = new Uint8Array(Math.max(model.length, offset + length));
      grown.set(model);
      grown.set(bytes, offset);
      model = grown;
    } else if (what === 2) {
      volume.active.store.beginOperation();
      punchHole(volume.active, inode, offset, length);
      model.fill(0, offset, offset + length);
    } else {
      volume.active.store.beginOperation();
      resizeFile(volume.active, inode, offset);
      const resized = new Uint8Array(offset);
      resized.set(model.subarray(0, offset));
      model = resized;
    }
    if (below(random, 6) === 0) volume.takeCp("timer");
    assert.deepEqual(read(volume, inode, 0, span * 2), model, `round ${round}`);
    // What a seek calls a hole reads as zeros; data and holes take turns up to the end.
    let at: number | undefined = 0;
    while (at !== undefined && at < model.length) {
      const data: number | undefined = seekData(volume.active, inode, at, "data");
      const hole = model.subarray(at, data ?? model.length);
      assert(
        hole.every((byte) => byte === 0),
        `round ${round}: data in a hole at ${at}`,
      );
      at = data === undefined ? undefined : seekData(volume.active, inode, data, "hole");
      if (at !== undefined && data !== undefined) assert(at > data);
    }
    assert.equal(seekData(volume.active, inode, model.length, "data"), undefined);
  }
});

test("a sparse file reaches 16 TiB, costs only its path, and gives everything back", () => {
  const { volume, inode } = volumeWithFile();
  const last = FILE_BYTES_MAX - 4096;
  write(volume, inode, 0, new Uint8Array(4096).fill(1));
  write(volume, inode, last, new Uint8Array(4096).fill(2));
  volume.takeCp("sync");
  assert.equal(inode.tree.sizeBytes, FILE_BYTES_MAX);
  assert(inode.tree.blockCount <= 10, `${inode.tree.blockCount} blocks`);
  assert.equal(read(volume, inode, last, 4096)[4095], 2);
  assert.equal(read(volume, inode, 2 ** 40, 100)[0], 0);
  assert.equal(seekData(volume.active, inode, 4096, "data"), last);
  assert.throws(() => write(volume, inode, FILE_BYTES_MAX, Uint8Array.of(1)), { code: "EFBIG" });
  volume.active.store.beginOperation();
  resizeFile(volume.active, inode, 0);
  assert.equal(inode.tree.blockCount, 0);
  assert.equal(inode.tree.height, 0);
});

test("a file of many megabytes is written in long runs", () => {
  const { volume, inode } = volumeWithFile();
  const chunk = new Uint8Array(1 << 20);
  for (let i = 0; i < 16; i++) write(volume, inode, i << 20, chunk.fill(i + 1));
  let breaks = 0;
  for (let i = 1; i < 4096; i++) {
    if (vbnAt(volume.active.store, inode.tree, i) !== vbnAt(volume.active.store, inode.tree, i - 1) + 1) breaks += 1;
  }
  assert(breaks <= 10, `${breaks} breaks in 4096 blocks`);
});

test("a data block with a flipped bit is found when it is read, and named", () => {
  const device = memoryDevice(2000);
  createVolume({ device, clock, random: prng(1) });
  const volume = openVolume({ device, clock, random: prng(2), writable: true });
  const inode = volume.active.allocate();
  inode.mode = 0o100644;
  write(volume, inode, 0, new Uint8Array(64 * 4096).fill(5));
  volume.takeCp("sync");
  const vbn = vbnAt(volume.active.store, inode.tree, 33);
  device.corrupt(vbn * 4096 + 1000);
  assert.equal(read(volume, inode, 0, 33 * 4096).length, 33 * 4096, "blocks before it are readable");
  assert.throws(
    () => read(volume, inode, 33 * 4096, 4096),
    (error: unknown) => error instanceof CorruptionError && error.message.includes(`block ${vbn} `),
  );
  assert.throws(
    () => write(volume, inode, 33 * 4096 + 5, Uint8Array.of(1)),
    CorruptionError,
    "it cannot be changed in part",
  );
  write(volume, inode, 33 * 4096, new Uint8Array(4096).fill(6));
  assert.equal(read(volume, inode, 33 * 4096, 4096)[9], 6, "but it can be overwritten as a whole");
});

test("a read fills no byte before its place, and only whole blocks beyond its length", () => {
  const { volume, inode } = volumeWithFile();
  write(volume, inode, 0, new Uint8Array(10_000).fill(7));
  volume.takeCp("sync");
  const into = new Uint8Array(16 + 3 * 4096).fill(9);
  volume.active.store.beginOperation();
  assert.equal(readFile(volume.active, inode, 0, 5000, into, 16), 5000);
  assert(into.subarray(0, 16).every((byte) => byte === 9));
  assert(into.subarray(16, 5016).every((byte) => byte === 7));
  assert(into.subarray(16 + 8192).every((byte) => byte === 9));
});
