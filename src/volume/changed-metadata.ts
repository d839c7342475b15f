/**
 * Which block of an older state a block of metadata has come from: the two trees are walked side by side, and what stands at
 * the same position in both, changed, is such a pair. Equal subtrees are not read, so the cost is that of what changed.
 *
 *     inode file: indirect blocks, blocks of inodes --each inode that is not the same--> its tree: indirect blocks,
 *                                                            and the contents of directories, maps, lists of orphans
 *
 * Contents of files are left out: what an application has written has seldom much in common with what was there.
 */
import { type Block, makeBlock } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { FIRST_FREE_INO, INODE_BYTES, INODES_PER_BLOCK, POINTERS_PER_BLOCK } from "../format/constants.ts";
import { type FileRootRecord, fileRoot, INODE_INLINE, inodeRecord } from "../format/inode.ts";
import { type BlockStore, mismatch } from "../tree/block-store.ts";
import { type BlockTree, decodeTree, emptyTree, treeOfRecord } from "../tree/block-tree.ts";

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const NOTHING = new Uint32Array(POINTERS_PER_BLOCK * 2);

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

/** Both VBNs are of blocks that are read and verified here. */
export type VisitPair = (vbn: number, vbnBefore: number) => void;

/**
 * Visits each pair of blocks of metadata that stand at the same position in the state after and in the state before and are
 * not the same. A block of the state before that cannot be read has no pair, nor has what lies below it. Throws
 * CorruptionError and FsError EIO for one of the state after.
 */
export function eachChangedMetadata(
  store: BlockStore,
  { before, after }: { readonly before: FileRootRecord; readonly after: FileRootRecord },
  visit: VisitPair,
): void {
  const depths: Depth[] = [];
  compareTrees(treeOfRecord(before), treeOfRecord(after), { depth: 0, isMetadata: true, leaf: eachInode });

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
    if (level === 0 && !contents.isMetadata) return;
    const { depth } = contents;
    depths[depth] ??= { old: makeBlock(), now: makeBlock() };
    const blocks = depths[depth];
    for (let slot = 0; slot < now.words.length / 2; slot += 1) {
      const vbn = now.words[2 * slot] ?? 0;
      const vbnBefore = old.words[2 * slot] ?? 0;
      const oldBelow = slot === 0 ? old.below : undefined;
      const nowBelow = slot === 0 ? now.below : undefined;
      const isSame = vbn === vbnBefore && now.words[2 * slot + 1] === old.words[2 * slot + 1];
      if (isSame && oldBelow === undefined && nowBelow === undefined) continue;
      const hasNow = vbn !== 0 || nowBelow !== undefined;
      const hasOld = vbnBefore !== 0 || oldBelow !== undefined;
      if (!hasNow || !hasOld) continue; // nothing below has an older block
      if (oldBelow === undefined && !tryRead(vbnBefore, old.words[2 * slot + 1] ?? 0, blocks.old)) continue;
      if (nowBelow === undefined) read(vbn, now.words[2 * slot + 1] ?? 0, blocks.now);
      if (vbn !== 0 && vbnBefore !== 0) visit(vbn, vbnBefore);
      const index = first + slot;
      if (level === 0) contents.leaf?.(depth + 1, index, blocks.old.view, blocks.now.view);
      else {
        const oldSide = oldBelow === undefined ? sideIn(blocks.old) : sideOf(oldBelow, level - 1);
        const nowSide = nowBelow === undefined ? sideIn(blocks.now) : sideOf(nowBelow, level - 1);
        compare(level - 1, index * POINTERS_PER_BLOCK, oldSide, nowSide, { ...contents, depth: depth + 1 });
      }
    }
  }

  function read(vbn: number, expected: number, into: Block): void {
    store.readData(vbn, 1, into.bytes, 0);
    const found = checksum(into.bytes);
    if (found !== expected) throw mismatch(vbn, found, expected);
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
      compareTrees(treeIn(old, at), treeIn(now, at), { depth, isMetadata, leaf: undefined });
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

function sideIn({ words }: Block): Side {
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
  if (isInline || inodeRecord.get.mode(view, at) === 0) return emptyTree();
  return decodeTree(view, at + inodeRecord.offset.root);
}
