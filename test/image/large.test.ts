// Large images: what was sent of them need not stay in the host's memory, and what is received of them goes to the disk meanwhile.
import assert from "node:assert/strict";
import { fstatSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { createFileDevice, type PageCache } from "../../src/device/file-device.ts";
import { receiveImages } from "../../src/image/receive-images.ts";
import { sendImage } from "../../src/image/send-image.ts";
import { makeBench, putFile, writeAt } from "../support/fs-paths.ts";
import { temporaryDirectory } from "../support/temp.ts";
import { clock } from "./histories.ts";

const LARGE_MIB = 68;

function unused(): never {
  assert.fail("it was not to be used");
}

test("what was sent of a large image is dropped, and what was received is begun with before the end, from end to end", async (t) => {
  const folder = temporaryDirectory(t);
  const at = (name: string): string => join(folder, name);
  const device = createFileDevice(at("v"), 32_768);
  const { volume, fs } = makeBench(32_768, device);
  volume.createSnapshot("small");
  volume.takeCp("snapshot");
  putFile(fs, "/f");
  for (let i = 0; i < LARGE_MIB; i++) writeAt(fs, "/f", i << 20, new Uint8Array(256 * BLOCK_BYTES).fill(i));
  volume.createSnapshot("large");
  volume.takeCp("snapshot");
  device.close();

  await sendImage({ volume: at("v"), snapshots: ["small"], output: at("small"), findReading: unused });
  let droppedBytes = 0;
  const pageCache: PageCache = {
    readScattered(descriptor, position, places, count, into, offset): number {
      const [first = 0] = places;
      for (let i = 0; i < count; i++) assert.equal(places[i], first + i);
      return readSync(descriptor, into, offset + first * BLOCK_BYTES, count * BLOCK_BYTES, position);
    },
    readAhead: () => {}, // of metadata
    drop: (descriptor, lengthBytes) => {
      assert.equal(fstatSync(descriptor).ino, statSync(at("v")).ino);
      droppedBytes += lengthBytes;
    },
  };
  let [outputEnd, isOutputEnded] = [0, false];
  const outputBack = {
    begin(_descriptor: number, position: number, lengthBytes: number): void {
      assert.equal(position, outputEnd);
      outputEnd += lengthBytes;
    },
    async end(): Promise<void> {
      isOutputEnded = true;
    },
  };
  const how = {
    output: at("large"),
    findReading: async () => ({ pageCache, dropsBehind: true }),
    writeBack: outputBack,
  };
  await sendImage({ volume: at("v"), snapshots: ["large"], ...how });
  assert(isOutputEnded && outputEnd > (LARGE_MIB - 8) << 20, `${outputEnd}`);
  assert(droppedBytes > (LARGE_MIB - 24) << 20, `${droppedBytes}`);

  const begun: (readonly [position: number, lengthBytes: number])[] = [];
  let isEnded = false;
  const writeBack = {
    begin(descriptor: number, position: number, lengthBytes: number): void {
      assert(!isEnded);
      assert.equal(fstatSync(descriptor).ino, statSync(at("copy")).ino);
      begun.push([position, lengthBytes]);
    },
    async end(): Promise<void> {
      isEnded = true;
    },
  };
  await receiveImages({ volume: at("copy"), files: [at("large")], clock, writeBack });
  assert(isEnded);
  const begunBytes = begun.reduce((sum, [, lengthBytes]) => sum + lengthBytes, 0);
  assert(begunBytes > (LARGE_MIB - 8) << 20, `${begunBytes}`);
  for (const [i, [position]] of begun.entries()) {
    const [before = 0, beforeBytes = 0] = begun[i - 1] ?? [];
    assert(position >= before + beforeBytes, "it was begun with twice");
  }
});
