// A volume that no daemon has, opened by the process of a command.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { withVolume } from "../../src/daemon/volume-access.ts";
import { createFileDevice } from "../../src/device/file-device.ts";
import { makeBench, placeAt, putFile, writeAt } from "../support/fs-paths.ts";
import { temporaryDirectory } from "../support/temp.ts";

test("a snapshot of an unmounted volume does not hold what was deleted, and not freed, before it was unmounted", async (t) => {
  const path = join(temporaryDirectory(t), "v.tm");
  const device = createFileDevice(path, 16384);
  const { volume, fs } = makeBench(16384, device);
  putFile(fs, "/f");
  for (let i = 0; i < 10; i++) writeAt(fs, "/f", i * 512 * BLOCK_BYTES, new Uint8Array(512 * BLOCK_BYTES));
  volume.takeCp("timer");
  fs.unlink(...placeAt(fs, "/f"));
  volume.takeCp("unmount");
  assert.notEqual(fs.doomedCount, 0);
  device.close();

  const made = await withVolume(path, { writable: true }, (access) =>
    access.call("snapshot-create", { name: "s", mirror: false }),
  );
  assert(made.activeBlocks < 100, `${made.activeBlocks} blocks are held`);
});
