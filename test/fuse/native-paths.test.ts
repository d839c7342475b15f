// The path server on a filesystem in memory: no mount, so it runs anywhere.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { manualClock } from "../../src/core/clock.ts";
import { type ErrnoName, errnoOf } from "../../src/core/errors.ts";
import { changeSeq } from "../../src/core/numbers.ts";
import { type FileSystem, type Handle, type Name, ROOT_NODE } from "../../src/fs/file-system.ts";
import type { PathReply, PathRequest } from "../../src/fuse/native/path-request.ts";
import { type PathServer, pathServer } from "../../src/fuse/native/path-server.ts";
import { memoryFileSystem } from "../support/memory-file-system.ts";

const HIDDEN = ".fuse_hidden0000000200000001";
const utf8 = new TextEncoder();

interface Fixture {
  readonly fs: FileSystem;
  readonly server: PathServer;
  readonly log: string[];
  /** The reply, which must be no error. */
  readonly ok: (request: PathRequest) => PathReply;
  readonly refused: (request: PathRequest, code: ErrnoName) => void;
  readonly names: (path?: string) => readonly string[];
}

function fixture(change: (fs: FileSystem) => FileSystem = (fs) => fs): Fixture {
  const fs = change(memoryFileSystem({ clock: manualClock() }));
  const log: string[] = [];
  const server = pathServer({ fileSystem: fs, caller: { uid: 7, gid: 8 }, log: (text) => log.push(text) });
  const reply = (request: PathRequest): PathReply => server.handle(request).reply;
  const ok = (request: PathRequest): PathReply => {
    const found = reply(request);
    assert(found.result >= 0, `${JSON.stringify(request)}: ${found.result}`);
    return found;
  };
  return {
    fs,
    server,
    log,
    ok,
    refused: (request, code) => assert.equal(reply(request).result, -errnoOf(code), JSON.stringify(request)),
    names: (path = "/") =>
      (ok({ op: "readdir", path }).text ?? "").split("/").filter((name) => name !== "" && !/^\.\.?$/.test(name)),
  };
}

function putFile({ ok }: Fixture, path: string, text: string): void {
  const handle = ok({ op: "create", path, mode: 0o100644 }).result;
  ok({ op: "write", handle, offset: 0, bytes: utf8.encode(text) });
  ok({ op: "release", handle });
}

function textAt({ ok }: Fixture, handle: number): string {
  return Buffer.from(ok({ op: "read", handle, offset: 0, lengthBytes: 4096 }).bytes ?? []).toString();
}

test("files are made, read and removed by path", () => {
  const fixed = fixture();
  const { ok, refused, names } = fixed;
  ok({ op: "mkdir", path: "/a", mode: 0o40755 });
  ok({ op: "mkdir", path: "/a/b", mode: 0o40755 });
  putFile(fixed, "/a/b/c", "text");
  const handle = ok({ op: "open", path: "/a/b/c", flags: 0 }).result;
  assert.equal(textAt(fixed, handle), "text");
  ok({ op: "release", handle });
  refused({ op: "release", handle }, "EBADF");
  assert.deepEqual(names("/a/b"), ["c"]);
  refused({ op: "getattr", path: "/a/x/c" }, "ENOENT");
  refused({ op: "getattr", path: "/a/b/c/d" }, "ENOTDIR");
  refused({ op: "rmdir", path: "/a/b" }, "ENOTEMPTY");
  ok({ op: "unlink", path: "/a/b/c" });
  ok({ op: "rmdir", path: "/a/b" });
  refused({ op: "getattr", path: "/a/b" }, "ENOENT");
});

test("a renamed directory is found under its new name alone, and another may take the old one", () => {
  const fixed = fixture();
  const { ok, refused, names } = fixed;
  ok({ op: "mkdir", path: "/a", mode: 0o40755 });
  ok({ op: "mkdir", path: "/a/b", mode: 0o40755 });
  putFile(fixed, "/a/b/old", "");
  ok({ op: "rename", path: "/a", into: "/z" });
  refused({ op: "getattr", path: "/a/b/old" }, "ENOENT");
  ok({ op: "getattr", path: "/z/b/old" });
  ok({ op: "mkdir", path: "/a", mode: 0o40755 });
  ok({ op: "mkdir", path: "/a/b", mode: 0o40755 });
  assert.deepEqual(names("/a/b"), []);
});

test("a file that is deleted while it is open leaves no name, and can be used until it is closed", () => {
  const fixed = fixture();
  const { ok, refused, names, server } = fixed;
  putFile(fixed, "/f", "text");
  const handle = ok({ op: "open", path: "/f", flags: 2 }).result;
  ok({ op: "rename", path: "/f", into: `/${HIDDEN}` });
  refused({ op: "getattr", path: "/f" }, "ENOENT");
  assert.deepEqual(names(), []);
  assert.equal(textAt(fixed, handle), "text");
  ok({ op: "write", handle, offset: 0, bytes: utf8.encode("TEXT") });
  assert.equal(textAt(fixed, handle), "TEXT");
  assert.equal(ok({ op: "getattr", path: `/${HIDDEN}` }).numbers?.[6], 0, "links");
  refused({ op: "rename", path: `/${HIDDEN}`, into: "/back" }, "EPERM");
  ok({ op: "release", handle });
  ok({ op: "unlink", path: `/${HIDDEN}` });
  refused({ op: "getattr", path: `/${HIDDEN}` }, "ENOENT");
  assert.deepEqual(server.counts(), { handles: 0, hidden: 0, directories: 0 });
});

test("a file that is replaced while it is open is there at every moment", () => {
  const seen: string[] = [];
  const fixed = fixture((fs) => ({
    ...fs,
    unlink(parent, name): void {
      seen.push(`unlink ${name}`);
      fs.unlink(parent, name);
    },
  }));
  const { ok, server } = fixed;
  putFile(fixed, "/f", "old");
  putFile(fixed, "/new", "new");
  const handle = ok({ op: "open", path: "/f", flags: 0 }).result;
  ok({ op: "rename", path: "/f", into: `/${HIDDEN}` });
  ok({ op: "rename", path: "/new", into: "/f" });
  assert.equal(textAt(fixed, handle), "old");
  const other = ok({ op: "open", path: "/f", flags: 0 }).result;
  assert.equal(textAt(fixed, other), "new");
  for (const one of [handle, other]) ok({ op: "release", handle: one });
  ok({ op: "unlink", path: `/${HIDDEN}` });
  assert.deepEqual(
    seen.filter((text) => text === "unlink f"),
    [],
  );
  assert.equal(server.counts().hidden, 0);
});

test("what is put off is done before anybody else looks: a snapshot, the end of the mount", () => {
  const fixed = fixture();
  putFile(fixed, "/f", "");
  fixed.ok({ op: "open", path: "/f", flags: 0 });
  fixed.ok({ op: "rename", path: "/f", into: `/${HIDDEN}` });
  fixed.server.settle();
  assert.throws(() => fixed.fs.lookup(ROOT_NODE, "f" as Name), { code: "ENOENT" });
});

test("names of libfuse's own are for libfuse alone", () => {
  const fixed = fixture();
  const { refused } = fixed;
  putFile(fixed, "/f", "");
  refused({ op: "rename", path: "/f", into: `/${HIDDEN}` }, "EPERM"); // not open: it would be deleted
  refused({ op: "create", path: `/${HIDDEN}`, mode: 0o100644 }, "EPERM");
  refused({ op: "mkdir", path: `/${HIDDEN}`, mode: 0o40755 }, "EPERM");
  refused({ op: "link", path: "/f", into: `/${HIDDEN}` }, "EPERM");
  refused({ op: "getattr", path: `/${HIDDEN}` }, "ENOENT");
  assert.deepEqual(fixed.names(), ["f"]);
});

test("names are UTF-8 as bytes; what the binding could not read is refused", () => {
  const fixed = fixture();
  putFile(fixed, "/h\u00e9\u4e16", "");
  fixed.fs.lookup(ROOT_NODE, Buffer.from("h\u00e9\u4e16").toString("latin1") as Name);
  assert.deepEqual(fixed.names(), ["h\u00e9\u4e16"]);
  fixed.refused({ op: "create", path: "/\ufffd", mode: 0o100644 }, "EILSEQ");
});

test("fsync passes on what its reply must wait for", () => {
  const { server, ok } = fixture((fs) => ({ ...fs, fsync: () => changeSeq(9) }));
  const handle = ok({ op: "create", path: "/f", mode: 0o100644 }).result;
  assert.equal(server.handle({ op: "fsync", handle }).durableAt, 9);
  assert.equal(server.handle({ op: "getattr", path: "/f" }).durableAt, 0);
});

test("a bug is answered with EIO, logged, and told", () => {
  const { server, log } = fixture((fs) => ({
    ...fs,
    status: () => {
      throw new TypeError("planted");
    },
  }));
  const { reply, bug } = server.handle({ op: "statfs" });
  assert.equal(reply.result, -errnoOf("EIO"));
  assert.match(String(bug), /planted/);
  assert.match(log.join(), /statfs: a bug/);
});

test("attributes have the sizes that getxattr(2) tells, and names of ours only", () => {
  const fixed = fixture();
  const { ok, refused } = fixed;
  putFile(fixed, "/f", "");
  ok({ op: "setxattr", path: "/f", name: "user.a", value: utf8.encode("value"), flags: 0 });
  assert.equal(ok({ op: "getxattr", path: "/f", name: "user.a", sizeBytesMax: 0 }).result, 5);
  refused({ op: "getxattr", path: "/f", name: "user.a", sizeBytesMax: 4 }, "ERANGE");
  assert.equal(ok({ op: "listxattr", path: "/f", sizeBytesMax: 100 }).result, "user.a".length + 1);
  const acl = "system.posix_acl_access";
  refused({ op: "setxattr", path: "/f", name: acl, value: utf8.encode("x"), flags: 0 }, "EOPNOTSUPP");
  refused({ op: "getxattr", path: "/f", name: "user.b", sizeBytesMax: 0 }, "ENODATA");
});

test("offsets and sizes of 2^53 and more are refused, or beyond the end", () => {
  const fixed = fixture();
  const handle = fixed.ok({ op: "create", path: "/f", mode: 0o100644 }).result;
  const far = 2 ** 53;
  fixed.refused({ op: "write", handle, offset: far, bytes: utf8.encode("x") }, "EFBIG");
  fixed.refused({ op: "truncate", path: "/f", sizeBytes: far }, "EFBIG");
  assert.equal(fixed.ok({ op: "read", handle, offset: far, lengthBytes: 10 }).result, 0);
});

test("every lookup is given back, whatever is asked and however it ends", () => {
  const path = fc.constantFrom("/", "/a", "/a/b", "/a/b/c", "/d", "/d/e", "/f", `/${HIDDEN}`, `/a/${HIDDEN}`);
  const request = fc.oneof(
    path.map((at): PathRequest => ({ op: "mkdir", path: at, mode: 0o40755 })),
    path.map((at): PathRequest => ({ op: "create", path: at, mode: 0o100644 })),
    path.map((at): PathRequest => ({ op: "open", path: at, flags: 0 })),
    path.map((at): PathRequest => ({ op: "opendir", path: at })),
    path.map((at): PathRequest => ({ op: "getattr", path: at })),
    path.map((at): PathRequest => ({ op: "readdir", path: at })),
    path.map((at): PathRequest => ({ op: "unlink", path: at })),
    path.map((at): PathRequest => ({ op: "rmdir", path: at })),
    fc.tuple(path, path).map(([from, into]): PathRequest => ({ op: "rename", path: from, into })),
    fc.tuple(path, path).map(([from, into]): PathRequest => ({ op: "link", path: from, into })),
    fc.integer({ min: 1, max: 8 }).map((handle): PathRequest => ({ op: "release", handle })),
  );
  fc.assert(
    fc.property(fc.array(request, { maxLength: 60 }), (requests) => {
      const lookups = new Map<number, number>();
      const count = (node: number, by: number): void => void lookups.set(node, (lookups.get(node) ?? 0) + by);
      const counted =
        <Given extends readonly unknown[], Made extends { readonly nodeId: number }>(make: (...given: Given) => Made) =>
        (...given: Given): Made => {
          const made = make(...given);
          count(made.nodeId, 1);
          return made;
        };
      const directories = new Set<number>();
      const { server } = fixture((fs) => ({
        ...fs,
        lookup: counted(fs.lookup.bind(fs)),
        makeDirectory: counted(fs.makeDirectory.bind(fs)),
        create: counted(fs.create.bind(fs)),
        link: counted(fs.link.bind(fs)),
        forget(node, times): void {
          count(node, -times);
          assert((lookups.get(node) ?? 0) >= 0, "more is given back than was taken");
          fs.forget(node, times);
        },
      }));
      for (const each of requests) {
        const { reply, bug } = server.handle(each);
        assert.equal(bug, undefined);
        if (each.op === "opendir" && reply.result > 0) directories.add(reply.result);
      }
      for (let handle = 1; handle <= requests.length; handle++) {
        server.handle({ op: directories.has(handle) ? "releasedir" : "release", handle });
      }
      server.clear();
      assert.deepEqual(server.counts(), { handles: 0, hidden: 0, directories: 0 });
      assert.deepEqual(
        [...lookups].filter(([, left]) => left !== 0),
        [],
      );
    }),
    { numRuns: 300 },
  );
});

test("numbers of handles are 1 to 2^31 - 1, each one free", () => {
  const { ok } = fixture();
  const handles = [1, 2, 3].map(() => ok({ op: "opendir", path: "/" }).result as Handle);
  assert.equal(new Set(handles).size, 3);
  assert(handles.every((handle) => handle > 0 && handle < 2 ** 31));
});
