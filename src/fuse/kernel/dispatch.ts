/**
 * The kernel's surface: one row per opcode. A row says how many bytes of arguments come before the names or
 * the payload, and which operation of the filesystem answers.
 *
 * A handler writes the body of its reply behind the header and returns its length, or a negative errno, or
 * NO_REPLY. Errors become errnos here and nowhere else:
 * - FsError is an answer.
 * - CorruptionError is EIO for who asked; the filesystem has told of it (fs/damage.ts).
 * - Anything else is a bug: who asked gets EIO, and the server ends with it, for its state cannot be trusted.
 * So every request that is given to it is answered, once, or is held for its consistency point.
 */
import { CorruptionError, errnoOf, FsError } from "../../core/errors.ts";
import type { ControlRequest } from "../../format/control-message.ts";
import { isAccessList } from "../../fs/access-list.ts";
import {
  type Changed,
  type Entry,
  type FileSystem,
  type Handle,
  type Name,
  NOT_RESIDENT,
  type NodeId,
  type Opened,
  RENAME_NOREPLACE,
  XATTR_CLEAR_SETGID,
} from "../../fs/file-system.ts";
import * as abi from "./abi.ts";
import { opcode, replyHeader, requestHeader } from "./abi.ts";
import { type Connection, negotiate, PAYLOAD_BYTES_MAX } from "./connection.ts";
import { READ_BYTES } from "./put-off.ts";
import {
  type Kept,
  putAbsence,
  putAttributesReply,
  putEntry,
  putHeader,
  putOpened,
  putStatus,
  putStatx,
} from "./replies.ts";
import {
  attributeChanges,
  callerOf,
  checkedNode,
  checkedOffset,
  makerOf,
  takeBytes,
  takeName,
  takeString,
  takeXattrName,
} from "./requests.ts";
import { TOLD_MANY } from "./room.ts";

/** Where the arguments of a request, and the body of a reply, begin. */
const ARGUMENTS = requestHeader.size;
const BODY = replyHeader.size;
const NO_REPLY = 0x4000_0000;

const EIO = errnoOf("EIO");
const EINVAL = errnoOf("EINVAL");
const ENXIO = errnoOf("ENXIO");
const ERANGE = errnoOf("ERANGE");
const ENODATA = errnoOf("ENODATA");
const ENOTTY = errnoOf("ENOTTY");
const ENOSYS = errnoOf("ENOSYS");
const ESTALE = errnoOf("ESTALE");
const EOPNOTSUPP = errnoOf("EOPNOTSUPP");

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const O_ACCMODE = 3;
const O_RDONLY = 0;
const O_WRONLY = 1;
const O_RDWR = 2;
const O_EXCL = 0o200;
const O_TRUNC = 0o1000;
const O_APPEND = 0o2000;
const O_NOATIME = 0o1000000;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** How a WRITE is to be done, by its two bits: made once, for the hot path allocates nothing. */
const HOW_WRITTEN = [
  { fromCache: false, killPriv: false },
  { fromCache: true, killPriv: false },
  { fromCache: false, killPriv: true },
  { fromCache: true, killPriv: true },
] as const;
/** Longer ranges are cut: what was done is told. */
const LENGTH_MAX = 0x4000_0000;
const BY_ROOT: Changed = { killPriv: false };
const BY_USER: Changed = { killPriv: true };
/** How a READ is answered. */
const WAITING = { waits: true } as const;
const RESIDENT_ONLY = { waits: false } as const;
const PLAIN = { plus: false } as const;
const PLUS = { plus: true } as const;

/** Nothing returned is success without a body. */
type Handler = (connection: Connection, fs: FileSystem, view: DataView) => number | void;

interface Row {
  readonly name: string;
  readonly argumentBytes: number;
  readonly handler: Handler;
}

const rows: readonly (Row | undefined)[] = table([
  [opcode.INIT, "INIT", abi.initRequest.size, (c) => negotiate(c, ARGUMENTS, BODY)],
  [opcode.DESTROY, "DESTROY", 0, () => 0],
  // An operation is never under way when the next request is read, so there is nothing to interrupt, and the kernel
  // learns to ask no more. A held reply goes out when it may, interrupted or not.
  [opcode.INTERRUPT, "INTERRUPT", 0, () => -ENOSYS],

  [opcode.LOOKUP, "LOOKUP", 0, lookup],
  [opcode.FORGET, "FORGET", abi.forgetRequest.size, forget],
  [opcode.BATCH_FORGET, "BATCH_FORGET", abi.batchForgetRequest.size, batchForget],
  [opcode.GETATTR, "GETATTR", abi.getattrRequest.size, getAttributes],
  [opcode.STATX, "STATX", abi.statxRequest.size, getStatx],
  [opcode.SETATTR, "SETATTR", abi.setattrRequest.size, setAttributes],
  // With default_permissions the kernel decides by itself.
  [opcode.ACCESS, "ACCESS", 0, () => -ENOSYS],
  [opcode.READLINK, "READLINK", 0, (c, fs) => value(c, fs.readLink(c.node))],

  [opcode.MKNOD, "MKNOD", abi.mknodRequest.size, makeNode],
  [opcode.MKDIR, "MKDIR", abi.mkdirRequest.size, makeDirectory],
  [opcode.SYMLINK, "SYMLINK", 0, (c, fs) => entry(c, fs.symlink(c.node, takeName(c), takeString(c), callerOf(c)))],
  [opcode.LINK, "LINK", abi.linkRequest.size, link],
  [opcode.UNLINK, "UNLINK", 0, (c, fs) => fs.unlink(c.node, takeName(c))],
  [opcode.RMDIR, "RMDIR", 0, removeDirectory],
  [opcode.RENAME, "RENAME", abi.renameRequest.size, rename],
  [opcode.RENAME2, "RENAME2", abi.rename2Request.size, rename2],

  [opcode.OPEN, "OPEN", abi.openRequest.size, open],
  [opcode.CREATE, "CREATE", abi.createRequest.size, create],
  [opcode.TMPFILE, "TMPFILE", abi.createRequest.size, createUnnamed],
  [opcode.READ, "READ", abi.readRequest.size, read],
  [opcode.WRITE, "WRITE", abi.writeRequest.size, write],
  // The kernel has written its dirty pages before it asks; closing does nothing more.
  [opcode.FLUSH, "FLUSH", 0, () => -ENOSYS],
  [opcode.RELEASE, "RELEASE", abi.releaseRequest.size, release],
  [opcode.FSYNC, "FSYNC", abi.fsyncRequest.size, fsync],
  [opcode.SYNCFS, "SYNCFS", 0, syncAll],
  [opcode.FALLOCATE, "FALLOCATE", abi.fallocateRequest.size, allocate],
  [opcode.LSEEK, "LSEEK", abi.lseekRequest.size, seek],
  [opcode.COPY_FILE_RANGE, "COPY_FILE_RANGE", abi.copyRequest.size, copy],
  [opcode.COPY_FILE_RANGE_64, "COPY_FILE_RANGE_64", abi.copyRequest.size, copyFar],

  [opcode.OPENDIR, "OPENDIR", abi.openRequest.size, openDirectory],
  [opcode.READDIR, "READDIR", abi.readRequest.size, readDirectory],
  [opcode.READDIRPLUS, "READDIRPLUS", abi.readRequest.size, readDirectoryPlus],
  [opcode.RELEASEDIR, "RELEASEDIR", abi.releaseRequest.size, releaseDirectory],
  [opcode.FSYNCDIR, "FSYNCDIR", abi.fsyncRequest.size, fsync],

  [opcode.STATFS, "STATFS", 0, (c, fs) => putStatus(c.replyView, BODY, fs.status())],
  [opcode.GETXATTR, "GETXATTR", abi.getxattrRequest.size, getXattr],
  [opcode.LISTXATTR, "LISTXATTR", abi.getxattrRequest.size, listXattrs],
  [opcode.SETXATTR, "SETXATTR", 0, setXattr],
  [opcode.REMOVEXATTR, "REMOVEXATTR", 0, removeXattr],

  // Locks of both kinds, poll, bmap and the rest: ENOSYS, and the kernel does it by itself.
  [opcode.IOCTL, "IOCTL", 0, () => -ENOTTY],
]);

/**
 * Answers the request that lies in the connection's buffer, `lengthBytes` long, in its reply buffer, and returns the
 * length of the reply; 0: none is due now. The reply is to wait for `connection.durableAt`. With `connection.errand`
 * the request is to be given again once that is done, with `wantsRoom` when all pages of the kernel have come, with
 * `awaitsSpace` when no other request waits, with `isPutOff` when there is time to wait. Never throws: after a bug
 * `connection.bug` holds what was thrown, and the server sends the reply and stops.
 */
export function dispatch(connection: Connection, lengthBytes: number): number {
  const { requestView: view, replyView, log } = connection;
  connection.durableAt = 0;
  connection.errand = undefined;
  connection.isPutOff = false;
  connection.wantsRoom = false;
  connection.awaitsSpace = false;
  if (lengthBytes < requestHeader.size) {
    log(`a request of ${lengthBytes} bytes cannot be answered`);
    return 0;
  }
  replyHeader.set.uniqueLow(replyView, 0, requestHeader.get.uniqueLow(view, 0));
  replyHeader.set.uniqueHigh(replyView, 0, requestHeader.get.uniqueHigh(view, 0));
  const row = rows[requestHeader.get.opcode(view, 0)];
  const result = row === undefined ? -ENOSYS : run(connection, row, lengthBytes);
  if (result === NO_REPLY) return 0;
  const replyBytes = result < 0 ? BODY : BODY + result;
  putHeader(replyView, replyBytes, result < 0 ? -result : 0);
  return replyBytes;
}

function run(connection: Connection, row: Row, lengthBytes: number): number {
  const { requestView: view, fileSystem } = connection;
  const isForget = row.handler === forget || row.handler === batchForget;
  const refuse = (errno: number): number => (isForget ? NO_REPLY : -errno);
  const argumentsEnd = ARGUMENTS + row.argumentBytes;
  if (requestHeader.get.lengthBytes(view, 0) !== lengthBytes || argumentsEnd > lengthBytes) return refuse(EINVAL);
  if (!connection.initialized && row.handler !== rows[opcode.INIT]?.handler) return refuse(EIO);
  connection.node = requestHeader.get.node(view, 0);
  if (connection.node > Number.MAX_SAFE_INTEGER) return refuse(ESTALE);
  connection.requestBytes = lengthBytes;
  connection.at = argumentsEnd;
  if (connection.errandResult !== undefined && connection.errandResult !== 0) return refuse(connection.errandResult);
  try {
    return row.handler(connection, fileSystem, view) ?? 0;
  } catch (error) {
    connection.durableAt = 0;
    if (error instanceof FsError && error.code === "ENOSPC") {
      connection.awaitsSpace = connection.mayAwaitSpace && connection.maySpaceCome();
      connection.wantsRoom = !connection.awaitsSpace && mayWaitForRoom(connection, row);
      if (connection.awaitsSpace || connection.wantsRoom) return NO_REPLY;
      connection.onFull(error);
    }
    if (error instanceof FsError) return refuse(error.errno);
    if (error instanceof CorruptionError) return refuse(EIO);
    connection.log(`${row.name} of node ${connection.node}: a bug, the server stops: ${String(error)}`);
    connection.bug = error instanceof Error ? error : new Error(String(error));
    return refuse(EIO);
  }
}

/**
 * Not what the kernel's pages themselves wait for: they, and what sets the length of a file, during which the kernel writes none
 * of its pages back.
 */
function mayWaitForRoom({ room, requestView: view, errandResult }: Connection, { handler }: Row): boolean {
  if (room?.isOwed !== true || errandResult !== undefined || handler === open || handler === setAttributes)
    return false;
  return handler !== write || (abi.writeRequest.get.writeFlags(view, ARGUMENTS) & abi.WRITE_CACHE) === 0;
}

function table(list: readonly (readonly [code: number, name: string, argumentBytes: number, Handler])[]): Row[] {
  const made: Row[] = [];
  for (const [code, name, argumentBytes, handler] of list) made[code] = { name, argumentBytes, handler };
  return Array.from(made); // no holes
}

function entry(connection: Connection, found: Entry): number {
  connection.told = found.nodeId;
  return putEntry(connection.replyWords, BODY, found);
}

function lookup(connection: Connection, fs: FileSystem): number {
  const name = takeName(connection);
  const named = nodeNamed(connection, name);
  // The kernel is to keep no such name: the file would be in use for as long.
  if (named !== undefined) return entry(connection, { ...fs.lookup(named, "." as Name), entryValidMs: 0 });
  const found = fs.find(connection.node, name);
  return found === undefined ? putAbsence(connection.replyWords, BODY) : entry(connection, found);
}

/** The node that a name is the number of, if it begins as ours do and we are who asks. */
function nodeNamed({ nodePrefix, requestView: view }: Connection, name: Name): NodeId | undefined {
  if (nodePrefix === undefined || !name.startsWith(nodePrefix)) return undefined;
  const number = Number(name.slice(nodePrefix.length));
  const isOurs = requestHeader.get.uid(view, 0) === process.getuid?.();
  return isOurs && Number.isSafeInteger(number) ? (number as NodeId) : undefined;
}

function entryAndHandle(connection: Connection, made: Entry & Opened, flags: number): number {
  const entryBytes = entry(connection, made);
  const kept = keptWith(connection, made, made.nodeId, flags);
  return entryBytes + putOpened(connection.replyView, BODY + entryBytes, made, kept);
}

function value({ reply }: Connection, bytes: Uint8Array): number {
  reply.set(bytes, BODY);
  return bytes.length;
}

function forget({ node }: Connection, fs: FileSystem, view: DataView): number {
  fs.forget(node, abi.forgetRequest.get.count(view, ARGUMENTS));
  return NO_REPLY;
}

function batchForget(connection: Connection, fs: FileSystem, view: DataView): number {
  const { forgetOne } = abi;
  const nodeCount = abi.batchForgetRequest.get.nodeCount(view, ARGUMENTS);
  let { at } = connection;
  for (let i = 0; i < nodeCount && at + forgetOne.size <= connection.requestBytes; i++) {
    fs.forget(forgetOne.get.node(view, at), forgetOne.get.count(view, at));
    at += forgetOne.size;
  }
  return NO_REPLY;
}

function getAttributes(connection: Connection, fs: FileSystem, view: DataView): number {
  const { node, replyWords, room } = connection;
  if (room?.isShut === true && isBeforeWriting(connection, view) && !room.admits())
    throw new FsError("ENOSPC", "what is written now would not fit");
  connection.told = node;
  return putAttributesReply(replyWords, BODY, fs.getAttributes(node));
}

/** Asked by way of a handle with a cache, whose attributes the kernel was made to forget: see room.ts. */
function isBeforeWriting({ writers, directWithMmap }: Connection, view: DataView): boolean {
  const { get } = abi.getattrRequest;
  const isByHandle = (get.flags(view, ARGUMENTS) & abi.GETATTR_HANDLE) !== 0;
  return directWithMmap && isByHandle && writers.isCached(get.handle(view, ARGUMENTS));
}

function getStatx(connection: Connection, fs: FileSystem): number {
  connection.told = connection.node;
  return putStatx(connection.replyView, BODY, fs.getAttributes(connection.node));
}

function setAttributes(connection: Connection, fs: FileSystem, view: DataView): number {
  const { node } = connection;
  let changes = attributeChanges(view, ARGUMENTS);
  // With HANDLE_KILLPRIV_V2 a change of owner drops set-user-id here, whoever asks, but not that of a directory.
  const isChown = changes.uid !== undefined || changes.gid !== undefined;
  if (isChown && changes.mode === undefined && (fs.getAttributes(node).attributes.mode & S_IFMT) !== S_IFDIR) {
    changes = { ...changes, killPriv: true };
  }
  connection.told = node;
  return putAttributesReply(connection.replyWords, BODY, fs.setAttributes(node, changes, callerOf(connection)));
}

function makeNode(connection: Connection, fs: FileSystem, view: DataView): number {
  const { get } = abi.mknodRequest;
  const mode = get.mode(view, ARGUMENTS);
  const rdev = get.rdev(view, ARGUMENTS);
  const maker = makerOf(connection, get.umask(view, ARGUMENTS));
  return entry(connection, fs.makeNode(connection.node, takeName(connection), mode, rdev, maker));
}

function makeDirectory(connection: Connection, fs: FileSystem, view: DataView): number {
  const { node } = connection;
  const name = takeName(connection);
  if (changesSnapshots(connection, fs)) {
    const given = { name: snapshotName(name), mirror: false };
    return (
      byVerb(connection, { verb: "snapshot-create", arguments: given }) ?? entry(connection, fs.lookup(node, name))
    );
  }
  const mode = abi.mkdirRequest.get.mode(view, ARGUMENTS);
  const maker = makerOf(connection, abi.mkdirRequest.get.umask(view, ARGUMENTS));
  return entry(connection, fs.makeDirectory(node, name, mode, maker));
}

function removeDirectory(connection: Connection, fs: FileSystem): number | void {
  const name = takeName(connection);
  if (!changesSnapshots(connection, fs)) return fs.removeDirectory(connection.node, name);
  return byVerb(connection, { verb: "snapshot-delete", arguments: { name: snapshotName(name) } });
}

/** What is made there is a snapshot, if there is somebody to make it. */
function changesSnapshots({ node, canSend }: Connection, fs: FileSystem): boolean {
  return canSend && fs.isSnapshotDirectory(node);
}

/** Undefined: it is done. */
function byVerb(connection: Connection, request: ControlRequest): number | undefined {
  if (connection.errandResult !== undefined) return undefined;
  connection.errand = { kind: "verb", request };
  return NO_REPLY;
}

/** Names of snapshots are texts. */
function snapshotName(name: Name): string {
  const text = Buffer.from(name, "latin1").toString("utf8");
  if (Buffer.from(text, "utf8").toString("latin1") !== name) throw new FsError("EILSEQ", "not UTF-8");
  return text;
}

function link(connection: Connection, fs: FileSystem, view: DataView): number {
  const node = checkedNode(abi.linkRequest.get.node(view, ARGUMENTS));
  return entry(connection, fs.link(node, connection.node, takeName(connection)));
}

function rename(connection: Connection, fs: FileSystem, view: DataView): number | void {
  return renameInto(connection, fs, checkedNode(abi.renameRequest.get.intoParent(view, ARGUMENTS)), 0);
}

function rename2(connection: Connection, fs: FileSystem, view: DataView): number | void {
  const { get } = abi.rename2Request;
  return renameInto(connection, fs, checkedNode(get.intoParent(view, ARGUMENTS)), get.flags(view, ARGUMENTS));
}

function renameInto(connection: Connection, fs: FileSystem, intoParent: NodeId, flags: number): number | void {
  const { node } = connection;
  const from = takeName(connection);
  const into = takeName(connection);
  // One that there is already is not replaced, whether that was asked for or not.
  if (changesSnapshots(connection, fs) && intoParent === node && (flags & ~RENAME_NOREPLACE) === 0) {
    const given = { from: snapshotName(from), into: snapshotName(into) };
    return byVerb(connection, { verb: "snapshot-rename", arguments: given });
  }
  return fs.rename(node, from, intoParent, into, flags);
}

function open(connection: Connection, fs: FileSystem, view: DataView): number {
  const flags = abi.openRequest.get.flags(view, ARGUMENTS);
  const killPriv = (abi.openRequest.get.openFlags(view, ARGUMENTS) & abi.OPEN_KILL_SUIDGID) !== 0;
  const { node } = connection;
  if (killPriv && (flags & O_TRUNC) !== 0) fs.setAttributes(node, { killPriv }, callerOf(connection));
  const opened = fs.open(node, handleFlags(connection, flags));
  return putOpened(connection.replyView, BODY, opened, keptWith(connection, opened, node, flags));
}

function create(connection: Connection, fs: FileSystem, view: DataView): number {
  const { node } = connection;
  const flags = abi.createRequest.get.flags(view, ARGUMENTS);
  const mode = abi.createRequest.get.mode(view, ARGUMENTS);
  const name = takeName(connection);
  try {
    const maker = makerOf(connection, abi.createRequest.get.umask(view, ARGUMENTS));
    const made = fs.create(node, name, mode, handleFlags(connection, flags), maker);
    return entryAndHandle(connection, made, flags);
  } catch (error) {
    const exists = error instanceof FsError && error.code === "EEXIST";
    if (!exists || (flags & O_EXCL) !== 0) throw error;
  }
  return openExisting(connection, fs, fs.lookup(node, name), flags);
}

/** The kernel took a name for free that is not: open(O_CREAT) without O_EXCL then opens what is there. */
function openExisting(connection: Connection, fs: FileSystem, found: Entry, flags: number): number {
  try {
    const opened = fs.open(found.nodeId, handleFlags(connection, flags));
    return entryAndHandle(connection, { ...found, ...opened }, flags);
  } catch (error) {
    fs.forget(found.nodeId, 1);
    throw error;
  }
}

function createUnnamed(connection: Connection, fs: FileSystem, view: DataView): number {
  const flags = abi.createRequest.get.flags(view, ARGUMENTS);
  const mode = abi.createRequest.get.mode(view, ARGUMENTS);
  const maker = makerOf(connection, abi.createRequest.get.umask(view, ARGUMENTS));
  const made = fs.createUnnamed(connection.node, mode, handleFlags(connection, flags), maker);
  return entryAndHandle(connection, made, flags);
}

/** How a file is kept, which is noted if it is written to: with the kernel's cache, or without it where room is short. */
function keptWith(connection: Connection, { handle }: Opened, node: NodeId, flags: number): Kept {
  const { writebackCache, directWithMmap, room, writers } = connection;
  if (!writebackCache || (flags & O_ACCMODE) === O_RDONLY) return "pages";
  const isCached = !(directWithMmap && room?.isShort === true);
  writers.add(handle, node, { isCached });
  return isCached ? "pages" : "nothing";
}

/**
 * With the write-back cache the kernel reads through handles that were opened for writing only, to fill the rest of a
 * page, which is nobody's access, and places appended data by itself.
 */
function handleFlags({ writebackCache }: Connection, flags: number): number {
  if (!writebackCache) return flags;
  const widened = (flags & O_ACCMODE) === O_WRONLY ? (flags & ~O_ACCMODE) | O_RDWR | O_NOATIME : flags;
  return widened & ~O_APPEND;
}

function read(connection: Connection, fs: FileSystem, view: DataView): number {
  const { get } = abi.readRequest;
  const offset = get.offset(view, ARGUMENTS);
  if (offset > Number.MAX_SAFE_INTEGER) return 0; // beyond the end of any file
  const length = Math.min(get.sizeBytes(view, ARGUMENTS), PAYLOAD_BYTES_MAX);
  const how = connection.mayPutOff && connection.requestBytes === READ_BYTES ? RESIDENT_ONLY : WAITING;
  const handle = get.handle(view, ARGUMENTS);
  const count = fs.read(handle, offset, length, connection.reply, BODY, how);
  if (count !== NOT_RESIDENT) return count < length && endsTooEarly(connection, handle, offset) ? NO_REPLY : count;
  connection.isPutOff = true;
  return NO_REPLY;
}

/**
 * What another handle has made longer may be in the kernel's cache still. A read without that cache would end where the file does
 * by what we know: the kernel is to write it back first.
 */
function endsTooEarly(connection: Connection, handle: Handle, offset: number): boolean {
  const { node, writers, errandResult, canSend } = connection;
  if (!canSend || errandResult !== undefined || !writers.isBesideCached(handle, node)) return false;
  connection.errand = { kind: "write-back", node, offset };
  return true;
}

function write(connection: Connection, fs: FileSystem, view: DataView): number {
  const { get } = abi.writeRequest;
  const { request, at, requestBytes } = connection;
  const length = get.sizeBytes(view, ARGUMENTS);
  if (length > requestBytes - at) return -EINVAL;
  const flags = get.writeFlags(view, ARGUMENTS);
  const fromCache = (flags & abi.WRITE_CACHE) === 0 ? 0 : 1;
  const how = HOW_WRITTEN[fromCache + ((flags & abi.WRITE_KILL_SUIDGID) === 0 ? 0 : 2)] ?? HOW_WRITTEN[0];
  if (fromCache === 1) {
    connection.told = connection.node;
    connection.room?.took();
  }
  fs.write(get.handle(view, ARGUMENTS), checkedOffset(get.offset(view, ARGUMENTS)), request, at, length, how);
  return putWritten(connection, length);
}

function release({ writers }: Connection, fs: FileSystem, view: DataView): void {
  const handle = abi.releaseRequest.get.handle(view, ARGUMENTS);
  writers.remove(handle);
  fs.release(handle);
}

function fsync(connection: Connection, fs: FileSystem, view: DataView): number {
  connection.durableAt = fs.fsync(abi.fsyncRequest.get.handle(view, ARGUMENTS));
  return 0;
}

function syncAll(connection: Connection, fs: FileSystem): number {
  connection.durableAt = fs.syncAll();
  return 0;
}

function allocate(connection: Connection, fs: FileSystem, view: DataView): void {
  const { get } = abi.fallocateRequest;
  const offset = checkedOffset(get.offset(view, ARGUMENTS));
  const length = checkedOffset(get.lengthBytes(view, ARGUMENTS));
  checkedOffset(offset + length);
  fs.allocate(get.handle(view, ARGUMENTS), get.mode(view, ARGUMENTS), offset, length, howChanged(connection));
}

/** The kernel has written back what it holds of the source, and drops what it holds of the target. */
function copyRange(connection: Connection, fs: FileSystem, view: DataView): number {
  const { get } = abi.copyRequest;
  const fromOffset = checkedOffset(get.fromOffset(view, ARGUMENTS));
  const intoOffset = checkedOffset(get.intoOffset(view, ARGUMENTS));
  const length = Math.min(get.lengthBytes(view, ARGUMENTS), LENGTH_MAX);
  if (get.flags(view, ARGUMENTS) !== 0) throw new FsError("EINVAL", "flags of copy_file_range");
  const from = get.fromHandle(view, ARGUMENTS);
  return fs.copyRange(from, fromOffset, get.intoHandle(view, ARGUMENTS), intoOffset, length, howChanged(connection));
}

function copy(connection: Connection, fs: FileSystem, view: DataView): number {
  return putWritten(connection, copyRange(connection, fs, view));
}

function copyFar(connection: Connection, fs: FileSystem, view: DataView): number {
  abi.copyReply.set.copiedBytes(connection.replyView, BODY, copyRange(connection, fs, view));
  return abi.copyReply.size;
}

/** These requests do not say whether set-user-id must go, as WRITE does: it does unless root asks. */
function howChanged({ requestView: view }: Connection): Changed {
  return requestHeader.get.uid(view, 0) === 0 ? BY_ROOT : BY_USER;
}

function putWritten({ replyView }: Connection, sizeBytes: number): number {
  abi.writeReply.set.sizeBytes(replyView, BODY, sizeBytes);
  abi.writeReply.set.padding(replyView, BODY, 0);
  return abi.writeReply.size;
}

/**
 * The kernel asks for data and holes without passing on what it has in its write-back cache, so for a file that is open
 * for writing the true answer is not known here, and a wrong one makes `cp` lose data. The pages are written back
 * first; a server that cannot have that done says EINVAL, "no such whence", and programs read the holes as zeros.
 */
function seek(connection: Connection, fs: FileSystem, view: DataView): number {
  const { get } = abi.lseekRequest;
  const { node, replyView } = connection;
  const whence = get.whence(view, ARGUMENTS);
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return -EINVAL;
  const offset = get.offset(view, ARGUMENTS);
  if (offset > Number.MAX_SAFE_INTEGER) return -ENXIO;
  if (connection.writers.has(node) && connection.errandResult === undefined) {
    if (!connection.canSend) return -EINVAL;
    connection.errand = { kind: "write-back", node, offset };
    return NO_REPLY;
  }
  abi.lseekReply.set.offset(replyView, BODY, fs.seek(get.handle(view, ARGUMENTS), offset, whence));
  return abi.lseekReply.size;
}

function openDirectory({ node, replyView }: Connection, fs: FileSystem): number {
  return putOpened(replyView, BODY, fs.openDirectory(node), "entries");
}

function readDirectory({ directory }: Connection, fs: FileSystem, view: DataView): number {
  const { get } = abi.readRequest;
  directory.start(BODY, Math.min(get.sizeBytes(view, ARGUMENTS), PAYLOAD_BYTES_MAX));
  fs.readDirectory(get.handle(view, ARGUMENTS), get.offset(view, ARGUMENTS), PLAIN, directory.emit);
  return directory.bytes();
}

function readDirectoryPlus(connection: Connection, fs: FileSystem, view: DataView): number {
  const { get } = abi.readRequest;
  const { directory } = connection;
  directory.start(BODY, Math.min(get.sizeBytes(view, ARGUMENTS), PAYLOAD_BYTES_MAX));
  connection.told = TOLD_MANY;
  fs.readDirectory(get.handle(view, ARGUMENTS), get.offset(view, ARGUMENTS), PLUS, directory.emitPlus);
  return directory.bytes();
}

function releaseDirectory(_: Connection, fs: FileSystem, view: DataView): void {
  fs.releaseDirectory(abi.releaseRequest.get.handle(view, ARGUMENTS));
}

/**
 * The kernel passes any name on; there are those of ext4. Access lists are served where the kernel enforces them
 * (POSIX_ACL): lists that nobody heeds are worse than none.
 */
function isRefusedXattr({ posixAcl }: Connection, name: string): boolean {
  return !(/^(user|trusted|security)\../s.test(name) || (posixAcl && isAccessList(name)));
}

function getXattr(connection: Connection, fs: FileSystem, view: DataView): number {
  const name = takeXattrName(connection);
  if (isRefusedXattr(connection, name)) return -EOPNOTSUPP;
  const found = fs.findXattr(connection.node, name);
  if (found === undefined) return -ENODATA;
  return probed(connection, found, abi.getxattrRequest.get.sizeBytes(view, ARGUMENTS));
}

function listXattrs(connection: Connection, fs: FileSystem, view: DataView): number {
  const names = fs.listXattrs(connection.node);
  const isRoot = requestHeader.get.uid(connection.requestView, 0) === 0;
  const shown = isRoot || names.length === 0 ? names : withoutTrusted(names);
  return probed(connection, shown, abi.getxattrRequest.get.sizeBytes(view, ARGUMENTS));
}

/** Names that only root may know of. */
function withoutTrusted(names: Uint8Array): Uint8Array {
  const list = Buffer.from(names).toString("latin1");
  return Buffer.from(list.replaceAll(/(?<=^|\0)trusted\.[^\0]*\0/g, ""), "latin1");
}

/** A caller with no room asks for the length; one with too little is told so. */
function probed(connection: Connection, found: Uint8Array, roomBytes: number): number {
  if (roomBytes === 0) {
    abi.getxattrReply.encode(connection.replyView, BODY, { sizeBytes: found.length, padding: 0 });
    return abi.getxattrReply.size;
  }
  return found.length > roomBytes ? -ERANGE : value(connection, found);
}

function setXattr(connection: Connection, fs: FileSystem, view: DataView): number {
  if (ARGUMENTS + connection.setxattrRequestBytes > connection.requestBytes) return -EINVAL;
  const { get } = abi.setxattrRequest;
  const sizeBytes = get.sizeBytes(view, ARGUMENTS);
  const isLong = connection.setxattrRequestBytes > abi.SETXATTR_SHORT_BYTES;
  const clearSetGid = isLong && (get.setxattrFlags(view, ARGUMENTS) & abi.SETXATTR_ACL_KILL_SGID) !== 0;
  const flags = get.flags(view, ARGUMENTS) | (clearSetGid ? XATTR_CLEAR_SETGID : 0);
  connection.at = ARGUMENTS + connection.setxattrRequestBytes;
  const name = takeXattrName(connection);
  if (isRefusedXattr(connection, name)) return -EOPNOTSUPP;
  fs.setXattr(connection.node, name, takeBytes(connection, sizeBytes), flags);
  return 0;
}

function removeXattr(connection: Connection, fs: FileSystem): number {
  const name = takeXattrName(connection);
  if (isRefusedXattr(connection, name)) return -EOPNOTSUPP;
  fs.removeXattr(connection.node, name);
  return 0;
}
