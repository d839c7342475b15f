/** Numbers that the disk format fixes. */
import { BLOCK_BYTES } from "../core/block.ts";
import type { Ino } from "../core/numbers.ts";

/** "TIDEMARK" in ASCII. */
export const VOLUME_MAGIC: Uint8Array = new TextEncoder().encode("TIDEMARK");
export const VOLUME_VERSION = 1;

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

/** Smallest volume: room for the reserved area, the metadata files and something to do. */
export const VOLUME_BLOCKS_MIN = 64;
export const VOLUME_BLOCKS_MAX = 0xffff_ffff;
export const RESERVED_BLOCKS_MIN = 16;
export const RESERVED_BLOCKS_MAX = 4096;

/** Blocks at the front of a volume that the allocator never hands out: fsinfo and the snapshot table. */
export function reservedBlocksFor(blockCount: number): number {
  return Math.min(RESERVED_BLOCKS_MAX, Math.max(RESERVED_BLOCKS_MIN, Math.floor(blockCount / 64)));
}

/** Fsinfo lies in the first and in the last block of the reserved area; between them, the snapshot table. */
export function fsinfoVbns(reservedBlocks: number): readonly [number, number] {
  return [0, reservedBlocks - 1];
}
