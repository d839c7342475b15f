// Access lists: what ext4 makes of them. Enforcement is the kernel's, and tested on a mount.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ACCESS_LIST, DEFAULT_LIST, decodeAccessList, encodeAccessList } from "../../src/fs/access-list.ts";
import { ROOT_NODE, XATTR_CLEAR_SETGID } from "../../src/fs/file-system.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { asName, type Bench, entryAt, errnoOf, makeBench, makeDir, nodeAt, putFile } from "../support/fs-paths.ts";

const [OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER] = [1, 2, 4, 8, 16, 32];
const NO_ID = 0xffff_ffff;
type Entry = readonly [tag: number | undefined, permissions: number, id?: number];

const encode = (...entries: readonly Entry[]): Uint8Array =>
  encodeAccessList(entries.map(([tag = 0, permissions, id = NO_ID]) => ({ tag, permissions, id })));
const named = (mask: number): Uint8Array =>
  encode([OWNER, 7], [USER, 6, 1000], [GROUP, 5], [NAMED_GROUP, 4, 2000], [MASK, mask], [OTHER, 1]);
const minimal = encode([OWNER, 6], [GROUP, 4], [OTHER, 0]);

const modeOf = ({ fs }: Bench, path: string): number => entryAt(fs, path).attributes.mode & 0o7777;
const listOf = ({ fs }: Bench, path: string, name = ACCESS_LIST): Uint8Array | string => {
  try {
    return fs.getXattr(nodeAt(fs, path), asName(name)).slice();
  } catch {
    return errnoOf(() => fs.getXattr(nodeAt(fs, path), asName(name)));
  }
};
const setList = ({ fs }: Bench, path: string, value: Uint8Array, name = ACCESS_LIST, flags = 0): void =>
  fs.setXattr(nodeAt(fs, path), asName(name), value, flags);

test("an access list sets the mode, with the mask for the group, and chmod sets the list", () => {
  const bench = makeBench();
  putFile(bench.fs, "/f");
  bench.fs.setAttributes(nodeAt(bench.fs, "/f"), { mode: 0o6600 }, { uid: 0, gid: 0 });
  setList(bench, "/f", named(3));
  assert.equal(modeOf(bench, "/f"), 0o6731);
  assert.deepEqual(listOf(bench, "/f"), named(3));
  bench.fs.setAttributes(nodeAt(bench.fs, "/f"), { mode: 0o2640 }, { uid: 0, gid: 0 });
  assert.deepEqual(
    listOf(bench, "/f"),
    encode([OWNER, 6], [USER, 6, 1000], [GROUP, 5], [NAMED_GROUP, 4, 2000], [MASK, 4], [OTHER, 0]),
  );
  setList(bench, "/f", named(7), ACCESS_LIST, XATTR_CLEAR_SETGID);
  assert.equal(modeOf(bench, "/f"), 0o771, "set-group-id goes where the setter is not of the group");
});

test("a list that says no more than the mode is not kept, and removing none is no error", () => {
  const bench = makeBench();
  putFile(bench.fs, "/f");
  setList(bench, "/f", named(7));
  setList(bench, "/f", minimal);
  assert.equal(modeOf(bench, "/f"), 0o640);
  assert.equal(listOf(bench, "/f"), "ENODATA");
  const node = nodeAt(bench.fs, "/f");
  bench.fs.removeXattr(node, asName(ACCESS_LIST));
  bench.fs.setXattr(node, asName("user.x"), new Uint8Array(1), 0);
  bench.fs.removeXattr(node, asName(ACCESS_LIST));
  setList(bench, "/f", named(7));
  setList(bench, "/f", encode()); // an empty list is none
  assert.equal(listOf(bench, "/f"), "ENODATA");
  assert.equal(modeOf(bench, "/f"), 0o771, "taking a list away leaves the mode");
});

test("what is made in a directory with a default list gets it, cut down to its mode, and no umask", () => {
  const bench = makeBench();
  const { fs } = bench;
  const dir = makeDir(fs, "/d");
  const maker = { uid: 5, gid: 6, umask: 0o077 };
  setList(bench, "/d", named(7), DEFAULT_LIST);
  assert.equal(modeOf(bench, "/d") & 0o777, 0o755, "a default list is not one of the directory itself");
  fs.release(fs.create(dir, asName("f"), 0o666, 2, maker).handle);
  assert.equal(modeOf(bench, "/d/f"), 0o660);
  const cut = encode([OWNER, 6], [USER, 6, 1000], [GROUP, 5], [NAMED_GROUP, 4, 2000], [MASK, 6], [OTHER, 0]);
  assert.deepEqual(listOf(bench, "/d/f"), cut);
  assert.equal(listOf(bench, "/d/f", DEFAULT_LIST), "ENODATA");
  fs.makeDirectory(dir, asName("s"), 0o777, maker);
  assert.equal(modeOf(bench, "/d/s"), 0o771);
  assert.deepEqual(listOf(bench, "/d/s", DEFAULT_LIST), named(7));
  fs.makeNode(dir, asName("p"), 0o10600, 0, maker);
  assert.equal(modeOf(bench, "/d/p"), 0o600);
  const unnamed = fs.createUnnamed(dir, 0o640, 2, maker);
  fs.link(unnamed.nodeId, dir, asName("t"));
  fs.release(unnamed.handle);
  assert.equal(modeOf(bench, "/d/t"), 0o640);
  fs.symlink(dir, asName("l"), Buffer.from("x"), maker);
  assert.equal(listOf(bench, "/d/l"), "ENODATA");
  assert.equal(modeOf(bench, "/d/l"), 0o777);

  setList(bench, "/d", minimal, DEFAULT_LIST);
  fs.release(fs.create(dir, asName("m"), 0o666, 2, maker).handle);
  assert.equal(modeOf(bench, "/d/m"), 0o640);
  assert.equal(listOf(bench, "/d/m"), "ENODATA");
  fs.removeXattr(dir, asName(DEFAULT_LIST));
  fs.release(fs.create(dir, asName("u"), 0o666, 2, maker).handle);
  assert.equal(modeOf(bench, "/d/u"), 0o600, "without a list the umask applies");

  assert.equal(
    errnoOf(() => setList(bench, "/d/f", named(7), DEFAULT_LIST)),
    "EACCES",
  );
  assert.equal(
    errnoOf(() => setList(bench, "/d/l", named(7))),
    "EOPNOTSUPP",
  );
});

test("lists that are none are refused, and change nothing", () => {
  const bench = makeBench();
  putFile(bench.fs, "/f");
  setList(bench, "/f", named(7));
  const wrong: Readonly<Record<string, Uint8Array>> = {
    "no version": new Uint8Array(0),
    "half an entry": minimal.subarray(0, minimal.length - 3),
    "owner only": encode([OWNER, 7]),
    "names without a mask": encode([OWNER, 7], [USER, 7, 5], [GROUP, 7], [OTHER, 0]),
    "two masks": encode([OWNER, 7], [GROUP, 7], [MASK, 1], [MASK, 2], [OTHER, 0]),
    "out of order": encode([GROUP, 7], [OWNER, 7], [OTHER, 0]),
    "an unknown tag": encode([OWNER, 7], [3, 1], [GROUP, 7], [OTHER, 0]),
    "permissions beyond 7": encode([OWNER, 8], [GROUP, 7], [OTHER, 0]),
  };
  for (const [why, value] of Object.entries(wrong)) {
    assert.equal(
      errnoOf(() => setList(bench, "/f", value)),
      "EINVAL",
      why,
    );
  }
  const version3 = minimal.slice();
  version3[0] = 3;
  assert.equal(
    errnoOf(() => setList(bench, "/f", version3)),
    "EOPNOTSUPP",
  );
  assert.deepEqual(listOf(bench, "/f"), named(7));
});

test("any bytes are a list or refused, and a list comes back as it was", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.boolean(), (bytes, withVersion) => {
      if (withVersion && bytes.length >= 4) bytes.set([2, 0, 0, 0]);
      let list: ReturnType<typeof decodeAccessList>;
      const errno = errnoOf(() => {
        list = decodeAccessList(bytes);
      });
      assert(["", "EINVAL", "EOPNOTSUPP"].includes(errno), errno);
      if (list !== undefined) assert.deepEqual(decodeAccessList(encodeAccessList(list)), list);
    }),
  );
});

test("a volume with lists of all lengths checks clean after a consistency point", () => {
  const bench = makeBench();
  const { fs } = bench;
  const users = Array.from({ length: 500 }, (_, i): Entry => [USER, 7, i]);
  const long = encode([OWNER, 7], ...users, [GROUP, 5], [MASK, 7], [OTHER, 1]);
  const dir = makeDir(fs, "/d");
  setList(bench, "/d", long, DEFAULT_LIST);
  fs.makeDirectory(dir, asName("s"), 0o750, { uid: 0, gid: 0, umask: 0 });
  assert.equal(listOf(bench, "/d/s").length, long.length);
  fs.setAttributes(nodeAt(fs, "/d/s"), { mode: 0o700 }, { uid: 0, gid: 0 });
  fs.removeDirectory(dir, asName("s"));
  fs.release(fs.create(ROOT_NODE, asName("f"), 0o600, 2, { uid: 0, gid: 0 }).handle);
  bench.volume.takeCp("sync");
  assert.deepEqual(checkVolume(bench.device).findings, []);
});

test("a range is copied between files, and cut at the end of the source", () => {
  const bench = makeBench();
  const { fs } = bench;
  const data = Buffer.from(Array.from({ length: 3_000_001 }, (_, i) => (i * 7 + (i >> 9)) & 0xff));
  putFile(fs, "/a", data);
  putFile(fs, "/b", "b".repeat(100));
  bench.fs.setAttributes(nodeAt(fs, "/b"), { mode: 0o6755 }, { uid: 0, gid: 0 });
  const from = fs.open(nodeAt(fs, "/a"), 0).handle;
  const into = fs.open(nodeAt(fs, "/b"), 2).handle;
  assert.equal(fs.copyRange(from, 1, into, 50, 1e12, { killPriv: true }), 3_000_000);
  assert.equal(fs.copyRange(from, 3_000_001, into, 0, 10), 0);
  assert.equal(fs.copyRange(from, 4_000_000, into, 0, 10), 0);
  assert.equal(modeOf(bench, "/b"), 0o755);
  const { sizeBytes } = entryAt(fs, "/b").attributes;
  const found = new Uint8Array(sizeBytes);
  assert.equal(fs.read(into, 0, sizeBytes, found, 0), 3_000_050);
  assert(Buffer.concat([Buffer.from("b".repeat(50)), data.subarray(1)]).equals(found));
  assert.equal(
    errnoOf(() => fs.copyRange(from, 0, into, 2 ** 44, 10)),
    "EFBIG",
  );
  fs.release(from);
  fs.release(into);
});
