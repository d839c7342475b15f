/**
 * Verifying a directory that may contain anything. Each node is visited once at most and the levels descend, so that it
 * ends; a node that cannot be read costs its subtree and no more.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError } from "../core/errors.ts";
import type { Ino } from "../core/numbers.ts";
import {
  childOffset,
  childRecord,
  entryBytes,
  entryHead,
  isEntryType,
  KEY_END,
  leafDefect,
  leafSlot,
  NODE_FREE,
  NODE_LEVEL_MAX,
  NODE_MAGIC,
  nodeDefect,
  nodeHeader,
  ORDINALS,
  slotOffset,
} from "../format/directory-node.ts";
import type { NodeFile } from "./directory.ts";

export type VisitEntry = (name: string, ino: Ino, type: number, key: number) => void;

/** Keys from `low` up to `high` may lie in a subtree. */
interface Range {
  readonly low: number;
  readonly high: number;
}

interface Check {
  readonly dir: NodeFile;
  readonly firstKeyOf: (name: string) => number;
  readonly report: (finding: string) => void;
  readonly visitEntry: VisitEntry;
  /** Nodes reached so far. */
  readonly seen: Set<number>;
  /** Names of the hash that is being read: equal names have equal hashes and lie side by side. */
  readonly namesOfHash: Set<string>;
  hash: number;
}

/** Reports everything that is wrong in a directory. `firstKeyOf`: the first of the keys that a name can have. */
export function checkNodes(
  dir: NodeFile,
  firstKeyOf: (name: string) => number,
  report: (finding: string) => void,
  visitEntry: VisitEntry,
): void {
  if (dir.nodeCount === 0) return;
  const check = {
    dir,
    firstKeyOf,
    report,
    visitEntry,
    seen: new Set<number>(),
    namesOfHash: new Set<string>(),
    hash: -1,
  };
  const root = nodeView(check, 0);
  if (root === undefined) return;
  const level = nodeHeader.get.level(root, 0);
  check.seen.add(0);
  if (level > NODE_LEVEL_MAX) report(`directory node 0 says level ${level}`);
  else checkNode(check, root, 0, level, { low: 0, high: KEY_END });
  checkFreeList(check, nodeHeader.get.nextFree(root, 0));
  const lost = dir.nodeCount - check.seen.size;
  if (lost > 0) report(`${lost} of the directory's ${dir.nodeCount} nodes are neither in its tree nor free`);
  if (level === 0 && dir.nodeCount > 1) report(`the directory's root is a leaf, and there are ${dir.nodeCount} nodes`);
}

function nodeView(check: Check, index: number): DataView | undefined {
  try {
    return check.dir.node(index).view;
  } catch (error) {
    if (!(error instanceof CorruptionError)) throw error;
    check.report(`directory node ${index}: ${error.message}`);
    return undefined;
  }
}

/** Marks a node as reached. False, and a finding, when it cannot be: it is not in the file, or was reached before. */
function reach(check: Check, index: number, from: string): boolean {
  if (index === 0 || index >= check.dir.nodeCount)
    check.report(`${from} names node ${index} of ${check.dir.nodeCount}`);
  else if (check.seen.has(index)) check.report(`${from} names node ${index}, which is named elsewhere too`);
  else {
    check.seen.add(index);
    return true;
  }
  return false;
}

function checkNode(check: Check, view: DataView, index: number, level: number, range: Range): void {
  const defect = nodeDefect(view, level);
  if (defect !== undefined) {
    check.report(`directory node ${index} ${defect}`);
    return;
  }
  const nextFree = nodeHeader.get.nextFree(view, 0);
  if (index > 0 && nextFree !== 0) check.report(`directory node ${index} is in use and names free node ${nextFree}`);
  if (level === 0) checkEntries(check, view, index, range);
  else checkChildren(check, view, index, level, range);
}

function checkChildren(check: Check, view: DataView, index: number, level: number, range: Range): void {
  const { get } = nodeHeader;
  if (get.heapStart(view, 0) !== 0 || get.deadBytes(view, 0) !== 0) {
    check.report(`directory node ${index} is interior and has a heap`);
  }
  const count = get.count(view, 0);
  if (index === 0 && count === 1) check.report("the directory's root has one child");
  if (childRecord.get.low(view, childOffset(0)) !== 0)
    check.report(`directory node ${index} has a first child from above 0`);
  for (let slot = 0; slot < count; slot++) {
    const low = slot === 0 ? range.low : childRecord.get.low(view, childOffset(slot));
    const high = slot + 1 < count ? childRecord.get.low(view, childOffset(slot + 1)) : range.high;
    if (low >= high) check.report(`directory node ${index} has a child for keys from ${low} to ${high}`);
    const child = childRecord.get.node(view, childOffset(slot));
    if (!reach(check, child, `directory node ${index}`)) continue;
    const childView = nodeView(check, child);
    if (childView !== undefined) checkNode(check, childView, child, level - 1, { low, high });
  }
}

function checkEntries(check: Check, view: DataView, index: number, range: Range): void {
  const defect = leafDefect(view);
  if (defect !== undefined) check.report(`directory node ${index} ${defect}`);
  const extents: { readonly start: number; readonly end: number }[] = [];
  const count = nodeHeader.get.count(view, 0);
  for (let slot = 0; slot < count; slot++) {
    const start = leafSlot.get.entryOffset(view, slotOffset(slot));
    if (start < slotOffset(count) || start > BLOCK_BYTES - entryHead.size) continue; // leafDefect has reported it
    const nameBytes = entryHead.get.nameBytes(view, start);
    const end = start + entryBytes(nameBytes);
    if (nameBytes === 0 || end > BLOCK_BYTES) continue;
    extents.push({ start, end });
    checkEntry(check, view, index, start, range);
  }
  extents.sort((a, b) => a.start - b.start);
  extents.forEach(({ start }, n) => {
    const before = extents[n - 1];
    if (before !== undefined && before.end > start)
      check.report(`directory node ${index} has entries that overlap at byte ${start}`);
  });
}

function checkEntry(check: Check, view: DataView, index: number, offset: number, range: Range): void {
  const { key, ino, type, nameBytes } = entryHead.decode(view, offset);
  const name = Buffer.from(view.buffer, view.byteOffset + offset + entryHead.size, nameBytes).toString("latin1");
  const where = `directory node ${index}, entry ${JSON.stringify(name)}:`;
  if (key < range.low || key >= range.high)
    check.report(`${where} key ${key} is not from ${range.low} to ${range.high}`);
  const hash = key - (key % ORDINALS);
  const expected = check.firstKeyOf(name);
  if (hash !== expected) check.report(`${where} key ${key} is not one of those from ${expected} on`);
  if (hash !== check.hash) {
    check.namesOfHash.clear();
    check.hash = hash;
  }
  if (check.namesOfHash.has(name)) check.report(`${where} the name is there twice`);
  check.namesOfHash.add(name);
  if (ino === 0) check.report(`${where} inode 0`);
  if (!isEntryType(type)) check.report(`${where} no such file type: ${type}`);
  if (name === "." || name === ".." || name.includes("/") || name.includes("\0"))
    check.report(`${where} no possible name`);
  check.visitEntry(name, ino as Ino, type, key);
}

function checkFreeList(check: Check, head: number): void {
  let from = "the directory's free list";
  for (let index = head; index !== 0; ) {
    if (!reach(check, index, from)) return;
    const view = nodeView(check, index);
    if (view === undefined) return;
    if (nodeHeader.get.magic(view, 0) !== NODE_MAGIC || nodeHeader.get.kind(view, 0) !== NODE_FREE) {
      check.report(`directory node ${index} is on the free list and not free`);
      return;
    }
    from = `free directory node ${index}`;
    index = nodeHeader.get.nextFree(view, 0);
  }
}
