/**
 * Where two trees of blocks differ: both are walked side by side, and where the pointers at one position are equal, all
 * below them is equal too and is not read. So the cost is that of what changed, whatever the size of the trees.
 */
import assert from "node:assert/strict";
import { POINTERS_PER_BLOCK, ROOT_POINTERS } from "../format/constants.ts";
import type { BlockStore } from "./block-store.ts";
import { type BlockTree, isDirty } from "./block-tree.ts";

/** A tree as it is on disk, and the store that its blocks are read from. */
export interface TreeSide {
  readonly store: BlockStore;
  readonly tree: BlockTree;
}

/** Pairs of VBN and checksum: of a block, or of a root. */
type Pointers = Uint32Array;

/** In place of a VBN: the root of a tree that is lower than the other one stands here. No volume has this block. */
const WHOLE_TREE = 0xffff_ffff;
const NOTHING: Pointers = new Uint32Array(POINTERS_PER_BLOCK * 2);

/**
 * Visits the indices of data blocks that are not the same in both trees, in their order. Neither tree may be inline or
 * dirty. Blocks that `visit` reads are its own business; it may begin operations of the stores. Throws CorruptionError.
 */
export function eachDifferentBlock(before: TreeSide, after: TreeSide, visit: (index: number) => void): void {
  assert(!isDirty(before.tree), "a tree that is compared has been written");
  assert(!isDirty(after.tree), "a tree that is compared has been written");
  const height = Math.max(before.tree.height, after.tree.height);
  compare(height, topOf(before, height), topOf(after, height), 0);

  /** Pointers to blocks of `level`, the first of which has the index `first`. */
  function compare(level: number, a: Pointers, b: Pointers, first: number): void {
    for (let at = 0; at < Math.max(a.length, b.length); at += 2) {
      const [vbnA = 0, sumA = 0, vbnB = 0, sumB = 0] = [a[at], a[at + 1], b[at], b[at + 1]];
      if (vbnA === vbnB && sumA === sumB) continue;
      const index = first + at / 2;
      if (level === 0) visit(index);
      else {
        const below = pointersIn(before, level, vbnA, sumA);
        compare(level - 1, below, pointersIn(after, level, vbnB, sumB), index * POINTERS_PER_BLOCK);
      }
    }
  }
}

/** What a root of this height would hold. */
function topOf({ tree }: TreeSide, height: number): Pointers {
  return tree.height === height ? rootOf(tree) : Uint32Array.of(WHOLE_TREE, 0);
}

/** A copy: what is in the store's hands may go while the blocks below are read. */
function pointersIn({ store, tree }: TreeSide, level: number, vbn: number, sum: number): Pointers {
  if (vbn === 0) return NOTHING;
  if (vbn !== WHOLE_TREE) return store.read(vbn, sum).words.slice();
  return level - 1 === tree.height ? rootOf(tree) : Uint32Array.of(WHOLE_TREE, 0);
}

function rootOf({ view }: BlockTree): Pointers {
  const words = new Uint32Array(ROOT_POINTERS * 2);
  for (let i = 0; i < words.length; i++) words[i] = view.getUint32(i * 4, true);
  return words;
}
