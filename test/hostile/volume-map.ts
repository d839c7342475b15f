/**
 * Which block of a volume is what, and where it is pointed at from: so that a block can be changed by its structure, and summed
 * again up to fsinfo. A hostile volume has right checksums.
 */
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { checksum } from "../../src/core/checksum.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { blockPointer } from "../../src/format/block-pointer.ts";
import {
  ACTIVE_MAP_INO,
  fsinfoVbns,
  INODE_BYTES,
  INODE_MAP_INO,
  INODES_PER_BLOCK,
  ORPHAN_INO,
  POINTERS_PER_BLOCK,
  ROOT_POINTERS,
} from "../../src/format/constants.ts";
import { decodeFsinfo, fsinfoRecord } from "../../src/format/fsinfo.ts";
import { fileRoot, INODE_INLINE, inodeRecord } from "../../src/format/inode.ts";
import { SNAPSHOTS_PER_BLOCK, snapshotRecord } from "../../src/format/snapshot-record.ts";

export type BlockKind =
  | "fsinfo"
  | "snapshots"
  | "indirect"
  | "inodes"
  | "directory"
  | "active-map"
  | "inode-map"
  | "orphans"
  | "attributes"
  | "data";

export interface VolumeMap {
  readonly kinds: ReadonlyMap<number, BlockKind>;
  /** Places of the pointers to each block: bytes from the start of the device. */
  readonly slots: ReadonlyMap<number, readonly number[]>;
  /** From a block of the snapshot table to its second copy. */
  readonly copyDistance: number;
  readonly fsinfoVbns: readonly [number, number];
}

export function mapVolume(device: BlockDevice): VolumeMap {
  const kinds = new Map<number, BlockKind>([[0, "fsinfo"]]);
  const slots = new Map<number, number[]>();
  const block = (vbn: number): DataView => {
    const bytes = new Uint8Array(BLOCK_BYTES);
    device.read(vbn, 1, bytes, 0);
    return new DataView(bytes.buffer);
  };

  /** The file whose root lies there; each block of it once, however many states have it. */
  function file(view: DataView, at: number, base: number, kind: BlockKind, leaf: (vbn: number) => void): void {
    const below = (within: DataView, first: number, start: number, count: number, level: number): void => {
      for (let i = 0; i < count; i++) {
        const vbn = blockPointer.get.vbn(within, first + i * blockPointer.size);
        if (vbn === 0) continue;
        const known = slots.get(vbn) ?? [];
        slots.set(vbn, [...known, start + first + i * blockPointer.size]);
        if (known.length > 0) continue;
        kinds.set(vbn, level === 0 ? kind : "indirect");
        if (level > 0) below(block(vbn), 0, vbn * BLOCK_BYTES, POINTERS_PER_BLOCK, level - 1);
        else leaf(vbn);
      }
    };
    below(view, at + fileRoot.offset.pointers, base, ROOT_POINTERS, fileRoot.get.height(view, at));
  }

  function state(view: DataView, at: number, base: number): void {
    const inodeBlocks: number[] = [];
    file(view, at, base, "inodes", (vbn) => inodeBlocks.push(vbn));
    const numbered = inodeBlocks.map((vbn) => block(vbn));
    const hidden = new Set<number>();
    for (const inodes of numbered)
      for (let slot = 0; slot < INODES_PER_BLOCK; slot++)
        hidden.add(inodeRecord.get.xattrIno(inodes, slot * INODE_BYTES));
    for (const [i, inodes] of numbered.entries()) {
      for (let slot = 0; slot < INODES_PER_BLOCK; slot++) {
        const inode = slot * INODE_BYTES;
        const isInline = (inodeRecord.get.flags(inodes, inode) & INODE_INLINE) !== 0;
        if (inodeRecord.get.mode(inodes, inode) === 0 || isInline) continue;
        const kind = kindOf(inodes, inode, i * INODES_PER_BLOCK + slot, hidden);
        file(inodes, inode + inodeRecord.offset.root, (inodeBlocks[i] as number) * BLOCK_BYTES, kind, () => {});
      }
    }
  }

  const root = block(0);
  const { reservedBlocks, logFirst } = decodeFsinfo(new Uint8Array(root.buffer));
  const tables: number[] = [];
  file(root, fsinfoRecord.offset.snapshotTable, 0, "snapshots", (vbn) => tables.push(vbn));
  state(root, fsinfoRecord.offset.inodeFile, 0);
  for (const vbn of tables) {
    const records = block(vbn);
    for (let i = 0; i < SNAPSHOTS_PER_BLOCK; i++) {
      const at = i * snapshotRecord.size;
      if (snapshotRecord.get.id(records, at) !== 0) state(records, at + snapshotRecord.offset.root, vbn * BLOCK_BYTES);
    }
  }
  return { kinds, slots, copyDistance: Math.floor((logFirst - 1) / 2), fsinfoVbns: fsinfoVbns(reservedBlocks) };
}

function kindOf(view: DataView, at: number, ino: number, hidden: ReadonlySet<number>): BlockKind {
  if (ino === ACTIVE_MAP_INO) return "active-map";
  if (ino === INODE_MAP_INO) return "inode-map";
  if (ino === ORPHAN_INO) return "orphans";
  if (inodeRecord.get.mode(view, at) >>> 12 === 4) return "directory";
  return hidden.has(ino) ? "attributes" : "data";
}

/** Writes a changed block, and sums it and all above it again, as an attacker would. */
export function forge(device: BlockDevice, map: VolumeMap, vbn: number, bytes: Uint8Array): void {
  const kind = map.kinds.get(vbn);
  if (kind === "fsinfo") {
    fsinfoRecord.set.checksum(new DataView(bytes.buffer), 0, checksum(bytes.subarray(0, BLOCK_BYTES - 4)));
    for (const copy of map.fsinfoVbns) device.write(copy, 1, bytes, 0);
    return;
  }
  if (kind === "snapshots") sumRecords(bytes);
  device.write(vbn, 1, bytes, 0);
  if (kind === "snapshots") device.write(vbn + map.copyDistance, 1, bytes, 0);
  const sum = checksum(bytes);
  for (const slot of map.slots.get(vbn) ?? []) {
    const parent = Math.floor(slot / BLOCK_BYTES);
    const above = new Uint8Array(BLOCK_BYTES);
    device.read(parent, 1, above, 0);
    blockPointer.set.checksum(new DataView(above.buffer), slot % BLOCK_BYTES, sum);
    forge(device, map, parent, above);
  }
}

function sumRecords(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < SNAPSHOTS_PER_BLOCK; i++) {
    const at = i * snapshotRecord.size;
    if (snapshotRecord.get.id(view, at) === 0) continue;
    snapshotRecord.set.checksum(view, at, checksum(bytes.subarray(at, at + snapshotRecord.offset.checksum)));
  }
}
