/**
 * A node of a directory: one block of the directory's file, and one node of a B+tree ordered by a numeric key.
 *
 *   leaf       header | slots, growing up -->   unused   <-- entries, growing down
 *   interior   header | children, in the order of their keys | unused
 *   free       header | zero
 *
 * The slots of a leaf are sorted by the key of the entry that each points at; the entries lie in any order. The range
 * of child n is from its `low` up to the `low` of child n + 1; the `low` of the first child is always 0, because its
 * range begins where the parent's does. The root is node 0, so that 0 as a node number says "none".
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError } from "../core/errors.ts";
import { NAME_BYTES_MAX } from "./constants.ts";
import { type Struct, struct, u8, u16, u32, u64, type ValueOf } from "./struct.ts";

const headerShape = {
  magic: u32, // "TMDN"
  kind: u8, // 1: leaf; 2: interior; 3: free
  level: u8, // height above the leaves, 0 in a leaf and in a free node
  count: u16, // leaf: entries; interior: children; never 0 in these. Free: 0
  heapStart: u16, // leaf: offset of the first byte that an entry has taken. Else 0
  deadBytes: u16, // leaf: bytes from heapStart on that belong to no entry any more, all zero. Else 0
  nextFree: u32, // root: the first free node; free node: the next one; 0: there is none. Else 0
};
export type NodeHeader = ValueOf<typeof headerShape>;
export const nodeHeader: Struct<typeof headerShape> = struct(16, headerShape);

const slotShape = {
  entryOffset: u16, // where the entry begins, from the start of the block
};
export type LeafSlot = ValueOf<typeof slotShape>;
export const leafSlot: Struct<typeof slotShape> = struct(2, slotShape);

const entryShape = {
  key: u64, // hash of the name * 256 + ordinal; below 2^52
  ino: u32, // inode number, never 0
  type: u8, // file type as in readdir(3), DT_*
  nameBytes: u8, // length of the name that follows, 1 to 255
};
export type EntryHead = ValueOf<typeof entryShape>;
/** The head of an entry; the bytes of the name follow it. */
export const entryHead: Struct<typeof entryShape> = struct(14, entryShape);

const childShape = {
  low: u64, // lowest key of the child's range; 0 in the first child
  node: u32, // number of the child's node
};
export type ChildRecord = ValueOf<typeof childShape>;
export const childRecord: Struct<typeof childShape> = struct(12, childShape);

/** "TMDN" in ASCII, as it lies on the disk. */
export const NODE_MAGIC = 0x4e444d54;
export const NODE_LEAF = 1;
export const NODE_INTERIOR = 2;
export const NODE_FREE = 3;
/** Bytes of a node that slots and entries, or children, can take. */
export const NODE_BODY_BYTES: number = BLOCK_BYTES - nodeHeader.size;
export const NODE_CHILDREN_MAX: number = NODE_BODY_BYTES / childRecord.size;
/** Level of the root at most. Nodes are a third full or better in practice: seven levels exceed a file of 2^32 blocks. */
export const NODE_LEVEL_MAX = 8;

/** Names of equal hash that a directory can hold. */
export const ORDINALS = 256;
/** Above all keys. */
export const KEY_END = 2 ** 52;

/** File types of directory entries, as in readdir(3). They are bits 12 to 15 of the mode. */
export const DT_FIFO = 1;
export const DT_CHR = 2;
export const DT_DIR = 4;
export const DT_BLK = 6;
export const DT_REG = 8;
export const DT_LNK = 10;
export const DT_SOCK = 12;
const typeBits =
  (1 << DT_FIFO) | (1 << DT_CHR) | (1 << DT_DIR) | (1 << DT_BLK) | (1 << DT_REG) | (1 << DT_LNK) | (1 << DT_SOCK);

export function isEntryType(type: number): boolean {
  return type >= 0 && type < 16 && ((typeBits >>> type) & 1) === 1;
}

/**
 * The first of the 256 keys that a name can have: its hash of 44 bits, keyed by the volume's seed, times 256.
 * Two lanes of 32 bits. A byte's step is a bijection of both, so that what was apart stays apart but for the final cut
 * to 44 bits; lane b takes in the high bits of lane a and gives its own back, as a product only carries upwards.
 */
export function firstKeyOf(seed: number, name: string): number {
  let a = seed ^ 0x243f6a88;
  let b = Math.imul(seed, 0x9e3779b1) ^ name.length;
  for (let i = 0; i < name.length; i++) {
    a = Math.imul(a ^ name.charCodeAt(i), 0x85ebca6b);
    b = Math.imul(b ^ (a >>> 15) ^ a, 0xc2b2ae35);
    a ^= b >>> 13;
  }
  a = Math.imul(a ^ (a >>> 16), 0x7feb352d);
  b = Math.imul(b ^ a ^ (b >>> 15), 0x846ca68b);
  a = Math.imul(a ^ b ^ (b >>> 16), 0x21f0aaad);
  b = Math.imul(b ^ a ^ (a >>> 15), 0x735a2d97);
  a ^= b >>> 15;
  b ^= b >>> 16;
  return ((a >>> 0) * 4096 + (b >>> 20)) * ORDINALS;
}

/** What is wrong with the header of a node that should be of this level, or undefined. Hot: one call a node read. */
export function nodeDefect(view: DataView, level: number): string | undefined {
  if (nodeHeader.get.magic(view, 0) !== NODE_MAGIC) return "has no magic";
  const kind = nodeHeader.get.kind(view, 0);
  if (kind !== (level === 0 ? NODE_LEAF : NODE_INTERIOR)) return `is of kind ${kind} at level ${level}`;
  if (nodeHeader.get.level(view, 0) !== level) return `says level ${nodeHeader.get.level(view, 0)}, not ${level}`;
  const count = nodeHeader.get.count(view, 0);
  if (count === 0) return "is empty";
  if (level > 0) return count > NODE_CHILDREN_MAX ? `has ${count} children` : undefined;
  const heapStart = nodeHeader.get.heapStart(view, 0);
  if (heapStart > BLOCK_BYTES || slotOffset(count) > heapStart)
    return `has ${count} slots and entries from byte ${heapStart}`;
  const deadBytes = nodeHeader.get.deadBytes(view, 0);
  if (deadBytes > BLOCK_BYTES - heapStart) return `has ${deadBytes} dead bytes, entries from byte ${heapStart}`;
  return undefined;
}

export function nodeDamage(node: number, what: string): CorruptionError {
  return new CorruptionError(`directory node ${node} ${what}`);
}

/** Offset of a slot of a leaf. */
export function slotOffset(slot: number): number {
  return nodeHeader.size + slot * leafSlot.size;
}

/** Offset of a child of an interior node. */
export function childOffset(slot: number): number {
  return nodeHeader.size + slot * childRecord.size;
}

/** Where the entry of a slot begins; its head, but not yet its name, lies in the block. `node` is for the message. */
export function entryOffset(view: DataView, node: number, slot: number): number {
  const offset = leafSlot.get.entryOffset(view, slotOffset(slot));
  if (offset > BLOCK_BYTES - entryHead.size) throw nodeDamage(node, `has an entry at byte ${offset}`);
  return offset;
}

/** Bytes of an entry whose name has so many. */
export function entryBytes(nameBytes: number): number {
  return entryHead.size + nameBytes;
}

/** Bytes of the name of the entry at `offset`, all of which lie in the block. */
export function nameBytesAt(view: DataView, node: number, offset: number): number {
  const nameBytes = entryHead.get.nameBytes(view, offset);
  if (nameBytes === 0 || offset + entryBytes(nameBytes) > BLOCK_BYTES) {
    throw nodeDamage(node, `has a name of ${nameBytes} bytes at byte ${offset}`);
  }
  return nameBytes;
}

/** Names are latin1 strings, one char a byte. */
export function nameIn(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("latin1");
}

/** First slot of a leaf whose key is not below `key`; `count` when there is none. */
export function lowerBound(view: DataView, node: number, key: number): number {
  let low = 0;
  let high = nodeHeader.get.count(view, 0);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (entryHead.get.key(view, entryOffset(view, node, middle)) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Slot of the child in whose range `key` lies. The `low` of the next slot, if there is one, is above `key`. */
export function childSlot(view: DataView, key: number): number {
  let low = 1; // the first child begins at 0 whatever its record says
  let high = nodeHeader.get.count(view, 0);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (childRecord.get.low(view, childOffset(middle)) <= key) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Is this the name of the entry at `offset`? Compares char codes with bytes: nothing is allocated. */
export function isNameAt(view: DataView, node: number, offset: number, name: string): boolean {
  const nameBytes = nameBytesAt(view, node, offset);
  if (nameBytes !== name.length) return false;
  const start = offset + entryHead.size;
  for (let i = 0; i < nameBytes; i++) if (view.getUint8(start + i) !== name.charCodeAt(i)) return false;
  return true;
}

/** Bytes of a leaf's body in use: slots and living entries. */
export function leafUsedBytes(view: DataView): number {
  const { get } = nodeHeader;
  return get.count(view, 0) * leafSlot.size + BLOCK_BYTES - get.heapStart(view, 0) - get.deadBytes(view, 0);
}

/** Bytes that the slot and the entry of a name take. */
export function entryNeedsBytes(name: string): number {
  return leafSlot.size + entryBytes(name.length);
}

/**
 * What is wrong with the entries of a leaf whose header is right, or undefined. A leaf without a defect can be
 * rearranged: keys ascend, and its entries have exactly the bytes that the header says.
 */
export function leafDefect(view: DataView): string | undefined {
  const { get } = nodeHeader;
  const heapStart = get.heapStart(view, 0);
  let heapBytes = 0;
  let previous = -1;
  for (let slot = 0; slot < get.count(view, 0); slot++) {
    const offset = leafSlot.get.entryOffset(view, slotOffset(slot));
    if (offset < heapStart || offset > BLOCK_BYTES - entryHead.size) return `has an entry at byte ${offset}`;
    const nameBytes = entryHead.get.nameBytes(view, offset);
    if (nameBytes === 0 || offset + entryBytes(nameBytes) > BLOCK_BYTES) {
      return `has a name of ${nameBytes} bytes at byte ${offset}`;
    }
    const key = entryHead.get.key(view, offset);
    if (key <= previous || key >= KEY_END) return `has key ${key} after key ${previous}`;
    previous = key;
    heapBytes += entryBytes(nameBytes);
  }
  const expected = BLOCK_BYTES - heapStart - get.deadBytes(view, 0);
  return heapBytes === expected ? undefined : `has entries of ${heapBytes} bytes, its header says ${expected}`;
}

/** Can this be the name of an entry? 1 to 255 bytes, one char each. What a path may not contain is the caller's matter. */
export function isEntryName(name: string): boolean {
  if (name.length === 0 || name.length > NAME_BYTES_MAX) return false;
  let seen = 0;
  for (let i = 0; i < name.length; i++) seen |= name.charCodeAt(i);
  return seen <= 0xff;
}
