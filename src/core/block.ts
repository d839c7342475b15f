/** The block: the unit of allocation, of checksums and of transfer. */

export const BLOCK_BYTES = 4096;
export const BLOCK_SHIFT = 12;
/** One map block has one bit for each block of a region: 32768 blocks, 128 MiB. */
export const REGION_BLOCKS = BLOCK_BYTES * 8;
export const REGION_SHIFT = 15;
export const REGION_WORDS = BLOCK_BYTES / 4;

/** A block in memory: one buffer, seen as bytes, as fields and as 1024 words. */
export interface Block {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly words: Uint32Array;
}

export function makeBlock(buffer: ArrayBufferLike = new ArrayBuffer(BLOCK_BYTES), offset = 0): Block {
  return {
    bytes: new Uint8Array(buffer, offset, BLOCK_BYTES),
    view: new DataView(buffer, offset, BLOCK_BYTES),
    words: new Uint32Array(buffer, offset, BLOCK_BYTES / 4),
  };
}

/** Blocks needed for so many bytes. */
export function blocksFor(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES);
}
