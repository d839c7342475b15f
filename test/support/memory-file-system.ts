/**
 * A whole FileSystem in memory: what a front door is tested against. Plain, and strict where the kernel could ask
 * for nonsense: an unknown node, an unknown handle or one forget too many is an error that ends the test.
 */
import assert from "node:assert/strict";
import type { Clock, Time } from "../../src/core/clock.ts";
import { FsError } from "../../src/core/errors.ts";
import type { ChangeSeq } from "../../src/core/numbers.ts";
import type * as Fs from "../../src/fs/file-system.ts";
import { RENAME_EXCHANGE, RENAME_NOREPLACE, ROOT_NODE, XATTR_CREATE, XATTR_REPLACE } from "../../src/fs/file-system.ts";

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_ISUID = 0o4000;
const S_ISGID = 0o2000;
const S_IXGRP = 0o010;
const O_TRUNC = 0o1000;
const CHUNK_BYTES = 65536;
const NAME_BYTES_MAX = 255;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;
const SEEK_DATA = 3;

interface Node {
  readonly ino: number;
  mode: number;
  uid: number;
  gid: number;
  rdev: number;
  linkCount: number;
  sizeBytes: number;
  atime: Time;
  mtime: Time;
  ctime: Time;
  readonly btime: Time;
  readonly xattrs: Map<string, Uint8Array>;
  /** Of a file. A hole is an absent chunk. */
  readonly chunks: Map<number, Uint8Array>;
  /** Of a symlink. */
  target: Uint8Array;
  /** Of a directory: cookies grow in the order of creation, so they are stable. */
  readonly entries: Map<string, Child>;
  nextCookie: number;
  parent: number;

  lookupCount: number;
  openCount: number;
}

interface Child {
  readonly ino: number;
  readonly cookie: number;
}

export interface MemoryFileSystemOptions {
  readonly clock: Clock;
  /** What fsync and syncAll answer: the consistency point to wait for. */
  readonly durableAt?: () => ChangeSeq | 0;
}

export interface MemoryFileSystem extends Fs.FileSystem {
  /** Inodes that exist, with those that have no name any more and are still in use. */
  nodeCount(): number;
  openCount(): number;
}

export function memoryFileSystem({ clock, durableAt = () => 0 }: MemoryFileSystemOptions): MemoryFileSystem {
  const nodes = new Map<number, Node>();
  const handles = new Map<number, Node>();
  let nextIno = 2;
  let nextHandle = 1;
  nodes.set(ROOT_NODE, makeNode(ROOT_NODE, S_IFDIR | 0o755, { uid: 0, gid: 0 }, ROOT_NODE));

  function makeNode(ino: number, mode: number, caller: Fs.Caller, parent: number): Node {
    const now = clock.now();
    return {
      ino,
      mode: (mode & S_IFMT) === S_IFLNK ? mode : mode & ~(caller.umask ?? 0),
      uid: caller.uid,
      gid: caller.gid,
      rdev: 0,
      linkCount: (mode & S_IFMT) === S_IFDIR ? 2 : 1,
      sizeBytes: 0,
      atime: now,
      mtime: now,
      ctime: now,
      btime: now,
      xattrs: new Map(),
      chunks: new Map(),
      target: new Uint8Array(0),
      entries: new Map(),
      nextCookie: 3, // after "." and ".."
      parent,
      lookupCount: 0,
      openCount: 0,
    };
  }

  function nodeOf(id: Fs.NodeId): Node {
    const node = nodes.get(id);
    if (node === undefined) throw new FsError("ESTALE", `no node ${id}`);
    return node;
  }

  function directoryOf(id: Fs.NodeId): Node {
    const node = nodeOf(id);
    if (!isDirectory(node)) throw new FsError("ENOTDIR", `node ${id}`);
    return node;
  }

  function opened(handle: Fs.Handle): Node {
    const node = handles.get(handle);
    if (node === undefined) throw new FsError("EBADF", `no handle ${handle}`);
    return node;
  }

  function childOf(parent: Node, name: string): Node | undefined {
    const child = parent.entries.get(name);
    if (child === undefined) return undefined;
    const node = nodes.get(child.ino);
    assert.ok(node, `entry ${name} of ${parent.ino} names no inode`);
    return node;
  }

  function existing(parent: Node, name: string): Node {
    const node = childOf(parent, name);
    if (node === undefined) throw new FsError("ENOENT", name);
    return node;
  }

  function checkFree(parent: Node, name: string): void {
    if (name.length > NAME_BYTES_MAX) throw new FsError("ENAMETOOLONG", name);
    if (parent.linkCount === 0) throw new FsError("ENOENT", "the directory is removed");
    if (parent.entries.has(name)) throw new FsError("EEXIST", name);
  }

  function attach(parent: Node, name: string, node: Node): void {
    parent.entries.set(name, { ino: node.ino, cookie: parent.nextCookie++ });
    touch(parent);
    node.ctime = clock.now();
    if (isDirectory(node)) {
      node.parent = parent.ino;
      parent.linkCount += 1;
    }
  }

  function detach(parent: Node, name: string, node: Node): void {
    parent.entries.delete(name);
    touch(parent);
    node.ctime = clock.now();
    if (isDirectory(node)) parent.linkCount -= 1;
  }

  function touch(node: Node): void {
    const now = clock.now();
    node.mtime = now;
    node.ctime = now;
  }

  function dropIfUnused(node: Node): void {
    if (node.linkCount === 0 && node.lookupCount === 0 && node.openCount === 0) nodes.delete(node.ino);
  }

  function entryOf(node: Node): Fs.Entry {
    node.lookupCount += 1;
    return {
      nodeId: node.ino as Fs.NodeId,
      generation: 0,
      attributes: attributesOf(node),
      entryValidMs: Number.POSITIVE_INFINITY,
      attributesValidMs: Number.POSITIVE_INFINITY,
    };
  }

  function attributesReplyOf(node: Node): Fs.AttributesReply {
    return { attributes: attributesOf(node), attributesValidMs: Number.POSITIVE_INFINITY };
  }

  function add(parent: Node, name: string, mode: number, caller: Fs.Caller): Node {
    checkFree(parent, name);
    const inheritsGroup = (parent.mode & S_ISGID) !== 0;
    const owner = inheritsGroup ? { ...caller, gid: parent.gid } : caller;
    const inherited = inheritsGroup && (mode & S_IFMT) === S_IFDIR ? mode | S_ISGID : mode;
    const node = makeNode(nextIno++, inherited, owner, parent.ino);
    nodes.set(node.ino, node);
    attach(parent, name, node);
    return node;
  }

  function openNode(node: Node): Fs.Opened {
    const handle = nextHandle++ as Fs.Handle;
    handles.set(handle, node);
    node.openCount += 1;
    return { handle, keepCache: true };
  }

  function closeHandle(handle: Fs.Handle): void {
    const node = opened(handle);
    handles.delete(handle);
    node.openCount -= 1;
    dropIfUnused(node);
  }

  function removeName(parent: Node, name: string, node: Node): void {
    detach(parent, name, node);
    node.linkCount -= isDirectory(node) ? 2 : 1;
    dropIfUnused(node);
  }

  function exchange(from: Node, fromName: string, into: Node, intoName: string): void {
    const a = existing(from, fromName);
    const b = existing(into, intoName);
    detach(from, fromName, a);
    detach(into, intoName, b);
    attach(into, intoName, a);
    attach(from, fromName, b);
  }

  function isWithin(node: Node, ancestor: Node): boolean {
    for (let at = node; ; at = nodeOf(at.parent as Fs.NodeId)) {
      if (at === ancestor) return true;
      if (at.ino === ROOT_NODE) return false;
    }
  }

  function lookup(parent: Fs.NodeId, name: Fs.Name): Fs.Entry {
    if (name === ".") return entryOf(nodeOf(parent)); // any inode: how a file handle is opened again
    const directory = directoryOf(parent);
    if (name === "..") return entryOf(nodeOf(directory.parent as Fs.NodeId));
    return entryOf(existing(directory, name));
  }

  return {
    nodeCount: () => nodes.size,
    openCount: () => handles.size,

    find: lookup, // the kernel is to remember nothing
    lookup,
    isSnapshotDirectory: () => false,
    forget(id, count): void {
      const node = nodes.get(id);
      if (node === undefined) return;
      if (id !== ROOT_NODE) assert.ok(node.lookupCount >= count, `node ${id} is forgotten too often`);
      node.lookupCount = Math.max(0, node.lookupCount - count);
      dropIfUnused(node);
    },
    getAttributes: (id) => attributesReplyOf(nodeOf(id)),
    setAttributes(id, changes): Fs.AttributesReply {
      const node = nodeOf(id);
      const now = clock.now();
      if (changes.mode !== undefined) node.mode = (node.mode & S_IFMT) | (changes.mode & 0o7777);
      if (changes.uid !== undefined) node.uid = changes.uid;
      if (changes.gid !== undefined) node.gid = changes.gid;
      if (changes.killPriv === true) killPriv(node);
      if (changes.sizeBytes !== undefined) {
        resize(node, changes.sizeBytes);
        node.mtime = now;
      }
      if (changes.atime !== undefined) node.atime = changes.atime === "now" ? now : changes.atime;
      if (changes.mtime !== undefined) node.mtime = changes.mtime === "now" ? now : changes.mtime;
      node.ctime = changes.ctime ?? now;
      return attributesReplyOf(node);
    },
    readLink(id): Uint8Array {
      const node = nodeOf(id);
      if ((node.mode & S_IFMT) !== S_IFLNK) throw new FsError("EINVAL", "not a symlink");
      return node.target;
    },

    makeNode(parent, name, mode, rdev, caller): Fs.Entry {
      const node = add(directoryOf(parent), name, mode, caller);
      node.rdev = rdev;
      return entryOf(node);
    },
    makeDirectory: (parent, name, mode, caller) =>
      entryOf(add(directoryOf(parent), name, (mode & ~S_IFMT) | S_IFDIR, caller)),
    symlink(parent, name, target, caller): Fs.Entry {
      const node = add(directoryOf(parent), name, S_IFLNK | 0o777, caller);
      node.target = target;
      node.sizeBytes = target.length;
      return entryOf(node);
    },
    link(id, parent, name): Fs.Entry {
      const node = nodeOf(id);
      const directory = directoryOf(parent);
      if (isDirectory(node)) throw new FsError("EPERM", "a directory has one name");
      checkFree(directory, name);
      attach(directory, name, node);
      node.linkCount += 1;
      return entryOf(node);
    },
    unlink(parent, name): void {
      const directory = directoryOf(parent);
      const node = existing(directory, name);
      if (isDirectory(node)) throw new FsError("EISDIR", name);
      removeName(directory, name, node);
    },
    removeDirectory(parent, name): void {
      const directory = directoryOf(parent);
      const node = existing(directory, name);
      if (!isDirectory(node)) throw new FsError("ENOTDIR", name);
      if (node.entries.size > 0) throw new FsError("ENOTEMPTY", name);
      removeName(directory, name, node);
    },
    rename(fromParent, fromName, intoParent, intoName, flags): void {
      const from = directoryOf(fromParent);
      const into = directoryOf(intoParent);
      if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) throw new FsError("EINVAL", `flags ${flags}`);
      if (flags === RENAME_EXCHANGE) {
        exchange(from, fromName, into, intoName);
        return;
      }
      if (intoName.length > NAME_BYTES_MAX) throw new FsError("ENAMETOOLONG", intoName);
      const node = existing(from, fromName);
      const replaced = childOf(into, intoName);
      if (isDirectory(node) && isWithin(into, node)) throw new FsError("EINVAL", "into itself");
      if (replaced === node) return;
      if (replaced !== undefined) {
        if (flags === RENAME_NOREPLACE) throw new FsError("EEXIST", intoName);
        if (isDirectory(replaced) && !isDirectory(node)) throw new FsError("EISDIR", intoName);
        if (!isDirectory(replaced) && isDirectory(node)) throw new FsError("ENOTDIR", intoName);
        if (replaced.entries.size > 0) throw new FsError("ENOTEMPTY", intoName);
        removeName(into, intoName, replaced);
      }
      detach(from, fromName, node);
      attach(into, intoName, node);
    },

    create(parent, name, mode, _flags, caller): Fs.Entry & Fs.Opened {
      const node = add(directoryOf(parent), name, (mode & 0o7777) | S_IFREG, caller);
      return { ...entryOf(node), ...openNode(node) };
    },
    createUnnamed(parent, mode, _flags, caller): Fs.Entry & Fs.Opened {
      directoryOf(parent);
      const node = makeNode(nextIno++, (mode & 0o7777) | S_IFREG, caller, parent);
      node.linkCount = 0;
      nodes.set(node.ino, node);
      return { ...entryOf(node), ...openNode(node) };
    },
    open(id, flags): Fs.Opened {
      const node = nodeOf(id);
      if (isDirectory(node)) throw new FsError("EISDIR", "open");
      if ((flags & O_TRUNC) !== 0) {
        resize(node, 0);
        touch(node);
      }
      return openNode(node);
    },
    read(handle, offset, length, into, intoOffset): number {
      const node = opened(handle);
      const count = Math.max(0, Math.min(length, node.sizeBytes - offset));
      for (let done = 0; done < count; ) {
        const within = (offset + done) % CHUNK_BYTES;
        const part = Math.min(CHUNK_BYTES - within, count - done);
        const chunk = node.chunks.get(Math.floor((offset + done) / CHUNK_BYTES));
        if (chunk === undefined) into.fill(0, intoOffset + done, intoOffset + done + part);
        else into.set(chunk.subarray(within, within + part), intoOffset + done);
        done += part;
      }
      return count;
    },
    write(handle, offset, from, fromOffset, length, how): void {
      const node = opened(handle);
      for (let done = 0; done < length; ) {
        const within = (offset + done) % CHUNK_BYTES;
        const part = Math.min(CHUNK_BYTES - within, length - done);
        const chunk = chunkAt(node, Math.floor((offset + done) / CHUNK_BYTES));
        chunk.set(from.subarray(fromOffset + done, fromOffset + done + part), within);
        done += part;
      }
      node.sizeBytes = Math.max(node.sizeBytes, offset + length);
      if (how.killPriv) killPriv(node);
      if (!how.fromCache) touch(node);
    },
    release: closeHandle,
    fsync(handle): Fs.DurableAt {
      opened(handle);
      return durableAt();
    },
    syncAll: () => durableAt(),
    allocate(handle, mode, offset, length): void {
      const node = opened(handle);
      if ((mode & (PUNCH_HOLE | ZERO_RANGE)) !== 0) zero(node, offset, Math.min(offset + length, node.sizeBytes));
      else if ((mode & ~KEEP_SIZE) !== 0) throw new FsError("EOPNOTSUPP", `fallocate mode ${mode}`);
      if ((mode & KEEP_SIZE) === 0 && offset + length > node.sizeBytes) node.sizeBytes = offset + length;
      touch(node);
    },
    copyRange(from, fromOffset, into, intoOffset, length, how): number {
      const data = new Uint8Array(Math.max(0, Math.min(length, opened(from).sizeBytes - fromOffset)));
      const count = this.read(from, fromOffset, data.length, data, 0);
      this.write(into, intoOffset, data, 0, count, { fromCache: false, killPriv: how?.killPriv === true });
      return count;
    },
    seek(handle, offset, whence): number {
      const node = opened(handle);
      if (offset >= node.sizeBytes) throw new FsError("ENXIO", "beyond the end");
      const wantsData = whence === SEEK_DATA;
      for (let at = offset; at < node.sizeBytes; at = (Math.floor(at / CHUNK_BYTES) + 1) * CHUNK_BYTES) {
        if (node.chunks.has(Math.floor(at / CHUNK_BYTES)) === wantsData) return at;
      }
      if (wantsData) throw new FsError("ENXIO", "a hole up to the end");
      return node.sizeBytes;
    },

    openDirectory: (id) => ({ ...openNode(directoryOf(id)), keepCache: false }),
    readDirectory(handle, cookie, how, emit): void {
      const node = opened(handle);
      const dots = Buffer.from("..");
      if (cookie < 1 && !emit(dots, 0, 1, node.ino, S_IFDIR >> 12, 1, undefined)) return;
      if (cookie < 2 && !emit(dots, 0, 2, node.parent, S_IFDIR >> 12, 2, undefined)) return;
      for (const [name, child] of node.entries) {
        if (child.cookie <= cookie) continue;
        const target = existing(node, name);
        const entry = how.plus ? entryOf(target) : undefined;
        const bytes = Buffer.from(name, "latin1");
        const type = (target.mode & S_IFMT) >> 12;
        if (emit(bytes, 0, bytes.length, target.ino, type, child.cookie, entry)) continue;
        if (how.plus) target.lookupCount -= 1;
        return;
      }
    },
    releaseDirectory: closeHandle,

    status: () => ({
      blockCount: 1 << 20,
      freeBlocks: 1 << 19,
      availableBlocks: 1 << 19,
      inodeCount: 1 << 20,
      freeInodes: (1 << 20) - nodes.size,
      nameBytesMax: NAME_BYTES_MAX,
    }),

    findXattr: (id, name) => nodeOf(id).xattrs.get(name),
    getXattr(id, name): Uint8Array {
      const found = nodeOf(id).xattrs.get(name);
      if (found === undefined) throw new FsError("ENODATA", name);
      return found;
    },
    listXattrs: (id) => Buffer.from([...nodeOf(id).xattrs.keys()].map((name) => `${name}\0`).join(""), "latin1"),
    setXattr(id, name, value, flags): void {
      const node = nodeOf(id);
      if (flags === XATTR_CREATE && node.xattrs.has(name)) throw new FsError("EEXIST", name);
      if (flags === XATTR_REPLACE && !node.xattrs.has(name)) throw new FsError("ENODATA", name);
      node.xattrs.set(name, value);
      node.ctime = clock.now();
    },
    removeXattr(id, name): void {
      const node = nodeOf(id);
      if (!node.xattrs.delete(name)) throw new FsError("ENODATA", name);
      node.ctime = clock.now();
    },
  };
}

function isDirectory(node: Node): boolean {
  return (node.mode & S_IFMT) === S_IFDIR;
}

function attributesOf(node: Node): Fs.Attributes {
  const { ino, mode, linkCount, uid, gid, rdev, atime, mtime, ctime, btime } = node;
  const sizeBytes = isDirectory(node) ? 4096 : node.sizeBytes;
  const sectorCount = node.chunks.size * (CHUNK_BYTES / 512);
  return { ino, mode, linkCount, uid, gid, rdev, sizeBytes, sectorCount, atime, mtime, ctime, btime };
}

function killPriv(node: Node): void {
  node.mode &= ~S_ISUID;
  if ((node.mode & S_IXGRP) !== 0) node.mode &= ~S_ISGID;
}

function chunkAt(node: Node, index: number): Uint8Array {
  let chunk = node.chunks.get(index);
  if (chunk === undefined) {
    chunk = new Uint8Array(CHUNK_BYTES);
    node.chunks.set(index, chunk);
  }
  return chunk;
}

function resize(node: Node, sizeBytes: number): void {
  if (sizeBytes < node.sizeBytes) zero(node, sizeBytes, Math.ceil(node.sizeBytes / CHUNK_BYTES) * CHUNK_BYTES);
  node.sizeBytes = sizeBytes;
}

/** Makes holes of whole chunks, and zeros of parts. */
function zero(node: Node, from: number, end: number): void {
  for (const [index, chunk] of node.chunks) {
    const start = index * CHUNK_BYTES;
    const first = Math.max(from, start) - start;
    const last = Math.min(end, start + CHUNK_BYTES) - start;
    if (first === 0 && last === CHUNK_BYTES) node.chunks.delete(index);
    else if (first < last) chunk.fill(0, first, last);
  }
}
