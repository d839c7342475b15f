/**
 * Serves requests by path from a filesystem of inodes. It is the counterpart of kernel/dispatch.ts: one row an
 * operation, every request answered, errors turned into errnos in one place.
 *
 *     libfuse threads --> event loop (transport.ts) --ask--> this, beside the filesystem --reply--> event loop --> libfuse
 *
 * Each path is walked (path-walk.ts), and each lookup that was counted for it is given back when the request is done;
 * an open file keeps one until it is released, as the kernel would. Deleted files that are open are hidden-files.ts.
 *
 * libfuse tells neither who asks nor with what flags a file is created: new files belong to whoever runs the server.
 */
import { CorruptionError, errnoOf, FsError } from "../../core/errors.ts";
import {
  type AttributeChanges,
  type Attributes,
  type Caller,
  type DurableAt,
  type FileSystem,
  type Handle,
  listedName,
  type Name,
  type NodeId,
  ROOT_NODE,
} from "../../fs/file-system.ts";
import { type HiddenFiles, hiddenFiles, isHiddenName } from "./hidden-files.ts";
import type { PathOperation, PathReply, PathRequest, RequestOf } from "./path-request.ts";
import { lastName, nameOf, type PathWalk, type Place, pathWalk, textOf } from "./path-walk.ts";
import { inoOf, statNumbers, statusNumbers, timeOf } from "./stat-numbers.ts";

const NAMESPACES = /^(user|trusted|security)\../;
const HANDLE_MAX = 0x7fff_ffff;
const O_RDWR = 2;
/** chown(2) leaves alone what is -1. */
const UNCHANGED = 0xffff_ffff;
/** The kernel, which has cleared set-user-id before it asks, keeps no dirty pages of ours. */
const HOW_WRITTEN = { fromCache: false, killPriv: false } as const;
const EMPTY: PathReply = { result: 0 };
const EIO: PathReply = { result: -errnoOf("EIO") };

export interface PathAnswer {
  readonly reply: PathReply;
  /** The reply must wait for this consistency point. */
  readonly durableAt: DurableAt;
  /** Thrown by a bug: the server sends the reply and stops. */
  readonly bug: Error | undefined;
}

export interface PathServer {
  /** Never throws. */
  handle(request: PathRequest): PathAnswer;
  /** Does what is put off. To be called before a snapshot, a consistency point on demand, and the end. */
  settle(): void;
  /** Settles, and forgets directories: they may be others now. */
  clear(): void;
  /** Open files and directories, hidden files, directories kept: what a test wants to see given back. */
  counts(): { readonly handles: number; readonly hidden: number; readonly directories: number };
}

export interface PathServerOptions {
  readonly fileSystem: FileSystem;
  /** Whom new files belong to. */
  readonly caller: Caller;
  /** Somebody is told that there is no space, and this is why. */
  readonly onFull?: (error: FsError) => void;
  readonly log: (message: string) => void;
}

interface OpenPath {
  readonly handle: Handle;
  readonly node: NodeId;
  /** Whether a lookup of the node is to be given back. */
  readonly counted: boolean;
}

/** What the handlers share. */
interface Server {
  readonly fs: FileSystem;
  readonly caller: Caller;
  readonly onFull: (error: FsError) => void;
  readonly log: (message: string) => void;
  readonly walk: PathWalk;
  readonly hidden: HiddenFiles;
  readonly opened: Map<number, OpenPath>;
  /** How often each node is open as a file. */
  readonly openCounts: Map<NodeId, number>;
  lastHandle: number;
  durableAt: DurableAt;
}

export function pathServer({ fileSystem, caller, onFull = () => {}, log }: PathServerOptions): PathServer {
  const server: Server = {
    fs: fileSystem,
    caller,
    onFull,
    log,
    walk: pathWalk(fileSystem),
    hidden: hiddenFiles(fileSystem),
    opened: new Map(),
    openCounts: new Map(),
    lastHandle: 0,
    durableAt: 0,
  };
  return {
    handle(request): PathAnswer {
      server.durableAt = 0;
      try {
        server.walk.trim();
        if (!replacesHidden(server, request)) settle(server);
        const handler = handlers[request.op] as Handler<PathRequest>;
        const reply = handler(server, request) ?? EMPTY;
        return { reply, durableAt: server.durableAt, bug: undefined };
      } catch (error) {
        return failure(server, request, error);
      }
    },
    settle: () => settle(server),
    clear(): void {
      settle(server);
      server.walk.clear();
    },
    counts: () => ({
      handles: server.opened.size,
      hidden: server.hidden.count,
      directories: server.walk.count,
    }),
  };
}

function failure({ onFull, log }: Server, request: PathRequest, error: unknown): PathAnswer {
  if (error instanceof FsError && error.code === "ENOSPC") onFull(error);
  if (error instanceof FsError) return { reply: { result: -error.errno }, durableAt: 0, bug: undefined };
  const what = "path" in request ? `${request.op} of ${request.path}` : request.op;
  if (error instanceof CorruptionError) return { reply: EIO, durableAt: 0, bug: undefined };
  log(`${what}: a bug, the server stops: ${String(error)}`);
  return { reply: EIO, durableAt: 0, bug: error instanceof Error ? error : new Error(String(error)) };
}

/** The rename that a file was hidden for: see hidden-files.ts. */
function replacesHidden({ hidden }: Server, request: PathRequest): boolean {
  return hidden.due !== undefined && request.op === "rename" && request.into === hidden.due;
}

/** The removal has been answered already, so nobody hears that it failed but the log. */
function settle(server: Server): void {
  const path = server.hidden.takeDue();
  if (path === undefined) return;
  try {
    const { parent, name } = server.walk.place(path);
    server.fs.unlink(parent, name);
  } catch (error) {
    if (!(error instanceof FsError || error instanceof CorruptionError)) throw error;
    server.log(`${path} is deleted while it is open, and could not be: ${error.message}`);
  }
}

/** Nothing returned is success. */
type Handler<Request> = (server: Server, request: Request) => PathReply | void;

const handlers: { readonly [Op in PathOperation]: Handler<RequestOf<Op>> } = {
  statfs: ({ fs }) => ({ result: 0, numbers: statusNumbers(fs.status()) }),
  getattr: (server, { path }) => withNode(server, path, (_, attributes) => statReply(attributes)),
  fgetattr: (server, { handle }) => statReply(server.fs.getAttributes(openAt(server, handle).node).attributes),
  readlink: (server, { path }) =>
    withNode(server, path, (node) => ({ result: 0, text: Buffer.from(server.fs.readLink(node)).toString("utf8") })),

  mknod: (server, { path, mode, rdev }) => {
    const { parent, name } = newPlace(server, path);
    made(server, server.fs.makeNode(parent, name, mode, rdev, server.caller));
  },
  mkdir: (server, { path, mode }) => {
    const { parent, name } = newPlace(server, path);
    made(server, server.fs.makeDirectory(parent, name, mode, server.caller));
  },
  symlink: (server, { path, target }) => {
    const { parent, name } = newPlace(server, path);
    made(server, server.fs.symlink(parent, name, Buffer.from(nameOf(target), "latin1"), server.caller));
  },
  link: (server, { path, into }) =>
    withNode(server, path, (node) => {
      const { parent, name } = newPlace(server, into);
      made(server, server.fs.link(node, parent, name));
    }),
  unlink,
  rmdir: (server, { path }) => {
    const { parent, name } = server.walk.place(path);
    server.fs.removeDirectory(parent, name);
    server.walk.drop(path);
  },
  rename,

  chmod: (server, { path, mode }) => change(server, path, { mode: mode & 0o7777 }),
  chown: (server, { path, uid, gid }) =>
    change(server, path, { ...(uid === UNCHANGED ? {} : { uid }), ...(gid === UNCHANGED ? {} : { gid }) }),
  // To nothing: O_TRUNC, most likely, which changes the time of an empty file too. libfuse does not say.
  truncate: (server, { path, sizeBytes }) =>
    change(server, path, { sizeBytes: checked(sizeBytes), ...(sizeBytes === 0 ? { mtime: "now" } : {}) }),
  ftruncate: (server, { handle, sizeBytes }) => {
    const { node } = openAt(server, handle);
    server.fs.setAttributes(node, { sizeBytes: checked(sizeBytes), mtime: "now" }, server.caller);
  },
  utimens: (server, { path, atimeMs, mtimeMs }) =>
    change(server, path, { atime: timeOf(atimeMs), mtime: timeOf(mtimeMs) }),

  create: (server, { path, mode }) => {
    const { parent, name } = newPlace(server, path);
    const { handle, nodeId } = server.fs.create(parent, name, mode, O_RDWR, server.caller);
    return keepOpen(server, { handle, node: nodeId, counted: true });
  },
  open,
  read: (server, { handle, offset, lengthBytes }) => {
    if (offset > Number.MAX_SAFE_INTEGER) return EMPTY; // beyond the end of any file
    const bytes = new Uint8Array(lengthBytes);
    const result = server.fs.read(openAt(server, handle).handle, offset, lengthBytes, bytes, 0);
    return { result, bytes: result < lengthBytes ? bytes.slice(0, result) : bytes };
  },
  write: (server, { handle, offset, bytes }) => {
    server.fs.write(openAt(server, handle).handle, checked(offset), bytes, 0, bytes.length, HOW_WRITTEN);
    return { result: bytes.length };
  },
  release: (server, { handle }) => {
    const file = openAt(server, handle);
    server.opened.delete(handle);
    server.fs.release(file.handle);
    const count = (server.openCounts.get(file.node) ?? 1) - 1;
    if (count > 0) server.openCounts.set(file.node, count);
    else {
      server.openCounts.delete(file.node);
      server.hidden.drop(file.node);
    }
    if (file.counted) server.fs.forget(file.node, 1);
  },
  fsync: (server, { handle }) => {
    server.durableAt = server.fs.fsync(openAt(server, handle).handle);
  },

  opendir: openDirectory,
  readdir: (server, { path }) => withNode(server, path, (node) => listing(server, node)),
  releasedir: (server, { handle }) => {
    const directory = openAt(server, handle);
    server.opened.delete(handle);
    server.fs.releaseDirectory(directory.handle);
    if (directory.counted) server.fs.forget(directory.node, 1);
  },
  fsyncdir: (server, { handle }) => {
    server.durableAt = server.fs.fsync(openAt(server, handle).handle);
  },

  getxattr: (server, { path, name, sizeBytesMax }) => {
    const checkedName = xattrName(name);
    return withNode(server, path, (node) => valueReply(server.fs.getXattr(node, checkedName), sizeBytesMax));
  },
  listxattr: (server, { path, sizeBytesMax }) =>
    withNode(server, path, (node) => {
      const names = Buffer.from(server.fs.listXattrs(node)).toString("latin1").split("\0");
      const shown = names.filter((name) => NAMESPACES.test(name));
      return valueReply(Buffer.from(shown.map((name) => `${name}\0`).join(""), "latin1"), sizeBytesMax);
    }),
  setxattr: (server, { path, name, value, flags }) => {
    const checkedName = xattrName(name);
    withNode(server, path, (node) => server.fs.setXattr(node, checkedName, value, flags));
  },
  removexattr: (server, { path, name }) => {
    const checkedName = xattrName(name);
    withNode(server, path, (node) => server.fs.removeXattr(node, checkedName));
  },
};

/** A file that is open is hidden, not moved: see hidden-files.ts. */
function rename(server: Server, { path, into }: RequestOf<"rename">): void {
  const { fs, walk, hidden } = server;
  if (hidden.find(lastName(path)) !== undefined) throw reserved(); // it has no name to be moved
  if (isHiddenName(lastName(into))) {
    hide(server, path, lastName(into));
    return;
  }
  hidden.takeDue(); // whether this succeeds or not: it is this rename that replaces the file
  const from = walk.place(path);
  const to = walk.place(into);
  fs.rename(from.parent, from.name, to.parent, to.name, 0);
  walk.drop(path);
  walk.drop(into);
}

/** libfuse hides only what is open; whoever else asks for such a name does not get it. */
function hide({ fs, walk, hidden, openCounts }: Server, path: string, hiddenName: string): void {
  const { parent, name } = walk.place(path);
  const { nodeId } = fs.lookup(parent, name);
  if (openCounts.has(nodeId)) {
    hidden.hide(hiddenName, nodeId, path);
    return;
  }
  fs.forget(nodeId, 1);
  throw reserved();
}

function unlink({ fs, walk, hidden, openCounts }: Server, { path }: RequestOf<"unlink">): void {
  const name = lastName(path);
  const node = hidden.find(name);
  if (node !== undefined) {
    if (!openCounts.has(node)) hidden.drop(node);
    return;
  }
  const place = walk.place(path);
  try {
    fs.unlink(place.parent, place.name);
  } catch (error) {
    // libfuse deletes what it has hidden when it is closed; that was done with the release.
    if (!(isHiddenName(name) && error instanceof FsError && error.code === "ENOENT")) throw error;
  }
}

function open(server: Server, { path, flags }: RequestOf<"open">): PathReply {
  const { node, counted } = take(server, path);
  try {
    return keepOpen(server, { handle: server.fs.open(node, flags).handle, node, counted });
  } catch (error) {
    if (counted) server.fs.forget(node, 1);
    throw error;
  }
}

function keepOpen(server: Server, file: OpenPath): PathReply {
  server.openCounts.set(file.node, (server.openCounts.get(file.node) ?? 0) + 1);
  return { result: giveHandle(server, file) };
}

function openDirectory(server: Server, { path }: RequestOf<"opendir">): PathReply {
  const { node, counted } = take(server, path);
  try {
    return { result: giveHandle(server, { handle: server.fs.openDirectory(node).handle, node, counted }) };
  } catch (error) {
    if (counted) server.fs.forget(node, 1);
    throw error;
  }
}

/** libfuse takes a whole listing at once, and gives it out in pieces. */
function listing({ fs }: Server, node: NodeId): PathReply {
  const { handle } = fs.openDirectory(node);
  try {
    const names: string[] = [];
    const numbers: number[] = [];
    fs.readDirectory(handle, 0, { plus: false }, (bytes, start, end, ino, type) => {
      names.push(textOf(listedName(bytes, start, end)));
      numbers.push(inoOf(ino), type);
      return true;
    });
    return { result: 0, text: names.map((name) => `${name}/`).join(""), numbers: Uint32Array.from(numbers) };
  } finally {
    fs.releaseDirectory(handle);
  }
}

/** Numbers that are free, from the last one on: what is closed late does not meet what was opened since. */
function giveHandle(server: Server, file: OpenPath): number {
  const { opened } = server;
  if (opened.size >= HANDLE_MAX) throw new FsError("ENFILE", "no handle is left");
  do server.lastHandle = server.lastHandle === HANDLE_MAX ? 1 : server.lastHandle + 1;
  while (opened.has(server.lastHandle));
  opened.set(server.lastHandle, file);
  return server.lastHandle;
}

function openAt({ opened }: Pick<Server, "opened">, handle: number): OpenPath {
  const file = opened.get(handle);
  if (file === undefined) throw new FsError("EBADF", `handle ${handle} is not open`);
  return file;
}

interface Taken {
  readonly node: NodeId;
  readonly counted: boolean;
  readonly attributes: Attributes | undefined;
}

/** The node at a path. If `counted`, a lookup of it is to be given back. */
function take({ fs, walk, hidden }: Server, path: string): Taken {
  if (path === "/") return { node: ROOT_NODE, counted: false, attributes: undefined };
  const node = hidden.find(lastName(path));
  if (node !== undefined) return { node, counted: false, attributes: undefined };
  const { parent, name } = walk.place(path);
  const { nodeId, attributes } = fs.lookup(parent, name);
  return { node: nodeId, counted: true, attributes };
}

function withNode<T>(server: Server, path: string, use: (node: NodeId, attributes: Attributes) => T): T {
  const { node, counted, attributes } = take(server, path);
  try {
    return use(node, attributes ?? server.fs.getAttributes(node).attributes);
  } finally {
    if (counted) server.fs.forget(node, 1);
  }
}

function newPlace({ walk }: Server, path: string): Place {
  if (isHiddenName(lastName(path))) throw reserved();
  return walk.place(path);
}

/** The lookup that came with a new file is given back: libfuse asks again. */
function made({ fs }: Server, { nodeId }: { readonly nodeId: NodeId }): void {
  fs.forget(nodeId, 1);
}

function change(server: Server, path: string, changes: AttributeChanges): void {
  withNode(server, path, (node) => void server.fs.setAttributes(node, changes, server.caller));
}

function statReply(attributes: Attributes): PathReply {
  return { result: 0, numbers: statNumbers(attributes) };
}

/** As getxattr(2) and listxattr(2) have it: with no room at all the size is told. */
function valueReply(bytes: Uint8Array, sizeBytesMax: number): PathReply {
  if (sizeBytesMax === 0) return { result: bytes.length };
  if (bytes.length > sizeBytesMax) throw new FsError("ERANGE", "the value is longer than the room for it");
  return { result: bytes.length, bytes: Uint8Array.from(bytes) };
}

/** Access lists (system.*) would be kept and not enforced: libfuse 2.9 does not tell the kernel to. */
function xattrName(text: string): Name {
  if (!NAMESPACES.test(text)) throw new FsError("EOPNOTSUPP", `an attribute in no namespace of ours: ${text}`);
  return nameOf(text);
}

function checked(offset: number): number {
  if (offset > Number.MAX_SAFE_INTEGER) throw new FsError("EFBIG", "an offset of 2^53 or more");
  return offset;
}

function reserved(): FsError {
  return new FsError("EPERM", "names that begin with .fuse_hidden are libfuse's own");
}
