// What happened between two states: compared with a naive comparison of everything, and with how little it reads.
import assert from "node:assert/strict";
import { test } from "node:test";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { type FileSystem, ROOT_NODE } from "../../src/fs/file-system.ts";
import type { InodeFile } from "../../src/tree/inode-file.ts";
import { type Difference, differencesBetween } from "../../src/tree/state-difference.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import { countingDevice, memoryDevice } from "../support/devices.ts";
import {
  asName,
  type Bench,
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

function stateOf({ volume }: Bench, name: string): InodeFile {
  const record = volume.findSnapshot(name);
  assert(record !== undefined);
  return volume.openSnapshot(record);
}

function between(bench: Bench, before: string, after: string): readonly Difference[] {
  return differencesBetween(stateOf(bench, before), stateOf(bench, after));
}

/** One line each, as the command prints them. */
function lines(found: readonly Difference[]): readonly string[] {
  return found.map((one) => {
    if (one.kind === "renamed") return `R ${one.from} -> ${one.path}`;
    if (one.kind === "changed") return `M ${one.path} (${one.what.join(", ")})`;
    return `${one.kind === "created" ? "+" : "-"} ${one.path}`;
  });
}

test("files that were created, deleted, changed and renamed are told of, and no others", () => {
  const bench = makeBench();
  const { fs, clock } = bench;
  makeDir(fs, "/d");
  makeDir(fs, "/moved");
  makeDir(fs, "/gone");
  for (const path of ["/d/same", "/d/changed", "/d/mode", "/d/touched", "/d/deleted", "/d/renamed", "/gone/f"]) {
    putFile(fs, path, "x".repeat(5000));
  }
  putFile(fs, "/moved/inside", "x");
  putFile(fs, "/d/tagged", "x");
  putFile(fs, "/d/linked", "x");
  fs.symlink(nodeAt(fs, "/d"), asName("link"), Buffer.from("old"), ROOT);
  fs.setXattr(nodeAt(fs, "/d/tagged"), asName("user.a"), Buffer.from("1"), 0);
  snapshot(bench, "one");
  clock.advanceMs(90_000_000);
  readAll(fs, "/d/same"); // sets its access time
  writeAt(fs, "/d/changed", 100, Buffer.from("y"));
  fs.setAttributes(nodeAt(fs, "/d/mode"), { mode: 0o600 }, ROOT);
  fs.setAttributes(nodeAt(fs, "/d/touched"), { mtime: "now" }, ROOT);
  fs.setXattr(nodeAt(fs, "/d/tagged"), asName("user.a"), Buffer.from("2"), 0);
  fs.unlink(...placeAt(fs, "/d/deleted"));
  fs.rename(...placeAt(fs, "/d/renamed"), ...placeAt(fs, "/into"), 0);
  writeAt(fs, "/into", 0, Buffer.from("z"));
  fs.rename(...placeAt(fs, "/moved"), ...placeAt(fs, "/d/moved"), 0);
  writeAt(fs, "/d/moved/inside", 0, Buffer.from("z"));
  fs.unlink(...placeAt(fs, "/gone/f"));
  fs.removeDirectory(ROOT_NODE, asName("gone"));
  fs.link(nodeAt(fs, "/d/linked"), ROOT_NODE, asName("second"));
  fs.unlink(...placeAt(fs, "/d/link"));
  fs.symlink(nodeAt(fs, "/d"), asName("link"), Buffer.from("new"), ROOT);
  makeDir(fs, "/new");
  putFile(fs, "/new/f");
  snapshot(bench, "two");
  const expected = [
    "- /d/deleted",
    "- /d/link",
    "+ /d/link",
    "M /d/changed (contents)",
    "M /d/mode (attributes)",
    "M /d/moved/inside (contents)",
    "M /d/tagged (attributes)",
    "M /d/touched (attributes)",
    "R /moved -> /d/moved",
    "- /gone",
    "- /gone/f",
    "R /d/renamed -> /into",
    "M /into (contents)",
    "+ /new",
    "+ /new/f",
    "+ /second",
  ];
  assert.deepEqual(lines(between(bench, "one", "two")).toSorted(), expected.toSorted());
  assert.deepEqual(between(bench, "one", "one"), []);
  const back = lines(between(bench, "two", "one"));
  assert(back.includes("R /d/moved -> /moved") && back.includes("+ /gone/f") && back.includes("- /new"));
});

test("the active filesystem is a state like others, and a file that is deleted but open is gone", () => {
  const bench = makeBench();
  const { fs } = bench;
  putFile(fs, "/f", "x");
  snapshot(bench, "one");
  const { handle } = fs.open(nodeAt(fs, "/f"), 0);
  fs.unlink(ROOT_NODE, asName("f"));
  fs.createUnnamed(ROOT_NODE, 0o600, 2, ROOT);
  bench.volume.takeCp("sync");
  assert.deepEqual(lines(differencesBetween(stateOf(bench, "one"), bench.volume.active)), ["- /f"]);
  fs.release(handle);
});

test("an inode number that has gone to another file is another file, also under the same name", () => {
  const bench = makeBench();
  const { fs } = bench;
  putFile(fs, "/f", "x");
  snapshot(bench, "one");
  fs.unlink(ROOT_NODE, asName("f"));
  bench.volume.takeCp("sync");
  putFile(fs, "/f", "x");
  snapshot(bench, "two");
  assert.deepEqual(lines(between(bench, "one", "two")), ["+ /f", "- /f"]);
});

test("a changed file whose last name was taken away in the directory it knows is found by another", () => {
  const bench = makeBench();
  const { fs } = bench;
  makeDir(fs, "/a");
  makeDir(fs, "/b");
  putFile(fs, "/a/f", "x");
  fs.link(nodeAt(fs, "/a/f"), nodeAt(fs, "/b"), asName("g"));
  fs.unlink(...placeAt(fs, "/b/g"));
  snapshot(bench, "one");
  writeAt(fs, "/a/f", 0, Buffer.from("y"));
  snapshot(bench, "two");
  assert.deepEqual(lines(between(bench, "one", "two")), ["M /a/f (contents)"]);
});

test("a large directory that shrinks and grows loses and gets the right names", () => {
  const bench = makeBench(65536);
  const { fs } = bench;
  for (let i = 0; i < 3000; i++) putFile(fs, `/file${i}`);
  snapshot(bench, "one");
  for (let i = 0; i < 3000; i += 7) fs.unlink(ROOT_NODE, asName(`file${i}`));
  for (let i = 0; i < 900; i++) putFile(fs, `/other${i}`);
  snapshot(bench, "two");
  const found = between(bench, "one", "two");
  const created = found.filter(({ kind }) => kind === "created").map(({ path }) => path);
  const deleted = found.filter(({ kind }) => kind === "deleted").map(({ path }) => path);
  assert.equal(created.length + deleted.length, found.length);
  assert.deepEqual(created.toSorted(), Array.from({ length: 900 }, (_, i) => `/other${i}`).toSorted());
  assert.deepEqual(
    deleted.toSorted(),
    Array.from({ length: Math.ceil(3000 / 7) }, (_, i) => `/file${i * 7}`).toSorted(),
  );
});

test("it reads what changed and not the volume", () => {
  const device = memoryDevice(1 << 17);
  const bench = makeBench(1 << 17, device);
  const { fs } = bench;
  for (let d = 0; d < 100; d++) {
    makeDir(fs, `/d${d}`);
    for (let i = 0; i < 200; i++) putFile(fs, `/d${d}/f${i}`, "x".repeat(200));
  }
  snapshot(bench, "one");
  writeAt(fs, "/d50/f100", 0, Buffer.from("y"));
  putFile(fs, "/d51/new");
  fs.unlink(...placeAt(fs, "/d52/f7"));
  fs.rename(...placeAt(fs, "/d53/f8"), ...placeAt(fs, "/d54/f8-moved"), 0);
  snapshot(bench, "two");
  const counting = countingDevice(device);
  const volume = openVolume({ device: counting, clock: bench.clock, random: prng(1), writable: false });
  const states = ["one", "two"].map((name) => {
    const record = volume.findSnapshot(name);
    assert(record !== undefined);
    return volume.openSnapshot(record);
  });
  counting.reset();
  const found = differencesBetween(states[0] as InodeFile, states[1] as InodeFile);
  assert.deepEqual(lines(found).toSorted(), [
    "+ /d51/new",
    "- /d52/f7",
    "M /d50/f100 (contents)",
    "R /d53/f8 -> /d54/f8-moved",
  ]);
  const read = counting.reads.length;
  assert(read < 150, `${read} blocks were read, of ${volume.status().usedBlocks} in use`);
  assert(volume.status().usedBlocks > 20_000);
});

// A naive comparison of everything that can be seen.

interface Seen {
  readonly identity: string;
  readonly contents: string;
  readonly attributes: string;
}

function see(fs: FileSystem, top: string): Map<string, Seen> {
  const seen = new Map<string, Seen>();
  const walk = (path: string): void => {
    for (const { name } of list(fs, nodeAt(fs, `${top}${path}`))) {
      const entry = fs.lookup(nodeAt(fs, `${top}${path}`), asName(name));
      const { mode, uid, gid, ino, mtime } = entry.attributes;
      const isDir = (mode & 0o170000) === 0o040000;
      const child = `${path}/${name}`;
      seen.set(child, {
        identity: `${ino % 2 ** 32}.${entry.generation}`,
        contents: isDir ? "" : Buffer.from(readAll(fs, `${top}${child}`)).toString("latin1"),
        attributes: JSON.stringify([mode, uid, gid, isDir ? "" : mtime]),
      });
      if (isDir) walk(child);
    }
  };
  walk("");
  return seen;
}

function act(random: Random, { fs, clock }: Bench): void {
  const directories = ["", "/a", "/b", "/a/c", "/a/c/d"];
  const path = (): string =>
    `${directories[below(random, directories.length)] ?? ""}/${"abcdefgh"[below(random, 8)] ?? ""}`;
  clock.advanceMs(1000);
  const [one, two, size] = [path(), path(), below(random, 20_000)];
  const actions = [
    () => putFile(fs, one, "x".repeat(size)),
    () => putFile(fs, one, "y"),
    () => makeDir(fs, one),
    () => fs.unlink(...placeAt(fs, one)),
    () => fs.removeDirectory(...placeAt(fs, one)),
    () => fs.rename(...placeAt(fs, one), ...placeAt(fs, two), 0),
    () => fs.rename(...placeAt(fs, one), ...placeAt(fs, two), 2),
    () => fs.link(nodeAt(fs, one), ...placeAt(fs, two)),
    () => writeAt(fs, one, below(random, 3000), Buffer.from("changed")),
    () => fs.setAttributes(nodeAt(fs, one), { mode: 0o600 + below(random, 8) }, ROOT),
  ];
  errnoOf(() => actions[below(random, actions.length)]?.());
}

for (let seed = 1; seed <= 25; seed++) {
  test(`random changes are told of as a naive comparison has them (seed ${seed})`, () => {
    const random = prng(seed);
    const bench = makeBench();
    for (let i = 0; i < 150; i++) act(random, bench);
    snapshot(bench, "one");
    for (let i = 0; i < 5 + below(random, 60); i++) act(random, bench);
    snapshot(bench, "two");
    const old = see(bench.fs, "/.snapshot/one");
    const now = see(bench.fs, "/.snapshot/two");
    const found = between(bench, "one", "two");
    const gone = new Set([...old].filter(([path, { identity }]) => now.get(path)?.identity !== identity).map(first));
    const come = new Set([...now].filter(([path, { identity }]) => old.get(path)?.identity !== identity).map(first));
    const movedDirs = found.filter((one) => one.kind === "renamed" && one.type === 4);
    for (const one of found) {
      if (one.kind === "deleted") assert(gone.has(one.path), `${one.path} is not gone`);
      if (one.kind === "created") assert(come.has(one.path), `${one.path} is not new`);
      if (one.kind === "renamed") {
        assert.equal(old.get(one.from)?.identity, now.get(one.path)?.identity, `${one.from} -> ${one.path}`);
      }
    }
    // What is below a directory that was renamed moved with it, and is not told of.
    const told = new Set(found.flatMap((one) => (one.kind === "renamed" ? [one.from, one.path] : [one.path])));
    const isBelow = (path: string): boolean =>
      movedDirs.some((one) => one.kind === "renamed" && [one.from, one.path].some((dir) => path.startsWith(`${dir}/`)));
    for (const path of [...gone, ...come]) assert(told.has(path) || isBelow(path), `${path} is not told of`);
    // Contents and attributes, by identity.
    const oldBy = new Map([...old.values()].map((seen) => [seen.identity, seen]));
    const expected = new Set<string>();
    for (const { identity, contents, attributes } of now.values()) {
      const was = oldBy.get(identity);
      if (was !== undefined && (was.contents !== contents || was.attributes !== attributes)) expected.add(identity);
    }
    const changed = found.filter(({ kind }) => kind === "changed").map(({ path }) => now.get(path)?.identity ?? path);
    for (const identity of expected) assert(changed.includes(identity), `${identity} has changed`);
    assert.equal(new Set(changed).size, changed.length, "told of once");
    for (const kind of changed) assert(expected.has(kind) || wasRewritten(found, now, kind), `${kind} has not changed`);
    assert.equal(checkVolume(bench.device).findings.length, 0);
  });
}

/** Written with the same bytes at the same instant is a change that nobody sees. */
function wasRewritten(found: readonly Difference[], now: ReadonlyMap<string, Seen>, identity: string): boolean {
  return found.some(
    (one) => one.kind === "changed" && now.get(one.path)?.identity === identity && one.what.includes("contents"),
  );
}

function first([path]: readonly [string, Seen]): string {
  return path;
}
