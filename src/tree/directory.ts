/**
 * Directories: a B+tree of names in the blocks of an ordinary file.
 *
 * The key of an entry is the hash of its name in the high 44 bits and an ordinal in the low 8, which tells names of
 * equal hash apart. It is given when the entry is made, stored in it and never changes; it is unique, and a number that
 * JavaScript and the kernel's off_t hold exactly. So the key is the cookie of readdir: reading resumes after a key, in
 * O(log n), and whatever nodes were split, merged or moved in between, an entry that was there all the time is seen
 * exactly once. (htree of ext4 orders by hash too but splits cookies of equal hash only in memory; ZFS has the same
 * hash-and-collision-number key in its ZAP.)
 *
 *            node 0: root, interior                     keys  0 .......... a .......... b ......... 2^52
 *            /       |       \
 *        leaf 3    leaf 1    leaf 7      nodes 2, 4, 5, 6: other levels, or on the free list
 *
 * Invariants, which directory-check.ts verifies:
 * - The root is node 0, so that it needs no pointer. A root that is split moves into a new node, and the only child of a
 *   root moves back into it. An empty directory has no nodes; one whose root is a leaf has no other nodes.
 * - The level of a child is its parent's less one: descent ends whatever the disk holds.
 * - No node is empty. Entries of a leaf lie in the range that the parents give it; key = hash of the name + ordinal.
 * - Every node of the file is reached from the root once, or is on the free list once.
 *
 * Check, then apply: an operation reads, verifies and dirties every node it needs before it changes a byte, so an error
 * leaves the directory as it was. What is durable, and what a crash leaves, is decided below: blocks are copy-on-write.
 *
 * directory-search.ts descends, directory-insert.ts and directory-remove.ts plan and apply, directory-edit.ts changes
 * single nodes. They take the first key of a name; only this file knows that it is a hash.
 */
import assert from "node:assert/strict";
import type { Block } from "../core/block.ts";
import { FsError } from "../core/errors.ts";
import type { Ino } from "../core/numbers.ts";
import { firstKeyOf, isEntryName, isEntryType, nameIn } from "../format/directory-node.ts";
import { checkNodes, type VisitEntry } from "./directory-check.ts";
import { setInode } from "./directory-edit.ts";
import { insertAt } from "./directory-insert.ts";
import { removeAt } from "./directory-remove.ts";
import { entryAt, leafOf, locate, rootLevel, slotOf, type VisitInLeaf, walk } from "./directory-search.ts";

/** The file that a directory lies in, as its nodes. */
export interface NodeFile {
  /** Nodes in the file, free ones included. 0: an empty directory. */
  readonly nodeCount: number;
  /** A node, verified, only to be read. Valid until the end of the operation. Throws CorruptionError. */
  node(index: number): Block;
  /** It will be asked for soon: a hint, which never fails, whatever number it is. */
  prefetch(index: number): void;
  /** The same node, to be changed; may throw FsError ENOSPC or EIO, so all calls come before the first change. */
  dirtyNode(index: number): Block;
  /** A new zeroed node at the end of the file, to be changed. May throw as dirtyNode does. */
  appendNode(): { readonly index: number; readonly block: Block };
  /**
   * Makes the file shorter or empty: nodes from `count` on are gone. Done, or throws and has changed nothing. Blocks that
   * dirtyNode has returned for nodes before `count` stay valid.
   */
  truncateNodes(count: number): void;
}

export interface DirectoryEntry {
  readonly key: number;
  readonly ino: Ino;
  /** DT_*, see directory-node.ts. */
  readonly type: number;
}

/** "Before all entries", for eachEntry. */
export const BEFORE_FIRST_KEY = -1;
/** Cookies of readdir: 0 is the start, 1 follows ".", 2 follows "..", then come the keys. */
export const COOKIE_DOT = 1;
export const COOKIE_DOT_DOT = 2;

/** The cookie that resumes after the entry with this key. At most 2^52 + 2. */
export function cookieOf(key: number): number {
  return key + COOKIE_DOT_DOT + 1;
}

/** The key to resume after. BEFORE_FIRST_KEY for the cookie of ".." and those before it. */
export function keyAfterCookie(cookie: number): number {
  return Math.max(BEFORE_FIRST_KEY, cookie - COOKIE_DOT_DOT - 1);
}

/** The entry of a name, or undefined. Names here are latin1 strings, one char a byte. */
export function lookupEntry(dir: NodeFile, seed: number, name: string): DirectoryEntry | undefined {
  const position = locate(dir, firstKeyOf(seed, name), name);
  return position < 0 ? undefined : entryAt(dir, position);
}

/**
 * Adds an entry and returns its key. There must be none of that name.
 * FsError ENOSPC: no block for a node, 256 names of the same hash, or a tree of the greatest height.
 */
export function insertEntry(dir: NodeFile, seed: number, name: string, ino: Ino, type: number): number {
  assert(isEntryName(name), "not a name of 1 to 255 bytes");
  assert(isEntryType(type), `not a file type: ${type}`);
  assert(ino > 0, "inode 0 has no names");
  return insertAt(dir, firstKeyOf(seed, name), { name, ino, type });
}

/** Lets a name that exists lead to another inode; its key stays. Dirties one node. FsError ENOENT. */
export function replaceEntry(dir: NodeFile, seed: number, name: string, ino: Ino, type: number): void {
  assert(isEntryType(type), `not a file type: ${type}`);
  assert(ino > 0, "inode 0 has no names");
  const position = locate(dir, firstKeyOf(seed, name), name);
  if (position < 0) throw new FsError("ENOENT", "no such entry to replace");
  setInode(dir.dirtyNode(leafOf(position)), slotOf(position), ino, type);
}

/** Removes an entry and returns what it was. FsError ENOENT; ENOSPC when a node cannot be dirtied. */
export function removeEntry(dir: NodeFile, seed: number, name: string): DirectoryEntry {
  const removed = removeAt(dir, firstKeyOf(seed, name), name);
  if (removed === undefined) throw new FsError("ENOENT", "no such entry to remove");
  return removed;
}

/**
 * Visits the entries after `afterKey` in the order of their keys, until `visit` returns false. `visit` must not change
 * this directory. CorruptionError when keys do not ascend, so that it ends whatever the disk holds.
 */
export function eachEntry(
  dir: NodeFile,
  afterKey: number,
  visit: (name: string, ino: Ino, type: number, key: number) => boolean,
): void {
  listEntries(dir, afterKey, (leaf, start, end, ino, type, key) => visit(nameIn(leaf, start, end), ino, type, key));
}

/** The same for who copies names and makes no strings of them. */
export function listEntries(dir: NodeFile, afterKey: number, visit: VisitInLeaf): void {
  walk(dir, afterKey + 1, visit);
}

/** Nodes that an insertEntry now dirties or appends at most: each node of a path is split, and the root moves. */
export function insertNodesMax(dir: NodeFile): number {
  return dir.nodeCount === 0 ? 1 : 2 * (rootLevel(dir) + 1) + 1;
}

/** Nodes that a removeEntry now dirties at most: the root, and below it a node and its neighbour at each level. */
export function removeNodesMax(dir: NodeFile): number {
  return dir.nodeCount === 0 ? 0 : 1 + 2 * rootLevel(dir);
}

/**
 * Verifies all of a directory, whatever it contains, and calls `report` for each finding and `visitEntry` for each entry
 * whose bytes can be read, in the order of the tree. Throws nothing but what these two throw.
 */
export function checkDirectory(
  dir: NodeFile,
  seed: number,
  report: (finding: string) => void,
  visitEntry: VisitEntry,
): void {
  checkNodes(dir, (name) => firstKeyOf(seed, name), report, visitEntry);
}
