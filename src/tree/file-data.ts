/**
 * The contents of files: reading and writing any range of bytes.
 *
 * - Up to 128 bytes lie in the inode, in the place of its pointers.
 * - A long run of whole blocks goes to its final free blocks at once, from the caller's memory; only pointers stay
 *   behind, dirty. That is the fast path: no copy in JavaScript.
 * - The rest waits in dirty blocks for the consistency point, which writes neighbours together.
 *
 * Invariant: the bytes of the last block beyond the end of the file are zero, and so are those of an inline file.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { type HowRead, WAITING } from "../device/block-device.ts";
import { blockPointer } from "../format/block-pointer.ts";
import { FILE_BYTES_MAX, INLINE_BYTES_MAX, POINTER_BYTES, POINTERS_PER_BLOCK } from "../format/constants.ts";
import type { BlockStore, CachedBlock } from "./block-store.ts";
import {
  type BlockTree,
  capacity,
  dirtyNodeAt,
  dropDirty,
  freeBlocks,
  growFor,
  nodeAt,
  readNodes,
  spaceOf,
  vbnAt,
} from "./block-tree.ts";
import type { Inode, InodeFile } from "./inode-file.ts";
import type { Purpose } from "./space.ts";

/** Whole blocks in one write from which they go to the device at once instead of waiting for the CP. */
const DIRECT_BLOCKS_MIN = 16;

export type { HowRead };

/** Nothing was read, for it would have to be waited for. */
export const NOT_RESIDENT = -1;

/**
 * Reads up to `length` bytes, fewer at the end of the file; returns how many. Bytes of `into` up to the end of the last
 * block may be overwritten too, where `into` is long enough, so that whole blocks are read in place. Without waiting it may return
 * NOT_RESIDENT: all that it needs is on its way then, and `into` holds anything.
 * Throws CorruptionError, FsError EIO.
 */
export function readFile(
  inodes: InodeFile,
  inode: Inode,
  offset: number,
  length: number,
  into: Uint8Array,
  intoOffset: number,
  how: HowRead = WAITING,
): number {
  const { tree } = inode;
  const count = Math.min(length, tree.sizeBytes - offset);
  if (count <= 0) return 0;
  if (inode.inline) {
    into.set(tree.pointers.subarray(offset, offset + count), intoOffset);
    return count;
  }
  const { store } = inodes;
  let at = intoOffset;
  let position = offset;
  let isResident = true;
  const end = offset + count;
  while (position < end) {
    const index = Math.floor(position / BLOCK_BYTES);
    const within = position % BLOCK_BYTES;
    let took = Math.min(BLOCK_BYTES - within, end - position);
    if (within === 0 && into.length - at >= BLOCK_BYTES) {
      const room = Math.floor((into.length - at) / BLOCK_BYTES);
      const wanted = Math.min(room, Math.ceil((end - position) / BLOCK_BYTES));
      const blocks = Math.min(wanted, siblingsFrom(tree, index));
      if (!readBlocks(store, tree, index, blocks, into, at, how)) isResident = false;
      took = Math.min(blocks * BLOCK_BYTES, end - position);
    } else {
      const scratch = store.buffer();
      readBlocks(store, tree, index, 1, scratch.bytes, 0, WAITING);
      into.set(scratch.bytes.subarray(within, within + took), at);
      store.retire(scratch);
    }
    at += took;
    position += took;
  }
  return isResident ? count : NOT_RESIDENT;
}

/** Blocks from `index` on whose pointers lie in one parent, or in none. */
function siblingsFrom({ height }: BlockTree, index: number): number {
  if (height === 0 && index < capacity(0)) return capacity(0) - index;
  return POINTERS_PER_BLOCK - (index % POINTERS_PER_BLOCK);
}

/** Reads whole blocks of one parent, wherever they are. False: some have to be waited for, and are on their way. */
function readBlocks(
  store: BlockStore,
  tree: BlockTree,
  index: number,
  count: number,
  into: Uint8Array,
  at: number,
  how: HowRead,
): boolean {
  let view: DataView | undefined;
  let slot = index;
  if (tree.height > 0) {
    const leaf = Math.floor(index / POINTERS_PER_BLOCK);
    if (index < capacity(tree.height)) view = nodeAt(store, tree, 1, leaf)?.view;
    slot = index % POINTERS_PER_BLOCK;
  } else if (index < capacity(0)) {
    ({ view } = tree);
  }
  if (view !== undefined && !store.readData(view, slot, count, into, at, how)) return false;
  for (let i = 0; i < count; i++) {
    if (view !== undefined && blockPointer.get.vbn(view, (slot + i) * POINTER_BYTES) !== 0) continue;
    const start = at + i * BLOCK_BYTES;
    const dirty = tree.dirtyData?.get(index + i);
    if (dirty === undefined) into.fill(0, start, start + BLOCK_BYTES);
    else into.set(dirty.bytes, start);
  }
  return true;
}

/**
 * Writes all of it and makes the file longer if need be. No times are changed.
 * Throws FsError ENOSPC, EFBIG, EIO, CorruptionError (a partly overwritten block that does not verify); then nothing is changed.
 */
export function writeFile(
  inodes: InodeFile,
  inode: Inode,
  offset: number,
  from: Uint8Array,
  fromOffset: number,
  length: number,
  purpose: Purpose = "write",
): void {
  if (length === 0) return;
  const end = offset + length;
  if (end > FILE_BYTES_MAX) throw new FsError("EFBIG", `a file has at most ${FILE_BYTES_MAX} bytes`);
  const { tree } = inode;
  const { store } = inodes;
  const first = Math.floor(offset / BLOCK_BYTES);
  const last = Math.floor((end - 1) / BLOCK_BYTES);
  inodes.reserve(writeBlocksMax(tree, last - first + 1), purpose);
  inodes.markDirty(inode);
  if (tree.blockCount === 0 && end <= INLINE_BYTES_MAX && tree.sizeBytes <= INLINE_BYTES_MAX) {
    inode.inline = true;
    tree.height = 0; // a sparse file that was cut short keeps its height
    tree.pointers.set(from.subarray(fromOffset, fromOffset + length), offset);
    tree.sizeBytes = Math.max(tree.sizeBytes, end);
    return;
  }
  if (inode.inline) moveOutOfInode(store, inode);
  growFor(store, tree, last);
  if (tree.height > 0) {
    for (let leaf = Math.floor(first / POINTERS_PER_BLOCK); leaf <= Math.floor(last / POINTERS_PER_BLOCK); leaf++)
      dirtyNodeAt(store, tree, 1, leaf);
  }
  try {
    writeBlocks(store, tree, offset, from, fromOffset, length);
  } catch (error) {
    freeFresh(store, tree, first, last);
    throw error;
  }
  tree.sizeBytes = Math.max(tree.sizeBytes, end);
}

/** Everything that can fail comes first: after the parents, which are dirty, old contents of blocks that are written in part. */
function writeBlocks(
  store: BlockStore,
  tree: BlockTree,
  offset: number,
  from: Uint8Array,
  fromOffset: number,
  length: number,
): void {
  const end = offset + length;
  const first = Math.floor(offset / BLOCK_BYTES);
  const last = Math.floor((end - 1) / BLOCK_BYTES);
  const headPartial = offset % BLOCK_BYTES !== 0;
  const tailPartial = end % BLOCK_BYTES !== 0;
  const head = headPartial || (tailPartial && first === last) ? dirtyDataAt(store, tree, first, true) : undefined;
  const tail = tailPartial && first !== last ? dirtyDataAt(store, tree, last, true) : undefined;
  const wholeFirst = head === undefined ? first : first + 1;
  const wholeEnd = tail === undefined ? last + 1 : last;
  const wholeCount = first === last && head !== undefined ? 0 : wholeEnd - wholeFirst;
  if (wholeCount > 0) {
    const at = fromOffset + (wholeFirst * BLOCK_BYTES - offset);
    if (wholeCount >= DIRECT_BLOCKS_MIN) writeDirect(store, tree, wholeFirst, wholeCount, from, at);
    else {
      for (let i = 0; i < wholeCount; i++) {
        const start = at + i * BLOCK_BYTES;
        dirtyDataAt(store, tree, wholeFirst + i, false).bytes.set(from.subarray(start, start + BLOCK_BYTES));
      }
    }
  }
  if (head !== undefined) {
    const within = offset % BLOCK_BYTES;
    const some = Math.min(BLOCK_BYTES - within, length);
    head.bytes.set(from.subarray(fromOffset, fromOffset + some), within);
  }
  if (tail !== undefined) {
    const some = end % BLOCK_BYTES;
    tail.bytes.set(from.subarray(fromOffset + length - some, fromOffset + length), 0);
  }
}

/**
 * A write of these blocks has failed: what it has made beyond the end of the file goes, blocks and their parents. From where all
 * came with it: the start of the largest subtree with the first of them that has nothing before the end. The parents that lie on
 * both sides of that are dirty, so that nothing is read.
 */
function freeFresh(store: BlockStore, tree: BlockTree, first: number, last: number): void {
  const end = Math.ceil(tree.sizeBytes / BLOCK_BYTES);
  let fresh = Math.max(first, end);
  for (let level = 1; level <= tree.height; level++) {
    const start = fresh - (fresh % POINTERS_PER_BLOCK ** level);
    if (start < end) break;
    fresh = start;
  }
  if (last >= fresh) freeBlocks(store, tree, fresh, Number.POSITIVE_INFINITY);
}

/** Bound of the blocks that writing so many data blocks in a row makes dirty: data, their parents, and a growing root. */
function writeBlocksMax(tree: BlockTree, blocks: number): number {
  return blocks + Math.ceil(blocks / POINTERS_PER_BLOCK) + 1 + 3 * (tree.height + 2);
}

/**
 * Long runs of whole blocks: written to free blocks at once, from where they are. The parents are dirty already. Pointers
 * change when all is written, so that a device that fails has changed nothing.
 */
function writeDirect(
  store: BlockStore,
  tree: BlockTree,
  first: number,
  count: number,
  from: Uint8Array,
  at: number,
): void {
  const space = spaceOf(store);
  const runs: { readonly vbn: number; readonly length: number }[] = [];
  try {
    for (let done = 0; done < count; ) {
      const run = { vbn: space.allocate(count - done), length: space.runLength };
      runs.push(run);
      store.device.write(run.vbn, run.length, from, at + done * BLOCK_BYTES);
      done += run.length;
    }
  } catch (error) {
    for (const { vbn, length } of runs) for (let i = 0; i < length; i++) space.free(vbn + i);
    throw error;
  }
  let index = first;
  for (const { vbn, length } of runs) {
    for (let i = 0; i < length; i++) {
      const start = at + (index - first) * BLOCK_BYTES;
      placeWritten(store, tree, index, vbn + i, checksum(from.subarray(start, start + BLOCK_BYTES)));
      index += 1;
    }
  }
}

/**
 * Gives a file a block that lies on disk already, of which nobody else knows: what the change log refers to. The length
 * stays. Throws FsError ENOSPC, EIO, CorruptionError.
 */
export function adoptBlock(inodes: InodeFile, inode: Inode, index: number, vbn: number, sum: number): void {
  const { tree } = inode;
  const { store } = inodes;
  inodes.reserve(writeBlocksMax(tree, 1), "write");
  inodes.markDirty(inode);
  if (inode.inline) moveOutOfInode(store, inode);
  growFor(store, tree, index);
  placeWritten(store, tree, index, vbn, sum);
}

function placeWritten(store: BlockStore, tree: BlockTree, index: number, vbn: number, sum: number): void {
  const dirty = tree.dirtyData?.get(index);
  if (dirty !== undefined) {
    tree.dirtyData?.delete(index);
    dropDirty(store, tree, dirty);
  }
  let view = tree.view;
  let at = index * POINTER_BYTES;
  if (tree.height > 0) {
    view = dirtyNodeAt(store, tree, 1, Math.floor(index / POINTERS_PER_BLOCK)).view;
    at = (index % POINTERS_PER_BLOCK) * POINTER_BYTES;
  }
  const old = blockPointer.get.vbn(view, at);
  if (old === 0) tree.blockCount += 1;
  else spaceOf(store).free(old);
  blockPointer.set.vbn(view, at, vbn);
  blockPointer.set.checksum(view, at, sum);
}

/** A block of data to be changed in memory. `load`: with its old contents, else with anything. The tree is high enough. */
function dirtyDataAt(store: BlockStore, tree: BlockTree, index: number, load: boolean): CachedBlock {
  const dirty = tree.dirtyData?.get(index);
  if (dirty !== undefined) return dirty;
  let view = tree.view;
  let at = index * POINTER_BYTES;
  if (tree.height > 0) {
    view = dirtyNodeAt(store, tree, 1, Math.floor(index / POINTERS_PER_BLOCK)).view;
    at = (index % POINTERS_PER_BLOCK) * POINTER_BYTES;
  }
  const vbn = blockPointer.get.vbn(view, at);
  const block = store.buffer();
  if (load && vbn !== 0) {
    store.readData(view, at / POINTER_BYTES, 1, block.bytes, 0, WAITING);
  } else if (load) {
    block.words.fill(0);
  }
  const space = spaceOf(store);
  if (vbn === 0) tree.blockCount += 1;
  else {
    space.free(vbn);
    blockPointer.set.vbn(view, at, 0);
    blockPointer.set.checksum(view, at, 0);
  }
  space.dirtied(1);
  tree.dirtyData ??= new Map();
  tree.dirtyData.set(index, block);
  return block;
}

/** An inline file gets a block of its own. */
function moveOutOfInode(store: BlockStore, inode: Inode): void {
  const { tree } = inode;
  const data = tree.pointers.slice();
  tree.pointers.fill(0);
  inode.inline = false;
  if (tree.sizeBytes > 0) dirtyDataAt(store, tree, 0, true).bytes.set(data);
}

/**
 * Takes the blocks of a range out of a file, all or, where it throws FsError ENOSPC, EIO or CorruptionError, none. The inode
 * is dirty.
 */
export type Release = (inode: Inode, first: number, end: number) => void;

/** Frees them at once: what it has to read it reads before, so this is for as many indirect blocks as the cache can have. */
export function releaseNow({ store }: InodeFile, { tree }: Inode, first: number, end: number): void {
  readNodes(store, tree, first, end);
  freeBlocks(store, tree, first, end);
}

/**
 * Sets the length: longer leaves a hole, shorter releases blocks.
 * Throws FsError EFBIG, ENOSPC, EIO, CorruptionError; then nothing is changed.
 */
export function resizeFile(
  inodes: InodeFile,
  inode: Inode,
  sizeBytes: number,
  release: Release = (...range) => releaseNow(inodes, ...range),
): void {
  if (sizeBytes > FILE_BYTES_MAX) throw new FsError("EFBIG", `a file has at most ${FILE_BYTES_MAX} bytes`);
  const { tree } = inode;
  const { store } = inodes;
  const shorter = sizeBytes < tree.sizeBytes;
  inodes.reserve(resizeBlocksMax(tree), shorter ? "delete" : "write");
  inodes.markDirty(inode);
  if (inode.inline) {
    if (sizeBytes <= INLINE_BYTES_MAX) tree.pointers.fill(0, Math.min(sizeBytes, INLINE_BYTES_MAX));
    else moveOutOfInode(store, inode);
  } else if (shorter) {
    const within = sizeBytes % BLOCK_BYTES;
    const last = within === 0 ? undefined : partBlock(inodes, inode, Math.floor(sizeBytes / BLOCK_BYTES));
    release(inode, Math.ceil(sizeBytes / BLOCK_BYTES), Number.POSITIVE_INFINITY);
    last?.bytes.fill(0, within);
  }
  tree.sizeBytes = sizeBytes;
  if (sizeBytes === 0) inode.inline = false;
}

/** Blocks that resizeFile and punchHole may dirty at most. */
export function resizeBlocksMax({ height }: BlockTree): number {
  return 2 * height + 4;
}

export function punchBlocksMax({ height }: BlockTree): number {
  return 4 * height + 6;
}

/**
 * Makes a file empty that is about to go. The inode is dirty; no space is needed. Reads nothing, and so cannot fail, where
 * there are no clean indirect blocks; else throws FsError EIO, CorruptionError, and can be called again.
 */
export function emptyFile({ store }: InodeFile, inode: Inode): void {
  const { tree } = inode;
  if (inode.inline) tree.pointers.fill(0);
  else freeBlocks(store, tree, 0, Number.POSITIVE_INFINITY);
  tree.blockCount = 0; // so it is; a damaged count, which the check reports, keeps no file from being deleted
  tree.sizeBytes = 0;
  inode.inline = false;
}

/** Releases the whole blocks of a range and zeroes the rest of it; the length stays. Throws as resizeFile. */
export function punchHole(
  inodes: InodeFile,
  inode: Inode,
  offset: number,
  length: number,
  release: Release = (...range) => releaseNow(inodes, ...range),
): void {
  const { tree } = inode;
  const end = Math.min(offset + length, tree.sizeBytes);
  inodes.reserve(punchBlocksMax(tree), "delete");
  inodes.markDirty(inode);
  if (offset >= end) return; // no blocks are kept beyond the end
  if (inode.inline) tree.pointers.fill(0, offset, end);
  else {
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor(end / BLOCK_BYTES);
    const startWithin = offset % BLOCK_BYTES;
    const endWithin = end % BLOCK_BYTES;
    const head = startWithin === 0 ? undefined : partBlock(inodes, inode, first);
    const tail = endWithin === 0 || (first === last && head !== undefined) ? undefined : partBlock(inodes, inode, last);
    const wholeFirst = startWithin === 0 ? first : first + 1;
    if (wholeFirst < last) {
      release(inode, wholeFirst, last);
      if (tree.blockCount === 0) tree.height = 0;
    }
    head?.bytes.fill(0, startWithin, first === last ? endWithin : BLOCK_BYTES);
    tail?.bytes.fill(0, 0, endWithin);
  }
}

/**
 * A block to be zeroed in part, dirty with its old contents; undefined: it is a hole. What is being repeated succeeded then, so
 * a block that does not verify had been replaced before, and what it was replaced by is to come; or it has rotted since: it stays as
 * bad as it is, and undefined is returned.
 */
function partBlock({ store, births }: InodeFile, inode: Inode, index: number): CachedBlock | undefined {
  const { tree } = inode;
  if (index >= capacity(tree.height)) return undefined;
  if (tree.dirtyData?.has(index) !== true && vbnAt(store, tree, index) === 0) return undefined;
  try {
    return dirtyDataAt(store, tree, index, true);
  } catch (error) {
    if (births.repeating === undefined || !(error instanceof CorruptionError)) throw error;
    if (!births.repeating.isReplaced(inode, index)) return undefined;
    const block = dirtyDataAt(store, tree, index, false);
    block.words.fill(0);
    return block;
  }
}

/** Offset of the next byte of data, or of the next hole, from `offset` on; undefined: none before the end of the file. */
export function seekData(inodes: InodeFile, inode: Inode, offset: number, what: "data" | "hole"): number | undefined {
  const { tree } = inode;
  if (offset >= tree.sizeBytes) return undefined;
  if (inode.inline) return what === "data" ? offset : tree.sizeBytes;
  const blocks = Math.ceil(tree.sizeBytes / BLOCK_BYTES);
  let index = Math.floor(offset / BLOCK_BYTES);
  if (what === "data") {
    const found = nextDataBlock(inodes.store, tree, index);
    return found === undefined || found >= blocks ? undefined : Math.max(offset, found * BLOCK_BYTES);
  }
  while (index < blocks && nextDataBlock(inodes.store, tree, index) === index) index += 1;
  return index >= blocks ? tree.sizeBytes : Math.max(offset, index * BLOCK_BYTES);
}

/** Index of the first block from `index` on that holds data; missing indirect blocks are skipped whole. */
function nextDataBlock(store: BlockStore, tree: BlockTree, index: number): number | undefined {
  let found = Number.POSITIVE_INFINITY;
  if (tree.dirtyData !== undefined) {
    if (tree.dirtyData.has(index)) return index;
    for (const dirty of tree.dirtyData.keys()) if (dirty >= index && dirty < found) found = dirty;
  }
  const placed = nextPlaced(store, tree, index);
  if (placed !== undefined) found = Math.min(found, placed);
  return Number.isFinite(found) ? found : undefined;
}

function nextPlaced(store: BlockStore, tree: BlockTree, index: number): number | undefined {
  let at = index;
  const end = capacity(tree.height);
  while (at < end) {
    // Walk down from the root as far as there are blocks; where one is missing, skip all that it would cover.
    let level = tree.height;
    let view = tree.view;
    let hole = false;
    while (!hole) {
      const span = POINTERS_PER_BLOCK ** level;
      const number = Math.floor(at / span);
      const slot = level === tree.height ? number : number % POINTERS_PER_BLOCK;
      const vbn = blockPointer.get.vbn(view, slot * POINTER_BYTES);
      if (level === 0) {
        if (vbn !== 0) return at;
        hole = true;
      } else {
        const node = nodeAt(store, tree, level, number);
        if (node === undefined) hole = true;
        else {
          ({ view } = node);
          level -= 1;
        }
      }
      if (hole) at = (number + 1) * span;
    }
  }
  return undefined;
}
