/** Contents of a file in memory, as far as they are not zero. Never changed, only replaced: versions share their blocks. */
import { BLOCK_BYTES } from "../../src/core/block.ts";

export interface SparseBytes {
  readonly length: number;
  /** Whole blocks by index. What is not there is zero; so is what lies behind the length. */
  readonly blocks: ReadonlyMap<number, Uint8Array>;
}

export const NO_BYTES: SparseBytes = { length: 0, blocks: new Map() };

export function sparseBytes(bytes: Uint8Array): SparseBytes {
  return overwrite(NO_BYTES, 0, bytes);
}

/** With these bytes at an offset, which may be behind the end. */
export function overwrite({ length, blocks: before }: SparseBytes, offset: number, bytes: Uint8Array): SparseBytes {
  const end = offset + bytes.length;
  const blocks = new Map(before);
  for (let at = offset; at < end; ) {
    const index = Math.floor(at / BLOCK_BYTES);
    const next = Math.min(end, (index + 1) * BLOCK_BYTES);
    const block = before.get(index)?.slice() ?? new Uint8Array(BLOCK_BYTES);
    block.set(bytes.subarray(at - offset, next - offset), at % BLOCK_BYTES);
    blocks.set(index, block);
    at = next;
  }
  return { length: Math.max(length, end), blocks };
}

/** With zeros from one offset up to another; as long as before. */
export function zeroed({ length, blocks: before }: SparseBytes, from: number, to: number): SparseBytes {
  const blocks = new Map<number, Uint8Array>();
  for (const [index, block] of before) {
    const start = index * BLOCK_BYTES;
    if (to <= start || from >= start + BLOCK_BYTES) blocks.set(index, block);
    else if (from > start || to < start + BLOCK_BYTES)
      blocks.set(index, block.slice().fill(0, Math.max(0, from - start), Math.min(BLOCK_BYTES, to - start)));
  }
  return { length, blocks };
}

export function resized(bytes: SparseBytes, length: number): SparseBytes {
  const { blocks } = length < bytes.length ? zeroed(bytes, length, Number.POSITIVE_INFINITY) : bytes;
  return { length, blocks };
}

/** As `Uint8Array.slice`. */
export function sliceOf({ length, blocks }: SparseBytes, from = 0, to = length): Uint8Array {
  const bytes = new Uint8Array(Math.max(0, Math.min(to, length) - from));
  for (let at = from; at < from + bytes.length; ) {
    const within = at % BLOCK_BYTES;
    const next = Math.min(from + bytes.length, at - within + BLOCK_BYTES);
    const block = blocks.get((at - within) / BLOCK_BYTES);
    if (block !== undefined) bytes.set(block.subarray(within, within + next - at), at - from);
    at = next;
  }
  return bytes;
}

/** Where the two differ first; undefined: nowhere. */
export function firstDifference(a: SparseBytes, b: SparseBytes): number | undefined {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  const zeros = new Uint8Array(BLOCK_BYTES);
  for (const index of [...new Set([...a.blocks.keys(), ...b.blocks.keys()])].toSorted((one, other) => one - other)) {
    const [left, right] = [a.blocks.get(index) ?? zeros, b.blocks.get(index) ?? zeros];
    const at = Buffer.compare(left, right) === 0 ? -1 : left.findIndex((byte, i) => byte !== right[i]);
    if (at >= 0) return index * BLOCK_BYTES + at;
  }
  return undefined;
}
