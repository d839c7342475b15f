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
 * On disk the orphan file is an array of u32, an ino or 0; an inode has the number of its slot plus 1. Which of the
 * slots are free is known in memory, read once when the volume is opened.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { FIRST_FREE_INO, ORPHAN_BLOCKS_MAX, ORPHAN_INO } from "../format/constants.ts";
import { type BlockTree, blockAt, dirtyBlockAt } from "../tree/block-tree.ts";
import { emptyFile, resizeFile } from "../tree/file-data.ts";
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
  /** Moves the contents of a large file to an orphan that is freed by and by, and leaves the file empty. */
  shed(inode: Inode): void;
  /** Frees a slice of what is doomed. False: nothing is left to do. */
  reclaimSlice(): boolean;
  readonly doomedCount: number;
}

/** What is to become of an inode without names. */
export interface Doom {
  readonly inode: Inode;
  /** In the orphan file; undefined: it is freed at once. */
  readonly slot: number | undefined;
  readonly isUsed: boolean;
}

/** Blocks that are freed in one go: 64 MiB of data. */
export const SLICE_BLOCKS = 16384;
/** Parts of that length that are looked at in one go, in a file that is mostly holes. */
const SLICE_STEPS_MAX = 1024;
/** Slices at the time a volume is opened; the rest is done when there is time. */
const OPENING_SLICES_MAX = 64;
const SLOTS_PER_BLOCK = BLOCK_BYTES / 4;
/** Remembered when a volume is opened. If there are more, they are found the next time. */
const FREE_SLOTS_MAX = 1 << 20;
const UNNAMED_MODE = 0o100000;

export function openOrphans(inodes: InodeFile): Orphans {
  const freeSlots: number[] = [];
  const doomed: number[] = [];
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
      if (ino !== 0) doomed.push(checked(ino, slot));
      else if (freeSlots.length < FREE_SLOTS_MAX) freeSlots.push(slot);
    }
  }

  function checked(ino: number, slot: number): number {
    const inode = ino < FIRST_FREE_INO ? undefined : inodes.get(ino);
    if (inode === undefined || inode.linkCount !== 0 || inode.orphanSlot !== slot + 1) {
      throw new CorruptionError(`slot ${slot} of the orphan file names inode ${ino}, which is no orphan`);
    }
    return ino;
  }

  /** A slot whose block is dirty, so that setting it cannot fail. Not taken yet. */
  function prepareSlot(): number {
    const file = orphanFile();
    inodes.markDirty(file);
    const slot = freeSlots.at(-1) ?? slotCount;
    if (slot >= ORPHAN_BLOCKS_MAX * SLOTS_PER_BLOCK) throw new FsError("ENOSPC", "the orphan file is full");
    dirtyBlockAt(inodes.store, file.tree, Math.floor(slot / SLOTS_PER_BLOCK));
    return slot;
  }

  function takeSlot(slot: number, inode: Inode): void {
    const { tree } = orphanFile();
    if (slot === slotCount) {
      for (let more = SLOTS_PER_BLOCK - 1; more >= 0; more--) freeSlots.push(slotCount + more);
      slotCount += SLOTS_PER_BLOCK;
      tree.sizeBytes = (slotCount / SLOTS_PER_BLOCK) * BLOCK_BYTES;
    }
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

  /** Makes a large file shorter by a slice. True when it is short enough to be freed whole. */
  function shorten(inode: Inode): boolean {
    const { tree } = inode;
    const target = tree.blockCount - SLICE_BLOCKS;
    for (let step = 0; step < SLICE_STEPS_MAX && tree.blockCount > target && tree.blockCount > SLICE_BLOCKS; step++) {
      const blocks = Math.ceil(tree.sizeBytes / BLOCK_BYTES);
      resizeFile(inodes, inode, Math.max(0, blocks - SLICE_BLOCKS) * BLOCK_BYTES);
    }
    return tree.blockCount <= SLICE_BLOCKS;
  }

  function bound(): number {
    return inodeMapBound(inodes) + inodesBound(inodes, 1) + orphanFile().tree.height + 1;
  }

  function reclaimSlice(): boolean {
    const ino = doomed.at(-1);
    if (ino === undefined) return false;
    const inode = inodes.get(ino);
    if (inode === undefined) throw new CorruptionError(`orphan ${ino} is free`);
    try {
      inodes.reserve(bound(), "delete");
      inodes.markDirty(inode);
      if (!shorten(inode)) return true;
      freeInode(inode);
    } catch (error) {
      // A damaged file must not keep the others from being freed: it stays an orphan until the volume is opened again.
      if (error instanceof CorruptionError) doomed.pop();
      throw error;
    }
    doomed.pop();
    return doomed.length > 0;
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

  return {
    bound,
    prepare(inode, { isUsed }): Doom {
      // What has indirect blocks must read them to be freed, which can fail: it goes by way of the orphan file.
      const hidden = xattrInode(inodes, inode);
      if (hidden !== undefined) inodes.markDirty(hidden);
      const isSmall = inode.tree.height === 0 && (hidden?.tree.height ?? 0) === 0;
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
      if (isUsed) return;
      doomed.push(inode.ino);
      if (inode.tree.blockCount <= SLICE_BLOCKS) tryReclaim();
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
      doomed.push(ino);
      if (inode.tree.blockCount <= SLICE_BLOCKS) tryReclaim();
    },
    shed(inode): void {
      inodes.reserve(bound(), "delete");
      const slot = prepareSlot();
      const heir = inodes.allocate();
      heir.mode = UNNAMED_MODE;
      takeSlot(slot, heir);
      moveTree(heir.tree, inode.tree);
      doomed.push(heir.ino);
    },
    reclaimSlice,
    get doomedCount(): number {
      return doomed.length;
    },
  };

  /** Nobody waits for this to succeed: the file is an orphan already. */
  function tryReclaim(): void {
    try {
      reclaimSlice();
    } catch (error) {
      if (!(error instanceof FsError) && !(error instanceof CorruptionError)) throw error;
    }
  }
}

/** All that one file holds becomes another's; that one has been empty. */
function moveTree(into: BlockTree, from: BlockTree): void {
  into.sizeBytes = from.sizeBytes;
  into.height = from.height;
  into.pointers.set(from.pointers);
  into.blockCount = from.blockCount;
  into.dirtyNodes = from.dirtyNodes;
  into.dirtyData = from.dirtyData;
  from.sizeBytes = 0;
  from.height = 0;
  from.pointers.fill(0);
  from.blockCount = 0;
  from.dirtyNodes = undefined;
  from.dirtyData = undefined;
}
