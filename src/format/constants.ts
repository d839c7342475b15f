/** Numbers that the disk format fixes. */
import { BLOCK_BYTES } from "../core/block.ts";
import type { Ino } from "../core/numbers.ts";

/** "TIDEMARK" in ASCII. */
export const VOLUME_MAGIC: Uint8Array = new TextEncoder().encode("TIDEMARK");
export const VOLUME_VERSION = 2;

export const POINTER_BYTES = 8;
export const POINTERS_PER_BLOCK = BLOCK_BYTES / POINTER_BYTES; // 512
export const POINTER_SHIFT = 9;
/** Pointers in an inode, all of one level, as in WAFL. */
export const ROOT_POINTERS = 16;
/** Levels of indirect blocks at most: 16 x 512^4 blocks, more than a volume has. */
export const TREE_HEIGHT_MAX = 4;
/** File data of up to so many bytes lies in the inode, in place of its pointers. */
export const INLINE_BYTES_MAX = ROOT_POINTERS * POINTER_BYTES; // 128
/** Largest file: 2^32 - 1 blocks, so that a block index is a u32; 16 TiB less 4 KiB, as in ext4. */
export const FILE_BLOCKS_MAX = 0xffff_ffff;
export const FILE_BYTES_MAX = FILE_BLOCKS_MAX * BLOCK_BYTES;

export const INODE_BYTES = 256;
export const INODES_PER_BLOCK = BLOCK_BYTES / INODE_BYTES; // 16
export const INODE_SHIFT = 4;
export const NAME_BYTES_MAX = 255;
export const SYMLINK_BYTES_MAX = 4095;
export const LINK_COUNT_MAX = 0xffff_fff0;
export const XATTR_BYTES_MAX = 65536;

/** Inodes of the metadata files. The inode of the inode file itself is in fsinfo. */
export const ROOT_INO = 1 as Ino;
export const ACTIVE_MAP_INO = 2 as Ino;
export const INODE_MAP_INO = 3 as Ino;
export const ORPHAN_INO = 4 as Ino;
/** The first inode number that a file gets. */
export const FIRST_FREE_INO = 16 as Ino;
/** Longest orphan file: 2^26 orphans. Who claims more would have us count for ever. */
export const ORPHAN_BLOCKS_MAX = 65536;

/** Smallest volume: room for the reserved area, the metadata files and something to do. */
export const VOLUME_BLOCKS_MIN = 64;
export const VOLUME_BLOCKS_MAX = 0xffff_ffff;
export const RESERVED_BLOCKS_MIN = 16;
/** Both copies of fsinfo and the snapshot table have so many at most, the change log the rest. */
const TABLE_BLOCKS_MAX = 4096;
/** 32 MiB: some thousand small writes that are made durable one by one, between two consistency points. */
const LOG_BLOCKS_MAX = 8192;
/** A smaller log is none: it would be full after every second change. */
const LOG_BLOCKS_MIN = 8;
export const RESERVED_BLOCKS_MAX = TABLE_BLOCKS_MAX + LOG_BLOCKS_MAX;

/** Blocks at the front of a volume that the allocator never hands out: fsinfo, the snapshot table, the change log. */
export function reservedBlocksFor(blockCount: number): number {
  return tableBlocksFor(blockCount) + logBlocksFor(blockCount);
}

function tableBlocksFor(blockCount: number): number {
  return Math.min(TABLE_BLOCKS_MAX, Math.max(RESERVED_BLOCKS_MIN, Math.floor(blockCount / 64)));
}

function logBlocksFor(blockCount: number): number {
  const blocks = Math.min(LOG_BLOCKS_MAX, Math.floor(blockCount / 32));
  return blocks < LOG_BLOCKS_MIN ? 0 : blocks;
}

/** Where the change log lies: behind the snapshot table. `logBlocks` 0: there is none, as where more or less is reserved. */
export function logAreaFor(
  blockCount: number,
  reservedBlocks: number,
): { readonly logFirst: number; readonly logBlocks: number } {
  const logBlocks = reservedBlocks === reservedBlocksFor(blockCount) ? logBlocksFor(blockCount) : 0;
  return { logFirst: reservedBlocks - 1 - logBlocks, logBlocks };
}

/** Fsinfo lies in the first and in the last block of the reserved area; between them, the snapshot table and the log. */
export function fsinfoVbns(reservedBlocks: number): readonly [number, number] {
  return [0, reservedBlocks - 1];
}
