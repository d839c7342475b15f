/** Descending a directory's tree. Every node read is checked first, and every loop moves towards a bound. */
import type { Block } from "../core/block.ts";
import type { Ino } from "../core/numbers.ts";
import {
  childOffset,
  childRecord,
  childSlot,
  entryHead,
  entryOffset,
  isNameAt,
  KEY_END,
  lowerBound,
  NODE_LEVEL_MAX,
  nameBytesAt,
  nodeDamage,
  nodeDefect,
  nodeHeader,
  ORDINALS,
} from "../format/directory-node.ts";
import type { DirectoryEntry, NodeFile } from "./directory.ts";

/** The nodes from the root to the leaf in whose range a key lies. */
export interface Path {
  /** Their numbers; the root, 0, comes first. */
  readonly nodes: number[];
  readonly blocks: Block[];
  /** slots[depth]: which child of the node at `depth` the next one is. One fewer than nodes. */
  readonly slots: number[];
  /** Where the range of the leaf ends. */
  readonly upper: number;
}

/** A node that should be of this level. */
export function readNode(dir: NodeFile, index: number, level: number): Block {
  const block = dir.node(index);
  const defect = nodeDefect(block.view, level);
  if (defect !== undefined) throw nodeDamage(index, defect);
  return block;
}

export function readRoot(dir: NodeFile): Block {
  const block = dir.node(0);
  const level = nodeHeader.get.level(block.view, 0);
  if (level > NODE_LEVEL_MAX) throw nodeDamage(0, `says level ${level}`);
  const defect = nodeDefect(block.view, level);
  if (defect !== undefined) throw nodeDamage(0, defect);
  return block;
}

export function rootLevel(dir: NodeFile): number {
  return nodeHeader.get.level(readRoot(dir).view, 0);
}

/** Number of a child, which is a node of the file and not its root. */
export function childAt(dir: NodeFile, view: DataView, node: number, slot: number): number {
  const child = childRecord.get.node(view, childOffset(slot));
  if (child === 0 || child >= dir.nodeCount) throw nodeDamage(node, `has node ${child} of ${dir.nodeCount} as a child`);
  return child;
}

/** A position is a leaf and a slot in one number, so that finding allocates nothing. A leaf has fewer than 4096 slots. */
const SLOTS = 4096;

export function leafOf(position: number): number {
  return Math.floor(position / SLOTS);
}

export function slotOf(position: number): number {
  return position % SLOTS;
}

/** Position of the entry of a name, or -1. `firstKey`: the first of the keys that the name can have. */
export function locate(dir: NodeFile, firstKey: number, name: string): number {
  if (dir.nodeCount === 0) return -1;
  const endKey = firstKey + ORDINALS;
  for (let from = firstKey; from < endKey; ) {
    let index = 0;
    let upper = KEY_END;
    let { view } = readRoot(dir);
    for (let level = nodeHeader.get.level(view, 0); level > 0; level--) {
      const slot = childSlot(view, from);
      if (slot + 1 < nodeHeader.get.count(view, 0)) upper = childRecord.get.low(view, childOffset(slot + 1));
      index = childAt(dir, view, index, slot);
      view = readNode(dir, index, level - 1).view;
    }
    const count = nodeHeader.get.count(view, 0);
    for (let slot = lowerBound(view, index, from); slot < count; slot++) {
      const offset = entryOffset(view, index, slot);
      if (entryHead.get.key(view, offset) >= endKey) return -1;
      if (isNameAt(view, index, offset, name)) return index * SLOTS + slot;
    }
    from = upper; // above `from`; names of the same hash may go on in the next leaf
  }
  return -1;
}

export function entryAt(dir: NodeFile, position: number): DirectoryEntry {
  const { view } = dir.node(leafOf(position));
  const offset = entryOffset(view, leafOf(position), slotOf(position));
  return {
    key: entryHead.get.key(view, offset),
    ino: entryHead.get.ino(view, offset) as Ino,
    type: entryHead.get.type(view, offset),
  };
}

/** The way to the leaf for a key. The directory must not be empty. */
export function pathTo(dir: NodeFile, key: number): Path {
  const nodes = [0];
  const blocks = [readRoot(dir)];
  const slots: number[] = [];
  let upper = KEY_END;
  let index = 0;
  let { view } = blocks[0] as Block;
  for (let level = nodeHeader.get.level(view, 0); level > 0; level--) {
    const slot = childSlot(view, key);
    if (slot + 1 < nodeHeader.get.count(view, 0)) upper = childRecord.get.low(view, childOffset(slot + 1));
    index = childAt(dir, view, index, slot);
    const block = readNode(dir, index, level - 1);
    view = block.view;
    nodes.push(index);
    blocks.push(block);
    slots.push(slot);
  }
  return { nodes, blocks, slots, upper };
}

/** Of these leaves the disk reads some while names of others are listed. */
const PREFETCHED = 16;

/** An entry; its name is the bytes of `leaf` from `start` up to `end`, which stay what they are until it returns. */
export type VisitInLeaf = (
  leaf: Uint8Array,
  start: number,
  end: number,
  ino: Ino,
  type: number,
  key: number,
) => boolean;

/** Visits the entries whose keys are not below `fromKey` in their order, until `visit` returns false. */
export function walk(dir: NodeFile, fromKey: number, visit: VisitInLeaf): void {
  if (dir.nodeCount === 0) return;
  for (let from = fromKey; from < KEY_END; ) {
    const path = pathTo(dir, from);
    prefetchNext(dir, path);
    const { upper } = path;
    if (!visitLeaf(path.blocks.at(-1) as Block, path.nodes.at(-1) as number, from, upper, visit)) return;
    from = upper; // above `from`: the search has found it to be above the key it looked for
  }
}

/** Leaves in the order of their keys lie anywhere on the disk: each is asked for some way before it is read. */
function prefetchNext(dir: NodeFile, { blocks, slots }: Path): void {
  const slot = slots.at(-1);
  if (slot === undefined || slot % PREFETCHED !== 0) return;
  const { view } = blocks.at(-2) as Block;
  const end = Math.min(nodeHeader.get.count(view, 0), slot + 2 * PREFETCHED);
  for (let next = slot === 0 ? 1 : slot + PREFETCHED; next < end; next++) {
    dir.prefetch(childRecord.get.node(view, childOffset(next)));
  }
}

/** A small loop of its own, which V8 has optimized soon after a mount. False: `visit` wants no more. */
function visitLeaf({ view, bytes }: Block, node: number, fromKey: number, upper: number, visit: VisitInLeaf): boolean {
  const { get, size } = entryHead;
  const count = nodeHeader.get.count(view, 0);
  let from = fromKey;
  for (let slot = lowerBound(view, node, from); slot < count; slot++) {
    const offset = entryOffset(view, node, slot);
    const key = get.key(view, offset);
    if (key < from || key >= upper) throw nodeDamage(node, `has key ${key} where ${from} to ${upper} may be`);
    const start = offset + size;
    const end = start + nameBytesAt(view, node, offset);
    if (!visit(bytes, start, end, get.ino(view, offset) as Ino, get.type(view, offset), key)) return false;
    from = key + 1;
  }
  return true;
}
