// The devices of test/support judge the product, so they are judged here.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { prng } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { countingDevice, crashDevice, failAfter, guardedDevice, memoryDevice, PowerCut } from "../support/devices.ts";

function filled(byte: number, count = 1): Uint8Array {
  return new Uint8Array(count * BLOCK_BYTES).fill(byte);
}

function blockOf(device: BlockDevice, vbn: number): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  device.read(vbn, 1, block, 0);
  return block;
}

test("a memory device gives back what was written, zeros elsewhere, and refuses what lies beyond its end", () => {
  const device = memoryDevice(2 ** 32 - 1);
  device.write(63, 3, Buffer.concat([filled(1), filled(2), filled(3)]), 0);
  device.writeGather(2 ** 32 - 3, [filled(4), filled(5)]);
  const run = filled(0xff, 5);
  device.read(62, 5, run, 0);
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((i) => run[i * BLOCK_BYTES]),
    [0, 1, 2, 3, 0],
  );
  assert.equal(blockOf(device, 2 ** 32 - 2)[100], 5);
  assert.throws(() => device.write(2 ** 32 - 2, 2, filled(0, 2), 0), assert.AssertionError);
  assert.throws(() => device.read(0, 2, filled(0), 0), assert.AssertionError);
});

test("a clone of a memory device does not see later writes", () => {
  const device = memoryDevice(8);
  device.write(1, 1, filled(1), 0);
  const copy = device.clone();
  device.write(1, 1, filled(2), 0);
  assert.equal(blockOf(copy, 1)[0], 1);
});

test("failAfter lets so many changes pass and none after them, reads always", () => {
  const device = failAfter(memoryDevice(8), 2);
  device.write(0, 1, filled(1), 0);
  device.flush();
  assert.equal(device.failed, false);
  assert.throws(() => device.writeDurable(1, filled(1)), PowerCut);
  assert.throws(() => device.flush(), PowerCut);
  assert.equal(device.failed, true);
  assert.equal(blockOf(device, 1)[0], 0);
});

test("a crash keeps all that was flushed, and of the rest every subset of versions and sectors is possible", () => {
  const base = memoryDevice(8);
  const device = crashDevice({ random: prng(1), base });
  device.write(0, 1, filled(1), 0);
  device.flush();
  device.write(0, 1, filled(2), 0);
  device.write(0, 1, filled(3), 0);
  device.write(1, 1, filled(4), 0);
  device.writeDurable(2, filled(5));
  const seen = new Set<string>();
  for (let i = 0; i < 400; i++) {
    const image = device.crash();
    assert.equal(blockOf(image, 2)[0], 5);
    const first = [...new Set(blockOf(image, 0))].join("+");
    seen.add(first.includes("+") ? "torn" : `${first},${blockOf(image, 1)[0]}`);
  }
  for (const possible of ["1,0", "1,4", "2,0", "2,4", "3,0", "3,4", "torn"]) assert(seen.has(possible), possible);
  assert.equal(blockOf(device, 0)[0], 3, "the device itself is not changed by a crash");
});

test("a cut operation may be on the disk in part, and nothing works after it", () => {
  const kinds = new Set<string>();
  for (let seed = 0; seed < 100; seed++) {
    const device = crashDevice({ random: prng(seed), base: memoryDevice(8) });
    device.cutAfter(1);
    device.write(0, 1, filled(1), 0);
    assert.throws(() => device.writeDurable(1, filled(2)), PowerCut);
    assert.throws(() => blockOf(device, 0), PowerCut);
    assert.equal(device.operations, 2);
    kinds.add([...new Set(blockOf(device.crash(), 1))].toSorted((a, b) => a - b).join("+"));
  }
  assert.deepEqual(
    [...kinds].toSorted((a, b) => a.length - b.length || a.localeCompare(b)),
    ["0", "2", "0+2"],
  );
});

test("a guarded device stops every kind of write to a protected block, and lets reads pass", () => {
  const device = guardedDevice(memoryDevice(8), (vbn) => vbn === 3);
  device.write(2, 1, filled(1), 0);
  assert.throws(() => device.write(2, 2, filled(1, 2), 0), /write hits block 3/);
  assert.throws(() => device.writeGather(2, [filled(1), filled(1)]), /write hits block 3/);
  assert.throws(() => device.writeDurable(3, filled(1)), /write hits block 3/);
  assert.throws(() => device.discard(0, 8), /discard hits block 3/);
  assert.equal(blockOf(device, 3)[0], 0);
});

test("a counting device lists the blocks of reads and writes", () => {
  const device = countingDevice(memoryDevice(8));
  device.write(2, 2, filled(1, 2), 0);
  blockOf(device, 5);
  device.flush();
  assert.deepEqual([device.reads, device.writes, device.flushes], [[5], [2, 3], 1]);
  device.reset();
  assert.deepEqual([device.reads, device.writes, device.flushes], [[], [], 0]);
});
