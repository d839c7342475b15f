/**
 * The inode file: the file that holds all inodes of one state of the filesystem, 16 in a block.
 *
 * In memory an inode is one object for as long as it is dirty or cached. A changed inode waits in `dirty` until the
 * consistency point encodes it into its block; that block is made dirty at once, so that its space is set aside.
 * Which numbers are taken is in the inode map, a file with one bit an inode.
 */
import assert from "node:assert/strict";
import { LRUCache } from "lru-cache";
import { BLOCK_BYTES, REGION_BLOCKS } from "../core/block.ts";
import { EPOCH, type Time } from "../core/clock.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { ino as asIno, type Ino, U32_MAX } from "../core/numbers.ts";
import { shaped } from "../core/shaped.ts";
import { FIRST_FREE_INO, INODE_BYTES, INODE_MAP_INO, INODES_PER_BLOCK } from "../format/constants.ts";
import { INODE_INLINE, inodeRecord, timeRecord } from "../format/inode.ts";
import type { BlockStore } from "./block-store.ts";
import { type BlockTree, blockAt, decodeTree, dirtyBlockAt, emptyTree, encodeTree, isDirty } from "./block-tree.ts";
import type { Purpose } from "./space.ts";

export interface Inode {
  readonly ino: Ino;
  /** File type and permissions as in stat(2); 0: free. */
  mode: number;
  uid: number;
  gid: number;
  linkCount: number;
  rdev: number;
  /** The contents lie in the inode. */
  inline: boolean;
  generation: number;
  /** Directories: inode of the parent. */
  parent: number;
  atime: Time;
  mtime: Time;
  ctime: Time;
  btime: Time;
  xattrIno: number;
  orphanSlot: number;
  /** The file that its blocks were cut out of, and that counts them; 0: none. */
  donor: number;
  entryCount: number;
  /** Contents; `tree.sizeBytes` is the length. */
  readonly tree: BlockTree;
}

/** Counters that go into fsinfo with each consistency point. */
export interface InodeCounters {
  usedInodes: number;
  generationNext: number;
}

/** A number that was given to a file, and which of the files that had it one after the other that is. */
export interface Birth {
  readonly ino: number;
  readonly generation: number;
}

/**
 * What becomes of an operation is not in its arguments alone: the numbers of the inodes that it made belong to it. The
 * change log keeps them, and repeats the operation with the same.
 */
export interface Births {
  /** Made since whoever looks has emptied the list. */
  readonly made: Birth[];
  /** While operations are repeated that were done before. */
  repeating: Repeating | undefined;
}

/** What was done before is done again: it had the space, and deletions that gave it may not be done yet. */
export interface Repeating {
  /** To be made next, in this order: their numbers are free. When they are used up, any number will do. */
  wanted: readonly Birth[];
  /** The contents of this block of the file are known, and will be put there. */
  isReplaced(inode: Inode, index: number): boolean;
}

export interface InodeFile {
  readonly store: BlockStore;
  readonly tree: BlockTree;
  readonly writable: boolean;
  readonly hashSeed: number;
  readonly usedInodes: number;
  /** The inode; undefined: free. The object may be dropped between operations unless dirty. Throws CorruptionError. */
  get(ino: number): Inode | undefined;
  /** To be called in each operation that changes a field of the inode or its tree. Throws FsError EIO, CorruptionError. */
  markDirty(inode: Inode): void;
  /** A new inode, all zero but its numbers, and dirty; who deletes needs one too. Throws FsError ENOSPC, EIO, CorruptionError. */
  allocate(purpose?: Purpose): Inode;
  /** Makes dirty all that `free` changes, so that it cannot fail. Throws FsError EIO, CorruptionError. */
  prepareFree(inode: Inode): void;
  /** Gives the number back. Its tree must be empty. */
  free(inode: Inode): void;
  /** Throws FsError ENOSPC unless so many blocks more can become dirty. */
  reserve(blocks: number, purpose: Purpose): void;
  /** Inodes changed since the last consistency point, and what the consistency point does with them. */
  readonly dirty: ReadonlyMap<number, Inode>;
  /** Those of them that may have dirty blocks. Who has placed all of one takes it out, until it is marked dirty again. */
  readonly unplaced: Set<Inode>;
  /** Encodes an inode into its block of the inode file, which is dirty already. */
  encode(inode: Inode): void;
  /** Everything is on its way to disk: dirty inodes become clean ones. */
  clean(): void;
  readonly counters: InodeCounters;
  readonly births: Births;
}

export interface InodeFileOptions {
  readonly store: BlockStore;
  readonly tree: BlockTree;
  readonly writable: boolean;
  readonly hashSeed: number;
  readonly counters: InodeCounters;
  /** Clean inodes kept in memory. */
  readonly cachedMax: number;
}

/** Blocks that making an inode dirty may dirty: its block, the path above it, and the same for the inode map. */
const MARK_DIRTY_BLOCKS = 10;

export function openInodeFile({ store, tree, writable, hashSeed, counters, cachedMax }: InodeFileOptions): InodeFile {
  const dirty = new Map<number, Inode>();
  const cache = new LRUCache<number, Inode>({
    max: cachedMax,
    dispose: (inode, ino, reason) => {
      assert(reason !== "evict" || !isDirty(inode.tree), `inode ${ino} is forgotten while its blocks wait for places`);
    },
  });
  const unplaced = new Set<Inode>();
  let nextIno: number = FIRST_FREE_INO;
  const births: Births = { made: [], repeating: undefined };

  function get(ino: number): Inode | undefined {
    const known = dirty.get(ino) ?? cache.get(ino);
    if (known !== undefined) return known.mode === 0 ? undefined : known;
    const index = Math.floor(ino / INODES_PER_BLOCK);
    if ((index + 1) * BLOCK_BYTES > tree.sizeBytes) return undefined;
    const block = blockAt(store, tree, index);
    if (block === undefined) return undefined;
    const at = (ino % INODES_PER_BLOCK) * INODE_BYTES;
    if (inodeRecord.get.mode(block.view, at) === 0) return undefined;
    const inode = decodeInode(asIno(ino), block.view, at);
    cache.set(ino, inode);
    return inode;
  }

  function markDirty(inode: Inode): void {
    assert(writable, "inode of a read-only state");
    unplaced.add(inode);
    const known = dirty.get(inode.ino);
    if (known !== undefined) {
      assert(known === inode, "an inode is changed in one object only");
      return;
    }
    const index = Math.floor(inode.ino / INODES_PER_BLOCK);
    dirtyBlockAt(store, tree, index);
    tree.sizeBytes = Math.max(tree.sizeBytes, (index + 1) * BLOCK_BYTES);
    cache.delete(inode.ino);
    dirty.set(inode.ino, inode);
  }

  function allocate(purpose: Purpose = "write"): Inode {
    reserve(MARK_DIRTY_BLOCKS, purpose);
    const { repeating } = births;
    const birth = repeating?.wanted[0];
    const ino = asIno(birth === undefined ? takeNumber() : takeWanted(birth));
    if (repeating !== undefined) repeating.wanted = repeating.wanted.slice(1);
    const generation = birth?.generation ?? counters.generationNext;
    const inode: Inode = {
      ino,
      mode: 0,
      uid: 0,
      gid: 0,
      linkCount: 0,
      rdev: 0,
      inline: false,
      generation,
      parent: 0,
      atime: EPOCH,
      mtime: EPOCH,
      ctime: EPOCH,
      btime: EPOCH,
      xattrIno: 0,
      orphanSlot: 0,
      donor: 0,
      entryCount: 0,
      tree: emptyTree(),
    };
    if (dirty.has(ino)) dirty.set(ino, inode); // in place of what is left of a file freed since the last consistency point
    markDirty(inode);
    counters.generationNext = Math.min(Math.max(counters.generationNext, generation + 1), U32_MAX);
    counters.usedInodes += 1;
    births.made.push(inode);
    return inode;
  }

  function takeWanted({ ino }: Birth): number {
    if (ino < FIRST_FREE_INO || ino >= U32_MAX) throw new CorruptionError(`inode ${ino} cannot be made`);
    const page = Math.floor(ino / REGION_BLOCKS);
    const bit = ino % REGION_BLOCKS;
    const map = inodeMap();
    markDirty(map);
    const { words } = dirtyBlockAt(store, map.tree, page);
    if (((words[bit >>> 5] as number) & (1 << (bit & 31))) !== 0) {
      throw new CorruptionError(`inode ${ino} is to be made, but it is in use`);
    }
    dirtyBlockAt(store, tree, Math.floor(ino / INODES_PER_BLOCK));
    setBit(words, bit);
    map.tree.sizeBytes = Math.max(map.tree.sizeBytes, (page + 1) * BLOCK_BYTES);
    return ino;
  }

  /** Finds a clear bit of the inode map from `nextIno` on, around the end once, and sets it. The inode's block is dirty then. */
  function takeNumber(): number {
    const map = inodeMap();
    const pages = Math.floor(map.tree.sizeBytes / BLOCK_BYTES);
    const firstPage = Math.floor(nextIno / REGION_BLOCKS);
    for (let i = 0; i <= pages; i++) {
      const page = (firstPage + i) % (pages + 1); // the one after the last is new
      const words = page < pages ? blockAt(store, map.tree, page)?.words : undefined;
      const from = i === 0 ? nextIno % REGION_BLOCKS : page === 0 ? FIRST_FREE_INO : 0;
      const bit = words === undefined ? from : clearBit(words, from);
      if (bit === undefined) continue;
      const found = page * REGION_BLOCKS + bit;
      if (found >= U32_MAX) continue;
      markDirty(map);
      const changed = dirtyBlockAt(store, map.tree, page).words;
      dirtyBlockAt(store, tree, Math.floor(found / INODES_PER_BLOCK));
      setBit(changed, bit);
      map.tree.sizeBytes = Math.max(map.tree.sizeBytes, (page + 1) * BLOCK_BYTES);
      nextIno = found + 1;
      return found;
    }
    if (nextIno !== FIRST_FREE_INO) {
      nextIno = FIRST_FREE_INO;
      return takeNumber();
    }
    throw new FsError("ENOSPC", "no inode number is free");
  }

  function prepareFree(inode: Inode): Uint32Array {
    const map = inodeMap();
    markDirty(inode);
    markDirty(map);
    return dirtyBlockAt(store, map.tree, Math.floor(inode.ino / REGION_BLOCKS)).words;
  }

  function free(inode: Inode): void {
    assert.equal(inode.tree.blockCount, 0, "an inode is freed with blocks");
    const words = prepareFree(inode);
    const bit = inode.ino % REGION_BLOCKS;
    words[bit >>> 5] = (words[bit >>> 5] as number) & ~(1 << (bit & 31));
    inode.mode = 0;
    inode.inline = false;
    inode.tree.pointers.fill(0);
    inode.tree.height = 0;
    inode.tree.sizeBytes = 0;
    unplaced.delete(inode);
    counters.usedInodes -= 1;
    nextIno = Math.min(nextIno, inode.ino);
  }

  function inodeMap(): Inode {
    const map = get(INODE_MAP_INO);
    if (map === undefined) throw new CorruptionError("the inode map is missing");
    if (map.tree.sizeBytes % BLOCK_BYTES !== 0)
      throw new CorruptionError(`the inode map has ${map.tree.sizeBytes} bytes, no whole number of blocks`);
    return map;
  }

  function reserve(blocks: number, purpose: Purpose): void {
    assert(store.space !== undefined, "space of a read-only state");
    // What is done again had the space then. It does not ask for what it would only have wanted to be there: what was written
    // since is withheld already. What it does use is asked for block by block, by the allocator.
    if (births.repeating === undefined) store.space.reserve(blocks + MARK_DIRTY_BLOCKS, purpose);
    else store.space.reserve(0, "cp");
  }

  return shaped({
    store,
    tree,
    writable,
    hashSeed,
    get usedInodes(): number {
      return counters.usedInodes;
    },
    get,
    markDirty,
    allocate,
    prepareFree: (inode) => void prepareFree(inode),
    free,
    reserve,
    dirty,
    unplaced,
    encode(inode): void {
      const block = dirtyBlockAt(store, tree, Math.floor(inode.ino / INODES_PER_BLOCK));
      encodeInode(inode, block.view, block.bytes, (inode.ino % INODES_PER_BLOCK) * INODE_BYTES);
    },
    clean(): void {
      for (const inode of dirty.values()) if (inode.mode !== 0) cache.set(inode.ino, inode);
      dirty.clear();
      unplaced.clear();
    },
    counters,
    births,
  });
}

function setBit(words: Uint32Array, bit: number): void {
  words[bit >>> 5] = (words[bit >>> 5] as number) | (1 << (bit & 31));
}

/** The first bit from `from` on that is 0. */
function clearBit(words: Uint32Array, from: number): number | undefined {
  for (let at = from >>> 5, mask = -1 << (from & 31); at < words.length; at++, mask = -1) {
    const clear = ~(words[at] as number) & mask;
    if (clear !== 0) return at * 32 + 31 - Math.clz32(clear & -clear);
  }
  return undefined;
}

const rootAt = inodeRecord.offset.root;
const timeOffsets = [
  inodeRecord.offset.atime,
  inodeRecord.offset.mtime,
  inodeRecord.offset.ctime,
  inodeRecord.offset.btime,
] as const;

function decodeTime(view: DataView, at: number): Time {
  return { seconds: timeRecord.get.seconds(view, at), nanoseconds: timeRecord.get.nanoseconds(view, at) };
}

export function decodeInode(ino: Ino, view: DataView, at: number): Inode {
  const tree = decodeTree(view, at + rootAt);
  tree.blockCount = inodeRecord.get.blockCount(view, at);
  const [atime, mtime, ctime, btime] = timeOffsets;
  return {
    ino,
    mode: inodeRecord.get.mode(view, at),
    uid: inodeRecord.get.uid(view, at),
    gid: inodeRecord.get.gid(view, at),
    linkCount: inodeRecord.get.linkCount(view, at),
    rdev: inodeRecord.get.rdev(view, at),
    inline: (inodeRecord.get.flags(view, at) & INODE_INLINE) !== 0,
    generation: inodeRecord.get.generation(view, at),
    parent: inodeRecord.get.parent(view, at),
    atime: decodeTime(view, at + atime),
    mtime: decodeTime(view, at + mtime),
    ctime: decodeTime(view, at + ctime),
    btime: decodeTime(view, at + btime),
    xattrIno: inodeRecord.get.xattrIno(view, at),
    orphanSlot: inodeRecord.get.orphanSlot(view, at),
    donor: inodeRecord.get.donor(view, at),
    entryCount: inodeRecord.get.entryCount(view, at),
    tree,
  };
}

function encodeTime(time: Time, view: DataView, at: number): void {
  timeRecord.set.seconds(view, at, time.seconds);
  timeRecord.set.nanoseconds(view, at, time.nanoseconds);
}

/** Writes the record; a free inode becomes 256 zero bytes. */
function encodeInode(inode: Inode, view: DataView, bytes: Uint8Array, at: number): void {
  bytes.fill(0, at, at + INODE_BYTES);
  if (inode.mode === 0) return;
  const [atime, mtime, ctime, btime] = timeOffsets;
  inodeRecord.set.mode(view, at, inode.mode);
  inodeRecord.set.uid(view, at, inode.uid);
  inodeRecord.set.gid(view, at, inode.gid);
  inodeRecord.set.linkCount(view, at, inode.linkCount);
  inodeRecord.set.rdev(view, at, inode.rdev);
  inodeRecord.set.flags(view, at, inode.inline ? INODE_INLINE : 0);
  inodeRecord.set.generation(view, at, inode.generation);
  inodeRecord.set.parent(view, at, inode.parent);
  inodeRecord.set.blockCount(view, at, inode.tree.blockCount);
  encodeTime(inode.atime, view, at + atime);
  encodeTime(inode.mtime, view, at + mtime);
  encodeTime(inode.ctime, view, at + ctime);
  encodeTime(inode.btime, view, at + btime);
  inodeRecord.set.xattrIno(view, at, inode.xattrIno);
  inodeRecord.set.orphanSlot(view, at, inode.orphanSlot);
  inodeRecord.set.donor(view, at, inode.donor);
  inodeRecord.set.entryCount(view, at, inode.entryCount);
  encodeTree(inode.tree, view, at + rootAt);
}
