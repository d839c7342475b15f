/**
 * Patches: a block as what differs from an older one. A block of metadata is replaced whole when one pointer, one inode or a
 * few bits in it change, so a patch of it is some dozens of bytes.
 *
 * Blocks are compared in words of 4 bytes, as all that changes in metadata is made of them.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { PATCH_BYTES_MAX, segmentRecord } from "../format/image-frame.ts";

const WORD_BYTES = 4;
const BLOCK_WORDS = BLOCK_BYTES / WORD_BYTES;

/**
 * Writes the patch that makes `block` of `base`, both of 1024 words, to `into` from `at` on. Returns its length in bytes;
 * -1 when it would be longer than PATCH_BYTES_MAX.
 */
export function makePatch(base: Uint32Array, block: Uint32Array, into: DataView, at: number): number {
  let end = at;
  for (let word = 0; word < BLOCK_WORDS; ) {
    if (base[word] === block[word]) {
      word += 1;
      continue;
    }
    let next = word + 1; // one equal word costs no more than another segment
    while (next < BLOCK_WORDS && (base[next] !== block[next] || base[next + 1] !== block[next + 1])) next += 1;
    const bytes = (next - word) * WORD_BYTES;
    if (end + segmentRecord.size + bytes - at > PATCH_BYTES_MAX) return -1;
    segmentRecord.set.offset(into, end, word * WORD_BYTES);
    segmentRecord.set.bytes(into, end, bytes);
    end += segmentRecord.size;
    for (; word < next; word += 1, end += WORD_BYTES) into.setUint32(end, block[word] as number, true);
  }
  return end - at;
}

/** Whether the bytes from `at` on, so many, are a patch: segments that ascend within a block and fill it exactly. */
export function isPatch(view: DataView, at: number, bytes: number): boolean {
  const end = at + bytes;
  let next = 0;
  for (let from = at; from < end; ) {
    if (from + segmentRecord.size > end) return false;
    const offset = segmentRecord.get.offset(view, from);
    const length = segmentRecord.get.bytes(view, from);
    from += segmentRecord.size + length;
    if (offset < next || length < 1 || offset + length > BLOCK_BYTES || from > end) return false;
    next = offset + length;
  }
  return true;
}

/** Applies a patch, which `isPatch` has seen, to the base block that lies at `target` in `block`. */
export function applyPatch(patch: Uint8Array, block: Uint8Array, target: number): void {
  const view = new DataView(patch.buffer, patch.byteOffset, patch.length);
  for (let from = 0; from < patch.length; ) {
    const offset = segmentRecord.get.offset(view, from);
    const length = segmentRecord.get.bytes(view, from);
    from += segmentRecord.size;
    block.set(patch.subarray(from, from + length), target + offset);
    from += length;
  }
}
