/**
 * Changes within single nodes of a directory. Nothing here can fail: callers have verified the nodes (leafDefect,
 * nodeDefect), made them dirty and know that there is room. What is no longer used is zeroed, so that a removed name
 * does not travel on in copies and streams.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES, type Block } from "../core/block.ts";
import type { Ino } from "../core/numbers.ts";
import {
  childOffset,
  childRecord,
  entryBytes,
  entryHead,
  entryNeedsBytes,
  leafSlot,
  leafUsedBytes,
  NODE_BODY_BYTES,
  NODE_CHILDREN_MAX,
  NODE_FREE,
  NODE_INTERIOR,
  NODE_LEAF,
  NODE_MAGIC,
  nodeHeader,
  slotOffset,
} from "../format/directory-node.ts";

const { get, set } = nodeHeader;

/** What an entry is to say; its key is chosen by the directory. */
export interface NewEntry {
  readonly name: string;
  readonly ino: Ino;
  readonly type: number;
}

/** Makes an empty leaf (level 0) or interior node of a block. `nextFree` stays: it belongs to the file, not to the node. */
export function formatNode(block: Block, level: number): void {
  const nextFree = get.nextFree(block.view, 0);
  block.bytes.fill(0);
  set.magic(block.view, 0, NODE_MAGIC);
  set.kind(block.view, 0, level === 0 ? NODE_LEAF : NODE_INTERIOR);
  set.level(block.view, 0, level);
  set.heapStart(block.view, 0, level === 0 ? BLOCK_BYTES : 0);
  set.nextFree(block.view, 0, nextFree);
}

/** Puts a node on the free list, whose head is in the root. */
export function freeNode(root: Block, index: number, block: Block): void {
  block.bytes.fill(0);
  set.magic(block.view, 0, NODE_MAGIC);
  set.kind(block.view, 0, NODE_FREE);
  set.nextFree(block.view, 0, get.nextFree(root.view, 0));
  set.nextFree(root.view, 0, index);
}

/** Copies a node into another's place, but for `nextFree`. */
export function moveNode(into: Block, from: Block): void {
  const nextFree = get.nextFree(into.view, 0);
  into.bytes.set(from.bytes);
  set.nextFree(into.view, 0, nextFree);
}

/** Does the entry of this name fit between slots and entries as they lie? */
export function fitsAsIs(view: DataView, name: string): boolean {
  return slotOffset(get.count(view, 0)) + entryNeedsBytes(name) <= get.heapStart(view, 0);
}

/** Puts an entry at a slot. There is room for it, perhaps after compaction. */
export function putEntry(leaf: Block, slot: number, key: number, entry: NewEntry): void {
  const { view, bytes } = leaf;
  if (!fitsAsIs(view, entry.name)) compact(leaf);
  assert(fitsAsIs(view, entry.name));
  const offset = takeHeap(leaf, slot, entryBytes(entry.name.length));
  entryHead.set.key(view, offset, key);
  entryHead.set.ino(view, offset, entry.ino);
  entryHead.set.type(view, offset, entry.type);
  entryHead.set.nameBytes(view, offset, entry.name.length);
  const start = offset + entryHead.size;
  for (let i = 0; i < entry.name.length; i++) bytes[start + i] = entry.name.charCodeAt(i);
}

export function setInode(leaf: Block, slot: number, ino: Ino, type: number): void {
  const offset = leafSlot.get.entryOffset(leaf.view, slotOffset(slot));
  entryHead.set.ino(leaf.view, offset, ino);
  entryHead.set.type(leaf.view, offset, type);
}

/** Takes the entry out of a slot. */
export function dropEntry(leaf: Block, slot: number): void {
  const { view, bytes } = leaf;
  const offset = leafSlot.get.entryOffset(view, slotOffset(slot));
  const sizeBytes = entryBytes(entryHead.get.nameBytes(view, offset));
  const count = get.count(view, 0) - 1;
  bytes.fill(0, offset, offset + sizeBytes);
  bytes.copyWithin(slotOffset(slot), slotOffset(slot + 1), slotOffset(count + 1));
  bytes.fill(0, slotOffset(count), slotOffset(count + 1));
  set.count(view, 0, count);
  if (offset === get.heapStart(view, 0)) set.heapStart(view, 0, offset + sizeBytes);
  else set.deadBytes(view, 0, get.deadBytes(view, 0) + sizeBytes);
}

/** Moves the upper half of a leaf's bytes into `right`, an unused block. Returns the lowest key there. */
export function splitLeaf(left: Block, right: Block): number {
  const source = copyOf(left);
  const count = get.count(source.view, 0);
  const halfBytes = leafUsedBytes(source.view) / 2;
  let middle = 0;
  for (let bytes = 0; middle < count - 1 && bytes < halfBytes; middle++)
    bytes += slotAndEntryBytes(source.view, middle);
  assert(middle > 0);
  formatNode(left, 0);
  formatNode(right, 0);
  appendEntries(left, source, 0, middle);
  appendEntries(right, source, middle, count);
  return entryHead.get.key(right.view, leafSlot.get.entryOffset(right.view, slotOffset(0)));
}

/** Adds the entries of the leaf `right`, whose keys are above, to `left`. */
export function mergeLeaves(left: Block, right: Block): void {
  compact(left);
  appendEntries(left, right, 0, get.count(right.view, 0));
}

/** Puts a child at a slot of an interior node that is not full. */
export function putChild(node: Block, slot: number, low: number, child: number): void {
  const count = get.count(node.view, 0);
  assert(count < NODE_CHILDREN_MAX);
  node.bytes.copyWithin(childOffset(slot + 1), childOffset(slot), childOffset(count));
  childRecord.set.low(node.view, childOffset(slot), low);
  childRecord.set.node(node.view, childOffset(slot), child);
  set.count(node.view, 0, count + 1);
}

/** Takes out a child; its range goes to its left neighbour or, if it was the first, to the right one. */
export function dropChild(node: Block, slot: number): void {
  const count = get.count(node.view, 0) - 1;
  node.bytes.copyWithin(childOffset(slot), childOffset(slot + 1), childOffset(count + 1));
  node.bytes.fill(0, childOffset(count), childOffset(count + 1));
  set.count(node.view, 0, count);
  if (count > 0) childRecord.set.low(node.view, childOffset(0), 0);
}

/** Moves the upper half of the children into `right`, an unused block. Returns the lowest key there. */
export function splitInterior(left: Block, right: Block): number {
  const count = get.count(left.view, 0);
  const middle = count >>> 1;
  formatNode(right, get.level(left.view, 0));
  right.bytes.set(left.bytes.subarray(childOffset(middle), childOffset(count)), childOffset(0));
  set.count(right.view, 0, count - middle);
  left.bytes.fill(0, childOffset(middle), childOffset(count));
  set.count(left.view, 0, middle);
  const low = childRecord.get.low(right.view, childOffset(0));
  childRecord.set.low(right.view, childOffset(0), 0);
  return low;
}

/** Adds the children of `right` to `left`; `low` is where the range of `right` began. */
export function mergeInteriors(left: Block, right: Block, low: number): void {
  const leftCount = get.count(left.view, 0);
  const rightCount = get.count(right.view, 0);
  assert(leftCount + rightCount <= NODE_CHILDREN_MAX);
  left.bytes.set(right.bytes.subarray(childOffset(0), childOffset(rightCount)), childOffset(leftCount));
  childRecord.set.low(left.view, childOffset(leftCount), low);
  set.count(left.view, 0, leftCount + rightCount);
}

/** A private copy of a node. */
export function copyOf(block: Block): Block {
  const bytes = block.bytes.slice();
  return { bytes, view: new DataView(bytes.buffer), words: new Uint32Array(bytes.buffer) };
}

/** Lays the entries of a leaf side by side again. */
function compact(leaf: Block): void {
  if (get.deadBytes(leaf.view, 0) === 0) return;
  const source = copyOf(leaf);
  formatNode(leaf, 0);
  appendEntries(leaf, source, 0, get.count(source.view, 0));
}

/** Adds the entries in the slots from `start` up to `end` of a leaf to another. */
function appendEntries(into: Block, from: Block, start: number, end: number): void {
  for (let slot = start; slot < end; slot++) {
    const source = leafSlot.get.entryOffset(from.view, slotOffset(slot));
    const sizeBytes = entryBytes(entryHead.get.nameBytes(from.view, source));
    const offset = takeHeap(into, get.count(into.view, 0), sizeBytes);
    into.bytes.set(from.bytes.subarray(source, source + sizeBytes), offset);
  }
}

/** Makes a slot and gives it bytes for its entry. Returns their offset. */
function takeHeap(leaf: Block, slot: number, sizeBytes: number): number {
  const { view, bytes } = leaf;
  const count = get.count(view, 0);
  const offset = get.heapStart(view, 0) - sizeBytes;
  assert(slotOffset(count + 1) <= offset, "entry would run into the slots");
  bytes.copyWithin(slotOffset(slot + 1), slotOffset(slot), slotOffset(count));
  leafSlot.set.entryOffset(view, slotOffset(slot), offset);
  set.heapStart(view, 0, offset);
  set.count(view, 0, count + 1);
  return offset;
}

/** Bytes of the entry of a slot and of the slot itself. */
export function slotAndEntryBytes(view: DataView, slot: number): number {
  const offset = leafSlot.get.entryOffset(view, slotOffset(slot));
  return leafSlot.size + entryBytes(entryHead.get.nameBytes(view, offset));
}

/** Bytes of a node's body in use. */
export function usedBytes(view: DataView): number {
  return get.kind(view, 0) === NODE_LEAF ? leafUsedBytes(view) : get.count(view, 0) * childRecord.size;
}

/** Room for entries in a leaf, after compaction. */
export function leafRoomBytes(view: DataView): number {
  return NODE_BODY_BYTES - leafUsedBytes(view);
}
