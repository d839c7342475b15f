/** What stands in some blocks of a file, for the change log: bytes that are in memory only, places of those that have one. */
import { BLOCK_BYTES } from "../core/block.ts";
import { blockPointer } from "../format/block-pointer.ts";
import type { ExtentRecord } from "../format/change-record.ts";
import { POINTER_BYTES, POINTERS_PER_BLOCK, ROOT_POINTERS } from "../format/constants.ts";
import type { BlockStore } from "./block-store.ts";
import { type BlockTree, capacity, nodeAt } from "./block-tree.ts";
import type { Inode } from "./inode-file.ts";

export interface ChangeExtent extends ExtentRecord {
  /** The bytes, or where `vbn` is not 0, the checksums. */
  readonly data: Uint8Array;
}

/** Blocks of a file, both ends included. */
export interface BlockRange {
  readonly first: number;
  readonly last: number;
}

/**
 * Appends the extents of these ranges, which are in order of their first blocks and may overlap. Holes have none, and
 * nothing beyond the end of the file. Throws CorruptionError.
 */
export function fileExtents(
  store: BlockStore,
  inode: Inode,
  ranges: readonly BlockRange[],
  into: ChangeExtent[],
): void {
  const { tree } = inode;
  if (inode.inline) {
    if (tree.sizeBytes > 0) into.push(dataExtent(inode, 0, 1, tree.pointers.slice(0, tree.sizeBytes)));
    return;
  }
  const blocks = Math.ceil(tree.sizeBytes / BLOCK_BYTES);
  let next = 0;
  for (const { first, last } of ranges) {
    const end = Math.min(blocks, last + 1);
    next = Math.max(next, first);
    while (next < end) {
      const leaf = leafOf(store, tree, next);
      const span = tree.height === 0 ? ROOT_POINTERS : POINTERS_PER_BLOCK;
      next = extentFrom(inode, leaf, next, Math.min(end, (Math.floor(next / span) + 1) * span), into);
    }
  }
}

/** Where the pointers of a data block and its neighbours lie; undefined: in a hole. */
function leafOf(store: BlockStore, tree: BlockTree, index: number): DataView | undefined {
  if (index >= capacity(tree.height)) return undefined;
  if (tree.height === 0) return tree.view;
  return nodeAt(store, tree, 1, Math.floor(index / POINTERS_PER_BLOCK))?.view;
}

/** The extent that begins at block `first`, or a hole there. Returns the block after it. */
function extentFrom(
  inode: Inode,
  leaf: DataView | undefined,
  first: number,
  end: number,
  into: ChangeExtent[],
): number {
  const { tree } = inode;
  const dirty = tree.dirtyData;
  let next = first;
  if (dirty?.has(first) === true) {
    while (next < end && dirty.has(next)) next += 1;
    const sizeBytes = Math.min(next * BLOCK_BYTES, tree.sizeBytes) - first * BLOCK_BYTES;
    const data = new Uint8Array(sizeBytes);
    for (let index = first; index < next; index++) {
      const at = (index - first) * BLOCK_BYTES;
      const bytes = (dirty.get(index) as { readonly bytes: Uint8Array }).bytes;
      data.set(sizeBytes - at < BLOCK_BYTES ? bytes.subarray(0, sizeBytes - at) : bytes, at);
    }
    into.push(dataExtent(inode, first, next - first, data));
    return next;
  }
  const slotOf = (index: number): number => (tree.height === 0 ? index : index % POINTERS_PER_BLOCK) * POINTER_BYTES;
  const vbn = leaf === undefined ? 0 : blockPointer.get.vbn(leaf, slotOf(first));
  if (leaf === undefined || vbn === 0) return first + 1;
  while (next < end && blockPointer.get.vbn(leaf, slotOf(next)) === vbn + (next - first)) next += 1;
  const data = new Uint8Array((next - first) * 4);
  const sums = new DataView(data.buffer);
  for (let index = first; index < next; index++) {
    sums.setUint32((index - first) * 4, blockPointer.get.checksum(leaf, slotOf(index)), true);
  }
  const { ino, generation } = inode;
  into.push({ ino, generation, index: first, blockCount: next - first, vbn, dataBytes: data.length, data });
  return next;
}

function dataExtent({ ino, generation }: Inode, index: number, blockCount: number, data: Uint8Array): ChangeExtent {
  return { ino, generation, index, blockCount, vbn: 0, dataBytes: data.length, data };
}
