/**
 * Giving dirty blocks their places: free blocks in long runs and in file order, written from the leaves up, so that each
 * parent gets the place and the checksum of its children before it is summed and written itself.
 *
 * Two steps, because the files that say which blocks are taken (the active map, and the inode file that holds its
 * inode) change while places are handed out: `assignPlaces` until nothing new gets dirty, then `sealNodes`. For all other
 * files one follows the other.
 */
import assert from "node:assert/strict";
import { checksum } from "../core/checksum.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { blockPointer } from "../format/block-pointer.ts";
import { POINTER_BYTES, POINTERS_PER_BLOCK } from "../format/constants.ts";
import type { BlockStore, CachedBlock } from "./block-store.ts";
import { type BlockTree, nodeKey, nodeKeyIndex, nodeKeyLevel, spaceOf } from "./block-tree.ts";

/** Collects blocks with neighbouring places into one write. */
export interface GatherWriter {
  write(vbn: number, block: Uint8Array): void;
  /** Writes what is collected. Until then the buffers must not change. */
  flush(): void;
  /** By the writes so far. */
  blocksWritten(): number;
}

const GATHER_BLOCKS_MAX = 512;

export function gatherWriter(device: Pick<BlockDevice, "writeGather">): GatherWriter {
  let first = 0;
  let pending: Uint8Array[] = [];
  let blocksWritten = 0;
  const flush = (): void => {
    if (pending.length === 0) return;
    device.writeGather(first, pending);
    blocksWritten += pending.length;
    pending = [];
  };
  return {
    write(vbn, block): void {
      if (vbn !== first + pending.length || pending.length >= GATHER_BLOCKS_MAX) {
        flush();
        first = vbn;
      }
      pending.push(block);
    },
    flush,
    blocksWritten: () => blocksWritten,
  };
}

/** Writes all dirty blocks of a file that is not part of the map fixpoint. Its root is right afterwards. */
export function placeTree(store: BlockStore, tree: BlockTree, writer: GatherWriter): void {
  placeData(store, tree, writer);
  assignPlaces(store, tree);
  sealNodes(store, tree, writer);
}

/**
 * Writes dirty data, so many blocks at most, to free blocks; their pointers go into the parents, which stay dirty. Returns
 * how many blocks that were.
 */
export function placeData(
  store: BlockStore,
  tree: BlockTree,
  writer: GatherWriter,
  blocksMax: number = Number.POSITIVE_INFINITY,
): number {
  const data = tree.dirtyData;
  if (data === undefined || data.size === 0) return 0;
  const space = spaceOf(store);
  const indexes = (data.size <= blocksMax ? Float64Array.from(data.keys()) : firstKeys(data, blocksMax)).toSorted();
  let done = 0;
  while (done < indexes.length) {
    const run = space.allocate(indexes.length - done);
    const length = space.runLength;
    for (let i = 0; i < length; i++) {
      const index = indexes[done + i] as number;
      const block = data.get(index) as CachedBlock;
      block.vbn = run + i;
      block.checksum = checksum(block.bytes);
      setPointer(tree, 0, index, block);
      writer.write(block.vbn, block.bytes);
    }
    done += length;
  }
  // Only now: where the device has refused a write, all of it is still shown.
  for (const index of indexes) store.retire(data.get(index) as CachedBlock);
  space.dirtied(-indexes.length);
  if (indexes.length === data.size) tree.dirtyData = undefined;
  else for (const index of indexes) data.delete(index);
  return indexes.length;
}

function firstKeys(data: ReadonlyMap<number, CachedBlock>, count: number): Float64Array {
  const keys = new Float64Array(count);
  let taken = 0;
  for (const key of data.keys()) {
    if (taken === count) break;
    keys[taken] = key;
    taken += 1;
  }
  return keys;
}

/**
 * Places and writes dirty nodes of a tree that has no dirty data, children first, so many at most; who changes them after
 * that makes them dirty again. Returns how many that were.
 */
export function placeNodes(store: BlockStore, tree: BlockTree, writer: GatherWriter, blocksMax: number): number {
  let done = 0;
  for (
    let nodes = tree.dirtyNodes;
    done < blocksMax && nodes !== undefined && nodes.size > 0;
    nodes = tree.dirtyNodes
  ) {
    const keys = lowestKeys(nodes, blocksMax - done);
    assignPlaces(store, tree, keys);
    sealNodes(store, tree, writer, keys);
    done += keys.length;
  }
  return done;
}

/** Some of the keys of the lowest level that there is. */
function lowestKeys(nodes: ReadonlyMap<number, CachedBlock>, countMax: number): Float64Array {
  let lowest = Number.POSITIVE_INFINITY;
  for (const key of nodes.keys()) lowest = Math.min(lowest, nodeKeyLevel(key));
  const keys: number[] = [];
  for (const key of nodes.keys()) {
    if (keys.length === countMax) break;
    if (nodeKeyLevel(key) === lowest) keys.push(key);
  }
  return Float64Array.from(keys).toSorted();
}

/** Gives dirty nodes without a place one. True when there was any: doing so may make nodes of the map dirty. */
export function assignPlaces(store: BlockStore, tree: BlockTree, keys?: Float64Array): boolean {
  const nodes = tree.dirtyNodes;
  if (nodes === undefined || nodes.size === 0) return false;
  const space = spaceOf(store);
  const homeless: CachedBlock[] = [];
  for (const key of keys ?? sortedKeys(nodes)) {
    const block = nodes.get(key) as CachedBlock;
    if (block.vbn === 0) homeless.push(block);
  }
  let done = 0;
  while (done < homeless.length) {
    const run = space.allocate(homeless.length - done);
    for (let i = 0; i < space.runLength; i++) (homeless[done + i] as CachedBlock).vbn = run + i;
    done += space.runLength;
  }
  space.dirtied(-homeless.length);
  return homeless.length > 0;
}

/**
 * Sums and writes dirty nodes, children first, and makes them clean: all, or those of some keys, below which nothing is
 * dirty. They have places; none changes before it is written.
 */
export function sealNodes(store: BlockStore, tree: BlockTree, writer: GatherWriter, keys?: Float64Array): void {
  const nodes = tree.dirtyNodes;
  if (nodes === undefined) return;
  for (const key of keys ?? sortedKeys(nodes)) {
    const block = nodes.get(key) as CachedBlock;
    assert(block.vbn !== 0, "sealed without a place");
    block.checksum = checksum(block.bytes);
    setPointer(tree, nodeKeyLevel(key), nodeKeyIndex(key), block);
    writer.write(block.vbn, block.bytes);
    store.insert(block);
    nodes.delete(key);
  }
  if (nodes.size === 0) tree.dirtyNodes = undefined;
}

/** Keys in ascending order: by level, then by index. */
function sortedKeys(nodes: ReadonlyMap<number, CachedBlock>): Float64Array {
  return Float64Array.from(nodes.keys()).toSorted();
}

function setPointer(tree: BlockTree, level: number, index: number, block: CachedBlock): void {
  let view = tree.view;
  let at = index * POINTER_BYTES;
  if (level < tree.height) {
    const parent = tree.dirtyNodes?.get(nodeKey(level + 1, Math.floor(index / POINTERS_PER_BLOCK)));
    assert(parent !== undefined, "the parent of a dirty block is dirty");
    view = parent.view;
    at = (index % POINTERS_PER_BLOCK) * POINTER_BYTES;
  }
  blockPointer.set.vbn(view, at, block.vbn);
  blockPointer.set.checksum(view, at, block.checksum);
}
