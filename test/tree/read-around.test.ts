import assert from "node:assert/strict";
import { test } from "node:test";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
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

test("the beginning of a listing reads few inodes on trial, and what follows all that are asked for", () => {
  const bench = makeBench(BLOCKS);
  for (let i = 0; i < 1000; i++) putFile(bench.fs, `/f${i}`);
  bench.volume.takeCp("sync");
  bench.reopen({ writable: false });
  const { store } = bench.volume.active;
  const { handle } = bench.fs.openDirectory(ROOT_NODE);
  let last = 0;

  function told(cookie: number, names: number): { readonly told: number; readonly misses: number } {
    const before = store.missCount;
    let entries = 0;
    let seen = 0;
    bench.fs.readDirectory(handle, cookie, { plus: true }, (_names, _start, _end, _ino, _type, next, entry) => {
      if (seen === names) return false;
      seen += 1;
      last = next;
      if (entry !== undefined) entries += 1;
      return true;
    });
    return { told: entries, misses: store.missCount - before };
  }

  const trial = told(0, 500);
  assert(trial.told > 10 && trial.told < 400, `${trial.told} of 500 names`);
  assert(trial.misses < 40, `${trial.misses} blocks: 16 of inodes, and some of the directory`);
  assert.equal(told(last, 500).told, 500);
  assert.equal(told(0, 500).told, 498, "what is in memory is told without end; . and .. are not");
});
