/** One snapshot: 512 bytes, 8 in a block of the snapshot table. A record whose id is 0 is a free slot. */
import { checksum } from "../core/checksum.ts";
import { fileRoot, timeRecord } from "./inode.ts";
import { bytes, nested, type Struct, struct, text, u32, u64, type ValueOf } from "./struct.ts";

const shape = {
  id: u32, // number within the volume, never used twice; 0: the slot is free
  flags: u32, // SNAPSHOT_MIRROR
  uuid: bytes(16), // identity, shared by all copies of this snapshot
  cpCount: u64, // the consistency point it is
  createdAt: nested(timeRecord, "time"),
  activeBlocks: u32, // blocks in its plane
  usedInodes: u32,
  lineage: u32, // lineage of the active filesystem it was taken from
  root: nested(fileRoot, "file root"), // root of its inode file: all there is of a snapshot
  name: text(256), // 1 to 255 bytes
  reserved: bytes(52), // zero
  checksum: u32, // CRC-32 of the bytes before it
};
export type SnapshotRecord = ValueOf<typeof shape>;
export const snapshotRecord: Struct<typeof shape> = struct(512, shape);
export const SNAPSHOTS_PER_BLOCK = 8;

/** Taken by a mirror to hold the state it ships; not shown among the snapshots of the user. */
export const SNAPSHOT_MIRROR = 1;

/** Checksum that identifies the root: with the UUID it tells whether two snapshots are the same state. */
export function rootChecksum(record: Pick<SnapshotRecord, "root">): number {
  const encoded = new Uint8Array(fileRoot.size);
  fileRoot.encode(new DataView(encoded.buffer), 0, record.root);
  return checksum(encoded);
}
