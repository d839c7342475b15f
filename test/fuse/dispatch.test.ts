import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError, errnoOf, FsError } from "../../src/core/errors.ts";
import { changeSeq } from "../../src/core/numbers.ts";
import type { FileSystem, Handle, NodeId } from "../../src/fs/file-system.ts";
import { NOT_RESIDENT, ROOT_NODE, XATTR_CLEAR_SETGID } from "../../src/fs/file-system.ts";
import * as abi from "../../src/fuse/kernel/abi.ts";
import { opcode, replyHeader, requestHeader } from "../../src/fuse/kernel/abi.ts";
import { type Connection, type ConnectionOptions, makeConnection } from "../../src/fuse/kernel/connection.ts";
import { dispatch } from "../../src/fuse/kernel/dispatch.ts";
import type { Room } from "../../src/fuse/kernel/room.ts";
import { memoryFileSystem } from "../support/memory-file-system.ts";

const UNIQUE_LOW = 0xfedc_ba98;
const UNIQUE_HIGH = 0x8765_4321; // all 64 bits are the kernel's
const ALL_FLAGS = 0x7fff_ffff;

interface Answer {
  readonly error: number;
  readonly body: Buffer;
  readonly view: DataView;
}

interface Asked {
  readonly node?: number;
  readonly uid?: number;
  readonly lengthBytes?: number;
}

function makeServer(
  overrides: Partial<FileSystem> = {},
  options: Partial<Omit<ConnectionOptions, "fileSystem">> = {},
): { connection: Connection; log: string[] } {
  const log: string[] = [];
  const fileSystem = { ...memoryFileSystem({ clock: manualClock() }), ...overrides };
  return {
    connection: makeConnection({ fileSystem, ...options, log: (line) => log.push(line) }),
    log,
  };
}

/** Puts the request together and has it answered; undefined when no reply was due. */
function ask(connection: Connection, code: number, payload: Uint8Array, asked: Asked = {}): Answer | undefined {
  const { request, requestView, replyView, reply } = connection;
  const length = requestHeader.size + payload.length;
  requestHeader.encode(requestView, 0, {
    lengthBytes: asked.lengthBytes ?? length,
    opcode: code,
    uniqueLow: UNIQUE_LOW,
    uniqueHigh: UNIQUE_HIGH,
    node: (asked.node ?? ROOT_NODE) as NodeId,
    uid: asked.uid ?? 1,
    gid: 2,
    pid: 3,
    extensionWords: 0,
    padding: 0,
  });
  request.set(payload, requestHeader.size);
  const replyBytes = dispatch(connection, length);
  if (replyBytes === 0) return undefined;
  const header = replyHeader.decode(replyView, 0);
  assert.equal(header.lengthBytes, replyBytes);
  assert.equal(header.uniqueLow, UNIQUE_LOW);
  assert.equal(header.uniqueHigh, UNIQUE_HIGH);
  const body = Buffer.from(reply.subarray(replyHeader.size, replyBytes));
  return { error: -header.error >>> 0, body, view: new DataView(body.buffer, body.byteOffset, body.length) };
}

function record<T>(
  layout: { readonly size: number; encode(view: DataView, at: number, value: T): void },
  value: T,
  rest = "",
): Uint8Array {
  const bytes = Buffer.alloc(layout.size + rest.length);
  layout.encode(new DataView(bytes.buffer, bytes.byteOffset), 0, value);
  bytes.write(rest, layout.size, "latin1");
  return bytes;
}

function init(connection: Connection, { major = 7, minor = 45, flags = ALL_FLAGS } = {}): Answer {
  const answer = ask(
    connection,
    opcode.INIT,
    record(abi.initRequest, { major, minor, readaheadBytesMax: 131072, flags }),
  );
  assert(answer);
  return answer;
}

const silent: ReadonlySet<number> = new Set([opcode.FORGET, opcode.BATCH_FORGET]);
/** For `forget`: the memory filesystem asserts that no more is forgotten than was told, and strangers do that. */
const ignore = (): void => {};

const text = (value: string): Uint8Array => Buffer.from(value, "latin1");

function isFound(answer: Answer | undefined): boolean {
  return answer?.error === 0 && abi.entryReply.get.node(answer.view, 0) !== 0;
}

test("a name that begins with the secret prefix is the node of that number, for the daemon's own user only", () => {
  const { connection } = makeServer({}, { nodePrefix: ".secret-" });
  init(connection);
  const made = ask(connection, opcode.MKDIR, record(abi.mkdirRequest, { mode: 0o755, umask: 0 }, "d\0"));
  const node = abi.entryReply.get.node(made?.view as DataView, 0);
  const lookup = (name: string, uid: number): Answer | undefined =>
    ask(connection, opcode.LOOKUP, Buffer.from(`${name}\0`, "latin1"), { uid });
  const own = process.getuid?.() ?? 0;
  const found = lookup(`.secret-${node}`, own);
  assert(found !== undefined);
  assert.equal(found.error, 0);
  assert.equal(abi.entryReply.get.node(found.view, 0), node);
  assert.equal(abi.entryReply.get.entryValidSeconds(found.view, 0), 0);
  for (const name of [".secret-x", ".secret-1e99", ".secret-9999", ".secre"]) assert(!isFound(lookup(name, own)), name);
  assert(!isFound(lookup(`.secret-${node}`, own + 1)), "somebody else");
});

test("INIT agrees on the lesser minor version and on flags that were offered", () => {
  const { connection } = makeServer();
  const { error, view, body } = init(connection);
  const reply = abi.initReply.decode(view, 0);
  assert.equal(error, 0);
  assert.equal(body.length, 64);
  assert.deepEqual([reply.major, reply.minor, reply.writeBytesMax, reply.pagesMax], [7, 41, 1048576, 256]);
  assert.equal(reply.timeGranularityNs, 1);
  assert.notEqual(reply.flags & abi.initFlag.WRITEBACK_CACHE, 0);
  const together = abi.initFlag.POSIX_ACL | abi.initFlag.DONT_MASK; // or no default access list comes before the umask
  assert.equal(reply.flags & together, together);
  assert.equal(connection.writebackCache, true);
});

test("INIT asks for nothing that an old kernel does not offer, and refuses what is too old", () => {
  const old = abi.initReply.decode(init(makeServer().connection, { minor: 31, flags: 0 }).view, 0);
  assert.deepEqual([old.minor, old.flags, old.writeBytesMax, old.pagesMax], [31, 0, 131072, 32]);
  const { connection, log } = makeServer();
  assert.equal(init(connection, { minor: 30 }).error, errnoOf("EPROTO"));
  assert.equal(init(connection, { major: 6 }).error, errnoOf("EPROTO"));
  assert.match(log.join("\n"), /7\.30.*7\.31.*needed/);
  assert.equal(connection.initialized, false);
});

test("a kernel of the next major version is told ours and may ask again", () => {
  const { connection } = makeServer();
  assert.equal(abi.initReply.decode(init(connection, { major: 8, minor: 0 }).view, 0).major, 7);
  assert.equal(connection.initialized, false);
  assert.equal(abi.initReply.decode(init(connection).view, 0).minor, 41);
});

test("a read-only server does not agree to the write-back cache", () => {
  const { connection } = makeServer({}, { writeBack: false });
  assert.equal(abi.initReply.decode(init(connection).view, 0).flags & abi.initFlag.WRITEBACK_CACHE, 0);
});

test("nothing is served before INIT", () => {
  const { connection } = makeServer();
  assert.equal(ask(connection, opcode.STATFS, new Uint8Array(0))?.error, errnoOf("EIO"));
  assert.equal(ask(connection, opcode.FORGET, new Uint8Array(8)), undefined);
});

test("unknown operations are ENOSYS, and so are those the kernel can do by itself", () => {
  const { connection } = makeServer();
  init(connection);
  const { ACCESS, FLUSH, GETLK, SETLK, POLL, BMAP, INTERRUPT } = opcode;
  for (const code of [0, 7, 19, 54, 4096, 0xffff_ffff, ACCESS, FLUSH, GETLK, SETLK, POLL, BMAP, INTERRUPT]) {
    assert.equal(ask(connection, code, new Uint8Array(64))?.error, errnoOf("ENOSYS"), `opcode ${code}`);
  }
  assert.equal(ask(connection, opcode.IOCTL, new Uint8Array(32))?.error, errnoOf("ENOTTY"));
});

const modeOf = (answer: Answer | undefined): number =>
  abi.entryReply.decode((answer as Answer).view, 0).attributes.mode & 0o7777;

test("what is made is masked by the umask of the request, which the kernel does not apply", () => {
  const { connection } = makeServer();
  init(connection);
  const umask = 0o027;
  const mkdir = record(abi.mkdirRequest, { mode: 0o40777, umask }, "d\0");
  assert.equal(modeOf(ask(connection, opcode.MKDIR, mkdir)), 0o750);
  const mknod = record(abi.mknodRequest, { mode: 0o10666, rdev: 0, umask, padding: 0 }, "p\0");
  assert.equal(modeOf(ask(connection, opcode.MKNOD, mknod)), 0o640);
  const create = record(abi.createRequest, { flags: 2, mode: 0o106777, umask, openFlags: 0 }, "f\0");
  assert.equal(modeOf(ask(connection, opcode.CREATE, create)), 0o6750);
  const unnamed = record(abi.createRequest, { flags: 2, mode: 0o100666, umask, openFlags: 0 }, "/\0");
  assert.equal(modeOf(ask(connection, opcode.TMPFILE, unnamed)), 0o640);
});

test("access lists are served where the kernel enforces them, other names of the system never", () => {
  const list = { sizeBytes: 4, flags: 0, setxattrFlags: abi.SETXATTR_ACL_KILL_SGID, padding: 0 };
  for (const enforced of [true, false]) {
    const set: number[] = [];
    const setXattr: FileSystem["setXattr"] = (_node, _name, _value, flags) => void set.push(flags);
    const { connection } = makeServer({ setXattr });
    init(connection, { flags: enforced ? ALL_FLAGS : ALL_FLAGS & ~abi.initFlag.POSIX_ACL });
    const answers = ["system.posix_acl_access", "system.posix_acl_default", "system.nfs4_acl"].map(
      (name) => ask(connection, opcode.SETXATTR, record(abi.setxattrRequest, list, `${name}\0abcd`))?.error,
    );
    const refused = errnoOf("EOPNOTSUPP");
    assert.deepEqual(answers, enforced ? [0, 0, refused] : [refused, refused, refused]);
    assert.deepEqual(set, enforced ? [XATTR_CLEAR_SETGID, XATTR_CLEAR_SETGID] : []);
  }
});

test("a range is copied, however the kernel asks, and a length beyond all numbers is cut", () => {
  const asked: number[] = [];
  const { connection } = makeServer({
    copyRange(_from, fromOffset, _into, intoOffset, length, how) {
      asked.push(fromOffset, intoOffset, length, how?.killPriv === true ? 1 : 0);
      return 5;
    },
  });
  init(connection);
  const request = {
    fromHandle: 1 as Handle,
    fromOffset: 10,
    intoNode: ROOT_NODE,
    intoHandle: 2 as Handle,
    intoOffset: 20,
    lengthBytes: 2 ** 63,
    flags: 0,
  };
  const plain = ask(connection, opcode.COPY_FILE_RANGE, record(abi.copyRequest, request));
  assert.equal(abi.writeReply.decode((plain as Answer).view, 0).sizeBytes, 5);
  const far = ask(connection, opcode.COPY_FILE_RANGE_64, record(abi.copyRequest, request));
  assert.equal(abi.copyReply.decode((far as Answer).view, 0).copiedBytes, 5);
  assert.deepEqual(asked, [10, 20, 0x4000_0000, 1, 10, 20, 0x4000_0000, 1], "and by an ordinary user");
  const flagged = ask(connection, opcode.COPY_FILE_RANGE, record(abi.copyRequest, { ...request, flags: 1 }));
  assert.equal(flagged?.error, errnoOf("EINVAL"));
  const beyond = ask(connection, opcode.COPY_FILE_RANGE, record(abi.copyRequest, { ...request, intoOffset: 2 ** 60 }));
  assert.equal(beyond?.error, errnoOf("EFBIG"));
});

test("a request that lies about its length, its names or its node is refused", () => {
  const { connection } = makeServer();
  init(connection);
  const lookup = (name: string, asked?: Asked): number | undefined =>
    ask(connection, opcode.LOOKUP, text(name), asked)?.error;
  assert.equal(lookup("none\0"), errnoOf("ENOENT"));
  assert.equal(lookup("none"), errnoOf("EINVAL"));
  assert.equal(lookup(""), errnoOf("EINVAL"));
  assert.equal(lookup("\0"), errnoOf("EINVAL"));
  assert.equal(lookup("a/b\0"), errnoOf("EINVAL"));
  assert.equal(lookup("none\0", { lengthBytes: 44 }), errnoOf("EINVAL"));
  assert.equal(lookup("none\0", { node: 99 }), errnoOf("ESTALE"));
  assert.equal(lookup("none\0", { node: 2 ** 60 }), errnoOf("ESTALE"));
  assert.equal(ask(connection, opcode.GETATTR, new Uint8Array(15))?.error, errnoOf("EINVAL"));
  const mkdir = record(abi.mkdirRequest, { mode: 0o755, umask: 0 }, "d\0");
  assert.equal(ask(connection, opcode.MKDIR, mkdir)?.error, 0);
  const write = { handle: 1 as Handle, offset: 0, sizeBytes: 5, writeFlags: 0, lockOwner: 0, flags: 0, padding: 0 };
  assert.equal(ask(connection, opcode.WRITE, record(abi.writeRequest, write, "1234"))?.error, errnoOf("EINVAL"));
});

/** What is answered to a LOOKUP whose filesystem finds nothing, or throws this. */
function missing(error?: FsError): Answer | undefined {
  const { connection } = makeServer({
    find: () => {
      if (error !== undefined) throw error;
      return undefined;
    },
  });
  init(connection);
  connection.reply.fill(0xff);
  return ask(connection, opcode.LOOKUP, text("none\0"));
}

test("that there is no such name the kernel may remember where nobody else can make it, and only there", () => {
  const kept = missing();
  assert(kept);
  assert.deepEqual([kept.error, kept.body.length], [0, abi.entryReply.size]);
  const entry = abi.entryReply.decode(kept.view, 0);
  assert.deepEqual([entry.node, entry.entryValidNs, entry.attributes.mode], [0, 0, 0]);
  assert(entry.entryValidSeconds > 86_400, "for as long as the kernel likes");
  assert.equal(missing(new FsError("ENOENT", "another"))?.error, errnoOf("ENOENT"));
});

test("sizes and offsets of 2^53 and more are refused, not rounded", () => {
  const { connection } = makeServer();
  init(connection);
  const made = ask(
    connection,
    opcode.CREATE,
    record(abi.createRequest, { flags: 2, mode: 0o100644, umask: 0, openFlags: 0 }, "f\0"),
  );
  assert(made);
  const handle = abi.openReply.get.handle(made.view, abi.entryReply.size);
  const write = { handle, offset: 2 ** 54, sizeBytes: 1, writeFlags: 0, lockOwner: 0, flags: 0, padding: 0 };
  assert.equal(ask(connection, opcode.WRITE, record(abi.writeRequest, write, "x"))?.error, errnoOf("EFBIG"));
  const allocate = { handle, offset: 2 ** 52, lengthBytes: 2 ** 53 - 1, mode: 0, padding: 0 };
  assert.equal(ask(connection, opcode.FALLOCATE, record(abi.fallocateRequest, allocate))?.error, errnoOf("EFBIG"));
  const read = { handle, offset: 2 ** 62, sizeBytes: 100, readFlags: 0, lockOwner: 0, flags: 0, padding: 0 };
  const answer = ask(connection, opcode.READ, record(abi.readRequest, read));
  assert.deepEqual([answer?.error, answer?.body.length], [0, 0]);
});

test("a READ that would have to wait is put off without a reply, where it may be, and answered when it may wait", () => {
  const asked: boolean[] = [];
  const { connection } = makeServer({
    read(_handle, _offset, length, _into, _intoOffset, how) {
      asked.push(how?.waits ?? true);
      return how?.waits === false ? NOT_RESIDENT : length;
    },
  });
  init(connection);
  const read = { handle: 1 as Handle, offset: 0, sizeBytes: 100, readFlags: 0, lockOwner: 0, flags: 0, padding: 0 };
  assert.equal(ask(connection, opcode.READ, record(abi.readRequest, read))?.body.length, 100);
  assert.equal(connection.isPutOff, false);
  connection.mayPutOff = true;
  assert.equal(ask(connection, opcode.READ, record(abi.readRequest, read)), undefined);
  assert.equal(connection.isPutOff, true);
  assert.equal(ask(connection, opcode.READ, record(abi.readRequest, read, "more"))?.body.length, 100);
  assert.equal(connection.isPutOff, false, "only what is nothing but a READ is kept");
  assert.deepEqual(asked, [true, false, true]);
});

test("what was found corrupt is EIO, and the server goes on", () => {
  const { connection, log } = makeServer({
    getAttributes() {
      throw new CorruptionError("block 7: checksum");
    },
  });
  init(connection);
  assert.equal(ask(connection, opcode.GETATTR, new Uint8Array(16))?.error, errnoOf("EIO"));
  assert.equal(connection.bug, undefined);
  assert.deepEqual(log, []); // the filesystem tells of it
});

test("a bug is EIO for who asked and is kept for the server to stop with", () => {
  const bug = new TypeError("planted");
  const { connection, log } = makeServer({
    status() {
      throw bug;
    },
  });
  init(connection);
  assert.equal(ask(connection, opcode.STATFS, new Uint8Array(0))?.error, errnoOf("EIO"));
  assert.equal(connection.bug, bug);
  assert.match(log.join(), /^STATFS of node 1: a bug/);
});

test("a reply waits for its consistency point, and only its own", () => {
  const { connection } = makeServer({ fsync: () => changeSeq(7), syncAll: () => changeSeq(8) });
  init(connection);
  ask(connection, opcode.FSYNC, new Uint8Array(16));
  assert.equal(connection.durableAt, 7);
  ask(connection, opcode.STATFS, new Uint8Array(0));
  assert.equal(connection.durableAt, 0);
  ask(connection, opcode.SYNCFS, new Uint8Array(8));
  assert.equal(connection.durableAt, 8);
});

test("with the write-back cache a handle for writing can be read, and O_APPEND is the kernel's", () => {
  const seen: number[] = [];
  const open = (_: NodeId, flags: number): { handle: Handle; keepCache: boolean } => {
    seen.push(flags);
    return { handle: 5 as Handle, keepCache: true };
  };
  for (const writeBack of [true, false]) {
    const { connection } = makeServer({ open }, { writeBack });
    init(connection);
    const answer = ask(connection, opcode.OPEN, record(abi.openRequest, { flags: 0o2001, openFlags: 0 }));
    assert.equal(answer && abi.openReply.get.openFlags(answer.view, 0), abi.FOPEN_KEEP_CACHE);
  }
  assert.deepEqual(seen, [0o1000002, 0o2001], "filling a page is no access (O_NOATIME)");
});

test("a directory is packed to the last entry that fits, counts what it gave and resumes there", () => {
  const { connection } = makeServer();
  init(connection);
  for (let i = 0; i < 100; i++) {
    const name = `${"n".repeat(i % 9)}${i}`;
    const answer = ask(connection, opcode.MKDIR, record(abi.mkdirRequest, { mode: 0o755, umask: 0 }, `${name}\0`));
    assert.equal(answer?.error, 0);
  }
  const opened = ask(connection, opcode.OPENDIR, record(abi.openRequest, { flags: 0, openFlags: 0 }));
  assert(opened);
  const handle = abi.openReply.get.handle(opened.view, 0);
  for (const [code, prefix] of [
    [opcode.READDIR, 0],
    [opcode.READDIRPLUS, abi.entryReply.size],
  ] as const) {
    const names: string[] = [];
    for (let cookie = 0, more = true; more; ) {
      const read = { handle, offset: cookie, sizeBytes: 1000, readFlags: 0, lockOwner: 0, flags: 0, padding: 0 };
      const answer = ask(connection, code, record(abi.readRequest, read));
      assert(answer && answer.error === 0 && answer.body.length <= 1000);
      more = answer.body.length > 0;
      for (let at = 0; at < answer.body.length; ) {
        const node: number = prefix === 0 ? 0 : abi.entryReply.get.node(answer.view, at);
        at += prefix;
        const entry = abi.directoryEntry.decode(answer.view, at);
        const start = at + abi.directoryEntry.size;
        const name = answer.body.toString("latin1", start, start + entry.nameBytes);
        if (prefix > 0) assert.equal(node, name.startsWith(".") ? 0 : entry.ino);
        names.push(name);
        cookie = entry.cookie;
        at = start + Math.ceil(entry.nameBytes / 8) * 8;
      }
    }
    assert.equal(names.length, 102);
    assert.equal(new Set(names).size, 102);
  }
  // MKDIR counted each once and READDIRPLUS once more: the memory filesystem asserts that no more is forgotten.
  const forget = Buffer.concat([
    record(abi.batchForgetRequest, { nodeCount: 100, padding: 0 }),
    ...Array.from({ length: 100 }, (_, i) => record(abi.forgetOne, { node: (i + 2) as NodeId, count: 2 })),
  ]);
  assert.equal(ask(connection, opcode.BATCH_FORGET, forget), undefined);
  assert.equal(connection.bug, undefined);
  ask(connection, opcode.FORGET, record(abi.forgetRequest, { count: 1 }), { node: 2 });
  assert.match(String(connection.bug), /forgotten too often/);
});

test("attributes travel unharmed, with times on both sides of 1970", () => {
  const seconds = fc.integer({ min: -(2 ** 52), max: 2 ** 52 });
  const nanoseconds = fc.integer({ min: 0, max: 999_999_999 });
  fc.assert(
    fc.property(
      seconds,
      nanoseconds,
      fc.integer({ min: 0, max: 0o7777 }),
      fc.maxSafeNat(),
      (s, ns, mode, sizeBytes) => {
        const { connection } = makeServer();
        init(connection);
        const valid = abi.setattrBit.MODE | abi.setattrBit.ATIME | abi.setattrBit.MTIME | abi.setattrBit.CTIME;
        const payload = new Uint8Array(abi.setattrRequest.size);
        const view = new DataView(payload.buffer);
        abi.setattrRequest.set.valid(view, 0, valid);
        abi.setattrRequest.set.mode(view, 0, mode);
        abi.setattrRequest.set.sizeBytes(view, 0, sizeBytes); // not valid: to be ignored
        abi.setattrRequest.set.atimeSeconds(view, 0, s);
        abi.setattrRequest.set.atimeNs(view, 0, ns);
        abi.setattrRequest.set.mtimeSeconds(view, 0, -s);
        abi.setattrRequest.set.ctimeSeconds(view, 0, s + 1);
        const answer = ask(connection, opcode.SETATTR, payload);
        assert.equal(answer?.error, 0);
        const { attributes } = abi.attributesReply.decode(answer.view, 0);
        assert.deepEqual([attributes.atimeSeconds, attributes.atimeNs], [s, ns]);
        assert.deepEqual([attributes.mtimeSeconds, attributes.ctimeSeconds], [-s + 0, s + 1]);
        assert.equal(attributes.mode, 0o040000 | mode);
      },
    ),
    { numRuns: 200 },
  );
});

/** One that refuses whoever it is asked for. */
function roomThatIs(state: Pick<Room, "isShort" | "isShut" | "isOwed">): Room {
  return { ...state, admits: () => false, took: () => {}, defer: () => {} };
}

test("while room is shut a writer with a cache is refused before it writes, by way of its handle, and nobody else", () => {
  const is = { isShort: false, isShut: false, isOwed: false };
  const room = roomThatIs(is);
  const now = (state: Partial<typeof is>): void => void Object.assign(room, is, state);
  const { connection } = makeServer({}, { room });
  init(connection);
  connection.directWithMmap = true; // not in the flags of a short INIT
  const create = (name: string): { node: number; handle: Handle; isDirect: boolean } => {
    const asked = record(abi.createRequest, { flags: 0o102, mode: 0o644, umask: 0, openFlags: 0 }, `${name}\0`);
    const { view } = ask(connection, opcode.CREATE, asked) as Answer;
    const { handle, openFlags } = abi.openReply.decode(view, abi.entryReply.size);
    return { node: abi.entryReply.decode(view, 0).node, handle, isDirect: (openFlags & abi.FOPEN_DIRECT_IO) !== 0 };
  };
  const getAttributes = ({ node, handle }: { node: number; handle: Handle }, flags: number): number | undefined =>
    ask(connection, opcode.GETATTR, record(abi.getattrRequest, { flags, padding: 0, handle }), { node })?.error;
  const cached = create("cached");
  now({ isShort: true });
  const direct = create("direct");
  assert.deepEqual([cached.isDirect, direct.isDirect], [false, true]);
  assert.equal(getAttributes(cached, abi.GETATTR_HANDLE), 0, "short is not shut");
  now({ isShort: true, isShut: true });
  assert.equal(getAttributes(cached, abi.GETATTR_HANDLE), errnoOf("ENOSPC"));
  assert.equal(getAttributes(cached, 0), 0, "stat(2) goes by no handle");
  assert.equal(getAttributes(direct, abi.GETATTR_HANDLE), 0, "what is written through it comes here at once");
  now({ isShort: true, isShut: true, isOwed: true });
  assert.equal(getAttributes(cached, abi.GETATTR_HANDLE), undefined, "it is not known yet");
  assert.equal(connection.wantsRoom, true);
  connection.errandResult = 0; // asked again
  assert.equal(getAttributes(cached, abi.GETATTR_HANDLE), errnoOf("ENOSPC"));
});

test("a read without a cache beside a handle with one has its pages written back before it ends at the end of the file", () => {
  const room = roomThatIs({ isShort: false, isShut: false, isOwed: false });
  const { connection } = makeServer({}, { room, canSend: true });
  init(connection);
  connection.directWithMmap = true;
  const asked = record(abi.createRequest, { flags: 0o102, mode: 0o644, umask: 0, openFlags: 0 }, "f\0");
  const { view } = ask(connection, opcode.CREATE, asked) as Answer;
  const { node } = abi.entryReply.decode(view, 0);
  const cached = abi.openReply.decode(view, abi.entryReply.size).handle;
  Object.assign(room, { isShort: true });
  const opened = ask(connection, opcode.OPEN, record(abi.openRequest, { flags: 2, openFlags: 0 }), { node }) as Answer;
  const direct = abi.openReply.decode(opened.view, 0).handle;
  const rest = { sizeBytes: 4096, readFlags: 0, lockOwner: 0, flags: 0, padding: 0 };
  const read = (handle: Handle): number | undefined =>
    ask(connection, opcode.READ, record(abi.readRequest, { handle, offset: 4096, ...rest }), { node })?.body.length;
  assert.equal(read(cached), 0, "the kernel itself knows what its cache has");
  assert.equal(read(direct), undefined);
  assert.deepEqual(connection.errand, { kind: "write-back", node, offset: 4096 });
  connection.errandResult = 0; // asked again
  assert.equal(read(direct), 0);
  connection.errandResult = undefined;
  ask(
    connection,
    opcode.RELEASE,
    record(abi.releaseRequest, { handle: cached, flags: 0, releaseFlags: 0, lockOwner: 0 }),
  );
  assert.equal(read(direct), 0, "nobody else has pages");
});

function full(): never {
  throw new FsError("ENOSPC", "full");
}

function writeOf(writeFlags: number): Uint8Array {
  const payload = Buffer.alloc(abi.writeRequest.size + 1);
  const view = new DataView(payload.buffer, payload.byteOffset);
  abi.writeRequest.set.sizeBytes(view, 0, 1);
  abi.writeRequest.set.writeFlags(view, 0, writeFlags);
  return payload;
}

test("while space is owed who finds none waits, but not the pages it is owed to, nor what those wait for", () => {
  const room = roomThatIs({ isShort: true, isShut: true, isOwed: true });
  const { connection } = makeServer({ write: full, makeDirectory: full, setAttributes: full, open: full }, { room });
  init(connection);
  const told = (code: number, payload: Uint8Array): number | undefined => ask(connection, code, payload)?.error;
  assert.equal(told(opcode.WRITE, writeOf(0)), undefined);
  assert.equal(told(opcode.MKDIR, record(abi.mkdirRequest, { mode: 0o755, umask: 0 }, "d\0")), undefined);
  assert.equal(told(opcode.WRITE, writeOf(abi.WRITE_CACHE)), errnoOf("ENOSPC"));
  assert.equal(told(opcode.SETATTR, new Uint8Array(abi.setattrRequest.size)), errnoOf("ENOSPC"));
  assert.equal(told(opcode.OPEN, record(abi.openRequest, { flags: 0o1001, openFlags: 0 })), errnoOf("ENOSPC"));
  assert.equal(connection.wantsRoom, false);
});

test("who finds no space waits where more may come, then for what is owed, and then is told, and so is who looks after the volume", () => {
  const room = roomThatIs({ isShort: true, isShut: true, isOwed: true });
  let maySpaceCome = true;
  const told: string[] = [];
  const { connection } = makeServer(
    { write: full },
    { room, maySpaceCome: () => maySpaceCome, onFull: ({ code }) => told.push(code) },
  );
  init(connection);
  const ended = (writeFlags: number): string => {
    const error = ask(connection, opcode.WRITE, writeOf(writeFlags))?.error;
    assert.equal(error === undefined, connection.awaitsSpace || connection.wantsRoom);
    if (error !== undefined) assert.equal(error, errnoOf("ENOSPC"));
    return connection.awaitsSpace ? "awaits space" : connection.wantsRoom ? "wants room" : "ENOSPC";
  };
  connection.mayAwaitSpace = true;
  assert.deepEqual([ended(0), ended(abi.WRITE_CACHE)], ["awaits space", "awaits space"]);
  maySpaceCome = false;
  assert.deepEqual([ended(0), ended(abi.WRITE_CACHE)], ["wants room", "ENOSPC"]);
  assert.deepEqual(told.splice(0), ["ENOSPC"]);
  maySpaceCome = true;
  connection.mayAwaitSpace = false; // asked again
  assert.equal(ended(0), "wants room");
  connection.errandResult = 0; // and again
  assert.deepEqual([ended(0), told], ["ENOSPC", ["ENOSPC"]]);
});

test("random bytes are always answered, never throw, and never look like a bug", () => {
  const codes = fc.oneof(
    fc.constantFrom(...Object.values(opcode)),
    fc.nat(60),
    fc.integer({ min: 0, max: 0xffff_ffff }),
  );
  const small = fc.oneof(fc.nat(4), fc.nat());
  const request = fc.record({
    code: codes,
    node: fc.oneof(fc.constant(1), fc.nat(5), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(Number)),
    words: fc.array(small, { maxLength: 24 }),
    rest: fc.uint8Array({ maxLength: 40 }),
    lie: fc.oneof(
      { weight: 9, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.integer({ min: -40, max: 40 }) },
    ),
  });
  fc.assert(
    fc.property(fc.array(request, { maxLength: 60 }), (requests) => {
      const { connection } = makeServer({ forget: ignore });
      init(connection);
      for (const { code, node, words, rest, lie } of requests) {
        const payload = Buffer.concat([Buffer.from(Uint32Array.from(words).buffer), rest]);
        const answer = ask(connection, code, payload, { node, lengthBytes: 40 + payload.length + lie });
        if (silent.has(code)) assert.equal(answer, undefined);
        else assert(answer, `opcode ${code} was not answered`);
        assert.equal(connection.bug, undefined, `opcode ${code}`);
        if (answer) assert(answer.error >= 0 && answer.error < 512, `errno ${answer.error}`);
        if (code === opcode.INIT) init(connection);
      }
    }),
    { numRuns: 300 },
  );
});

test("a request shorter than its header is put in the log: it has nobody to answer", () => {
  const { connection, log } = makeServer();
  assert.equal(dispatch(connection, 39), 0);
  assert.equal(log.length, 1);
});
