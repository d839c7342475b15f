import assert from "node:assert/strict";
import { test } from "node:test";
import { FsError } from "../../src/core/errors.ts";
import { below, prng } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import { forgetful, makeBench, putFile, readAll, writeAt } from "../support/fs-paths.ts";

/** Reads and writes fail after so many, until they are to go on. */
function failingDevice(device: BlockDevice): BlockDevice & { left: number } {
  const fails = (): void => {
    if (failing.left-- <= 0) throw new FsError("EIO", "failed by the test");
  };
  const failing = {
    ...device,
    left: Number.POSITIVE_INFINITY,
    read(...given: Parameters<BlockDevice["read"]>): void {
      fails();
      device.read(...given);
    },
    write(...given: Parameters<BlockDevice["write"]>): void {
      fails();
      device.write(...given);
    },
  };
  return failing;
}

test("a write that the disk fails, whatever of it, leaves the file as it was, and nothing beyond its end", () => {
  const random = prng(5);
  const sizes = [0, 100, 5000, 65_000, 65_636, 2 ** 21 + 100, 2 ** 21 + 2 ** 16 + 7, 2 ** 25 + 123];
  let failedCount = 0;
  for (let round = 0; round < 150; round++) {
    const { device, clock, fs, volume } = makeBench(4096);
    const size = sizes[below(random, sizes.length)] as number;
    putFile(fs, "/f");
    if (size > 0) writeAt(fs, "/f", Math.max(0, size - 300_000), new Uint8Array(Math.min(size, 300_000)).fill(1));
    volume.takeCp("unmount");

    // Opened again, nothing is in memory.
    const failing = failingDevice(device);
    const again = openVolume({ device: failing, clock, random: prng(round), writable: true });
    const cold = forgetful(openFileSystem({ volume: again, clock }));
    const offset = Math.max(0, size - 5000 + below(random, below(random, 2) === 0 ? 10_000 : 2 ** 25));
    const bytes = new Uint8Array(1 + below(random, below(random, 2) === 0 ? 5000 : 3 * 2 ** 20)).fill(2);
    failing.left = below(random, 8);
    let isDone = true;
    try {
      writeAt(cold, "/f", offset, bytes);
    } catch {
      isDone = false;
      failedCount += 1;
    }
    failing.left = Number.POSITIVE_INFINITY;
    const what = `round ${round}: ${bytes.length} bytes at ${offset} of a file of ${size}`;
    if (!isDone) assert.deepEqual(readAll(cold, "/f"), readAll(fs, "/f"), what);
    again.takeCp("sync");
    assert.deepEqual(checkVolume(device).findings, [], what);
  }
  assert(failedCount > 40, `${failedCount} writes failed`);
});
