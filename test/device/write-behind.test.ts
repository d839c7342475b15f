// What is written in long runs is handed to the disk piece by piece, when it has been written, and short runs are not.
import assert from "node:assert/strict";
import { test } from "node:test";
import { writeBehind } from "../../src/device/write-behind.ts";
import { memoryDevice } from "../support/devices.ts";

const MIB_BLOCKS = 256;
const PIECE_BLOCKS = 4 * MIB_BLOCKS;
const bytes = new Uint8Array(PIECE_BLOCKS * 4096).fill(1);

function bench(runBlocksMin: number) {
  const begun: (readonly [vbn: number, count: number])[] = [];
  const inner = memoryDevice(64 * MIB_BLOCKS);
  const last = new Uint8Array(4096);
  const device = writeBehind(inner, {
    runBlocksMin,
    begin(vbn, count) {
      inner.read(vbn + count - 1, 1, last, 0);
      assert.equal(last[0], 1, "it has not been written");
      begun.push([vbn, count]);
    },
  });
  return { begun, write: (vbn: number, count: number): void => device.write(vbn, count, bytes, 0) };
}

test("a file that is written from end to end is begun with piece by piece, all but what is left of one", () => {
  const { begun, write } = bench(64);
  for (let at = 100; at < 100 + 10 * MIB_BLOCKS; at += 64) write(at, 64);
  assert.deepEqual(begun, [
    [100, PIECE_BLOCKS],
    [100 + PIECE_BLOCKS, PIECE_BLOCKS],
  ]);
});

test("gaps of up to a piece lie within it, and a run that is further on, or further back, begins a new one", () => {
  const { begun, write } = bench(64);
  write(0, 64);
  write(64 + PIECE_BLOCKS, 64);
  assert.deepEqual(begun.splice(0), [[0, PIECE_BLOCKS + 128]]);
  write(10_000, PIECE_BLOCKS - 1);
  write(10_000 + 2 * PIECE_BLOCKS, PIECE_BLOCKS - 1); // one too far
  write(0, PIECE_BLOCKS - 1);
  assert.deepEqual(begun, []);
  write(PIECE_BLOCKS, 64);
  assert.deepEqual(begun, [[0, PIECE_BLOCKS + 64]]);
});

test("short runs are left to the flush, however many there are, and do not end a piece", () => {
  const { begun, write } = bench(64);
  for (let at = 0; at < 8 * MIB_BLOCKS; at += 63) write(at, 63);
  assert.deepEqual(begun, []);
  write(0, PIECE_BLOCKS - 64);
  write(50 * MIB_BLOCKS, 63);
  write(PIECE_BLOCKS - 64, 64);
  assert.deepEqual(begun, [[0, PIECE_BLOCKS]]);
});
