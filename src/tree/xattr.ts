/**
 * Extended attributes: a list of names and values in a hidden inode of their own, which no directory names. It is a file
 * like any other: up to 128 bytes of attributes lie in the hidden inode, more of them in blocks.
 *
 *     {nameBytes u8, valueBytes u32, name, value} {nameBytes u8, valueBytes u32, name, value} ...
 *
 * A list is not changed in place unless it lies in its inode before and after: a new hidden inode gets the new list, and
 * when that has succeeded it takes the place of the old one. So an error, or a damaged block, changes nothing.
 *
 * The hidden inode is a regular file with one link, owned by root, whose `parent` is the inode that it belongs to.
 */
import { CorruptionError, FsError } from "../core/errors.ts";
import { INLINE_BYTES_MAX, NAME_BYTES_MAX, XATTR_BYTES_MAX } from "../format/constants.ts";
import { type Struct, struct, u8, u32 } from "../format/struct.ts";
import { emptyFile, readFile, writeFile } from "./file-data.ts";
import type { Inode, InodeFile } from "./inode-file.ts";

const shape = {
  nameBytes: u8, // length of the name, at least 1
  valueBytes: u32, // length of the value
};
/** What stands before the name and the value of each attribute. */
export const xattrHead: Struct<typeof shape> = struct(5, shape);

/** Bytes of all attributes of an inode together: a few of the largest. */
export const XATTR_LIST_BYTES_MAX: number = 4 * (XATTR_BYTES_MAX + 512);

const HIDDEN_MODE = 0o100000; // a regular file that nobody may read
/** Blocks that replacing a list dirties at most, without those of the list: two inodes and the inode map. */
const REPLACE_BLOCKS = 24;

/** The value, or undefined. A view of fresh memory: the caller may keep it. Throws CorruptionError. */
export function getXattr(inodes: InodeFile, inode: Inode, name: string): Uint8Array | undefined {
  if (inode.xattrIno === 0) return undefined;
  const list = readList(inodes, inode);
  const at = find(list, name);
  return at < 0 ? undefined : valueAt(list, at);
}

/** Names, each ended by a zero byte. Throws CorruptionError. */
export function xattrNames(inodes: InodeFile, inode: Inode): Uint8Array {
  if (inode.xattrIno === 0) return new Uint8Array(0);
  const list = readList(inodes, inode);
  const names = new Uint8Array(list.length);
  let length = 0;
  for (let at = 0; at < list.length; at = endOf(list, at)) {
    const nameBytes = list[at] as number;
    names.set(list.subarray(at + xattrHead.size, at + xattrHead.size + nameBytes), length);
    length += nameBytes + 1;
  }
  return names.subarray(0, length);
}

export interface XattrHow {
  /** FsError EEXIST when it is there already. */
  readonly create: boolean;
  /** FsError ENODATA when it is not there yet. */
  readonly replace: boolean;
}

/**
 * Sets one attribute. FsError ERANGE (name), E2BIG (value), ENOSPC (no room in the list or in the volume), EEXIST,
 * ENODATA. `inode` has been marked dirty by the caller, who changes its ctime as well.
 */
export function setXattr(inodes: InodeFile, inode: Inode, name: string, value: Uint8Array, how: XattrHow): void {
  if (name.length === 0 || name.length > NAME_BYTES_MAX) throw new FsError("ERANGE", "name of 1 to 255 bytes expected");
  if (value.length > XATTR_BYTES_MAX) throw new FsError("E2BIG", `value of more than ${XATTR_BYTES_MAX} bytes`);
  const list = inode.xattrIno === 0 ? new Uint8Array(0) : readList(inodes, inode);
  const at = find(list, name);
  if (at >= 0 && how.create) throw new FsError("EEXIST", "the attribute exists");
  if (at < 0 && how.replace) throw new FsError("ENODATA", "no such attribute");
  const rest = at < 0 ? list.length : list.length - (endOf(list, at) - at);
  const changed = new Uint8Array(rest + xattrHead.size + name.length + value.length);
  if (changed.length > XATTR_LIST_BYTES_MAX) throw new FsError("ENOSPC", "too many attributes on one file");
  copyWithout(changed, list, at);
  const view = new DataView(changed.buffer);
  xattrHead.set.nameBytes(view, rest, name.length);
  xattrHead.set.valueBytes(view, rest, value.length);
  for (let i = 0; i < name.length; i++) changed[rest + xattrHead.size + i] = name.charCodeAt(i);
  changed.set(value, rest + xattrHead.size + name.length);
  replaceList(inodes, inode, changed, "write");
}

/** Takes one attribute away. False: there is none. Throws as setXattr does. */
export function removeXattr(inodes: InodeFile, inode: Inode, name: string): boolean {
  if (inode.xattrIno === 0) return false;
  const list = readList(inodes, inode);
  const at = find(list, name);
  if (at < 0) return false;
  const changed = new Uint8Array(list.length - (endOf(list, at) - at));
  copyWithout(changed, list, at);
  replaceList(inodes, inode, changed, "delete");
  return true;
}

/** The hidden inode of an inode, if it has one. Throws CorruptionError. */
export function xattrInode(inodes: InodeFile, inode: Inode): Inode | undefined {
  if (inode.xattrIno === 0) return undefined;
  const hidden = inodes.get(inode.xattrIno);
  if (hidden === undefined || hidden.parent !== inode.ino) {
    throw new CorruptionError(`inode ${inode.ino} has its attributes in ${inode.xattrIno}, which is not such an inode`);
  }
  return hidden;
}

/** Frees all attributes of an inode, for whoever deletes it. */
export function freeXattrs(inodes: InodeFile, inode: Inode): void {
  const hidden = xattrInode(inodes, inode);
  if (hidden === undefined) return;
  inodes.prepareFree(hidden);
  emptyFile(inodes, hidden);
  inode.xattrIno = 0;
  inodes.free(hidden);
}

function readList(inodes: InodeFile, inode: Inode): Uint8Array {
  const hidden = xattrInode(inodes, inode);
  if (hidden === undefined) return new Uint8Array(0);
  const { sizeBytes } = hidden.tree;
  if (sizeBytes > XATTR_LIST_BYTES_MAX) throw damage(inode, `are ${sizeBytes} bytes`);
  const list = new Uint8Array(sizeBytes);
  readFile(inodes, hidden, 0, sizeBytes, list, 0);
  for (let at = 0; at < sizeBytes; ) {
    if (at + xattrHead.size > sizeBytes || list[at] === 0) throw damage(inode, `have no attribute at ${at}`);
    at = endOf(list, at);
    if (at > sizeBytes) throw damage(inode, `end in the middle of one`);
  }
  return list;
}

/** Offset of an attribute, or -1. The list has been verified. */
function find(list: Uint8Array, name: string): number {
  for (let at = 0; at < list.length; at = endOf(list, at)) if (isNameAt(list, at, name)) return at;
  return -1;
}

function isNameAt(list: Uint8Array, at: number, name: string): boolean {
  if (list[at] !== name.length) return false;
  for (let i = 0; i < name.length; i++) if (list[at + xattrHead.size + i] !== name.charCodeAt(i)) return false;
  return true;
}

function valueAt(list: Uint8Array, at: number): Uint8Array {
  return list.subarray(at + xattrHead.size + (list[at] as number), endOf(list, at));
}

function endOf(list: Uint8Array, at: number): number {
  const view = new DataView(list.buffer, list.byteOffset);
  return at + xattrHead.size + xattrHead.get.nameBytes(view, at) + xattrHead.get.valueBytes(view, at);
}

/** Copies a list but for the attribute at `at` (-1: all of it). */
function copyWithout(into: Uint8Array, list: Uint8Array, at: number): void {
  if (at < 0) {
    into.set(list);
    return;
  }
  into.set(list.subarray(0, at));
  into.set(list.subarray(endOf(list, at)), at);
}

function replaceList(inodes: InodeFile, inode: Inode, list: Uint8Array, purpose: "write" | "delete"): void {
  const old = xattrInode(inodes, inode);
  if (list.length === 0) {
    freeXattrs(inodes, inode);
    return;
  }
  const blocks = list.length <= INLINE_BYTES_MAX ? 0 : Math.ceil(list.length / 4096) + 4;
  inodes.reserve(REPLACE_BLOCKS + blocks, purpose);
  if (old !== undefined && old.tree.blockCount === 0 && list.length <= INLINE_BYTES_MAX) {
    inodes.markDirty(old);
    old.tree.pointers.fill(0);
    old.tree.pointers.set(list);
    old.tree.sizeBytes = list.length;
    return;
  }
  const fresh = inodes.allocate();
  fresh.mode = HIDDEN_MODE;
  fresh.linkCount = 1;
  fresh.parent = inode.ino;
  try {
    writeFile(inodes, fresh, 0, list, 0, list.length);
    if (old !== undefined) {
      inodes.prepareFree(old);
      emptyFile(inodes, old); // all or nothing: a list has one indirect block at most
    }
  } catch (error) {
    emptyFile(inodes, fresh);
    inodes.free(fresh);
    throw error;
  }
  inode.xattrIno = fresh.ino;
  if (old !== undefined) inodes.free(old);
}

function damage(inode: Inode, what: string): CorruptionError {
  return new CorruptionError(`the attributes of inode ${inode.ino} ${what}`);
}
