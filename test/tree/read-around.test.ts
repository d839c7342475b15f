import assert from "node:assert/strict";
import { test } from "node:test";
import { memoryDevice } from "../support/devices.ts";
import { makeBench, nodeAt, putFile } from "../support/fs-paths.ts";

const BLOCKS = 16384;

test("metadata that is missed near the one missed before is read with what lies around it, within the volume", () => {
  const windows: { readonly vbn: number; readonly count: number }[] = [];
  const device = {
    ...memoryDevice(BLOCKS),
    readAhead: (vbn: number, count: number) => void windows.push({ vbn, count }),
  };
  const bench = makeBench(BLOCKS, device);
  for (let i = 0; i < 500; i++) putFile(bench.fs, `/f${i}`);
  bench.volume.takeCp("sync");
  const { store } = bench.volume.active;
  windows.length = 0;
  bench.reopen({ writable: false });
  for (let i = 0; i < 500; i++) nodeAt(bench.fs, `/f${i}`);
  assert(windows.length > 10, `${windows.length} times`); // 32 blocks of inodes
  for (const { vbn, count } of windows) {
    assert(vbn >= store.firstVbn && count > 0 && vbn + count <= store.endVbn, `${count} from ${vbn} on`);
  }
  const seen = windows.length;
  bench.fs.status();
  nodeAt(bench.fs, "/f7");
  assert.equal(windows.length, seen, "what is in the cache asks for nothing");
});

test("a block that is missed far from the one before is read alone", () => {
  const windows: number[] = [];
  const device = { ...memoryDevice(BLOCKS), readAhead: (vbn: number) => void windows.push(vbn) };
  const { volume } = makeBench(BLOCKS, device);
  const { store } = volume.active;
  windows.length = 0;
  for (const vbn of [1000, 9000, 2000, 8000]) assert.throws(() => store.read(vbn, 1), /checksum/);
  assert.deepEqual(windows, []);
  assert.throws(() => store.read(8010, 1), /checksum/);
  assert.deepEqual(windows, [8000]);
});
