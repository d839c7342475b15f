/**
 * Copy-on-write trees of blocks: every file of the filesystem, those that hold its metadata too.
 *
 * A root of 16 pointers, all of one level, sits in an inode (as in WAFL); `height` levels of indirect blocks of
 * 512 pointers each lie between it and the data.
 *
 *     root (inode)   [p0 .. p15]            height 2
 *                     |
 *     level 2        [512 pointers]
 *                     |
 *     level 1        [512 pointers]
 *                     |
 *     level 0        data: bytes of a file, inodes, directory nodes, map bits
 *
 * A block is changed only in memory: it leaves the cache, its old place is freed, and it waits in the tree's
 * dirty maps for a new one. Invariants:
 *
 * - If a block is dirty, all its ancestors are dirty: the path up to the root is in memory.
 * - The slot of a dirty block in its parent is zero (its old place is free already), so no pointer in memory ever
 *   names a freed block.
 * - A dirty block is counted in `space.dirtied` until it is placed.
 * - `blockCount` is the number of blocks of all levels that the tree holds, dirty ones included.
 *
 * Placing happens bottom-up (place.ts): a block's checksum is known before its parent's.
 */
import assert from "node:assert/strict";
import { CorruptionError } from "../core/errors.ts";
import { blockPointer } from "../format/block-pointer.ts";
import {
  INLINE_BYTES_MAX,
  POINTER_BYTES,
  POINTERS_PER_BLOCK,
  ROOT_POINTERS,
  TREE_HEIGHT_MAX,
} from "../format/constants.ts";
import { type FileRootRecord, fileRoot } from "../format/inode.ts";
import type { BlockStore, CachedBlock } from "./block-store.ts";
import type { Space } from "./space.ts";

/** The tree of one file in memory. */
export interface BlockTree {
  /** Length of the file in bytes. */
  sizeBytes: number;
  height: number;
  /** 16 block pointers, or the data of an inline file. */
  readonly pointers: Uint8Array;
  readonly view: DataView;
  /** Blocks held, of all levels. */
  blockCount: number;
  /** Dirty blocks by `nodeKey`: indirect blocks, and in a metadata file its contents (level 0) too. */
  dirtyNodes: Map<number, CachedBlock> | undefined;
  /** Dirty blocks of file data by index. */
  dirtyData: Map<number, CachedBlock> | undefined;
}

/** Level in the high digits, index in the low ones: a small integer for all but the topmost blocks. */
const NODE_KEY_LEVEL = 2 ** 29;
/** Data beyond 2 TiB: a metadata file is never that long, so no such block is among the dirty nodes. */
const NO_NODE_KEY = -1;

export function nodeKey(level: number, index: number): number {
  return level === 0 && index >= NODE_KEY_LEVEL ? NO_NODE_KEY : level * NODE_KEY_LEVEL + index;
}

export function nodeKeyIndex(key: number): number {
  return key % NODE_KEY_LEVEL;
}

export function nodeKeyLevel(key: number): number {
  return Math.floor(key / NODE_KEY_LEVEL);
}

export function emptyTree(): BlockTree {
  const pointers = new Uint8Array(INLINE_BYTES_MAX);
  return {
    sizeBytes: 0,
    height: 0,
    pointers,
    view: new DataView(pointers.buffer),
    blockCount: 0,
    dirtyNodes: undefined,
    dirtyData: undefined,
  };
}

/** Reads the root of a tree from an inode, fsinfo or a snapshot record. Throws CorruptionError. */
export function decodeTree(view: DataView, at: number): BlockTree {
  const tree = emptyTree();
  tree.sizeBytes = fileRoot.get.sizeBytes(view, at);
  tree.height = fileRoot.get.height(view, at);
  if (tree.height > TREE_HEIGHT_MAX)
    throw new CorruptionError(`tree of height ${tree.height}, ${TREE_HEIGHT_MAX} is the highest`);
  const from = view.byteOffset + at + fileRoot.offset.pointers;
  tree.pointers.set(new Uint8Array(view.buffer, from, INLINE_BYTES_MAX));
  return tree;
}

export function encodeTree(tree: BlockTree, view: DataView, at: number): void {
  fileRoot.set.sizeBytes(view, at, tree.sizeBytes);
  fileRoot.set.height(view, at, tree.height);
  new Uint8Array(view.buffer, view.byteOffset + at + fileRoot.offset.pointers, INLINE_BYTES_MAX).set(tree.pointers);
}

export function treeOfRecord(record: FileRootRecord): BlockTree {
  const encoded = new DataView(new ArrayBuffer(fileRoot.size));
  fileRoot.encode(encoded, 0, record);
  return decodeTree(encoded, 0);
}

export function recordOfTree(tree: BlockTree): FileRootRecord {
  return {
    sizeBytes: tree.sizeBytes,
    height: tree.height,
    reserved: new Uint8Array(7),
    pointers: tree.pointers.slice(),
  };
}

/** Data blocks that a tree of this height can hold. */
export function capacity(height: number): number {
  return ROOT_POINTERS * POINTERS_PER_BLOCK ** height;
}

export function isDirty(tree: BlockTree): boolean {
  return (tree.dirtyNodes?.size ?? 0) > 0 || (tree.dirtyData?.size ?? 0) > 0;
}

/**
 * A place where a pointer lies: the parent block (or the root) and the offset in it. Reused from call to call, so
 * that finding a block allocates nothing: read it before the next call.
 */
interface Slot {
  view: DataView;
  at: number;
}

/** Finds the slot of a block. False: a parent is missing or the tree is not that high, so the block is a hole. */
function findSlot(store: BlockStore, tree: BlockTree, level: number, index: number, slot: Slot): boolean {
  if (level >= tree.height) {
    if (level > tree.height || index >= ROOT_POINTERS) return false;
    slot.view = tree.view;
    slot.at = index * POINTER_BYTES;
    return true;
  }
  const parent = nodeAt(store, tree, level + 1, Math.floor(index / POINTERS_PER_BLOCK));
  if (parent === undefined) return false;
  slot.view = parent.view;
  slot.at = (index % POINTERS_PER_BLOCK) * POINTER_BYTES;
  return true;
}

/** An indirect block, or a block of a metadata file (level 0): undefined for a hole. Throws CorruptionError. */
export function nodeAt(store: BlockStore, tree: BlockTree, level: number, index: number): CachedBlock | undefined {
  const dirty = tree.dirtyNodes?.get(nodeKey(level, index));
  if (dirty !== undefined) return dirty;
  const slot: Slot = { view: tree.view, at: 0 };
  if (!findSlot(store, tree, level, index, slot)) return undefined;
  const vbn = blockPointer.get.vbn(slot.view, slot.at);
  if (vbn === 0) return undefined;
  return store.read(vbn, blockPointer.get.checksum(slot.view, slot.at));
}

/** A block of a metadata file's contents, only to be read: undefined for a hole. Throws CorruptionError. */
export function blockAt(store: BlockStore, tree: BlockTree, index: number): CachedBlock | undefined {
  return nodeAt(store, tree, 0, index);
}

/** The same block, to be changed; zeroed if it was a hole. Throws FsError ENOSPC or EIO, CorruptionError. */
export function dirtyBlockAt(store: BlockStore, tree: BlockTree, index: number): CachedBlock {
  const dirty = tree.dirtyNodes?.get(index); // level 0: the key is the index
  if (dirty !== undefined) return dirty;
  growFor(store, tree, index);
  return dirtyNodeAt(store, tree, 0, index);
}

/** Makes an indirect block (or level 0 of a metadata file) and its ancestors dirty. The tree is high enough. */
export function dirtyNodeAt(store: BlockStore, tree: BlockTree, level: number, index: number): CachedBlock {
  const key = nodeKey(level, index);
  const dirty = tree.dirtyNodes?.get(key);
  if (dirty !== undefined) return dirty;
  let view = tree.view;
  let at = index * POINTER_BYTES;
  if (level < tree.height) {
    view = dirtyNodeAt(store, tree, level + 1, Math.floor(index / POINTERS_PER_BLOCK)).view;
    at = (index % POINTERS_PER_BLOCK) * POINTER_BYTES;
  } else {
    assert(level === tree.height && index < ROOT_POINTERS, "the tree is not high enough");
  }
  const space = spaceOf(store);
  const vbn = blockPointer.get.vbn(view, at);
  const block = vbn === 0 ? store.zeroed() : store.adopt(vbn, blockPointer.get.checksum(view, at));
  block.vbn = 0;
  space.dirtied(1);
  tree.dirtyNodes ??= new Map();
  tree.dirtyNodes.set(key, block);
  if (vbn === 0) tree.blockCount += 1;
  else {
    // Last, because freeing a block changes the active map, and this may be a block of the active map.
    clearSlot(view, at);
    space.free(vbn);
  }
  return block;
}

/** Raises the tree until it can hold data block `index`: old root pointers move into a new block below the root. */
export function growFor(store: BlockStore, tree: BlockTree, index: number): void {
  while (index >= capacity(tree.height)) {
    assert(tree.height < TREE_HEIGHT_MAX, "beyond the largest file");
    const below = tree.pointers.slice();
    // Not by blockCount: the root of an inode file in fsinfo does not have one.
    const hasBlocks = below.some((byte) => byte !== 0) || isDirty(tree);
    if (hasBlocks) {
      const space = spaceOf(store);
      const block = store.zeroed();
      block.bytes.set(below, 0);
      space.dirtied(1);
      tree.blockCount += 1;
      tree.dirtyNodes ??= new Map();
      tree.dirtyNodes.set(nodeKey(tree.height + 1, 0), block);
    }
    tree.pointers.fill(0);
    tree.height += 1;
  }
}

/** VBN of a data block on disk; 0: a hole, or dirty and not placed yet. */
export function vbnAt(store: BlockStore, tree: BlockTree, index: number): number {
  const slot: Slot = { view: tree.view, at: 0 };
  return findSlot(store, tree, 0, index, slot) ? blockPointer.get.vbn(slot.view, slot.at) : 0;
}

/**
 * Frees all blocks from data block `first` up to, not including, `end` (Infinity: to the end of the tree) and takes
 * indirect blocks that become empty out of the tree. Reads what it must before each change; O(blocks freed). `blockCount`
 * falls by what is freed.
 */
export function freeBlocks(store: BlockStore, tree: BlockTree, first: number, end: number): void {
  if (tree.dirtyData !== undefined) {
    for (const [index, block] of tree.dirtyData) {
      if (index < first || index >= end) continue;
      tree.dirtyData.delete(index);
      dropDirty(store, tree, block);
    }
  }
  const span = POINTERS_PER_BLOCK ** tree.height;
  for (let i = 0; i < ROOT_POINTERS; i++) freeSubtree(store, tree, tree.height, i, i * span, span, first, end);
  if (first === 0 && end >= capacity(tree.height)) tree.height = 0;
}

/** The indirect blocks above the data from `first` up to `end` are read. Throws FsError EIO, CorruptionError. */
export function readNodes(store: BlockStore, tree: BlockTree, first: number, end: number): void {
  const read = (level: number, index: number): void => {
    const span = POINTERS_PER_BLOCK ** level;
    if (index * span >= end || (index + 1) * span <= first) return;
    if (nodeAt(store, tree, level, index) === undefined || level === 1) return;
    for (let i = 0; i < POINTERS_PER_BLOCK; i++) read(level - 1, index * POINTERS_PER_BLOCK + i);
  };
  for (let i = 0; i < ROOT_POINTERS && tree.height > 0; i++) read(tree.height, i);
}

/**
 * Makes the blocks dirty that `moveBlocks` divides: those with pointers on both sides of the start or the end of the range, two
 * of each level at most. Throws FsError EIO, CorruptionError; nothing has changed then.
 */
export function prepareMove(store: BlockStore, tree: BlockTree, first: number, end: number): void {
  for (const cut of [first, end]) {
    for (let level = tree.height; level > 0 && cut < capacity(tree.height); level--) {
      const span = POINTERS_PER_BLOCK ** level;
      const index = Math.floor(cut / span);
      if (cut % span === 0 || nodeAt(store, tree, level, index) === undefined) break;
      dirtyNodeAt(store, tree, level, index);
    }
  }
}

/** Blocks that `prepareMove` and `moveBlocks` dirty at most. */
export function moveBlocksMax({ height }: BlockTree): number {
  return 4 * height;
}

/**
 * Moves all blocks from data block `first` up to `end` into an empty tree, where they have the same indexes: whole subtrees, so
 * it costs O(height), and what is dirty. Cannot fail after `prepareMove`. All is still counted in the tree that it comes from.
 */
export function moveBlocks(store: BlockStore, tree: BlockTree, into: BlockTree, first: number, end: number): void {
  const isIn = (from: number, span: number): boolean => from >= first && from + span <= end;
  into.height = tree.height;
  into.dirtyNodes = moveDirty(tree.dirtyNodes, (key) => {
    const span = POINTERS_PER_BLOCK ** nodeKeyLevel(key);
    return isIn(nodeKeyIndex(key) * span, span);
  });
  into.dirtyData = moveDirty(tree.dirtyData, (index) => isIn(index, 1));
  for (let i = 0; i < ROOT_POINTERS; i++) moveSubtree(store, { tree, into, first, end }, tree.height, i);
  tree.blockCount += into.blockCount;
  into.blockCount = 0;
  if (first === 0 && end >= capacity(tree.height)) tree.height = 0;
}

function moveDirty(
  blocks: Map<number, CachedBlock> | undefined,
  isIn: (key: number) => boolean,
): Map<number, CachedBlock> | undefined {
  if (blocks === undefined) return undefined;
  const moved = new Map<number, CachedBlock>();
  for (const [key, block] of blocks) {
    if (!isIn(key)) continue;
    blocks.delete(key);
    moved.set(key, block);
  }
  return moved;
}

interface Move {
  readonly tree: BlockTree;
  readonly into: BlockTree;
  readonly first: number;
  readonly end: number;
}

function moveSubtree(store: BlockStore, move: Move, level: number, index: number): void {
  const { tree, into, first, end } = move;
  const span = POINTERS_PER_BLOCK ** level;
  const from = index * span;
  if (from >= end || from + span <= first) return;
  const key = nodeKey(level, index);
  if (from >= first && from + span <= end) {
    movePointer(move, level, index);
    return;
  }
  const node = tree.dirtyNodes?.get(key);
  if (node === undefined) return; // a hole
  const twin = store.zeroed();
  spaceOf(store).dirtied(1);
  into.blockCount += 1;
  into.dirtyNodes ??= new Map();
  into.dirtyNodes.set(key, twin);
  for (let i = 0; i < POINTERS_PER_BLOCK; i++) moveSubtree(store, move, level - 1, index * POINTERS_PER_BLOCK + i);
  if (isEmptyNode(into, twin, level, index)) {
    into.dirtyNodes.delete(key);
    dropDirty(store, into, twin);
  }
  if (isEmptyNode(tree, node, level, index)) {
    tree.dirtyNodes?.delete(key);
    dropDirty(store, tree, node);
  }
}

/** One pointer, to whatever is below it. The parents are dirty in both trees. */
function movePointer({ tree, into }: Move, level: number, index: number): void {
  const isRoot = level === tree.height;
  const at = (isRoot ? index : index % POINTERS_PER_BLOCK) * POINTER_BYTES;
  const parent = nodeKey(level + 1, Math.floor(index / POINTERS_PER_BLOCK));
  const from = isRoot ? tree : tree.dirtyNodes?.get(parent);
  const to = isRoot ? into : into.dirtyNodes?.get(parent);
  assert(from !== undefined && to !== undefined, "what is divided is dirty");
  blockPointer.set.vbn(to.view, at, blockPointer.get.vbn(from.view, at));
  blockPointer.set.checksum(to.view, at, blockPointer.get.checksum(from.view, at));
  clearSlot(from.view, at);
}

/**
 * The first of the data blocks that hang from the last indirect block of the lowest level, or from the root; undefined: the tree
 * holds nothing. Throws FsError EIO, CorruptionError.
 */
export function lastLeaf(store: BlockStore, tree: BlockTree): number | undefined {
  let level = tree.height;
  let index = lastChild(tree, tree.view, level, 0, ROOT_POINTERS);
  while (index !== undefined && level > 1) {
    const node = nodeAt(store, tree, level, index);
    assert(node !== undefined, "a child that is there");
    level -= 1;
    index = lastChild(tree, node.view, level, index * POINTERS_PER_BLOCK, POINTERS_PER_BLOCK);
  }
  if (index === undefined) return undefined;
  return level === 0 ? 0 : index * POINTERS_PER_BLOCK;
}

/** Of the blocks of a level from `first` on, whose pointers these are, the last that there is. */
function lastChild(tree: BlockTree, view: DataView, level: number, first: number, count: number): number | undefined {
  for (let i = count - 1; i >= 0; i--) {
    const isPlaced = blockPointer.get.vbn(view, i * POINTER_BYTES) !== 0;
    const isDirtyData = level === 0 && tree.dirtyData?.has(first + i) === true;
    if (isPlaced || isDirtyData || tree.dirtyNodes?.has(nodeKey(level, first + i)) === true) return first + i;
  }
  return undefined;
}

/** Frees the part of [first, end) that lies below one pointer, which covers `span` data blocks from `from` on. */
function freeSubtree(
  store: BlockStore,
  tree: BlockTree,
  level: number,
  index: number,
  from: number,
  span: number,
  first: number,
  end: number,
): void {
  if (from >= end || from + span <= first) return;
  const dirty = tree.dirtyNodes?.get(nodeKey(level, index));
  const slot: Slot = { view: tree.view, at: 0 };
  if (!findSlot(store, tree, level, index, slot)) return;
  const vbn = blockPointer.get.vbn(slot.view, slot.at);
  if (vbn === 0 && dirty === undefined) return;
  const whole = from >= first && from + span <= end;
  if (level > 0) {
    // The children of a block above the lowest level are read one by one, and reading may fail: their pointers go one by one.
    const isRead = whole && level === 1;
    const block = isRead
      ? (dirty ?? store.read(vbn, blockPointer.get.checksum(slot.view, slot.at)))
      : dirtyNodeAt(store, tree, level, index);
    const step = span / POINTERS_PER_BLOCK;
    if (isRead) freeChildren(store, tree, block, index);
    else {
      for (let i = 0; i < POINTERS_PER_BLOCK; i++) {
        freeSubtree(store, tree, level - 1, index * POINTERS_PER_BLOCK + i, from + i * step, step, first, end);
      }
      if (!isEmptyNode(tree, block, level, index)) return;
    }
  }
  // The block itself goes: either all below it is gone, or it is a data block in the range.
  const held = tree.dirtyNodes?.get(nodeKey(level, index));
  if (held !== undefined) {
    tree.dirtyNodes?.delete(nodeKey(level, index));
    dropDirty(store, tree, held);
    return;
  }
  clearPointer(store, tree, level, index, vbn);
}

/** Takes a clean block out of its parent, which becomes dirty, and frees it. */
function clearPointer(store: BlockStore, tree: BlockTree, level: number, index: number, vbn: number): void {
  let view = tree.view;
  let at = index * POINTER_BYTES;
  if (level < tree.height) {
    view = dirtyNodeAt(store, tree, level + 1, Math.floor(index / POINTERS_PER_BLOCK)).view;
    at = (index % POINTERS_PER_BLOCK) * POINTER_BYTES;
  }
  clearSlot(view, at);
  spaceOf(store).free(vbn);
  tree.blockCount -= 1;
}

/** Frees the data below a node that goes itself: no need to make it dirty for that. Cannot fail. */
function freeChildren(store: BlockStore, tree: BlockTree, block: CachedBlock, index: number): void {
  const space = spaceOf(store);
  for (let i = 0; i < POINTERS_PER_BLOCK; i++) {
    const vbn = blockPointer.get.vbn(block.view, i * POINTER_BYTES);
    const key = nodeKey(0, index * POINTERS_PER_BLOCK + i);
    const dirty = tree.dirtyNodes?.get(key);
    if (dirty !== undefined) {
      tree.dirtyNodes?.delete(key);
      dropDirty(store, tree, dirty);
    } else if (vbn !== 0) {
      space.free(vbn);
      tree.blockCount -= 1;
    }
  }
}

function isEmptyNode(tree: BlockTree, block: CachedBlock, level: number, index: number): boolean {
  for (let word = 0; word < block.words.length; word += 2) if (block.words[word] !== 0) return false;
  const first = index * POINTERS_PER_BLOCK;
  if (level === 1 && tree.dirtyData !== undefined) {
    for (let i = 0; i < POINTERS_PER_BLOCK; i++) if (tree.dirtyData.has(first + i)) return false;
  }
  for (let i = 0; i < POINTERS_PER_BLOCK; i++)
    if (tree.dirtyNodes?.has(nodeKey(level - 1, first + i)) === true) return false;
  return true;
}

/** A dirty block is not needed any more: its place was freed when it became dirty. */
export function dropDirty(store: BlockStore, tree: BlockTree, block: CachedBlock): void {
  spaceOf(store).dirtied(-1);
  tree.blockCount -= 1;
  store.retire(block);
}

/**
 * Visits every pointer from the root down, parents before children, as on disk: dirty blocks are not seen. Return
 * false to leave out what is below. Throws CorruptionError where an indirect block does not verify.
 */
export function eachPointer(
  store: BlockStore,
  tree: BlockTree,
  visit: (level: number, index: number, vbn: number, checksum: number) => boolean,
): void {
  const below = (view: DataView, count: number, level: number, first: number): void => {
    for (let i = 0; i < count; i++) {
      const vbn = blockPointer.get.vbn(view, i * POINTER_BYTES);
      if (vbn === 0) continue;
      const sum = blockPointer.get.checksum(view, i * POINTER_BYTES);
      if (visit(level, first + i, vbn, sum) && level > 0) {
        // A copy: the cache may give the buffer to another block while its children are visited.
        const copy = new DataView(store.read(vbn, sum).bytes.slice().buffer);
        below(copy, POINTERS_PER_BLOCK, level - 1, (first + i) * POINTERS_PER_BLOCK);
      }
    }
  };
  below(tree.view, ROOT_POINTERS, tree.height, 0);
}

export function spaceOf(store: BlockStore): Space {
  assert(store.space !== undefined, "this tree is read-only");
  return store.space;
}

function clearSlot(view: DataView, at: number): void {
  blockPointer.set.vbn(view, at, 0);
  blockPointer.set.checksum(view, at, 0);
}
