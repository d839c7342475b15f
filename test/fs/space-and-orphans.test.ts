// Files without names, files too large to be freed at once, full volumes, directories of 100,000 files.
import assert from "node:assert/strict";
import { test } from "node:test";
import { below, prng } from "../../src/core/prng.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { memoryDevice } from "../support/devices.ts";
import {
  applyToReal,
  asName,
  assertEqual,
  type Bench,
  entryAt,
  errnoOf,
  list,
  makeBench,
  makeDir,
  nodeAt,
  placeAt,
  putFile,
  tick,
  withOpen,
  writeAt,
} from "../support/fs-paths.ts";
import { applyToModel, emptyModel, type Operation } from "../support/model-fs.ts";

const ROOT = { uid: 0, gid: 0 };
const MIB = 1 << 20;

function assertClean({ device, volume }: Bench): void {
  volume.takeCp("sync");
  assert.deepEqual(checkVolume(device).findings, []);
}

test("files that were open and unlinked at a crash are freed when the volume is opened", () => {
  const bench = makeBench();
  const { fs, volume } = bench;
  putFile(fs, "/kept", "x");
  volume.takeCp("sync");
  const before = volume.status();
  for (let i = 0; i < 3000; i++) fs.createUnnamed(ROOT_NODE, 0o600, 2, ROOT);
  const node = putFile(fs, "/f", new Uint8Array(2 * MIB).fill(1));
  fs.setXattr(node, asName("user.a"), new Uint8Array(5000), 0);
  fs.open(node, 2);
  fs.openDirectory(makeDir(fs, "/d"));
  fs.unlink(ROOT_NODE, asName("f"));
  fs.removeDirectory(ROOT_NODE, asName("d"));
  assert.equal(volume.status().usedInodes, before.usedInodes + 3003);
  volume.takeCp("timer");
  assert.deepEqual(checkVolume(bench.device).findings, []);
  bench.reopen();
  while (bench.fs.reclaimSlice());
  assert.equal(bench.volume.status().usedInodes, before.usedInodes);
  assertClean(bench);
  bench.volume.takeCp("sync");
  const grown = before.freeBlocks - bench.volume.status().freeBlocks;
  assert.ok(grown < 250, `all but the inode file's and the orphan file's blocks are free again, ${grown} are not`);
});

test("what was not committed before a crash never was", () => {
  const bench = makeBench();
  bench.volume.takeCp("sync");
  putFile(bench.fs, "/f", "x");
  bench.reopen();
  assert.deepEqual(list(bench.fs, ROOT_NODE), []);
});

test("a slot of the orphan file is used again", () => {
  const bench = makeBench();
  const { fs } = bench;
  for (let i = 0; i < 3000; i++) fs.release(fs.createUnnamed(ROOT_NODE, 0o600, 2, ROOT).handle);
  const open = Array.from({ length: 1500 }, () => fs.createUnnamed(ROOT_NODE, 0o600, 2, ROOT).handle);
  bench.volume.takeCp("sync");
  for (const handle of open) fs.release(handle);
  assert.equal(bench.volume.active.get(4)?.tree.sizeBytes, 8192);
  assertClean(bench);
});

test("whether a deleted file is in use is known, until it is released and forgotten", () => {
  const bench = makeBench();
  const { fs } = bench;
  const { handle } = fs.create(ROOT_NODE, asName("open"), 0o600, 2, ROOT);
  writeAt(fs, "/open", 0, new Uint8Array(20 * MIB));
  assert.equal(fs.hasUnnamedInUse, false);
  fs.unlink(ROOT_NODE, asName("open"));
  assert.equal(fs.hasUnnamedInUse, true);
  fs.release(handle); // this kernel forgets at once
  assert.deepEqual([fs.hasUnnamedInUse, fs.doomedCount], [false, 1]);
  while (fs.reclaimSlice());
  assert.deepEqual([fs.hasUnnamedInUse, fs.doomedCount], [false, 0]);
  assertClean(bench);
});

test("a large file is freed slice by slice, also across a crash, and its name is gone at once", () => {
  const bench = makeBench(65536);
  const { fs, volume } = bench;
  const free = volume.status().freeBlocks;
  const data = new Uint8Array(MIB).fill(3);
  putFile(fs, "/big");
  putFile(fs, "/cut");
  for (let at = 0; at < 150 * MIB; at += MIB) writeAt(fs, "/big", at, data);
  for (let at = 0; at < 70 * MIB; at += MIB) writeAt(fs, "/cut", at, data);
  volume.takeCp("sync");
  fs.unlink(ROOT_NODE, asName("big"));
  fs.setAttributes(nodeAt(fs, "/cut"), { sizeBytes: 0 }, ROOT);
  assert.equal(
    errnoOf(() => nodeAt(fs, "/big")),
    "ENOENT",
  );
  assert.equal(entryAt(fs, "/cut").attributes.sectorCount, 0);
  assert.equal(fs.doomedCount, 2);
  assert.equal(fs.reclaimSlice(), true);
  assertClean(bench);
  bench.reopen();
  while (bench.fs.reclaimSlice()) bench.volume.takeCp("timer");
  assert.equal(bench.fs.doomedCount, 0);
  assertClean(bench);
  bench.volume.takeCp("sync");
  assert.ok(free - bench.volume.status().freeBlocks < 20);
});

test("a large file that is mostly holes is freed in few slices", () => {
  const bench = makeBench();
  const { fs } = bench;
  const node = putFile(fs, "/f");
  const { handle } = fs.open(node, 2);
  for (let i = 0; i < 300; i++) {
    fs.write(handle, i * 2 ** 35, Buffer.from("x"), 0, 1, { fromCache: false, killPriv: false });
  }
  fs.unlink(ROOT_NODE, asName("f"));
  fs.release(handle);
  let slices = 0;
  while (fs.reclaimSlice()) slices += 1;
  assert.ok(slices < 25, `${slices} slices`);
  assertClean(bench);
});

test("a full volume refuses what needs space, changes nothing then, and can be emptied", () => {
  for (const blockCount of [256, 1024, 4096]) {
    const bench = makeBench(blockCount, memoryDevice(blockCount));
    const { fs, clock, volume } = bench;
    const random = prng(blockCount);
    const model = emptyModel(clock.now());
    const slots = new Map();
    const data = new Uint8Array(30_000).fill(9);
    const files: string[] = [];
    let refused = 0;
    for (let i = 0; refused < 40 && i < 20_000; i++) {
      tick(clock);
      const path = `/f${i}`;
      const target = files[below(random, Math.max(1, files.length))] ?? path;
      const operations: Operation[] = [
        { kind: "create", path, mode: 0o644, uid: 0 },
        { kind: "write", path: target, offset: below(random, 100_000), data },
        { kind: "mkdir", path: `/d${i}`, mode: 0o755, uid: 0 },
        { kind: "setxattr", path: target, name: "user.a", value: "v".repeat(3000), flags: 0 },
        { kind: "rename", path: target, into: `${path}renamed`, flags: 0 },
        { kind: "symlink", path: `/l${i}`, target: "t".repeat(1000) },
      ];
      const operation = operations[below(random, operations.length)] as Operation;
      const found = applyToReal(fs, slots, operation);
      if (found === "ENOSPC") {
        refused += 1;
        if (refused % 8 === 0) assertEqual(fs, model);
        if (refused % 5 === 0) volume.takeCp("space");
      } else {
        assert.equal(found, applyToModel(model, operation, clock.now()), operation.kind);
        if (operation.kind === "create" && found === "") files.push(path);
        if (operation.kind === "rename" && found === "") files.splice(files.indexOf(target), 1);
      }
    }
    assert.ok(refused >= 40, `${blockCount} blocks were never full`);
    assertEqual(fs, model);
    assertClean(bench);
    for (const { name, type } of list(fs, ROOT_NODE)) {
      const remove = (): void =>
        type === 4 ? fs.removeDirectory(ROOT_NODE, asName(name)) : fs.unlink(ROOT_NODE, asName(name));
      if (errnoOf(remove) === "") continue;
      volume.takeCp("space"); // gives back what has been freed: as the daemon does
      remove();
    }
    assertClean(bench);
    putFile(fs, "/again", data);
    assertClean(bench);
  }
});

test("on a full volume a file that is too large to be freed at once can be cut to nothing", () => {
  const bench = makeBench(32768, memoryDevice(32768));
  const { fs, volume } = bench;
  const data = new Uint8Array(MIB).fill(7);
  const node = putFile(fs, "/large", data);
  for (const [path, bytes] of [
    ["/large", data],
    ["/small", data.subarray(0, 4096)],
  ] as const) {
    if (path === "/small") putFile(fs, path, bytes);
    for (let at = bytes.length, error = ""; error === ""; at += bytes.length)
      error = errnoOf(() => writeAt(fs, path, at, bytes));
  }
  volume.takeCp("space");
  assert.equal(
    errnoOf(() => writeAt(fs, "/small", 2 ** 30, data)),
    "ENOSPC",
  );
  fs.setAttributes(node, { sizeBytes: 0 }, ROOT);
  while (fs.reclaimSlice());
  volume.takeCp("sync");
  assert.ok(volume.status().availableBlocks > 20_000);
  assertClean(bench);
});

test("zeroing a range of a file on a full volume does all of it or nothing", () => {
  const outcomes = new Set<string>();
  for (const changed of [-20, -9, -6, -3, 0, 1, 2, 3, 4, 5, 6, 8, 10]) {
    const bench = makeBench(512, memoryDevice(512));
    const { fs, volume } = bench;
    const content = new Uint8Array(100_000).fill(7);
    const node = putFile(fs, "/f", content);
    const others = Array.from({ length: 400 }, (_, i) => putFile(fs, `/${i}`));
    putFile(fs, "/fill");
    volume.takeCp("sync");
    for (let at = 0; errnoOf(() => writeAt(fs, "/fill", at, new Uint8Array(4096).fill(2))) === ""; ) at += 4096;
    // So many blocks are given back, or so many blocks of inodes take what is left, one each.
    if (changed < 0)
      fs.setAttributes(
        nodeAt(fs, "/fill"),
        { sizeBytes: entryAt(fs, "/fill").attributes.sizeBytes + changed * 4096 },
        ROOT,
      );
    for (const other of others.filter((_, i) => i % 16 === 0).slice(0, Math.max(0, changed))) {
      if (errnoOf(() => fs.setAttributes(other, { mode: 0o600 }, ROOT)) !== "") break;
    }
    const { handle } = fs.open(node, 2);
    const found = errnoOf(() => fs.allocate(handle, 0x10, 97_000, 5000));
    outcomes.add(found);
    const after = new Uint8Array(300_000);
    const length = fs.read(handle, 0, after.length, after, 0);
    const expected = found === "" ? new Uint8Array(102_000) : content;
    if (found === "") expected.set(content.subarray(0, 97_000));
    assert.deepEqual(Buffer.compare(after.subarray(0, length), expected), 0, `${changed} changed: ${found}`);
    assertClean(bench);
  }
  assert.deepEqual([...outcomes].toSorted(), ["", "ENOSPC"]);
});

test("a directory of 100,000 files: each is found, listed once and removed", () => {
  const bench = makeBench(65536);
  const { fs, volume } = bench;
  const dir = makeDir(fs, "/d");
  for (let i = 0; i < 100_000; i++) fs.release(fs.create(dir, asName(`file number ${i}`), 0o644, 2, ROOT).handle);
  volume.takeCp("sync");
  bench.reopen();
  assert.deepEqual(checkVolume(bench.device).findings, []);
  const again = nodeAt(bench.fs, "/d");
  const names = new Set(list(bench.fs, again, 500).map(({ name }) => name));
  assert.equal(names.size, 100_000);
  for (let i = 0; i < 100_000; i += 97) assert.ok(bench.fs.lookup(again, asName(`file number ${i}`)).nodeId > 0);
  assert.equal(
    errnoOf(() => bench.fs.lookup(again, asName("file number 100000"))),
    "ENOENT",
  );
  for (const name of names) bench.fs.unlink(again, asName(name));
  bench.fs.removeDirectory(...placeAt(bench.fs, "/d"));
  assertClean(bench);
});

test("handles are given back", () => {
  const { fs } = makeBench();
  putFile(fs, "/f", "x");
  for (let i = 0; i < 10; i++) withOpen(fs, "/f", 2, () => list(fs, ROOT_NODE));
  assert.equal(fs.openCount, 0);
});

test("a deleted file stays what it is, and its number its own, until the kernel forgets it", () => {
  const bench = makeBench();
  const { volume, clock } = bench;
  const fs = openFileSystem({ volume, clock }); // one that remembers lookups, as a mount does
  const made = fs.create(ROOT_NODE, asName("f"), 0o644, 0, { uid: 0, gid: 0 });
  fs.release(made.handle);
  const again = fs.lookup(ROOT_NODE, asName("f"));
  assert.equal(again.nodeId, made.nodeId);
  fs.unlink(ROOT_NODE, asName("f"));
  assert.equal(fs.getAttributes(made.nodeId).attributes.linkCount, 0);
  const written = { seconds: 77, nanoseconds: 0 };
  fs.setAttributes(made.nodeId, { mtime: written, ctime: written }, { uid: 0, gid: 0 });
  for (let i = 0; i < 50; i++) {
    const other = fs.create(ROOT_NODE, asName(`g${i}`), 0o644, 0, { uid: 0, gid: 0 });
    assert.notEqual(other.nodeId, made.nodeId, "the number is still in use");
    fs.release(other.handle);
  }
  const before = volume.status().usedInodes;
  fs.forget(made.nodeId, 1);
  assert.equal(volume.status().usedInodes, before, "looked up twice, forgotten once");
  fs.forget(made.nodeId, 1);
  assert.equal(volume.status().usedInodes, before - 1);
  assert.equal(
    errnoOf(() => fs.getAttributes(made.nodeId)),
    "ESTALE",
  );
});

test("of files that are made and removed, one after the other, nothing stays in memory until the next consistency point", () => {
  const bench = makeBench();
  const { fs, volume } = bench;
  for (let i = 0; i < 1000; i++) {
    putFile(fs, "/f", "some contents");
    fs.unlink(ROOT_NODE, asName("f"));
  }
  const { unplaced, dirty } = volume.active;
  assert(unplaced.size < 5, `${unplaced.size} inodes wait for places`);
  assert(dirty.size < 5, `${dirty.size} inodes are dirty`);
  assertClean(bench);
});
