// What the status says of who holds the space.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { spaceOf } from "../../src/daemon/space-holders.ts";
import { makeBench, putFile, writeAt } from "../support/fs-paths.ts";

test("what has been freed since the last consistency point is held by no snapshot, unless there is one that has it", () => {
  const { fs, volume } = makeBench();
  const data = new Uint8Array(512 * BLOCK_BYTES).fill(1);
  putFile(fs, "/f");
  writeAt(fs, "/f", 0, data);
  volume.takeCp("sync");
  writeAt(fs, "/f", 0, data);
  assert(volume.frozenBlocks >= 512);
  assert.equal(spaceOf(volume).snapshotBlocks, 0);
  volume.takeCp("sync");
  assert.equal(spaceOf(volume).snapshotBlocks, 0);
  volume.createSnapshot("s");
  volume.takeCp("snapshot");
  writeAt(fs, "/f", 0, data);
  volume.takeCp("sync");
  const { snapshotBlocks } = spaceOf(volume);
  assert(snapshotBlocks >= 512 && snapshotBlocks < 530, `${snapshotBlocks} blocks`);
});
