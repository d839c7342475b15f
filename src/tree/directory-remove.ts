/**
 * Removing an entry from a directory: first plan, verify and dirty what it takes, then apply.
 *
 * From the leaf upwards, a node that became empty is unlinked, and one that is less than a quarter full is merged with a
 * neighbour under the same parent when both fit into three quarters of a node, so that neither splits again at once.
 * The first node that is neither ends the way up. At the top, the only child of a root moves into it.
 */
import { BLOCK_BYTES, type Block } from "../core/block.ts";
import {
  childOffset,
  childRecord,
  entryBytes,
  entryOffset,
  leafDefect,
  NODE_BODY_BYTES,
  nameBytesAt,
  nodeDamage,
  nodeHeader,
} from "../format/directory-node.ts";
import type { DirectoryEntry, NodeFile } from "./directory.ts";
import {
  copyOf,
  dropChild,
  dropEntry,
  freeNode,
  mergeInteriors,
  mergeLeaves,
  moveNode,
  slotAndEntryBytes,
  usedBytes,
} from "./directory-edit.ts";
import { childAt, entryAt, leafOf, locate, type Path, pathTo, readNode, slotOf } from "./directory-search.ts";

const UNDERFULL_BYTES = NODE_BODY_BYTES / 4;
const MERGED_BYTES_MAX = (NODE_BODY_BYTES * 3) / 4;

/** What happens to the children of one parent: `freed` leaves it, after a merge into its left neighbour or empty. */
interface Step {
  readonly freed: number;
  /** Its slot in the parent. */
  readonly slot: number;
  /** Takes what `freed` has; undefined: `freed` is empty. */
  readonly mergeInto: number | undefined;
}

interface Plan {
  /** By depth, from the leaf's upwards: steps[0] is for the parent of the leaf. */
  readonly steps: readonly Step[];
  /** The directory becomes empty. */
  readonly isLast: boolean;
  /** Nodes from the root's only child downwards, each the only one of the one above; the last one moves into the root. */
  readonly collapse: readonly number[];
}

/** Removes the entry of a name. Undefined: there is none. */
export function removeAt(dir: NodeFile, firstKey: number, name: string): DirectoryEntry | undefined {
  const position = locate(dir, firstKey, name);
  if (position < 0) return undefined;
  const removed = entryAt(dir, position);
  const path = pathTo(dir, removed.key);
  const leaf = leafOf(position);
  if (path.nodes.at(-1) !== leaf) throw nodeDamage(leaf, `has key ${removed.key}, which belongs into another`);
  const slot = slotOf(position);
  checkRemovable((path.blocks.at(-1) as Block).view, leaf, slot);

  const plan = planRemoval(dir, path, slot);
  if (plan.isLast) dir.truncateNodes(0);
  else if (plan.steps.length === 0) dropEntry(dir.dirtyNode(leaf), slot);
  else applyRemoval(dir, path, slot, plan);
  return removed;
}

/** The bytes of the entry are among those that the header counts. */
function checkRemovable(view: DataView, leaf: number, slot: number): void {
  const offset = entryOffset(view, leaf, slot);
  const sizeBytes = entryBytes(nameBytesAt(view, leaf, offset));
  const heapStart = nodeHeader.get.heapStart(view, 0);
  const deadBytes = nodeHeader.get.deadBytes(view, 0);
  if (offset < heapStart || deadBytes + sizeBytes > BLOCK_BYTES - heapStart) {
    throw nodeDamage(
      leaf,
      `has ${deadBytes} dead bytes and an entry at byte ${offset}, entries from byte ${heapStart}`,
    );
  }
}

function planRemoval(dir: NodeFile, path: Path, leafSlot: number): Plan {
  const steps: Step[] = [];
  const leafView = (path.blocks.at(-1) as Block).view;
  let count = nodeHeader.get.count(leafView, 0) - 1;
  let bytes = usedBytes(leafView) - slotAndEntryBytes(leafView, leafSlot);
  for (let depth = path.nodes.length - 1; depth > 0; depth--) {
    const slot = path.slots[depth - 1] as number;
    const step =
      count === 0
        ? { freed: path.nodes[depth] as number, slot, mergeInto: undefined }
        : bytes < UNDERFULL_BYTES
          ? planMerge(dir, path, depth, bytes)
          : undefined;
    if (step === undefined) return { steps, isLast: false, collapse: [] };
    steps.push(step);
    const parent = (path.blocks[depth - 1] as Block).view;
    count = nodeHeader.get.count(parent, 0) - 1;
    bytes = usedBytes(parent) - childRecord.size;
  }
  const collapse = count === 1 && steps.length > 0 ? planCollapse(dir, path, steps.at(-1) as Step) : [];
  return { steps, isLast: count === 0, collapse };
}

/** A neighbour of the node at `depth`, which will have `bytes`, to be one with. */
function planMerge(dir: NodeFile, path: Path, depth: number, bytes: number): Step | undefined {
  const parentNode = path.nodes[depth - 1] as number;
  const parent = (path.blocks[depth - 1] as Block).view;
  const own = path.nodes[depth] as number;
  const ownSlot = path.slots[depth - 1] as number;
  const level = nodeHeader.get.level(parent, 0) - 1;
  for (const slot of [ownSlot + 1, ownSlot - 1]) {
    if (slot < 0 || slot >= nodeHeader.get.count(parent, 0)) continue;
    const other = childAt(dir, parent, parentNode, slot);
    if (other === own) throw nodeDamage(parentNode, `has node ${own} as a child twice`);
    const { view } = readNode(dir, other, level);
    if (bytes + usedBytes(view) > MERGED_BYTES_MAX) continue;
    if (level === 0) {
      checkLeaf((path.blocks[depth] as Block).view, own);
      checkLeaf(view, other);
    }
    return slot > ownSlot ? { freed: other, slot, mergeInto: own } : { freed: own, slot: ownSlot, mergeInto: other };
  }
  return undefined;
}

function checkLeaf(view: DataView, node: number): void {
  const defect = leafDefect(view);
  if (defect !== undefined) throw nodeDamage(node, defect);
}

/** The root keeps one of two children. If that one has not been touched it may have an only child itself, and so on. */
function planCollapse(dir: NodeFile, path: Path, step: Step): number[] {
  const root = (path.blocks[0] as Block).view;
  if (step.mergeInto !== undefined) return [step.mergeInto];
  const collapse: number[] = [];
  let node = 0;
  let view = root;
  let slot = 1 - step.slot;
  for (let level = nodeHeader.get.level(root, 0); level > 0; level--) {
    node = childAt(dir, view, node, slot);
    if (node === step.freed || path.nodes.includes(node)) throw nodeDamage(node, "is a child twice");
    collapse.push(node);
    view = readNode(dir, node, level - 1).view;
    if (nodeHeader.get.count(view, 0) > 1) break;
    slot = 0;
  }
  return collapse;
}

function applyRemoval(dir: NodeFile, path: Path, leafSlot: number, plan: Plan): void {
  const depthOfLeaf = path.nodes.length - 1;
  const topDepth = depthOfLeaf - plan.steps.length;
  const last = plan.collapse.at(-1);
  const becomesLeaf = last !== undefined && nodeHeader.get.level(dir.node(last).view, 0) === 0;

  // A root that becomes a leaf is all there is: the other nodes are worked on as copies, and their blocks given back.
  const blocks = new Map<number, Block>([[0, dir.dirtyNode(0)]]);
  const need = (node: number): void => {
    if (!blocks.has(node)) blocks.set(node, becomesLeaf ? copyOf(dir.node(node)) : dir.dirtyNode(node));
  };
  for (let depth = depthOfLeaf; depth >= topDepth; depth--) need(path.nodes[depth] as number);
  for (const step of plan.steps) {
    need(step.freed);
    if (step.mergeInto !== undefined) need(step.mergeInto);
  }
  for (const node of plan.collapse) need(node);
  if (becomesLeaf) dir.truncateNodes(1);

  // From here on nothing fails.
  const blockOf = (node: number | undefined): Block => blocks.get(node as number) as Block;
  const root = blockOf(0);
  dropEntry(blockOf(path.nodes[depthOfLeaf]), leafSlot);
  plan.steps.forEach((step, up) => {
    const parent = blockOf(path.nodes[depthOfLeaf - 1 - up]);
    const freed = blockOf(step.freed);
    if (step.mergeInto !== undefined) {
      const into = blockOf(step.mergeInto);
      if (up === 0) mergeLeaves(into, freed);
      else mergeInteriors(into, freed, childRecord.get.low(parent.view, childOffset(step.slot)));
    }
    dropChild(parent, step.slot);
    freeNode(root, step.freed, freed);
  });
  if (last !== undefined) {
    moveNode(root, blockOf(last));
    for (const node of plan.collapse) freeNode(root, node, blockOf(node));
  }
  if (becomesLeaf) nodeHeader.set.nextFree(root.view, 0, 0);
}
