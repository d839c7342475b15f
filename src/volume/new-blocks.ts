/**
 * Which blocks a state has that an older one has not, by their trees: both are walked side by side, and equal subtrees are not
 * read, so the cost is that of what has changed. Of each new block the walk tells the checksum that its parent expects, and
 * of a block of metadata also which block of the older state it has come from: that which stands at the same position there.
 *
 *     inode file: indirect blocks, blocks of inodes --each inode that is not the same--> its tree: indirect blocks,
 *                                              contents; those of directories, maps and lists of orphans are metadata
 *
 * Metadata is read, and verified. The contents of files are not.
 */
import { type Block, makeBlock } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { FIRST_FREE_INO, INODE_BYTES, INODES_PER_BLOCK, POINTERS_PER_BLOCK } from "../format/constants.ts";
import { type FileRootRecord, fileRoot, INODE_INLINE, inodeRecord } from "../format/inode.ts";
import { mismatch } from "../tree/block-store.ts";
import { type BlockTree, decodeTree, emptyTree, treeOfRecord } from "../tree/block-tree.ts";

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const NOTHING = new Uint32Array(POINTERS_PER_BLOCK * 2);
const NO_TREE = emptyTree();
const NO_INODES = new DataView(NOTHING.buffer);

/** Pointers; `below` stands at the first of them in a tree that is lower than the other: its root, further down. */
interface Side {
  readonly words: Uint32Array;
  readonly below: BlockTree | undefined;
}

/** A block of each state, for the walk at one depth: none is needed twice, so they are not cached, and used again. */
interface Depth {
  readonly old: Block;
  readonly now: Block;
}

export interface TwoStates {
  /** The older state; undefined: everything is new. */
  readonly before: FileRootRecord | undefined;
  readonly after: FileRootRecord;
  /** Blocks of the tree area: pointers to others are corrupt. */
  readonly firstVbn: number;
  readonly endVbn: number;
}

/** `vbnBefore`: what the block has come from, as it can be read and verified; 0: nothing is known, or it is contents. */
export type VisitNew = (vbn: number, checksum: number, vbnBefore: number) => void;

/**
 * Visits the blocks that stand somewhere in the state after and not at the same position in the state before. What lies below
 * a block of the state before that cannot be read counts as new. Throws CorruptionError and FsError EIO for a block of the
 * state after.
 */
export function eachNewBlock(
  device: BlockDevice,
  { before, after, firstVbn, endVbn }: TwoStates,
  visit: VisitNew,
): void {
  const depths: Depth[] = [];
  const treeBefore = before === undefined ? NO_TREE : treeOfRecord(before);
  compareTrees(treeBefore, treeOfRecord(after), { depth: 0, isMetadata: true, leaf: eachInode });

  interface Contents {
    readonly depth: number;
    readonly isMetadata: boolean;
    readonly leaf: ((depth: number, index: number, before: DataView, after: DataView) => void) | undefined;
  }

  function compareTrees(old: BlockTree, now: BlockTree, contents: Contents): void {
    const level = Math.max(old.height, now.height);
    compare(level, 0, sideOf(old, level), sideOf(now, level), contents);
  }

  /** Compares pointers to blocks of `level`, the first of which has the index `first`. */
  function compare(level: number, first: number, old: Side, now: Side, contents: Contents): void {
    const { depth } = contents;
    depths[depth] ??= { old: makeBlock(), now: makeBlock() };
    const blocks = depths[depth];
    for (let slot = 0; slot < now.words.length / 2; slot += 1) {
      const vbn = now.words[2 * slot] ?? 0;
      const vbnBefore = old.words[2 * slot] ?? 0;
      const sum = now.words[2 * slot + 1] ?? 0;
      const oldBelow = slot === 0 ? old.below : undefined;
      const nowBelow = slot === 0 ? now.below : undefined;
      const isSame = vbn === vbnBefore && sum === old.words[2 * slot + 1];
      if (isSame && oldBelow === undefined && nowBelow === undefined) continue;
      if (vbn === 0 && nowBelow === undefined) continue;
      if (level === 0 && !contents.isMetadata) {
        checkVbn(vbn);
        visit(vbn, sum, 0);
        continue;
      }
      const hasOld = vbnBefore !== 0 && tryRead(vbnBefore, old.words[2 * slot + 1] ?? 0, blocks.old);
      if (nowBelow === undefined) {
        read(vbn, sum, blocks.now);
        visit(vbn, sum, hasOld ? vbnBefore : 0);
      }
      const index = first + slot;
      if (level === 0) contents.leaf?.(depth + 1, index, hasOld ? blocks.old.view : NO_INODES, blocks.now.view);
      else {
        const oldSide =
          oldBelow === undefined ? sideIn(hasOld ? blocks.old.words : NOTHING) : sideOf(oldBelow, level - 1);
        const nowSide = nowBelow === undefined ? sideIn(blocks.now.words) : sideOf(nowBelow, level - 1);
        compare(level - 1, index * POINTERS_PER_BLOCK, oldSide, nowSide, { ...contents, depth: depth + 1 });
      }
    }
  }

  function read(vbn: number, expected: number, into: Block): void {
    checkVbn(vbn);
    device.read(vbn, 1, into.bytes, 0);
    const found = checksum(into.bytes);
    if (found !== expected) throw mismatch(vbn, found, expected);
  }

  function checkVbn(vbn: number): void {
    if (vbn >= firstVbn && vbn < endVbn) return;
    throw new CorruptionError(`block pointer ${vbn} is outside of the volume (${firstVbn} to ${endVbn - 1})`);
  }

  function tryRead(vbn: number, expected: number, into: Block): boolean {
    try {
      read(vbn, expected, into);
      return true;
    } catch (error) {
      if (error instanceof CorruptionError || error instanceof FsError) return false;
      throw error;
    }
  }

  function eachInode(depth: number, index: number, old: DataView, now: DataView): void {
    for (let i = 0; i < INODES_PER_BLOCK; i += 1) {
      const at = i * INODE_BYTES;
      if (isSameRoot(old, now, at)) continue;
      const isMetadata = index * INODES_PER_BLOCK + i < FIRST_FREE_INO || isDirectory(now, at);
      const tree = treeIn(now, at);
      if (tree !== NO_TREE) compareTrees(treeIn(old, at), tree, { depth, isMetadata, leaf: undefined });
    }
  }
}

function sideOf(tree: BlockTree, level: number): Side {
  if (level > tree.height) return { words: NOTHING, below: tree };
  return {
    words: new Uint32Array(tree.pointers.buffer, tree.pointers.byteOffset, tree.pointers.length / 4),
    below: undefined,
  };
}

function sideIn(words: Uint32Array): Side {
  return { words, below: undefined };
}

function isSameRoot(old: DataView, now: DataView, at: number): boolean {
  const from = at + inodeRecord.offset.root;
  for (let i = 0; i < fileRoot.size; i += 4) {
    if (old.getUint32(from + i, true) !== now.getUint32(from + i, true)) return false;
  }
  return true;
}

function isDirectory(view: DataView, at: number): boolean {
  return (inodeRecord.get.mode(view, at) & S_IFMT) === S_IFDIR;
}

/** A free inode, and one whose data lies in it, have no blocks. */
function treeIn(view: DataView, at: number): BlockTree {
  const isInline = (inodeRecord.get.flags(view, at) & INODE_INLINE) !== 0;
  if (isInline || inodeRecord.get.mode(view, at) === 0) return NO_TREE;
  return decodeTree(view, at + inodeRecord.offset.root);
}
