/**
 * Files without a name: unlinked while they are in use, made without one (O_TMPFILE), or too large to be freed at once.
 * In use is what is open, and what the kernel has not forgotten yet: it still writes back times of a file it has just
 * unlinked, and a number that it knows must not become another file's.
 *
 *                       last name gone, or made without one
 *      linked inode  --------------------------------------->  orphan  ---- not in use any more --->  doomed
 *           ^                                                     |                                    |
 *           +------------- linked again (O_TMPFILE) --------------+           freed, slice by slice ---+
 *
 * An orphan has link count 0 and a slot in the orphan file, so that a crash loses nothing but the file that nobody can
 * name: all that stand there when a volume is opened are doomed. A small file goes at once and needs no slot.
 *
 * What is cut out of a file, by truncating it or by punching a hole, goes the same way where it is large: an heir, a doomed
 * orphan made for it, gets it in one step, whole subtrees at a time, so the cut costs as much as the tree is high. How many
 * blocks that are nobody knows before they have been read: the file that they were cut out of, the donor, goes on counting
 * them until they are freed. So the blocks of a file are its own and those of its heirs, and it is freed after them. A file
 * that is cut off whole by its start gives its count away with the rest.
 *
 * On disk the orphan file is an array of u32, an ino or 0; an inode has the number of its slot plus 1. Which of the
 * slots are free is known in memory, read once when the volume is opened.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../core/block.ts";
import { counts } from "../core/counts.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { shaped } from "../core/shaped.ts";
import { FIRST_FREE_INO, ORPHAN_BLOCKS_MAX, ORPHAN_INO } from "../format/constants.ts";
import {
  type BlockTree,
  blockAt,
  dirtyBlockAt,
  freeBlocks,
  lastLeaf,
  moveBlocks,
  moveBlocksMax,
  prepareMove,
} from "../tree/block-tree.ts";
import { emptyFile, type Release, releaseNow, resizeBlocksMax } from "../tree/file-data.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import { freeXattrs, xattrInode } from "../tree/xattr.ts";
import { inodeMapBound, inodesBound } from "./bounds.ts";

export interface Orphans {
  /** Blocks that making an inode an orphan, or freeing it, dirties at most. */
  bound(): number;
  /**
   * To be called before an inode loses its last name, for all that can fail. The inode is marked dirty. Space for `bound`
   * blocks is there. Throws FsError EIO, CorruptionError.
   */
  prepare(inode: Inode, how: { readonly isUsed: boolean }): Doom;
  /** Its last name is gone: it is freed, or it becomes an orphan. Cannot fail. */
  apply(doom: Doom): void;
  /** An inode that was made without a name; `linkable`: it may get one. Throws as `prepare` does. */
  adopt(inode: Inode, how: { readonly linkable: boolean }): void;
  isLinkable(ino: number): boolean;
  /** To be called before an orphan is given a name, and after. */
  prepareRescue(inode: Inode): void;
  rescue(inode: Inode): void;
  /** Nobody uses the inode any more: if it is an orphan, it goes. */
  unused(ino: number): void;
  /** Frees the blocks of a range of a file; many of them by and by. */
  readonly release: Release;
  /** The file counts blocks that were cut out of it, and are not freed yet. */
  hasHeirs(ino: number): boolean;
  /** Frees a slice of what is doomed. False: nothing is left to do. */
  reclaimSlice(): boolean;
  /** How many files are doomed; 0: nothing is left to do. */
  readonly doomedCount: number;
  /** Some are not doomed: they are in use, or cannot be freed. */
  readonly hasUsed: boolean;
}

/** What is to become of an inode without names. */
export interface Doom {
  readonly inode: Inode;
  /** In the orphan file; undefined: it is freed at once. */
  readonly slot: number | undefined;
  readonly isUsed: boolean;
}

/** Blocks that are freed in one go: 8 MiB of data. An indirect block that must be read counts for LEAF_COST more. */
const SLICE_BLOCKS = 2048;
const LEAF_COST = 128;
/** Slices at the time a volume is opened; the rest is done when there is time. */
const OPENING_SLICES_MAX = 512;
const SLOTS_PER_BLOCK = BLOCK_BYTES / 4;
/** Remembered when a volume is opened. If there are more, they are found the next time. */
const FREE_SLOTS_MAX = 1 << 20;
const UNNAMED_MODE = 0o100000;

export function openOrphans(inodes: InodeFile): Orphans {
  const freeSlots: number[] = [];
  const doomed = new Set<number>();
  /** Heirs that a file has, by its number. */
  const heirs = counts();
  const linkable = new Set<number>();
  let slotCount = 0;

  function orphanFile(): Inode {
    const file = inodes.get(ORPHAN_INO);
    if (file === undefined) throw new CorruptionError("the orphan file is missing");
    return file;
  }

  function load(): void {
    const { tree } = orphanFile();
    const blocks = Math.floor(tree.sizeBytes / BLOCK_BYTES);
    if (blocks > ORPHAN_BLOCKS_MAX) throw new CorruptionError(`the orphan file claims ${blocks} blocks`);
    slotCount = blocks * SLOTS_PER_BLOCK;
    for (let slot = slotCount - 1; slot >= 0; slot--) {
      const index = Math.floor(slot / SLOTS_PER_BLOCK);
      const block = blockAt(inodes.store, tree, index);
      if (block === undefined) throw new CorruptionError(`the orphan file has a hole at block ${index}`);
      const ino = block.words[slot % SLOTS_PER_BLOCK] as number;
      if (ino !== 0) doom(checked(ino, slot));
      else if (freeSlots.length < FREE_SLOTS_MAX) freeSlots.push(slot);
    }
  }

  function doom(inode: Inode): void {
    doomed.add(inode.ino);
    if (inode.donor !== 0) heirs.add(inode.donor, 1);
  }

  function checked(ino: number, slot: number): Inode {
    const inode = ino < FIRST_FREE_INO ? undefined : inodes.get(ino);
    if (inode === undefined || inode.linkCount !== 0 || inode.orphanSlot !== slot + 1) {
      throw new CorruptionError(`slot ${slot} of the orphan file names inode ${ino}, which is no orphan`);
    }
    return inode;
  }

  /** A slot whose block is dirty, so that setting it cannot fail. Not taken yet. */
  function prepareSlot(): number {
    const file = orphanFile();
    inodes.markDirty(file);
    const slot = freeSlots.at(-1) ?? slotCount;
    if (slot >= ORPHAN_BLOCKS_MAX * SLOTS_PER_BLOCK) throw new FsError("ENOSPC", "the orphan file is full");
    dirtyBlockAt(inodes.store, file.tree, Math.floor(slot / SLOTS_PER_BLOCK));
    if (slot < slotCount) return slot;
    for (let more = SLOTS_PER_BLOCK - 1; more >= 0; more--) freeSlots.push(slotCount + more);
    slotCount += SLOTS_PER_BLOCK;
    file.tree.sizeBytes = (slotCount / SLOTS_PER_BLOCK) * BLOCK_BYTES; // now: the block is there whatever becomes of the slot
    return slot;
  }

  function takeSlot(slot: number, inode: Inode): void {
    const { tree } = orphanFile();
    assert.equal(freeSlots.pop(), slot, "the slot that was prepared is the next one");
    wordsOf(tree, slot)[slot % SLOTS_PER_BLOCK] = inode.ino;
    inode.orphanSlot = slot + 1;
  }

  function giveSlotBack(inode: Inode): void {
    if (inode.orphanSlot === 0) return;
    const file = orphanFile();
    inodes.markDirty(file);
    const slot = inode.orphanSlot - 1;
    wordsOf(file.tree, slot)[slot % SLOTS_PER_BLOCK] = 0;
    inode.orphanSlot = 0;
    freeSlots.push(slot);
  }

  function wordsOf(tree: BlockTree, slot: number): Uint32Array {
    return dirtyBlockAt(inodes.store, tree, Math.floor(slot / SLOTS_PER_BLOCK)).words;
  }

  /** Frees the inode and all it holds, which is little. */
  function freeInode(inode: Inode): void {
    inodes.prepareFree(inode);
    emptyFile(inodes, inode);
    freeXattrs(inodes, inode);
    giveSlotBack(inode);
    linkable.delete(inode.ino);
    inodes.free(inode);
  }

  /** Frees a slice from the end of a file. True when it holds nothing more. */
  function shorten({ inline, tree }: Inode): boolean {
    if (inline) return true;
    for (let cost = 0; ; cost += LEAF_COST) {
      const first = lastLeaf(inodes.store, tree);
      if (first === undefined) return true;
      if (cost >= SLICE_BLOCKS) return false;
      inodes.reserve(bound() + resizeBlocksMax(tree), "delete");
      cost += tree.blockCount;
      freeBlocks(inodes.store, tree, first, Number.POSITIVE_INFINITY);
      cost -= tree.blockCount;
    }
  }

  /** Of an heir: what is freed is counted off from its donor. */
  function shortenHeir(inode: Inode): boolean {
    const donor = inodes.get(inode.donor);
    if (donor !== undefined) inodes.markDirty(donor);
    inode.tree.blockCount = 0;
    try {
      return shorten(inode);
    } finally {
      if (donor !== undefined) donor.tree.blockCount = Math.max(0, donor.tree.blockCount + inode.tree.blockCount);
      inode.tree.blockCount = 0;
    }
  }

  function bound(): number {
    return inodeMapBound(inodes) + inodesBound(inodes, 2) + orphanFile().tree.height + 1;
  }

  /** What can be freed next: no file before its heirs. */
  function nextDoomed(): number | undefined {
    for (const ino of doomed) if (heirs.of(ino) === 0) return ino;
    return undefined;
  }

  function reclaimSlice(): boolean {
    const ino = nextDoomed();
    if (ino !== undefined) reclaim(ino);
    return nextDoomed() !== undefined;
  }

  function reclaim(ino: number): void {
    const inode = inodes.get(ino);
    if (inode === undefined) throw new CorruptionError(`orphan ${ino} is free`);
    const { donor } = inode;
    try {
      if (!freeSlice(inode)) return;
    } catch (error) {
      if (isDamage(error)) doomed.delete(ino);
      throw error;
    }
    doomed.delete(ino);
    heirs.take(donor, 1);
  }

  /** True: it is freed, with all it held. */
  function freeSlice(inode: Inode): boolean {
    inodes.reserve(bound(), "delete");
    inodes.markDirty(inode);
    if (!(inode.donor === 0 ? shorten(inode) : shortenHeir(inode))) return false;
    freeInode(inode);
    return true;
  }

  function release(inode: Inode, first: number, end: number): void {
    const { tree } = inode;
    const blocks = Math.ceil(tree.sizeBytes / BLOCK_BYTES); // none are kept beyond
    const to = end >= blocks ? Number.POSITIVE_INFINITY : end;
    if (Math.min(end, blocks) - first <= SLICE_BLOCKS) {
      releaseNow(inodes, inode, first, to);
      return;
    }
    inodes.reserve(bound() + moveBlocksMax(tree), "delete");
    const slot = prepareSlot();
    prepareMove(inodes.store, tree, first, to);
    const heir = inodes.allocate("delete");
    heir.mode = UNNAMED_MODE;
    heir.tree.sizeBytes = tree.sizeBytes;
    takeSlot(slot, heir);
    moveBlocks(inodes.store, tree, heir.tree, first, to);
    if (first === 0 && to === Number.POSITIVE_INFINITY && heirs.of(inode.ino) === 0) {
      heir.tree.blockCount = tree.blockCount;
      tree.blockCount = 0;
    } else heir.donor = inode.ino;
    doom(heir);
  }

  load();
  for (let slice = 0; slice < OPENING_SLICES_MAX; slice++) {
    try {
      if (!reclaimSlice()) break;
    } catch (error) {
      if (!(error instanceof FsError) && !(error instanceof CorruptionError)) throw error;
      if (error instanceof FsError) break; // no space now: later
    }
  }

  return shaped({
    bound,
    prepare(inode, { isUsed }): Doom {
      // What has indirect blocks must read them to be freed, which can fail: it goes by way of the orphan file.
      const hidden = xattrInode(inodes, inode);
      if (hidden !== undefined) inodes.markDirty(hidden);
      const isSmall = inode.tree.height === 0 && (hidden?.tree.height ?? 0) === 0 && heirs.of(inode.ino) === 0;
      if (isUsed || !isSmall) return { inode, slot: prepareSlot(), isUsed };
      inodes.prepareFree(inode);
      if (hidden !== undefined) inodes.prepareFree(hidden);
      return { inode, slot: undefined, isUsed };
    },
    apply({ inode, slot, isUsed }): void {
      if (slot === undefined) {
        freeInode(inode);
        return;
      }
      takeSlot(slot, inode);
      if (!isUsed) doomNow(inode);
    },
    adopt(inode, how): void {
      takeSlot(prepareSlot(), inode);
      if (how.linkable) linkable.add(inode.ino);
    },
    isLinkable: (ino) => linkable.has(ino),
    prepareRescue(inode): void {
      const file = orphanFile();
      inodes.markDirty(file);
      wordsOf(file.tree, inode.orphanSlot - 1);
    },
    rescue(inode): void {
      giveSlotBack(inode);
      linkable.delete(inode.ino);
    },
    unused(ino): void {
      const inode = inodes.get(ino);
      if (inode === undefined || inode.linkCount > 0 || inode.orphanSlot === 0) return;
      linkable.delete(ino);
      doomNow(inode);
    },
    release,
    hasHeirs: (ino) => heirs.of(ino) > 0,
    reclaimSlice,
    get doomedCount(): number {
      return nextDoomed() === undefined ? 0 : doomed.size;
    },
    get hasUsed(): boolean {
      return slotCount - freeSlots.length > doomed.size;
    },
  });

  /** Its first slice is freed at once, which may be all of it. Nobody waits for that to succeed: it is an orphan already. */
  function doomNow(inode: Inode): void {
    let isDone = false;
    try {
      isDone = heirs.of(inode.ino) === 0 && freeSlice(inode);
    } catch (error) {
      if (!(error instanceof FsError) && !(error instanceof CorruptionError)) throw error;
      isDone = isDamage(error);
    }
    if (!isDone) doom(inode);
  }
}

/** A damaged file must not keep the others from being freed: it stays an orphan until the volume is opened again. */
function isDamage(error: unknown): boolean {
  return error instanceof CorruptionError || (error instanceof FsError && error.code === "EIO");
}
