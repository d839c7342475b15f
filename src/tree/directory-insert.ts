/** Adding an entry to a directory: first plan, verify and dirty what it takes, then apply. */
import assert from "node:assert/strict";
import type { Block } from "../core/block.ts";
import { FsError } from "../core/errors.ts";
import {
  childOffset,
  entryHead,
  entryNeedsBytes,
  entryOffset,
  leafDefect,
  lowerBound,
  NODE_CHILDREN_MAX,
  NODE_FREE,
  NODE_LEVEL_MAX,
  NODE_MAGIC,
  nameIn,
  nodeDamage,
  nodeHeader,
  ORDINALS,
} from "../format/directory-node.ts";
import type { NodeFile } from "./directory.ts";
import {
  fitsAsIs,
  formatNode,
  leafRoomBytes,
  moveNode,
  type NewEntry,
  putChild,
  putEntry,
  splitInterior,
  splitLeaf,
} from "./directory-edit.ts";
import { type Path, pathTo, walk } from "./directory-search.ts";

/** A node that an operation has made its own and has not written to yet. */
interface NewNode {
  readonly index: number;
  readonly block: Block;
}

/** Adds an entry whose key is to be one of the ORDINALS from `firstKey` on. Returns the key. */
export function insertAt(dir: NodeFile, firstKey: number, entry: NewEntry): number {
  if (dir.nodeCount === 0) {
    const { index, block } = dir.appendNode();
    assert.equal(index, 0);
    formatNode(block, 0);
    putEntry(block, 0, firstKey, entry);
    return firstKey;
  }
  let path = pathTo(dir, firstKey);
  const key = isHashUnused(path, firstKey) ? firstKey : unusedKey(dir, firstKey, entry.name);
  if (key !== firstKey) path = pathTo(dir, key);

  const node = path.nodes.at(-1) as number;
  const { view } = path.blocks.at(-1) as Block;
  const slot = lowerBound(view, node, key);
  if (!fitsAsIs(view, entry.name)) {
    const defect = leafDefect(view);
    if (defect !== undefined) throw nodeDamage(node, defect);
    if (leafRoomBytes(view) < entryNeedsBytes(entry.name)) {
      insertWithSplit(dir, path, key, entry);
      return key;
    }
  }
  putEntry(dir.dirtyNode(node), slot, key, entry);
  return key;
}

/** True when a look at one leaf tells that no name has this hash: nearly always. */
function isHashUnused(path: Path, firstKey: number): boolean {
  const node = path.nodes.at(-1) as number;
  const { view } = path.blocks.at(-1) as Block;
  const slot = lowerBound(view, node, firstKey);
  if (slot === nodeHeader.get.count(view, 0)) return path.upper >= firstKey + ORDINALS;
  return entryHead.get.key(view, entryOffset(view, node, slot)) >= firstKey + ORDINALS;
}

/** The lowest key for this hash that no entry has. */
function unusedKey(dir: NodeFile, firstKey: number, name: string): number {
  let unused = firstKey;
  walk(dir, firstKey, (leaf, start, end, _ino, _type, key) => {
    if (key >= firstKey + ORDINALS) return false;
    assert(nameIn(leaf, start, end) !== name, "the name exists already");
    if (key === unused) unused++;
    return true;
  });
  if (unused === firstKey + ORDINALS)
    throw new FsError("ENOSPC", `${ORDINALS} names in this directory have the same hash`);
  return unused;
}

/** The leaf of the path is full. It is split, and with it each node above that is full too. */
function insertWithSplit(dir: NodeFile, path: Path, key: number, entry: NewEntry): void {
  const depth = path.nodes.length - 1;
  let top = depth - 1; // the lowest node that takes another child as it is; -1: even the root does not
  while (top >= 0 && nodeHeader.get.count((path.blocks[top] as Block).view, 0) === NODE_CHILDREN_MAX) top--;
  if (top < 0 && depth === NODE_LEVEL_MAX) throw new FsError("ENOSPC", "the directory's tree has its greatest height");

  const blocks = path.nodes.map((node, at) =>
    at === 0 || at >= top ? dir.dirtyNode(node) : (path.blocks[at] as Block),
  );
  const root = blocks[0] as Block;
  const { slots } = path;
  const fresh = takeNodes(dir, root, depth - top + (top < 0 ? 1 : 0));
  const next = (): NewNode => {
    const node = fresh.pop();
    assert(node !== undefined);
    return node;
  };

  // From here on nothing fails. A full root first moves down and gets one child: then there is always a node above.
  if (top < 0) {
    const moved = next();
    formatNode(moved.block, depth);
    moveNode(moved.block, root);
    formatNode(root, depth + 1);
    putChild(root, 0, 0, moved.index);
    blocks.splice(1, 0, moved.block);
    slots.unshift(0);
  }
  let right = next();
  const leaf = blocks.at(-1) as Block;
  let low = splitLeaf(leaf, right.block);
  const into = key < low ? leaf : right.block;
  putEntry(into, lowerBound(into.view, 0, key), key, entry);
  for (let at = blocks.length - 2; ; at--) {
    const parent = blocks[at] as Block;
    const slot = (slots[at] as number) + 1;
    if (nodeHeader.get.count(parent.view, 0) < NODE_CHILDREN_MAX) {
      putChild(parent, slot, low, right.index);
      break;
    }
    const rightParent = next();
    const parentLow = splitInterior(parent, rightParent.block);
    const middle = nodeHeader.get.count(parent.view, 0);
    if (slot <= middle) putChild(parent, slot, low, right.index);
    else putChild(rightParent.block, slot - middle, low, right.index);
    low = parentLow;
    right = rightParent;
  }
  assert.equal(fresh.length, 0);
}

/**
 * So many nodes to write to: from the free list first, then new ones. When this throws, nothing has changed; when it
 * returns, the free list has let go of them, which is the first change of the operation.
 */
function takeNodes(dir: NodeFile, root: Block, count: number): NewNode[] {
  const nodes: NewNode[] = [];
  let nextFree = nodeHeader.get.nextFree(root.view, 0);
  while (nodes.length < count && nextFree !== 0) {
    const index = nextFree;
    if (index >= dir.nodeCount) throw nodeDamage(index, `of ${dir.nodeCount} is on the free list`);
    const { view } = dir.node(index);
    if (nodeHeader.get.magic(view, 0) !== NODE_MAGIC || nodeHeader.get.kind(view, 0) !== NODE_FREE) {
      throw nodeDamage(index, "is on the free list and not free");
    }
    if (nodes.some((node) => node.index === index)) throw nodeDamage(index, "is on the free list twice");
    nextFree = nodeHeader.get.nextFree(view, 0);
    nodes.push({ index, block: dir.dirtyNode(index) });
  }
  const nodeCount = dir.nodeCount;
  try {
    while (nodes.length < count) nodes.push(dir.appendNode());
  } catch (error) {
    if (dir.nodeCount > nodeCount) dir.truncateNodes(nodeCount);
    throw error;
  }
  nodeHeader.set.nextFree(root.view, 0, nextFree);
  for (const node of nodes) node.block.bytes.fill(0, 0, childOffset(0));
  return nodes;
}
