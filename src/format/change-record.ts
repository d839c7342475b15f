/**
 * What the change log consists of: frames, each a whole number of blocks, written at once and valid or not as a whole.
 *
 *     frame header | change, births, names, value | change ... | extent, bytes or checksums | extent ... | zeros
 *
 * The changes are what was done, in order; the extents are what the contents of the files they touched are after the
 * last of them.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { timeRecord } from "./inode.ts";
import { bytes, nested, type Struct, struct, u8, u16, u32, u64, type ValueOf } from "./struct.ts";

/** "TMCL", little-endian. */
export const LOG_FRAME_MAGIC = 0x4c43_4d54;
/** A frame that would be longer is none: a consistency point makes its changes durable. */
export const LOG_FRAME_BLOCKS_MAX = 1024;
export const LOG_FRAME_BYTES_MAX: number = LOG_FRAME_BLOCKS_MAX * BLOCK_BYTES;

const frameShape = {
  magic: u32, // "TMCL"
  checksum: u32, // CRC-32 of all bytes from here to the end of the frame
  nonce: bytes(8), // that of the fsinfo which the frame follows
  firstSeq: u64, // number of its first change
  lastSeq: u64, // number of its last change
  payloadBytes: u32, // bytes behind this header that are in use; zeros up to the end of the block follow
  changeCount: u32, // changes
  extentCount: u32, // extents
  durableSeq: u64, // number of the last change that was durable before this frame was written, 0: not known
  reserved: bytes(12), // zero
};
export type LogFrameHeader = ValueOf<typeof frameShape>;
export const logFrameHeader: Struct<typeof frameShape> = struct(64, frameShape);

const changeShape = {
  kind: u8, // changeKind
  birthCount: u8, // inodes that it made: their numbers and generations follow, each a birth
  nameBytes: u16, // length of the name, which follows
  intoNameBytes: u16, // rename: length of the second name, which follows
  present: u16, // set attributes: which are set, presentBit
  valueBytes: u32, // length of the target of a link or the value of an attribute, which follows
  ino: u32, // the inode that it is about, or the directory of the name
  generation: u32, // of that inode
  intoIno: u32, // rename: directory of the second name; link: the inode that gets the name
  mode: u32, // type and permissions; allocate: the mode of fallocate(2)
  uid: u32, // of the maker, or to be set
  gid: u32, // of the maker, or to be set
  umask: u32, // of the maker
  rdev: u32, // make: device number
  flags: u32, // of renameat2(2) and setxattr(2)
  offset: u64, // allocate: first byte; set attributes: the size
  length: u64, // allocate: bytes
  at: nested(timeRecord, "time"), // when it was done
  atime: nested(timeRecord, "time"), // to be set
  mtime: nested(timeRecord, "time"), // to be set
  ctime: nested(timeRecord, "time"), // to be set
};
export type ChangeRecord = ValueOf<typeof changeShape>;
export const changeRecord: Struct<typeof changeShape> = struct(112, changeShape);

const birthShape = { ino: u32, generation: u32 };
export const birthRecord: Struct<typeof birthShape> = struct(8, birthShape);

const extentShape = {
  ino: u32,
  generation: u32,
  index: u32, // first block of the file
  blockCount: u32,
  vbn: u32, // where the blocks lie, one after the other; a CRC-32 of each follows. 0: their bytes follow
  dataBytes: u32, // of what follows
};
export type ExtentRecord = ValueOf<typeof extentShape>;
export const extentRecord: Struct<typeof extentShape> = struct(24, extentShape);

export const changeKind = {
  make: 1,
  link: 2,
  unlink: 3,
  removeDirectory: 4,
  rename: 5,
  setAttributes: 6,
  /** Also a write, as far as it makes the file longer and stamps it: its contents are in an extent. */
  allocate: 7,
  setXattr: 8,
  removeXattr: 9,
} as const;

/** Bits of `present`. */
export const presentBit = {
  mode: 1,
  uid: 2,
  gid: 4,
  size: 8,
  atime: 16,
  mtime: 32,
  ctime: 64,
  killPriv: 128,
} as const;

/** Blocks of a frame with so many bytes behind its header. */
export function frameBlocks(payloadBytes: number): number {
  return Math.ceil((logFrameHeader.size + payloadBytes) / BLOCK_BYTES);
}
