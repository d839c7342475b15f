// The directories .snapshot: every directory has one, and it shows that directory as it was.
import assert from "node:assert/strict";
import { test } from "node:test";
import { listedName, ROOT_NODE } from "../../src/fs/file-system.ts";
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
  writeAt,
} from "../support/fs-paths.ts";

const ROOT = { uid: 0, gid: 0 };

function snapshot({ volume }: Bench, name: string): void {
  volume.createSnapshot(name);
  volume.takeCp("snapshot");
}

function names(bench: Bench, path: string): readonly string[] {
  return list(bench.fs, nodeAt(bench.fs, path)).map(({ name }) => name);
}

function text(bench: Bench, path: string): string {
  return Buffer.from(readAll(bench.fs, path)).toString();
}

function rename(bench: Bench, from: string, into: string): void {
  bench.fs.rename(...placeAt(bench.fs, from), ...placeAt(bench.fs, into), 0);
}

test("each directory shows itself as it was, wherever it has been moved since", () => {
  const bench = makeBench();
  const { fs } = bench;
  makeDir(fs, "/a");
  makeDir(fs, "/a/b");
  putFile(fs, "/a/b/f", "first");
  snapshot(bench, "one");
  writeAt(fs, "/a/b/f", 0, Buffer.from("later"));
  makeDir(fs, "/elsewhere");
  rename(bench, "/a/b", "/elsewhere/c");
  makeDir(fs, "/a/b");
  snapshot(bench, "two");
  assert.equal(text(bench, "/elsewhere/c/.snapshot/one/f"), "first");
  assert.equal(text(bench, "/elsewhere/c/.snapshot/two/f"), "later");
  assert.equal(text(bench, "/a/.snapshot/one/b/f"), "first");
  assert.deepEqual(names(bench, "/elsewhere/c/.snapshot"), ["one", "two"]);
  assert.deepEqual(names(bench, "/elsewhere/.snapshot"), ["two"], "it did not exist in the first");
  assert.deepEqual(names(bench, "/a/b/.snapshot"), ["two"], "another directory than the one of that name then");
  assert.equal(
    errnoOf(() => nodeAt(fs, "/a/b/.snapshot/one")),
    "ENOENT",
  );
  assert.equal(
    errnoOf(() => nodeAt(fs, "/a/b/.snapshot/three")),
    "ENOENT",
  );
});

test("an inode number that has gone to another directory shows nothing of the first", () => {
  const bench = makeBench();
  const { fs } = bench;
  makeDir(fs, "/first");
  const { ino } = entryAt(fs, "/first").attributes;
  snapshot(bench, "one");
  fs.removeDirectory(ROOT_NODE, asName("first"));
  makeDir(fs, "/second");
  assert.equal(entryAt(fs, "/second").attributes.ino, ino, "the number was used again");
  assert.deepEqual(names(bench, "/second/.snapshot"), []);
  assert.equal(
    errnoOf(() => nodeAt(fs, "/second/.snapshot/one")),
    "ENOENT",
  );
});

test("a view is a tree of its own, with the numbers that the snapshot has everywhere", () => {
  const bench = makeBench();
  const { fs, volume } = bench;
  makeDir(fs, "/a", 0o710);
  makeDir(fs, "/a/b");
  putFile(fs, "/a/b/f", "x");
  snapshot(bench, "one");
  const virtual = entryAt(fs, "/a/.snapshot");
  const top = entryAt(fs, "/a/.snapshot/one");
  const below = entryAt(fs, "/a/.snapshot/one/b/f");
  const whole = entryAt(fs, "/.snapshot/one/a/b/f");
  assert.notEqual(below.nodeId, whole.nodeId, "the kernel keeps a directory in one place only");
  assert.equal(below.attributes.ino, whole.attributes.ino);
  assert.equal(top.attributes.mode, 0o040710);
  assert.equal(virtual.attributes.mode, 0o040555);
  assert.equal(virtual.attributes.linkCount, 1);
  assert.deepEqual(virtual.attributes.mtime, volume.snapshots()[0]?.createdAt);
  const inos = [entryAt(fs, "/a"), virtual, top, below, entryAt(fs, "/.snapshot")].map(
    ({ attributes }) => attributes.ino,
  );
  assert.equal(new Set(inos).size, inos.length);
  assert(inos.every((ino) => Number.isSafeInteger(ino)));
  assert.equal(fs.lookup(top.nodeId, asName("..")).nodeId, virtual.nodeId);
  assert.equal(fs.lookup(virtual.nodeId, asName("..")).nodeId, nodeAt(fs, "/a"));
  assert.equal(fs.lookup(virtual.nodeId, asName(".")).nodeId, virtual.nodeId);
  assert.equal(
    errnoOf(() => fs.lookup(top.nodeId, asName(".snapshot"))),
    "ENOENT",
    "none inside of a snapshot",
  );
  const listed: [string, number][] = [];
  const { handle } = fs.openDirectory(top.nodeId);
  fs.readDirectory(
    handle,
    0,
    { plus: false },
    (bytes, start, end, ino) => listed.push([listedName(bytes, start, end), ino]) > 0,
  );
  fs.releaseDirectory(handle);
  assert.deepEqual(listed[1], ["..", virtual.attributes.ino]);
});

test("by default .snapshot is listed nowhere; it can be in the root, everywhere, or not be there", () => {
  const bench = makeBench();
  makeDir(bench.fs, "/d");
  putFile(bench.fs, "/d/f");
  snapshot(bench, "one");
  const shown = (path: string): boolean => names(bench, path).includes(".snapshot");
  const expected = {
    hidden: [false, false],
    root: [true, false],
    visible: [true, true],
    none: [false, false],
  } as const;
  for (const [snapshotDirectories, [inRoot, below]] of Object.entries(expected)) {
    bench.reopen({ snapshotDirectories: snapshotDirectories as keyof typeof expected });
    assert.deepEqual([shown("/"), shown("/d")], [inRoot, below], snapshotDirectories);
    if (snapshotDirectories !== "none") assert.equal(shown("/.snapshot/one/d"), false, "none inside of a snapshot");
    const found = errnoOf(() => nodeAt(bench.fs, "/d/.snapshot/one/f"));
    assert.equal(found, snapshotDirectories === "none" ? "ENOENT" : "");
  }
});

test("a listed .snapshot comes once, last, however small the portions are", () => {
  const bench = makeBench();
  for (let i = 0; i < 40; i++) putFile(bench.fs, `/file${i}`);
  bench.volume.takeCp("sync");
  bench.reopen({ snapshotDirectories: "visible" });
  for (const portion of [1, 2, 7, 41, 100]) {
    const found = list(bench.fs, ROOT_NODE, portion).map(({ name }) => name);
    assert.equal(found.length, 41, `portions of ${portion}`);
    assert.equal(found.at(-1), ".snapshot");
    assert.equal(new Set(found).size, 41);
  }
});

test("the name cannot be taken, but what has it already goes first and can be removed", () => {
  const bench = makeBench();
  makeDir(bench.fs, "/d");
  for (const parent of [ROOT_NODE, nodeAt(bench.fs, "/d")]) {
    assert.equal(
      errnoOf(() => bench.fs.makeDirectory(parent, asName(".snapshot"), 0o755, ROOT)),
      "EPERM",
    );
    assert.equal(
      errnoOf(() => bench.fs.removeDirectory(parent, asName(".snapshot"))),
      "EPERM",
    );
  }
  bench.volume.takeCp("sync");
  bench.reopen({ snapshotDirectories: "none" });
  putFile(bench.fs, "/d/.snapshot", "mine");
  bench.volume.takeCp("sync");
  bench.reopen();
  assert.equal(text(bench, "/d/.snapshot"), "mine");
  bench.fs.unlink(nodeAt(bench.fs, "/d"), asName(".snapshot"));
  assert.deepEqual(names(bench, "/d/.snapshot"), []);
});

test("nothing below a directory's .snapshot can be changed", () => {
  const bench = makeBench();
  const { fs } = bench;
  makeDir(fs, "/d");
  const file = putFile(fs, "/d/f", "x");
  snapshot(bench, "one");
  for (const parent of [nodeAt(fs, "/d/.snapshot"), nodeAt(fs, "/d/.snapshot/one")]) {
    for (const operation of [
      () => fs.create(parent, asName("n"), 0o644, 2, ROOT),
      () => fs.makeDirectory(parent, asName("n"), 0o755, ROOT),
      () => fs.unlink(parent, asName("f")),
      () => fs.rename(parent, asName("f"), parent, asName("n"), 0),
      () => fs.setAttributes(parent, { mode: 0o777 }, ROOT),
      () => fs.setXattr(parent, asName("user.x"), new Uint8Array(1), 0),
      () => fs.link(file, parent, asName("n")),
    ]) {
      assert.equal(errnoOf(operation), "EROFS", String(operation));
    }
  }
  assert.equal(
    errnoOf(() => fs.open(nodeAt(fs, "/d/.snapshot/one/f"), 2)),
    "EROFS",
  );
  assert.equal(
    errnoOf(() => fs.open(nodeAt(fs, "/d/.snapshot"), 0)),
    "EISDIR",
  );
});

test("views go with their snapshot, and stay when the filesystem is set back", () => {
  const bench = makeBench();
  const { fs, volume } = bench;
  makeDir(fs, "/d");
  putFile(fs, "/d/f", "x");
  snapshot(bench, "one");
  snapshot(bench, "two");
  const one = nodeAt(fs, "/d/.snapshot/one/f");
  const two = nodeAt(fs, "/d/.snapshot/two/f");
  const virtual = nodeAt(fs, "/d/.snapshot");
  volume.deleteSnapshot("one");
  volume.takeCp("snapshot");
  assert.equal(
    errnoOf(() => fs.getAttributes(one)),
    "ESTALE",
  );
  assert.deepEqual(names(bench, "/d/.snapshot"), ["two"]);
  volume.restoreSnapshot("two");
  volume.takeCp("snapshot");
  assert.equal(
    errnoOf(() => fs.getAttributes(virtual)),
    "ESTALE",
  );
  assert.equal(fs.getAttributes(two).attributes.sizeBytes, 1);
  assert.equal(text(bench, "/d/.snapshot/two/f"), "x");
});

test("views of many directories come and go without end", () => {
  const bench = makeBench();
  const { fs } = bench;
  for (let i = 0; i < 3000; i++) makeDir(fs, `/d${i}`);
  snapshot(bench, "one");
  const first = nodeAt(fs, "/d0/.snapshot/one");
  for (let i = 0; i < 3000; i++) assert.deepEqual(names(bench, `/d${i}/.snapshot/one`), []);
  assert.equal(
    errnoOf(() => fs.getAttributes(first)),
    "ESTALE",
    "forgotten long ago, and dropped",
  );
  assert.deepEqual(names(bench, "/d0/.snapshot/one"), [], "and found again");
});

test("reading with attributes tells of each snapshot", () => {
  const bench = makeBench();
  const { fs } = bench;
  makeDir(fs, "/d");
  putFile(fs, "/d/f", "x");
  snapshot(bench, "one");
  writeAt(fs, "/d/f", 0, Buffer.from("y"));
  snapshot(bench, "two");
  const entries: [string, boolean][] = [];
  const { handle } = fs.openDirectory(nodeAt(fs, "/d/.snapshot"));
  fs.readDirectory(
    handle,
    0,
    { plus: true },
    (bytes, start, end, _ino, _type, _cookie, entry) =>
      entries.push([listedName(bytes, start, end), entry !== undefined]) > 0,
  );
  fs.releaseDirectory(handle);
  assert.deepEqual(entries, [
    [".", false],
    ["..", false],
    ["one", true],
    ["two", true],
  ]);
});
