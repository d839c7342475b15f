// POSIX on the filesystem itself: one case a function. What ext4 answers is what is expected.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Time } from "../../src/core/clock.ts";
import { NAME_BYTES_MAX, SYMLINK_BYTES_MAX } from "../../src/format/constants.ts";
import { listedName, RENAME_EXCHANGE, RENAME_NOREPLACE, ROOT_NODE } from "../../src/fs/file-system.ts";
import { checkVolume } from "../../src/volume/check.ts";
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
  withOpen,
  writeAt,
} from "../support/fs-paths.ts";

const USER = { uid: 1000, gid: 1000 };
const ROOT = { uid: 0, gid: 0 };
const PLAIN = { fromCache: false, killPriv: false };
const O_WRONLY = 1;
const O_RDWR = 2;
const O_EXCL = 0o200;
const O_TRUNC = 0o1000;
const O_APPEND = 0o2000;

const cases: Readonly<Record<string, (bench: Bench) => void>> = {
  "a new file belongs to its maker and has one name"({ fs }) {
    const made = fs.create(ROOT_NODE, asName("f"), 0o640, O_RDWR, USER);
    const { mode, uid, gid, linkCount, sizeBytes } = made.attributes;
    assert.deepEqual(
      { mode, uid, gid, linkCount, sizeBytes },
      { mode: 0o100640, uid: 1000, gid: 1000, linkCount: 1, sizeBytes: 0 },
    );
    assert.equal(
      errnoOf(() => fs.create(ROOT_NODE, asName("f"), 0o640, O_RDWR, USER)),
      "EEXIST",
    );
  },

  "names are bytes, and have 1 to 255 of them"({ fs }) {
    const longest = "\xe4".repeat(NAME_BYTES_MAX);
    putFile(fs, `/${longest}`, "x");
    assert.deepEqual(
      list(fs, ROOT_NODE).map(({ name }) => name),
      [longest],
    );
    for (const name of ["", "a/b", "a\0b"]) {
      assert.equal(
        errnoOf(() => fs.makeDirectory(ROOT_NODE, asName(name), 0o755, ROOT)),
        "EINVAL",
        JSON.stringify(name),
      );
    }
    assert.equal(
      errnoOf(() => fs.makeDirectory(ROOT_NODE, asName(`${longest}a`), 0o755, ROOT)),
      "ENAMETOOLONG",
    );
    assert.equal(
      errnoOf(() => fs.lookup(ROOT_NODE, asName(`${longest}a`))),
      "ENAMETOOLONG",
    );
    assert.equal(
      errnoOf(() => fs.makeDirectory(ROOT_NODE, asName("."), 0o755, ROOT)),
      "EEXIST",
    );
  },

  "what goes on in a file that is no directory is ENOTDIR"({ fs }) {
    const file = putFile(fs, "/f");
    for (const operation of [
      () => fs.lookup(file, asName("x")),
      () => fs.create(file, asName("x"), 0o644, O_RDWR, ROOT),
      () => fs.makeDirectory(file, asName("x"), 0o755, ROOT),
      () => fs.unlink(file, asName("x")),
      () => fs.openDirectory(file),
      () => fs.rename(ROOT_NODE, asName("f"), file, asName("x"), 0),
      () => fs.removeDirectory(ROOT_NODE, asName("f")),
    ]) {
      assert.equal(errnoOf(operation), "ENOTDIR", String(operation));
    }
  },

  "directories count themselves, their name and their subdirectories"({ fs }) {
    makeDir(fs, "/d");
    makeDir(fs, "/d/a");
    makeDir(fs, "/d/b");
    putFile(fs, "/d/f");
    assert.equal(entryAt(fs, "/d").attributes.linkCount, 4);
    assert.equal(entryAt(fs, "").attributes.linkCount, 3);
    assert.equal(
      errnoOf(() => fs.removeDirectory(ROOT_NODE, asName("d"))),
      "ENOTEMPTY",
    );
    assert.equal(
      errnoOf(() => fs.unlink(ROOT_NODE, asName("d"))),
      "EISDIR",
    );
    fs.unlink(nodeAt(fs, "/d"), asName("f"));
    fs.removeDirectory(nodeAt(fs, "/d"), asName("a"));
    fs.removeDirectory(nodeAt(fs, "/d"), asName("b"));
    fs.removeDirectory(ROOT_NODE, asName("d"));
    assert.equal(entryAt(fs, "").attributes.linkCount, 2);
    assert.equal(
      errnoOf(() => fs.lookup(ROOT_NODE, asName("d"))),
      "ENOENT",
    );
  },

  "dot and dot-dot lead where they should, also for what has only a node"({ fs }) {
    const a = makeDir(fs, "/a");
    const b = makeDir(fs, "/a/b");
    const f = putFile(fs, "/a/b/f");
    assert.equal(fs.lookup(b, asName("..")).nodeId, a);
    assert.equal(fs.lookup(a, asName("..")).nodeId, ROOT_NODE);
    assert.equal(fs.lookup(ROOT_NODE, asName("..")).nodeId, ROOT_NODE);
    assert.equal(fs.lookup(f, asName(".")).nodeId, f);
    const seen: [string, number][] = [];
    const { handle } = fs.openDirectory(b);
    fs.readDirectory(
      handle,
      0,
      { plus: false },
      (names, start, end, ino) => seen.push([listedName(names, start, end), ino]) > 0,
    );
    const inoOf = (path: string): number => entryAt(fs, path).attributes.ino;
    assert.deepEqual(seen, [
      [".", inoOf("/a/b")],
      ["..", inoOf("/a")],
      ["f", inoOf("/a/b/f")],
    ]);
    fs.releaseDirectory(handle);
  },

  "hard links share everything, and directories have none"({ fs }) {
    const f = putFile(fs, "/f", "one");
    makeDir(fs, "/d");
    const linked = fs.link(f, nodeAt(fs, "/d"), asName("g"));
    assert.equal(linked.nodeId, f);
    assert.equal(linked.attributes.linkCount, 2);
    writeAt(fs, "/d/g", 0, Buffer.from("two"));
    assert.equal(Buffer.from(readAll(fs, "/f")).toString(), "two");
    assert.equal(
      errnoOf(() => fs.link(nodeAt(fs, "/d"), ROOT_NODE, asName("e"))),
      "EPERM",
    );
    assert.equal(
      errnoOf(() => fs.link(f, ROOT_NODE, asName("d"))),
      "EEXIST",
    );
    fs.unlink(ROOT_NODE, asName("f"));
    assert.equal(entryAt(fs, "/d/g").attributes.linkCount, 1);
  },

  "symbolic links hold up to 4095 bytes and are no files"({ fs }) {
    const longest = new Uint8Array(SYMLINK_BYTES_MAX).fill(97);
    const node = fs.symlink(ROOT_NODE, asName("l"), longest, USER).nodeId;
    assert.deepEqual(fs.readLink(node), longest);
    assert.equal(entryAt(fs, "/l").attributes.sizeBytes, SYMLINK_BYTES_MAX);
    assert.equal(entryAt(fs, "/l").attributes.mode, 0o120777);
    assert.equal(
      errnoOf(() => fs.symlink(ROOT_NODE, asName("m"), new Uint8Array(4096), USER)),
      "ENAMETOOLONG",
    );
    assert.equal(
      errnoOf(() => fs.symlink(ROOT_NODE, asName("m"), new Uint8Array(0), USER)),
      "ENOENT",
    );
    assert.equal(
      errnoOf(() => fs.open(node, 0)),
      "ELOOP",
    );
    assert.equal(
      errnoOf(() => fs.readLink(ROOT_NODE)),
      "EINVAL",
    );
    assert.equal(
      errnoOf(() => fs.lookup(ROOT_NODE, asName("m"))),
      "ENOENT",
    );
  },

  "special files keep their device numbers, others have none"({ fs }) {
    assert.equal(fs.makeNode(ROOT_NODE, asName("c"), 0o020600, 0x12345678, ROOT).attributes.rdev, 0x12345678);
    assert.equal(fs.makeNode(ROOT_NODE, asName("p"), 0o010600, 99, ROOT).attributes.rdev, 0);
    assert.equal(fs.makeNode(ROOT_NODE, asName("r"), 0o600, 0, ROOT).attributes.mode, 0o100600);
    assert.equal(
      errnoOf(() => fs.makeNode(ROOT_NODE, asName("d"), 0o040755, 0, ROOT)),
      "EPERM",
    );
    assert.equal(
      errnoOf(() => fs.makeNode(ROOT_NODE, asName("l"), 0o120755, 0, ROOT)),
      "EINVAL",
    );
  },

  "a directory with set-group-id hands its group on"({ fs }) {
    makeDir(fs, "/d");
    fs.setAttributes(nodeAt(fs, "/d"), { gid: 50 }, ROOT);
    fs.setAttributes(nodeAt(fs, "/d"), { mode: 0o2775 }, ROOT);
    const file = fs.create(nodeAt(fs, "/d"), asName("f"), 0o644, O_RDWR, USER);
    const dir = fs.makeDirectory(nodeAt(fs, "/d"), asName("s"), 0o755, USER);
    assert.deepEqual([file.attributes.gid, file.attributes.mode], [50, 0o100644]);
    assert.deepEqual([dir.attributes.gid, dir.attributes.mode], [50, 0o042755]);
  },

  "writes of ordinary users and chown take set-id bits away"({ fs }) {
    const node = putFile(fs, "/f", "x", 0o6755);
    const modeOf = (): number => fs.getAttributes(node).attributes.mode & 0o7777;
    writeAt(fs, "/f", 0, Buffer.from("y"));
    assert.equal(modeOf(), 0o6755, "root keeps them");
    const data = Buffer.from("z");
    withOpen(fs, "/f", O_RDWR, (handle) => fs.write(handle, 0, data, 0, 1, { fromCache: false, killPriv: true }));
    assert.equal(modeOf(), 0o755);
    fs.setAttributes(node, { mode: 0o6755 }, ROOT);
    fs.setAttributes(node, { uid: 7 }, ROOT);
    assert.equal(modeOf(), 0o755);
    fs.setAttributes(node, { mode: 0o2744 }, ROOT);
    fs.setAttributes(node, { gid: 7 }, ROOT);
    assert.equal(modeOf(), 0o2744, "without group execution it is not set-group-id");
    fs.setAttributes(node, { mode: 0o4755 }, ROOT);
    fs.setAttributes(node, { sizeBytes: 0, killPriv: true }, ROOT);
    assert.equal(modeOf(), 0o755);
  },

  "each operation changes the times that ext4 changes"({ fs, clock }) {
    const timesOf = (path: string): { atime: Time; mtime: Time; ctime: Time } => {
      const { atime, mtime, ctime } = entryAt(fs, path).attributes;
      return { atime, mtime, ctime };
    };
    const changedBy = (path: string, operation: () => unknown): string => {
      const before = timesOf(path);
      tick(clock);
      operation();
      const after = timesOf(path);
      const now = clock.now();
      const changed: string[] = [];
      for (const which of ["atime", "mtime", "ctime"] as const) {
        if (after[which].nanoseconds === before[which].nanoseconds) continue;
        assert.deepEqual(after[which], now, `${which} is the time of the operation`);
        changed.push(which);
      }
      return changed.join(" ");
    };
    const f = putFile(fs, "/f", "contents");
    const d = makeDir(fs, "/d");
    assert.equal(
      changedBy("/f", () => writeAt(fs, "/f", 0, Buffer.from("x"))),
      "mtime ctime",
    );
    assert.equal(
      changedBy("/f", () => readAll(fs, "/f")),
      "atime",
    );
    assert.equal(
      changedBy("/f", () => readAll(fs, "/f")),
      "",
      "read again: relatime",
    );
    assert.equal(
      changedBy("/f", () => fs.setAttributes(f, { mode: 0o600 }, ROOT)),
      "ctime",
    );
    assert.equal(
      changedBy("/f", () => fs.setAttributes(f, { uid: 5 }, ROOT)),
      "ctime",
    );
    assert.equal(
      changedBy("/f", () => fs.setAttributes(f, { sizeBytes: 3 }, ROOT)),
      "mtime ctime",
    );
    assert.equal(
      changedBy("/f", () => fs.setAttributes(f, { sizeBytes: 3 }, ROOT)),
      "",
      "no other size",
    );
    assert.equal(
      changedBy("/f", () => withOpen(fs, "/f", O_WRONLY | O_TRUNC, () => 0)),
      "mtime ctime",
    );
    assert.equal(
      changedBy("/f", () => withOpen(fs, "/f", O_WRONLY | O_TRUNC, () => 0)),
      "mtime ctime",
      "though empty",
    );
    assert.equal(
      changedBy("/f", () => fs.setXattr(f, asName("user.a"), Buffer.from("1"), 0)),
      "ctime",
    );
    assert.equal(
      changedBy("/f", () => fs.removeXattr(f, asName("user.a"))),
      "ctime",
    );
    assert.equal(
      changedBy("/f", () => fs.setAttributes(f, { atime: "now", mtime: "now" }, ROOT)),
      "atime mtime ctime",
    );
    assert.equal(
      changedBy("/d", () => putFile(fs, "/d/x")),
      "mtime ctime",
    );
    assert.equal(
      changedBy("/d", () => list(fs, d)),
      "atime",
    );
    assert.equal(
      changedBy("/f", () => fs.link(f, d, asName("l"))),
      "ctime",
    );
    assert.equal(
      changedBy("/f", () => fs.unlink(d, asName("l"))),
      "ctime",
    );
    assert.equal(
      changedBy("/d", () => fs.rename(d, asName("x"), ROOT_NODE, asName("y"), 0)),
      "mtime ctime",
    );
    assert.equal(
      changedBy(
        "/f",
        () => fs.rename(ROOT_NODE, asName("f"), ROOT_NODE, asName("f2"), 0) ?? fs.link(f, ROOT_NODE, asName("f")),
      ),
      "ctime",
    );
    assert.equal(
      changedBy("/f", () => fs.rename(ROOT_NODE, asName("f"), ROOT_NODE, asName("f2"), 0)),
      "",
      "one file",
    );
    assert.equal(
      changedBy("/d", () => makeDir(fs, "/d/s")),
      "mtime ctime",
    );
    assert.equal(
      changedBy("/d", () => fs.removeDirectory(d, asName("s"))),
      "mtime ctime",
    );
  },

  "times that are given are kept to the nanosecond, before 1970 and after 2038 too"(bench) {
    const { fs } = bench;
    const node = putFile(fs, "/f");
    const mtime = { seconds: -1_000_000_007, nanoseconds: 123_456_789 };
    const atime = { seconds: 2 ** 33 + 5, nanoseconds: 999_999_999 };
    fs.setAttributes(node, { mtime, atime }, ROOT);
    bench.volume.takeCp("sync");
    bench.reopen();
    const { attributes } = entryAt(bench.fs, "/f");
    assert.deepEqual([attributes.mtime, attributes.atime], [mtime, atime]);
  },

  "an access time is set by reading once after a change, and once a day"({ fs, clock }) {
    const node = putFile(fs, "/f", "x");
    const atimeOf = (): Time => fs.getAttributes(node).attributes.atime;
    const start = atimeOf();
    tick(clock);
    readAll(fs, "/f");
    const first = atimeOf();
    assert.notDeepEqual(first, start);
    clock.advanceMs(86_000_000);
    readAll(fs, "/f");
    assert.deepEqual(atimeOf(), first);
    clock.advanceMs(400_000);
    readAll(fs, "/f");
    assert.deepEqual(atimeOf(), clock.now());
  },

  "only regular files can be opened, truncated and read as files"({ fs }) {
    const d = makeDir(fs, "/d");
    const p = fs.makeNode(ROOT_NODE, asName("p"), 0o010600, 0, ROOT).nodeId;
    assert.equal(
      errnoOf(() => fs.open(d, 0)),
      "EISDIR",
    );
    assert.equal(
      errnoOf(() => fs.open(p, 0)),
      "EINVAL",
    );
    assert.equal(
      errnoOf(() => fs.setAttributes(d, { sizeBytes: 0 }, ROOT)),
      "EISDIR",
    );
    assert.equal(
      errnoOf(() => fs.setAttributes(p, { sizeBytes: 0 }, ROOT)),
      "EINVAL",
    );
    const { handle } = fs.openDirectory(d);
    assert.equal(
      errnoOf(() => fs.read(handle, 0, 1, new Uint8Array(1), 0)),
      "EISDIR",
    );
    fs.releaseDirectory(handle);
    assert.equal(
      errnoOf(() => fs.releaseDirectory(handle)),
      "EBADF",
    );
  },

  "O_APPEND writes at the end, but not what comes from the kernel's cache"({ fs }) {
    const node = putFile(fs, "/f", "abc");
    const { handle } = fs.open(node, O_WRONLY | O_APPEND);
    fs.write(handle, 0, Buffer.from("def"), 0, 3, PLAIN);
    fs.write(handle, 0, Buffer.from("A"), 0, 1, { fromCache: true, killPriv: false });
    fs.release(handle);
    assert.equal(Buffer.from(readAll(fs, "/f")).toString(), "Abcdef");
  },

  "holes read as zeros, can be punched and found"({ fs }) {
    const node = putFile(fs, "/f", new Uint8Array(64 * 1024).fill(1));
    const { handle } = fs.open(node, O_RDWR);
    fs.allocate(handle, 3, 8192, 16384); // punch, keep the size
    assert.equal(fs.seek(handle, 0, 4), 8192);
    assert.equal(fs.seek(handle, 8192, 3), 24576);
    fs.allocate(handle, 0, 0, 100_000);
    assert.equal(fs.getAttributes(node).attributes.sizeBytes, 100_000);
    fs.allocate(handle, 1, 0, 200_000);
    assert.equal(fs.getAttributes(node).attributes.sizeBytes, 100_000);
    fs.allocate(handle, 16, 60_000, 60_000);
    const data = readAll(fs, "/f");
    assert.equal(data.length, 120_000);
    assert.equal(
      data.subarray(8192, 24576).every((byte) => byte === 0),
      true,
    );
    assert.equal(
      data.subarray(24576, 60_000).every((byte) => byte === 1),
      true,
    );
    assert.equal(
      data.subarray(60_000).every((byte) => byte === 0),
      true,
    );
    assert.equal(
      errnoOf(() => fs.allocate(handle, 2, 0, 4096)),
      "EOPNOTSUPP",
      "punch without keep-size",
    );
    assert.equal(
      errnoOf(() => fs.allocate(handle, 8, 0, 4096)),
      "EOPNOTSUPP",
      "collapse",
    );
    assert.equal(
      errnoOf(() => fs.allocate(handle, 0, 0, 0)),
      "EINVAL",
    );
    assert.equal(
      errnoOf(() => fs.allocate(handle, 0, 2 ** 44, 4096)),
      "EFBIG",
    );
    assert.equal(
      errnoOf(() => fs.seek(handle, 120_000, 3)),
      "ENXIO",
    );
    assert.equal(
      errnoOf(() => fs.seek(handle, 120_000, 4)),
      "ENXIO",
    );
    fs.release(handle);
  },

  "a file reaches to 16 TiB, sparsely"(bench) {
    const { fs } = bench;
    const node = putFile(fs, "/f");
    const end = 2 ** 44 - 8192;
    writeAt(fs, "/f", end, Buffer.from("end"));
    assert.equal(fs.getAttributes(node).attributes.sizeBytes, end + 3);
    assert.ok(fs.getAttributes(node).attributes.sectorCount <= 8 * 6);
    const into = new Uint8Array(3);
    withOpen(fs, "/f", 0, (handle) => fs.read(handle, end, 3, into, 0));
    assert.equal(Buffer.from(into).toString(), "end");
    withOpen(fs, "/f", 0, (handle) => assert.equal(fs.seek(handle, 0, 3), end - (end % 4096)));
    assert.equal(
      errnoOf(() => writeAt(fs, "/f", 2 ** 44, Buffer.from("x"))),
      "EFBIG",
    );
    assert.equal(
      errnoOf(() => fs.setAttributes(node, { sizeBytes: 2 ** 44 }, ROOT)),
      "EFBIG",
    );
    fs.unlink(ROOT_NODE, asName("f"));
  },

  "extended attributes: set, replaced, listed, removed, each with its errno"(bench) {
    const { fs } = bench;
    const node = putFile(fs, "/f");
    const get = (name: string): string => Buffer.from(bench.fs.getXattr(node, asName(name))).toString();
    assert.equal(
      errnoOf(() => get("user.a")),
      "ENODATA",
    );
    assert.equal(fs.listXattrs(node).length, 0);
    fs.setXattr(node, asName("user.a"), Buffer.from("1"), 1);
    fs.setXattr(node, asName("security.selinux"), Buffer.from("\0\x01"), 0);
    fs.setXattr(node, asName("user.big"), new Uint8Array(65536).fill(66), 0);
    assert.equal(
      errnoOf(() => fs.setXattr(node, asName("user.a"), Buffer.from("2"), 1)),
      "EEXIST",
    );
    assert.equal(
      errnoOf(() => fs.setXattr(node, asName("user.b"), Buffer.from("2"), 2)),
      "ENODATA",
    );
    assert.equal(
      errnoOf(() => fs.setXattr(node, asName("user.c"), new Uint8Array(65537), 0)),
      "E2BIG",
    );
    assert.equal(
      errnoOf(() => fs.setXattr(node, asName("n".repeat(256)), new Uint8Array(1), 0)),
      "ERANGE",
    );
    assert.equal(
      errnoOf(() => fs.removeXattr(node, asName("user.b"))),
      "ENODATA",
    );
    fs.setXattr(node, asName("user.a"), new Uint8Array(0), 2);
    assert.equal(get("user.a"), "");
    bench.volume.takeCp("sync");
    bench.reopen();
    assert.equal(get("user.big").length, 65536);
    assert.equal(Buffer.from(bench.fs.listXattrs(node)).toString(), "security.selinux\0user.big\0user.a\0");
    for (const name of ["user.big", "security.selinux", "user.a"]) bench.fs.removeXattr(node, asName(name));
    assert.equal(bench.fs.listXattrs(node).length, 0);
    const { usedInodes } = bench.volume.status();
    bench.fs.setXattr(node, asName("user.a"), new Uint8Array(1000), 0);
    bench.fs.unlink(ROOT_NODE, asName("f"));
    assert.equal(bench.volume.status().usedInodes, usedInodes - 1, "they go with the file");
  },

  "a write takes file capabilities away, other attributes stay"({ fs }) {
    const node = putFile(fs, "/f");
    fs.setXattr(node, asName("security.capability"), Buffer.from("cap"), 0);
    fs.setXattr(node, asName("user.a"), Buffer.from("a"), 0);
    writeAt(fs, "/f", 0, Buffer.from("x"));
    assert.equal(
      errnoOf(() => fs.getXattr(node, asName("security.capability"))),
      "ENODATA",
    );
    assert.equal(Buffer.from(fs.getXattr(node, asName("user.a"))).toString(), "a");
  },

  "unnamed files live while they are open, and can be given a name"(bench) {
    const { fs } = bench;
    const { usedInodes } = bench.volume.status();
    const one = fs.createUnnamed(ROOT_NODE, 0o600, O_RDWR, USER);
    assert.equal(one.attributes.linkCount, 0);
    fs.write(one.handle, 0, Buffer.from("data"), 0, 4, PLAIN);
    fs.link(one.nodeId, ROOT_NODE, asName("named"));
    fs.release(one.handle);
    assert.equal(Buffer.from(readAll(fs, "/named")).toString(), "data");
    assert.equal(entryAt(fs, "/named").attributes.linkCount, 1);
    const two = fs.createUnnamed(ROOT_NODE, 0o600, O_RDWR | O_EXCL, USER);
    assert.equal(
      errnoOf(() => fs.link(two.nodeId, ROOT_NODE, asName("no"))),
      "ENOENT",
    );
    fs.release(two.handle);
    assert.equal(
      errnoOf(() => fs.getAttributes(two.nodeId)),
      "ESTALE",
    );
    assert.equal(bench.volume.status().usedInodes, usedInodes + 1);
  },

  "an unlinked file is read and written until its last handle is closed"({ fs }) {
    const node = putFile(fs, "/f", "before");
    const first = fs.open(node, O_RDWR).handle;
    const second = fs.open(node, O_RDWR).handle;
    fs.unlink(ROOT_NODE, asName("f"));
    assert.equal(fs.getAttributes(node).attributes.linkCount, 0);
    fs.release(first);
    fs.write(second, 6, Buffer.from("+after"), 0, 6, PLAIN);
    const into = new Uint8Array(12);
    assert.equal(fs.read(second, 0, 12, into, 0), 12);
    assert.equal(Buffer.from(into).toString(), "before+after");
    assert.equal(
      errnoOf(() => fs.link(node, ROOT_NODE, asName("again"))),
      "ENOENT",
    );
    fs.release(second);
    assert.equal(
      errnoOf(() => fs.getAttributes(node)),
      "ESTALE",
    );
    assert.equal(
      errnoOf(() => fs.open(node, 0)),
      "ESTALE",
    );
  },

  "a removed directory that is open is empty, and takes no names"({ fs }) {
    const d = makeDir(fs, "/d");
    const { handle } = fs.openDirectory(d);
    fs.removeDirectory(ROOT_NODE, asName("d"));
    assert.equal(
      errnoOf(() => fs.create(d, asName("f"), 0o644, O_RDWR, ROOT)),
      "ENOENT",
    );
    const names: string[] = [];
    fs.readDirectory(handle, 0, { plus: true }, (bytes, start, end) => names.push(listedName(bytes, start, end)) > 0);
    assert.deepEqual(names, [".", ".."]);
    fs.releaseDirectory(handle);
    assert.equal(
      errnoOf(() => fs.getAttributes(d)),
      "ESTALE",
    );
  },

  "readdirplus counts lookups of what was taken, and resumes after it"({ fs }) {
    for (let i = 0; i < 100; i++) putFile(fs, `/f${i}`);
    const { handle } = fs.openDirectory(ROOT_NODE);
    const taken: string[] = [];
    let cookie = 0;
    for (let room = 9; room === 9; ) {
      room = 0;
      fs.readDirectory(handle, cookie, { plus: true }, (names, start, end, ino, _type, next, entry) => {
        if (room === 9) return false;
        const name = listedName(names, start, end);
        room += 1;
        cookie = next;
        if (entry === undefined) assert.ok(name.startsWith("."));
        else assert.equal(entry.attributes.ino, ino);
        taken.push(name);
        return true;
      });
    }
    fs.releaseDirectory(handle);
    assert.equal(taken.length, 102);
    assert.equal(new Set(taken).size, 102);
  },

  "reading a directory while it is emptied sees each entry that stays once"({ fs }) {
    for (let i = 0; i < 500; i++) putFile(fs, `/f${i}`);
    const { handle } = fs.openDirectory(ROOT_NODE);
    const seen = new Map<string, number>();
    let cookie = 0;
    for (let more = true; more; ) {
      const portion: string[] = [];
      fs.readDirectory(handle, cookie, { plus: false }, (names, start, end, _ino, _type, next) => {
        if (portion.length === 20) return false;
        cookie = next;
        portion.push(listedName(names, start, end));
        return true;
      });
      for (const name of portion) seen.set(name, (seen.get(name) ?? 0) + 1);
      for (const name of portion) if (/[13579]$/.test(name)) fs.unlink(ROOT_NODE, asName(name));
      more = portion.length > 0;
    }
    fs.releaseDirectory(handle);
    for (let i = 0; i < 500; i++) assert.equal(seen.get(`f${i}`), 1, `f${i}`);
    assert.equal(list(fs, ROOT_NODE).length, 250);
  },

  "status counts what is there"(bench) {
    const before = bench.fs.status();
    putFile(bench.fs, "/f", new Uint8Array(400_000).fill(1));
    const after = bench.fs.status();
    assert.ok(before.freeBlocks - after.freeBlocks >= 98);
    assert.equal(before.freeInodes - after.freeInodes, 1);
    assert.ok(after.availableBlocks < after.freeBlocks);
    assert.equal(after.nameBytesMax, 255);
  },

  "durability: a consistency point for what has changed, none for what has not"(bench) {
    const { fs, volume } = bench;
    const node = putFile(fs, "/f", "x");
    const { handle } = fs.open(node, O_RDWR);
    const open = volume.openCp;
    assert.equal(fs.fsync(handle), open);
    assert.equal(fs.syncAll(), open);
    const frozen = volume.freezeCp("fsync");
    assert.equal(fs.fsync(handle), open, "in flight");
    for (const at of frozen.fsinfoVbns) volume.device.writeDurable(at, frozen.fsinfo);
    volume.commitCp(frozen);
    assert.equal(fs.fsync(handle), 0);
    fs.release(handle);
  },
};

for (const [name, run] of Object.entries(cases)) {
  test(name, () => {
    run(makeBench());
  });
}

/** What can stand at the two names of a rename. */
const KINDS = ["nothing", "file", "link", "empty", "full"] as const;
type Kind = (typeof KINDS)[number];

function put({ fs }: Bench, path: string, kind: Kind): void {
  if (kind === "file") putFile(fs, path, path);
  if (kind === "link") fs.symlink(...placeAt(fs, path), Buffer.from(path), ROOT);
  if (kind === "empty" || kind === "full") makeDir(fs, path);
  if (kind === "full") putFile(fs, `${path}/inner`);
}

function expectedErrno(from: Kind, into: Kind, flags: number): string {
  const isDir = (kind: Kind): boolean => kind === "empty" || kind === "full";
  if (from === "nothing") return "ENOENT";
  if (flags === RENAME_EXCHANGE) return into === "nothing" ? "ENOENT" : "";
  if (into === "nothing") return "";
  if (flags === RENAME_NOREPLACE) return "EEXIST";
  if (isDir(from) && !isDir(into)) return "ENOTDIR";
  if (!isDir(from) && isDir(into)) return "EISDIR";
  return into === "full" ? "ENOTEMPTY" : "";
}

for (const flags of [0, RENAME_NOREPLACE, RENAME_EXCHANGE]) {
  for (const sameDirectory of [true, false]) {
    test(`rename of everything over everything, flags ${flags}, ${sameDirectory ? "within a directory" : "across"}`, () => {
      for (const from of KINDS) {
        for (const into of KINDS) {
          const bench = makeBench(1024);
          const { fs } = bench;
          makeDir(fs, "/x");
          makeDir(fs, "/y");
          const [a, b] = sameDirectory ? ["/x/a", "/x/b"] : ["/x/a", "/y/b"];
          put(bench, a, from);
          put(bench, b, into);
          const inoOf = (path: string): number | string => {
            let ino = 0;
            return errnoOf(() => (ino = entryAt(fs, path).attributes.ino)) || ino;
          };
          const [inoA, inoB] = [inoOf(a), inoOf(b)];
          const expected = expectedErrno(from, into, flags);
          assert.equal(
            errnoOf(() => fs.rename(...placeAt(fs, a), ...placeAt(fs, b), flags)),
            expected,
            `${from} to ${into}`,
          );
          const after = expected !== "" ? [inoA, inoB] : flags === RENAME_EXCHANGE ? [inoB, inoA] : ["ENOENT", inoA];
          assert.deepEqual([inoOf(a), inoOf(b)], after, `${from} to ${into}`);
          for (const dir of ["/x", "/y"]) {
            const subdirs = list(fs, nodeAt(fs, dir)).filter(({ type }) => type === 4);
            assert.equal(
              entryAt(fs, dir).attributes.linkCount,
              2 + subdirs.length,
              `links of ${dir}, ${from} to ${into}`,
            );
            for (const { name } of subdirs) {
              assert.equal(fs.lookup(nodeAt(fs, `${dir}/${name}`), asName("..")).attributes.ino, inoOf(dir));
            }
          }
        }
      }
    });
  }
}

test("a directory does not move below itself, by any way", () => {
  const { fs } = makeBench();
  makeDir(fs, "/a");
  makeDir(fs, "/a/b");
  makeDir(fs, "/a/b/c");
  const rename = (from: string, into: string, flags = 0): string =>
    errnoOf(() => fs.rename(...placeAt(fs, from), ...placeAt(fs, into), flags));
  assert.equal(rename("/a", "/a/x"), "EINVAL");
  assert.equal(rename("/a", "/a/b/c/x"), "EINVAL");
  assert.equal(rename("/a/b", "/a/b/c"), "EINVAL");
  assert.equal(rename("/a", "/a/b/c", RENAME_EXCHANGE), "EINVAL");
  assert.equal(rename("/a/b/c", "/a", RENAME_EXCHANGE), "EINVAL");
  assert.equal(rename("/a/b/c", "/a"), "ENOTEMPTY");
  assert.equal(rename("/a/b/c", "/c", 8), "EINVAL", "unknown flag");
  assert.equal(rename("/a/b/c", "/c", RENAME_NOREPLACE | RENAME_EXCHANGE), "EINVAL");
  assert.equal(rename("/a/b/c", "/c"), "");
  assert.equal(rename("/a", "/c/a"), "");
  assert.equal(entryAt(fs, "/c/a/b").attributes.linkCount, 2);
});

test("nor where more directories are above one another than memory keeps", () => {
  const bench = makeBench();
  const paths = Array.from({ length: 20 }, (_, i) => "/d".repeat(i + 1));
  for (const path of paths) makeDir(bench.fs, path);
  makeDir(bench.fs, "/e");
  bench.volume.takeCp("sync");
  bench.reopen({ cacheBytesMax: 0 });
  const { fs, volume } = bench;
  const deepest = paths.at(-1) as string;
  const rename = (from: string, into: string, flags = 0): string =>
    errnoOf(() => fs.rename(...placeAt(fs, from), ...placeAt(fs, into), flags));
  assert.equal(rename("/d", `${deepest}/x`), "EINVAL");
  assert.equal(rename(deepest, "/d", RENAME_EXCHANGE), "EINVAL");
  assert.equal(rename("/d/d", deepest, RENAME_EXCHANGE), "EINVAL");
  assert.equal(rename("/e", `${deepest}/e`), "");
  assert.equal(rename(deepest, "/f"), "");
  volume.takeCp("sync");
  assert.deepEqual(checkVolume(bench.device).findings, []);
  assert.equal(entryAt(fs, "/f/e").attributes.linkCount, 2);
});
