import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { entryAt, makeBench, makeDir, putFile, readAll, writeAt } from "../support/fs-paths.ts";

test("data is written in slices ahead of a consistency point, which then has none to write, and nothing is lost between", () => {
  const bench = makeBench();
  const { fs, volume, device } = bench;
  putFile(fs, "/scattered");
  for (let i = 0; i < 300; i++) writeAt(fs, "/scattered", i * 3 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(i));
  for (let i = 0; i < 50; i++) putFile(fs, `/small ${i}`, new Uint8Array(BLOCK_BYTES).fill(i));
  const before = volume.dirtyBytes;
  let slices = 0;
  while (volume.relieve({ blocksMax: 32 })) {
    slices += 1;
    // What is changed between is in it too, a block that was written already as well.
    writeAt(fs, "/scattered", 5, new Uint8Array(10).fill(slices));
    assert.equal(readAll(fs, "/scattered")[5], slices);
  }
  assert(slices >= 350 / 32 && slices <= 700 / 32, `${slices} slices`);
  assert(volume.dirtyBytes < before / 2, "the pointers are left");
  const frozen = volume.freezeCp("sync");
  assert(frozen.blocksWritten < 30, `${frozen.blocksWritten} blocks at once`);
  device.flush();
  for (const vbn of frozen.fsinfoVbns) device.writeDurable(vbn, frozen.fsinfo);
  volume.commitCp(frozen);
  bench.reopen();
  const scattered = readAll(bench.fs, "/scattered");
  for (let i = 1; i < 300; i++) assert.equal(scattered[i * 3 * BLOCK_BYTES], i % 256);
  for (let i = 0; i < 50; i++) assert.equal(readAll(bench.fs, `/small ${i}`)[7], i);
  assert.deepEqual(checkVolume(device).findings, []);
});

test("indirect blocks and directories are written ahead too, and again where they change after that", () => {
  const bench = makeBench();
  const { fs, volume, device } = bench;
  putFile(fs, "/wide");
  for (let i = 0; i < 200; i++) writeAt(fs, "/wide", i * 600 * BLOCK_BYTES, Uint8Array.of(i));
  makeDir(fs, "/d");
  for (let i = 0; i < 3000; i++) putFile(fs, `/d/file number ${i}`);
  let slices = 0;
  while (volume.relieve({ blocksMax: 32 })) {
    slices += 1;
    writeAt(fs, "/wide", 100 * 600 * BLOCK_BYTES + slices, Uint8Array.of(slices));
    putFile(fs, `/d/late ${slices}`);
  }
  assert(slices > 12, `${slices} slices`);
  const inodeBlocks = Math.ceil((3300 + slices) / 16);
  const frozen = volume.freezeCp("sync");
  assert(frozen.blocksWritten < inodeBlocks + 20, `${frozen.blocksWritten} blocks at once`);
  device.flush();
  for (const vbn of frozen.fsinfoVbns) device.writeDurable(vbn, frozen.fsinfo);
  volume.commitCp(frozen);
  assert.deepEqual(checkVolume(device).findings, []);
  bench.reopen();
  const wide = readAll(bench.fs, "/wide");
  for (let i = 1; i < 200; i++) assert.equal(wide[i * 600 * BLOCK_BYTES], i);
  for (let i = 1; i <= slices; i++) {
    assert.equal(wide[100 * 600 * BLOCK_BYTES + i], i % 256);
    assert(entryAt(bench.fs, `/d/late ${i}`).nodeId > 0);
  }
});

test("what is changed again after it was written ahead is written ahead again", () => {
  const { fs, volume } = makeBench();
  for (let i = 0; i < 100; i++) putFile(fs, `/${i}`, new Uint8Array(BLOCK_BYTES).fill(i));
  assert.equal(volume.relieve(), false);
  const rest = volume.dirtyBytes;
  for (let round = 1; round <= 3; round++) {
    for (let i = 0; i < 100; i++) writeAt(fs, `/${i}`, 0, new Uint8Array(BLOCK_BYTES).fill(round));
    assert(volume.dirtyBytes >= rest + 100 * BLOCK_BYTES);
    assert.equal(volume.relieve(), false);
    assert.equal(volume.dirtyBytes, rest);
  }
});
