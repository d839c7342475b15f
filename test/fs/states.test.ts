// Snapshots, restores, mirrors that move on: which state a node is in, and what becomes of it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { listedName, ROOT_NODE } from "../../src/fs/file-system.ts";
import { inoOf } from "../../src/fs/nodes.ts";
import { openVolume } from "../../src/volume/open.ts";
import { memoryDevice } from "../support/devices.ts";
import {
  asName,
  type Bench,
  entryAt,
  errnoOf,
  list,
  makeBench,
  makeDir,
  nodeAt,
  placeAt,
  putFile,
  readAll,
  tick,
  writeAt,
} from "../support/fs-paths.ts";

const ROOT = { uid: 0, gid: 0 };
const PLAIN = { fromCache: false, killPriv: false };
const TWO_32 = 2 ** 32;

function snapshot({ volume }: Bench, name: string, how: { readonly mirror?: boolean } = {}): void {
  volume.createSnapshot(name, how);
  volume.takeCp("snapshot");
}

function text(bench: Bench, path: string): string {
  return Buffer.from(readAll(bench.fs, path)).toString();
}

test("a snapshot stands still while the active filesystem changes", () => {
  const bench = makeBench();
  const { fs, volume } = bench;
  makeDir(fs, "/d");
  putFile(fs, "/d/f", "first");
  putFile(fs, "/gone", "x".repeat(100_000));
  snapshot(bench, "one");
  writeAt(fs, "/d/f", 0, Buffer.from("later"));
  fs.unlink(ROOT_NODE, asName("gone"));
  putFile(fs, "/new");
  snapshot(bench, "two");
  fs.unlink(...placeAt(fs, "/d/f"));
  for (let i = 0; i < 5; i++) {
    putFile(fs, `/noise${i}`, "y".repeat(50_000));
    volume.takeCp("timer");
  }
  assert.deepEqual(
    list(fs, nodeAt(fs, "/.snapshot")).map(({ name }) => name),
    ["one", "two"],
  );
  assert.equal(text(bench, "/.snapshot/one/d/f"), "first");
  assert.equal(text(bench, "/.snapshot/one/gone"), "x".repeat(100_000));
  assert.equal(text(bench, "/.snapshot/two/d/f"), "later");
  assert.equal(
    errnoOf(() => nodeAt(fs, "/.snapshot/two/gone")),
    "ENOENT",
  );
  assert.equal(
    errnoOf(() => nodeAt(fs, "/.snapshot/one/new")),
    "ENOENT",
  );
  assert.equal(
    errnoOf(() => nodeAt(fs, "/d/f")),
    "ENOENT",
  );
});

test(".snapshot is found and not listed, and shows the snapshots of the user only", () => {
  const bench = makeBench();
  const { fs, volume } = bench;
  snapshot(bench, "caf\u00e9");
  snapshot(bench, "held", { mirror: true });
  assert.deepEqual(list(fs, ROOT_NODE), []);
  const entry = fs.lookup(ROOT_NODE, asName(".snapshot"));
  assert.equal(entry.attributes.mode, 0o040755);
  assert.equal(entry.attributes.linkCount, 3);
  const name = Buffer.from("caf\u00e9").toString("latin1");
  assert.deepEqual(
    list(fs, entry.nodeId).map((listed) => listed.name),
    [name],
  );
  const inside = fs.lookup(entry.nodeId, asName(name));
  assert.equal(inside.entryValidMs, 0);
  assert.equal(inside.attributes.ino, (volume.snapshots()[0]?.id as number) * TWO_32 + 1);
  assert.equal(fs.lookup(inside.nodeId, asName("..")).nodeId, entry.nodeId);
  assert.equal(fs.lookup(entry.nodeId, asName("..")).nodeId, ROOT_NODE);
  assert.equal(
    errnoOf(() => fs.lookup(entry.nodeId, asName("held"))),
    "ENOENT",
  );
  assert.equal(
    errnoOf(() => fs.lookup(inside.nodeId, asName(".snapshot"))),
    "ENOENT",
  );
});

test("nothing in a snapshot, nor .snapshot itself, can be changed", () => {
  const bench = makeBench();
  const { fs } = bench;
  makeDir(fs, "/d");
  putFile(fs, "/d/f", "x");
  snapshot(bench, "one");
  const dir = nodeAt(fs, "/.snapshot/one/d");
  const file = nodeAt(fs, "/.snapshot/one/d/f");
  const snapshots = nodeAt(fs, "/.snapshot");
  for (const parent of [dir, snapshots]) {
    for (const operation of [
      () => fs.create(parent, asName("n"), 0o644, 2, ROOT),
      () => fs.createUnnamed(parent, 0o644, 2, ROOT),
      () => fs.makeDirectory(parent, asName("n"), 0o755, ROOT),
      () => fs.makeNode(parent, asName("n"), 0o644, 0, ROOT),
      () => fs.symlink(parent, asName("n"), Buffer.from("t"), ROOT),
      () => fs.unlink(parent, asName("f")),
      () => fs.removeDirectory(parent, asName("one")),
      () => fs.rename(parent, asName("f"), parent, asName("g"), 0),
      () => fs.setAttributes(parent, { mode: 0o700 }, ROOT),
      () => fs.setXattr(parent, asName("user.a"), Buffer.from("1"), 0),
      () => fs.removeXattr(parent, asName("user.a")),
    ]) {
      assert.equal(errnoOf(operation), "EROFS", String(operation));
    }
  }
  assert.equal(
    errnoOf(() => fs.open(file, 1)),
    "EROFS",
  );
  assert.equal(
    errnoOf(() => fs.open(file, 0o1000)),
    "EROFS",
  );
  assert.equal(
    errnoOf(() => fs.link(file, ROOT_NODE, asName("l"))),
    "EXDEV",
  );
  assert.equal(
    errnoOf(() => fs.rename(dir, asName("f"), ROOT_NODE, asName("f"), 0)),
    "EXDEV",
  );
  assert.equal(
    errnoOf(() => fs.makeDirectory(ROOT_NODE, asName(".snapshot"), 0o755, ROOT)),
    "EPERM",
  );
  assert.equal(
    errnoOf(() => fs.rename(ROOT_NODE, asName("d"), ROOT_NODE, asName(".snapshot"), 0)),
    "EPERM",
  );
  assert.equal(
    errnoOf(() => fs.removeDirectory(ROOT_NODE, asName(".snapshot"))),
    "EPERM",
  );
  readAll(fs, "/.snapshot/one/d/f");
  assert.equal(bench.volume.dirty, false, "not even an access time");
});

test("what was looked up in a deleted snapshot is stale, and so are its open files", () => {
  const bench = makeBench();
  const { fs, volume } = bench;
  putFile(fs, "/f", "x");
  snapshot(bench, "one");
  snapshot(bench, "two");
  const node = nodeAt(fs, "/.snapshot/one/f");
  const { handle } = fs.open(node, 0);
  volume.deleteSnapshot("one");
  volume.takeCp("sync");
  assert.equal(
    errnoOf(() => fs.getAttributes(node)),
    "ESTALE",
  );
  assert.equal(
    errnoOf(() => fs.read(handle, 0, 1, new Uint8Array(1), 0)),
    "ESTALE",
  );
  fs.release(handle);
  assert.equal(
    errnoOf(() => nodeAt(fs, "/.snapshot/one")),
    "ENOENT",
  );
  volume.renameSnapshot("two", "one");
  assert.equal(text(bench, "/.snapshot/one/f"), "x");
  assert.notEqual(nodeAt(fs, "/.snapshot/one/f"), node);
});

test("after a restore the root shows the snapshot, and all older nodes are stale", () => {
  const bench = makeBench();
  const { fs, volume } = bench;
  putFile(fs, "/f", "then");
  const orphan = fs.createUnnamed(ROOT_NODE, 0o600, 2, ROOT);
  snapshot(bench, "one");
  const used = volume.findSnapshot("one")?.usedInodes as number;
  fs.release(orphan.handle);
  writeAt(fs, "/f", 0, Buffer.from("now!"));
  putFile(fs, "/g");
  snapshot(bench, "newer");
  const old = nodeAt(fs, "/f");
  const { handle } = fs.open(old, 2);
  volume.restoreSnapshot("one");
  assert.equal(
    errnoOf(() => fs.getAttributes(old)),
    "ESTALE",
  );
  assert.equal(
    errnoOf(() => fs.write(handle, 0, Buffer.from("z"), 0, 1, PLAIN)),
    "ESTALE",
  );
  fs.release(handle);
  assert.equal(text(bench, "/f"), "then");
  assert.equal(
    errnoOf(() => nodeAt(fs, "/g")),
    "ENOENT",
  );
  assert.equal(volume.status().usedInodes, used - 1, "the orphan in the snapshot is freed");
  volume.takeCp("sync");
  assert.equal(text(bench, "/.snapshot/newer/f"), "now!");
  putFile(fs, "/h", "goes on");
  volume.takeCp("sync");
  bench.reopen();
  assert.equal(text(bench, "/h"), "goes on");
  assert.equal(entryAt(bench.fs, "/f").attributes.sizeBytes, 4);
});

test("deleted is what has no name and will get none, and nothing in a snapshot", () => {
  const bench = makeBench();
  const { fs } = bench;
  const file = putFile(fs, "/f", "x");
  snapshot(bench, "one");
  assert.equal(fs.isDeleted(file), false);
  const { handle } = fs.open(file, 2);
  fs.unlink(ROOT_NODE, asName("f"));
  assert.equal(fs.isDeleted(file), true);
  assert.equal(fs.isDeleted(nodeAt(fs, "/.snapshot/one/f")), false);
  const unnamed = fs.createUnnamed(ROOT_NODE, 0o600, 2, ROOT);
  assert.equal(fs.isDeleted(unnamed.nodeId), false, "it may be linked");
  fs.release(unnamed.handle);
  fs.release(handle);
});

test("mounted by itself, a snapshot is the root and nothing but that", () => {
  const bench = makeBench();
  putFile(bench.fs, "/f", "x");
  snapshot(bench, "one");
  bench.fs.unlink(ROOT_NODE, asName("f"));
  bench.volume.takeCp("sync");
  const record = bench.volume.findSnapshot("one");
  bench.reopen({ writable: false, snapshot: record });
  assert.equal(text(bench, "/f"), "x");
  assert.equal(
    errnoOf(() => nodeAt(bench.fs, "/.snapshot")),
    "ENOENT",
  );
  assert.equal(
    errnoOf(() => putFile(bench.fs, "/g")),
    "EROFS",
  );
  assert.ok(entryAt(bench.fs, "/f").attributes.ino < TWO_32);
  assert.equal(bench.fs.syncAll(), 0);
});

test("a read-only filesystem of a writable volume changes nothing", () => {
  const bench = makeBench();
  putFile(bench.fs, "/f", "x");
  bench.volume.takeCp("sync");
  bench.reopen({ readOnly: true });
  assert.equal(text(bench, "/f"), "x");
  assert.equal(
    errnoOf(() => putFile(bench.fs, "/g")),
    "EROFS",
  );
  assert.equal(bench.volume.dirty, false);
  assert.equal(bench.fs.reclaimSlice(), false);
});

/** A source that writes, and a read-only filesystem over the same device that follows it. */
function followed(): { source: Bench; mirror: Bench; move: () => void } {
  const source = makeBench(4096);
  const { device } = source;
  const clock = manualClock();
  const volume = openVolume({ device, clock, random: prng(1), writable: false });
  const fs = openFileSystem({ volume, clock, following: true });
  const mirror: Bench = { device, clock, volume, fs, reopen: () => undefined };
  return {
    source,
    mirror,
    move: () => {
      source.volume.takeCp("sync");
      assert.equal(volume.follow(), true);
    },
  };
}

test("that a name is missing may be remembered in a filesystem of one's own, not where a mirror or a snapshot may bring it", () => {
  const { source, mirror } = followed();
  const none = asName("none");
  assert.equal(source.fs.find(ROOT_NODE, none), undefined);
  const snapshots = source.fs.lookup(ROOT_NODE, asName(".snapshot"));
  for (const missing of [
    () => mirror.fs.find(ROOT_NODE, none),
    () => source.fs.find(snapshots.nodeId, none),
    () => source.fs.lookup(ROOT_NODE, none),
  ]) {
    assert.equal(errnoOf(missing), "ENOENT");
  }
});

test("a following mount shows each new state at its root, while open files stay in theirs", () => {
  const { source, mirror, move } = followed();
  makeDir(source.fs, "/d");
  putFile(source.fs, "/d/f", "first");
  move();
  const first = entryAt(mirror.fs, "/d/f");
  const top = entryAt(mirror.fs, "/d");
  assert.deepEqual(
    [top.entryValidMs, top.attributesValidMs, first.entryValidMs, first.attributesValidMs > 3_599_999],
    [0, 0, 0, true],
  );
  assert.equal(mirror.fs.getAttributes(ROOT_NODE).attributesValidMs, 0);
  const { handle } = mirror.fs.open(first.nodeId, 0);
  writeAt(source.fs, "/d/f", 0, Buffer.from("other"));
  putFile(source.fs, "/d/g");
  move();
  const into = new Uint8Array(5);
  assert.equal(mirror.fs.read(handle, 0, 5, into, 0), 5);
  assert.equal(Buffer.from(into).toString(), "first");
  assert.equal(entryAt(mirror.fs, "/d").nodeId, top.nodeId, "a directory moves with the mirror, and whoever is in it");
  assert.equal(mirror.fs.lookup(top.nodeId, asName("g")).generation > 0, true, "which sees what is new");
  assert.equal(text(mirror, "/d/f"), "other");
  const second = entryAt(mirror.fs, "/d/f");
  assert.notEqual(second.nodeId, first.nodeId);
  assert.equal(second.attributes.ino, first.attributes.ino);
  assert.equal(
    errnoOf(() => putFile(mirror.fs, "/x")),
    "EROFS",
  );
  mirror.fs.release(handle);
});

test("a file that has not changed keeps its node when the mirror moves, and with it the kernel's pages", () => {
  const { source, mirror, move } = followed();
  putFile(source.fs, "/same", "s".repeat(9000));
  putFile(source.fs, "/other", "o".repeat(9000));
  move();
  const [same, other] = [entryAt(mirror.fs, "/same"), entryAt(mirror.fs, "/other")];
  for (let round = 0; round < 5; round++) {
    tick(source.clock);
    writeAt(source.fs, "/other", 0, Buffer.from(`round ${round}`));
    move();
    assert.equal(entryAt(mirror.fs, "/same").nodeId, same.nodeId);
  }
  assert.notEqual(entryAt(mirror.fs, "/other").nodeId, other.nodeId);
  assert.equal(text(mirror, "/same"), "s".repeat(9000));
  tick(source.clock);
  source.fs.setAttributes(nodeAt(source.fs, "/same"), { mode: 0o600 }, ROOT);
  move();
  assert.notEqual(entryAt(mirror.fs, "/same").nodeId, same.nodeId, "attributes are a change too");
});

test("a directory whose number is used again is stale to who was in it", () => {
  const { source, mirror, move } = followed();
  makeDir(source.fs, "/d");
  move();
  const top = entryAt(mirror.fs, "/d");
  source.fs.removeDirectory(ROOT_NODE, asName("d"));
  let again = 0;
  for (let i = 0; again !== top.attributes.ino && i < 100; i++) again = inoOf(makeDir(source.fs, `/e${i}`));
  assert.equal(again, top.attributes.ino, "the number is used again");
  move();
  assert.equal(
    errnoOf(() => mirror.fs.getAttributes(top.nodeId)),
    "ESTALE",
  );
});

test("a root that was opened before the move names nothing that the kernel may keep", () => {
  const { source, mirror, move } = followed();
  makeDir(source.fs, "/d");
  move();
  const { handle } = mirror.fs.openDirectory(ROOT_NODE);
  putFile(source.fs, "/d/f", "later");
  move();
  const seen: number[] = [];
  mirror.fs.readDirectory(handle, 0, { plus: true }, (names, start, end, _ino, _type, _cookie, entry) => {
    if (listedName(names, start, end) === "d" && entry !== undefined) seen.push(entry.entryValidMs);
    return true;
  });
  assert.deepEqual(seen, [0], "else paths would lead back into the old state");
  mirror.fs.releaseDirectory(handle);
});

function filled(byte: number): Uint8Array {
  return new Uint8Array(3 << 20).fill(byte);
}

test("a block of an old state that has been reused is stale, never mixed data", () => {
  const { source, mirror, move } = followed();
  putFile(source.fs, "/f", filled(1));
  move();
  const { handle } = mirror.fs.open(nodeAt(mirror.fs, "/f"), 0);
  const into = new Uint8Array(3 << 20);
  let stale = 0;
  for (let round = 2; round < 12; round++) {
    writeAt(source.fs, "/f", 0, filled(round));
    move();
    const errno = errnoOf(() => mirror.fs.read(handle, 0, into.length, into, 0));
    if (errno === "")
      assert.ok(
        into.every((byte) => byte === 1),
        `round ${round}`,
      );
    else {
      assert.equal(errno, "ESTALE");
      stale += 1;
    }
    const now = readAll(mirror.fs, "/f");
    assert.ok(now.every((byte) => byte === round));
  }
  assert.ok(stale > 0, "the volume is so small that blocks must have been reused");
  mirror.fs.release(handle);
});

test("a mirror that moves on before anybody notices is stale, not corrupt", () => {
  const { source, mirror, move } = followed();
  putFile(source.fs, "/f", new Uint8Array(3 << 20).fill(1));
  move();
  const node = nodeAt(mirror.fs, "/f");
  const { handle } = mirror.fs.open(node, 0);
  for (let round = 2; round < 8; round++) {
    writeAt(source.fs, "/f", 0, new Uint8Array(3 << 20).fill(round));
    source.volume.takeCp("sync");
  }
  const into = new Uint8Array(3 << 20);
  assert.equal(
    errnoOf(() => mirror.fs.read(handle, 0, into.length, into, 0)),
    "ESTALE",
  );
  assert.ok(readAll(mirror.fs, "/f").every((byte) => byte === 7));
});

test("damage of the current state is damage", () => {
  const device = memoryDevice(4096);
  const bench = makeBench(4096, device);
  putFile(bench.fs, "/f", new Uint8Array(200_000).fill(0xa5));
  bench.volume.takeCp("sync");
  const block = new Uint8Array(4096);
  for (let vbn = 64; vbn < 4096; vbn++) {
    device.read(vbn, 1, block, 0);
    if (block.every((byte) => byte === 0xa5)) device.corrupt(vbn * 4096 + 17);
  }
  for (const options of [{}, { writable: false, following: true }]) {
    bench.reopen(options);
    assert.throws(() => readAll(bench.fs, "/f"), CorruptionError);
  }
});

test("old states are dropped when they are forgotten, or too many", () => {
  const { source, mirror, move } = followed();
  putFile(source.fs, "/f", "x");
  move();
  const first = entryAt(mirror.fs, "/f");
  const kept = mirror.fs.open(first.nodeId, 0).handle;
  const nodes = [];
  for (let i = 0; i < 100; i++) {
    writeAt(source.fs, "/f", 0, Buffer.from(String(i)));
    nodes.push(nodeAt(mirror.fs, "/f"));
    move();
  }
  const errnos = nodes.map((node) => errnoOf(() => mirror.fs.getAttributes(node)));
  assert.equal(errnos[5], "ESTALE", "beyond 64 states nobody has open files in");
  assert.notEqual(errnos[0], "ESTALE", "but for the one with an open file");
  assert.equal(errnos.at(-1), "");
  mirror.fs.release(kept);
  const last = nodes.at(-1) as number as typeof first.nodeId;
  mirror.fs.forget(last, 1);
  assert.equal(
    errnoOf(() => mirror.fs.getAttributes(last)),
    "ESTALE",
    "forgotten by the kernel",
  );
});

test("a listing does not tell again what the kernel knows, unless it was changed since the filesystem was opened", () => {
  const bench = makeBench();
  for (const name of ["known", "changed", "unknown"]) putFile(bench.fs, `/${name}`);
  bench.volume.takeCp("sync");
  bench.clock.advanceMs(2000);
  const volume = openVolume({ device: bench.device, clock: bench.clock, random: prng(1), writable: true });
  const fs = openFileSystem({ volume, clock: bench.clock });
  const toldOf = (): readonly string[] => {
    const told: string[] = [];
    const { handle } = fs.openDirectory(ROOT_NODE);
    fs.readDirectory(handle, 0, { plus: true }, (names, start, end, _ino, _type, _cookie, entry) => {
      if (entry !== undefined) told.push(listedName(names, start, end));
      return true;
    });
    fs.releaseDirectory(handle);
    return told.toSorted();
  };
  const { nodeId: known } = fs.lookup(ROOT_NODE, asName("known"));
  const { nodeId: changed } = fs.lookup(ROOT_NODE, asName("changed"));
  fs.setAttributes(changed, { mode: 0o600 }, ROOT);
  assert.deepEqual(toldOf(), ["changed", "unknown"]);
  assert.deepEqual(toldOf(), ["changed"], "the first listing has told of the other");
  fs.forget(known, 1);
  assert.deepEqual(toldOf(), ["changed", "known"]);
});
