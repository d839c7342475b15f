/**
 * A bit plane: the active map inside the tree of one state, one bit a block. Because a snapshot is a copy of the root,
 * its plane is there without having been made, and no tree walk is needed to know its blocks.
 */
import { REGION_BLOCKS, REGION_WORDS } from "../../core/block.ts";
import { CorruptionError } from "../../core/errors.ts";
import { ino } from "../../core/numbers.ts";
import { type BlockPointer, blockPointer } from "../../format/block-pointer.ts";
import {
  ACTIVE_MAP_INO,
  INODE_BYTES,
  INODES_PER_BLOCK,
  POINTER_BYTES,
  POINTERS_PER_BLOCK,
} from "../../format/constants.ts";
import type { FileRootRecord } from "../../format/inode.ts";
import type { BlockStore } from "../../tree/block-store.ts";
import { type BlockTree, blockAt, capacity, nodeAt, treeOfRecord } from "../../tree/block-tree.ts";
import { decodeInode } from "../../tree/inode-file.ts";

export interface Plane {
  readonly regionCount: number;
  /**
   * Pointer of the region's map block; vbn 0: all bits are zero. Two states of one volume whose pointers are equal have
   * equal bits there.
   */
  pointer(region: number): BlockPointer;
  /** 1024 words, only to be read; valid until the end of the operation. Bit b of word w is block region * 32768 + w * 32 + b. */
  words(region: number): Uint32Array;
}

export const ZERO_WORDS: Uint32Array = new Uint32Array(REGION_WORDS);

export function regionCountOf(blockCount: number): number {
  return Math.ceil(blockCount / REGION_BLOCKS);
}

/** The plane of the state whose inode file has this root. Nothing is read before it is asked for. Throws CorruptionError. */
export function openPlane(store: BlockStore, root: FileRootRecord, blockCount: number): Plane {
  let opened: Plane | undefined;
  const plane = (): Plane => {
    opened ??= planeOf(store, activeMapOf(store, root), blockCount);
    return opened;
  };
  return {
    regionCount: regionCountOf(blockCount),
    pointer: (region) => plane().pointer(region),
    words: (region) => plane().words(region),
  };
}

function activeMapOf(store: BlockStore, root: FileRootRecord): BlockTree {
  const block = blockAt(store, treeOfRecord(root), Math.floor(ACTIVE_MAP_INO / INODES_PER_BLOCK));
  if (block === undefined) throw new CorruptionError("a state without an active map");
  return decodeInode(ino(ACTIVE_MAP_INO), block.view, (ACTIVE_MAP_INO % INODES_PER_BLOCK) * INODE_BYTES).tree;
}

/** The plane whose map is this tree. */
export function planeOf(store: BlockStore, tree: BlockTree, blockCount: number): Plane {
  return {
    regionCount: regionCountOf(blockCount),
    pointer(region): BlockPointer {
      if (region >= capacity(tree.height)) return { vbn: 0, checksum: 0 };
      if (tree.height === 0) return blockPointer.decode(tree.view, region * POINTER_BYTES);
      const leaf = nodeAt(store, tree, 1, Math.floor(region / POINTERS_PER_BLOCK));
      if (leaf === undefined) return { vbn: 0, checksum: 0 };
      return blockPointer.decode(leaf.view, (region % POINTERS_PER_BLOCK) * POINTER_BYTES);
    },
    words(region): Uint32Array {
      const found = region < capacity(tree.height) ? blockAt(store, tree, region)?.words : undefined;
      if (found !== undefined) checkEnds(store, region, found);
      return found ?? ZERO_WORDS;
    },
  };
}

/** No state has a block of the reserved area, or one beyond the end. */
function checkEnds({ firstVbn, endVbn }: BlockStore, region: number, words: Uint32Array): void {
  const first = region * REGION_BLOCKS;
  if (!hasBit(words, 0, firstVbn - first) && !hasBit(words, endVbn - first, REGION_BLOCKS)) return;
  throw new CorruptionError(`a bit plane has blocks outside of ${firstVbn} to ${endVbn - 1}`);
}

/** Is one of the bits [from, end) set? The range may begin or end outside of the region. */
function hasBit(words: Uint32Array, from: number, end: number): boolean {
  for (let bit = Math.max(0, from); bit < Math.min(REGION_BLOCKS, end); ) {
    const word = words[bit >>> 5] as number;
    if (word === 0) bit = (bit | 31) + 1;
    else if ((word & (1 << (bit & 31))) !== 0) return true;
    else bit += 1;
  }
  return false;
}
