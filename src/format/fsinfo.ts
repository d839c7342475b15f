/**
 * Fsinfo: the root of everything, one block, in two copies at fixed places. The only blocks ever written in place.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { CorruptionError } from "../core/errors.ts";
import { sameBytes } from "../core/uuid.ts";
import {
  RESERVED_BLOCKS_MAX,
  RESERVED_BLOCKS_MIN,
  VOLUME_BLOCKS_MIN,
  VOLUME_MAGIC,
  VOLUME_VERSION,
} from "./constants.ts";
import { fileRoot, timeRecord } from "./inode.ts";
import { bytes, nested, type Struct, struct, text, u32, u64, type ValueOf } from "./struct.ts";

const shape = {
  magic: bytes(8), // "TIDEMARK"
  version: u32, // format version; an unknown one is refused
  features: u32, // required feature bits; an unknown one is refused
  uuid: bytes(16), // identity of the volume, shared by its mirrors and copies
  label: text(64), // for people
  blockCount: u32, // blocks of the volume
  reservedBlocks: u32, // blocks at the front that the allocator never hands out
  cpCount: u64, // number of this consistency point
  logSeq: u64, // number of the last change contained
  createdAt: nested(timeRecord, "time"), // when the volume was formatted
  cpAt: nested(timeRecord, "time"), // when this consistency point began
  inodeFile: nested(fileRoot, "file root"), // root of the inode file
  snapshotTable: nested(fileRoot, "file root"), // root of the snapshot table, whose blocks lie in the reserved area
  usedBlocks: u32, // blocks in the active map or in any bit plane, the reserved area not counted
  activeBlocks: u32, // blocks in the active map, the reserved area not counted
  usedInodes: u32, // inodes in use
  generationNext: u32, // generation number of the next inode
  snapshotIdNext: u32, // number of the next snapshot
  lineage: u32, // grows when the active filesystem is set back to a snapshot
  role: u32, // 0: own active filesystem; 1: mirror, changed by image streams only
  hashSeed: u32, // seed of the directory hash
  topUuid: bytes(16), // mirror: snapshot that the active filesystem equals; zero: none
  receivedAt: nested(timeRecord, "time"), // mirror: when that snapshot was switched to
  logFirst: u32, // first block of the change log, in the reserved area; the snapshot table ends before it
  logBlocks: u32, // blocks of the change log, 0: there is none
  logHead: u32, // block of the log, counted from logFirst, where the first frame after this consistency point begins
  logNonce: bytes(8), // frames with another one are of another time; zero: there are none
  logUuid: bytes(16), // identity of the file that has the change log instead; zero: it is in the reserved area
  reserved: bytes(BLOCK_BYTES - 532), // zero
  checksum: u32, // CRC-32 of all bytes before it
};
export type Fsinfo = ValueOf<typeof shape>;
export const fsinfoRecord: Struct<typeof shape> = struct(BLOCK_BYTES, shape);

/** A million changes a second for a century. */
const LOG_SEQ_MAX = 2 ** 52;

/** The nonce of a state that no frames follow: of a volume that is new, has been unmounted, or has received an image. */
export const NO_FRAMES: Uint8Array = new Uint8Array(8);

export const ROLE_ACTIVE = 0;
export const ROLE_MIRROR = 1;

/** The block that commits a consistency point. */
export function encodeFsinfo(fsinfo: Fsinfo): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  const view = new DataView(block.buffer);
  fsinfoRecord.encode(view, 0, fsinfo);
  fsinfoRecord.set.checksum(view, 0, checksum(block.subarray(0, BLOCK_BYTES - 4)));
  return block;
}

/**
 * Reads one copy. Throws CorruptionError that says what is wrong: not a volume, a version or feature from
 * the future, a bad checksum, impossible sizes.
 */
export function decodeFsinfo(block: Uint8Array): Fsinfo {
  const view = new DataView(block.buffer, block.byteOffset, BLOCK_BYTES);
  if (!sameBytes(fsinfoRecord.get.magic(view, 0), VOLUME_MAGIC))
    throw new CorruptionError("not a Tidemark volume: magic missing");
  const found = checksum(block.subarray(0, BLOCK_BYTES - 4));
  const expected = fsinfoRecord.get.checksum(view, 0);
  if (found !== expected) throw new CorruptionError(`fsinfo checksum is ${hex(found)}, expected ${hex(expected)}`);
  const version = fsinfoRecord.get.version(view, 0);
  if (version !== VOLUME_VERSION)
    throw new CorruptionError(`volume has format version ${version}, this program reads ${VOLUME_VERSION}`);
  const features = fsinfoRecord.get.features(view, 0);
  if (features !== 0)
    throw new CorruptionError(`volume needs features ${hex(features)} that this program does not have`);
  const fsinfo = fsinfoRecord.decode(new DataView(Uint8Array.from(block).buffer), 0);
  if (
    fsinfo.blockCount < VOLUME_BLOCKS_MIN ||
    fsinfo.reservedBlocks < RESERVED_BLOCKS_MIN ||
    fsinfo.reservedBlocks > RESERVED_BLOCKS_MAX ||
    fsinfo.reservedBlocks >= fsinfo.blockCount
  ) {
    throw new CorruptionError(`fsinfo has ${fsinfo.blockCount} blocks, ${fsinfo.reservedBlocks} of them reserved`);
  }
  if (fsinfo.logSeq > LOG_SEQ_MAX) throw new CorruptionError(`fsinfo has change number ${fsinfo.logSeq}`);
  const { logFirst, logBlocks, logHead, logUuid, reservedBlocks } = fsinfo;
  const isHeadBeyond = logHead > logBlocks && isZero(logUuid); // the head in another file is bounded by that
  if (logFirst < 1 || logFirst + logBlocks !== reservedBlocks - 1 || isHeadBeyond) {
    throw new CorruptionError(
      `fsinfo has a change log of ${logBlocks} blocks from ${logFirst} on, of ${reservedBlocks} reserved ones, with its head at ${logHead}`,
    );
  }
  return fsinfo;
}

function isZero(value: Uint8Array): boolean {
  return value.every((byte) => byte === 0);
}

function hex(n: number): string {
  return `0x${n.toString(16).padStart(8, "0")}`;
}
