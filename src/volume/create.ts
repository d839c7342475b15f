/** Formatting: an empty filesystem, made by a first consistency point like all others. */

import { BLOCK_BYTES } from "../core/block.ts";
import type { Clock } from "../core/clock.ts";
import { EPOCH } from "../core/clock.ts";
import { UserError } from "../core/errors.ts";
import { type Ino, ino } from "../core/numbers.ts";
import { type Random, randomUuid } from "../core/prng.ts";
import type { BlockDevice } from "../device/block-device.ts";
import {
  ACTIVE_MAP_INO,
  FIRST_FREE_INO,
  fsinfoVbns,
  INODE_MAP_INO,
  logAreaFor,
  ORPHAN_INO,
  ROOT_INO,
  reservedBlocksFor,
  VOLUME_BLOCKS_MAX,
  VOLUME_BLOCKS_MIN,
  VOLUME_MAGIC,
  VOLUME_VERSION,
} from "../format/constants.ts";
import { type Fsinfo, NO_FRAMES, ROLE_ACTIVE } from "../format/fsinfo.ts";
import { dirtyBlockAt, emptyTree, recordOfTree } from "../tree/block-tree.ts";
import type { Inode } from "../tree/inode-file.ts";
import { takeCp } from "./consistency-point.ts";
import { readFsinfoCopies } from "./fsinfo-copies.ts";
import { openState } from "./open.ts";
import { setBits } from "./space/map-words.ts";
import { regionCountOf } from "./space/plane.ts";

export interface CreateOptions {
  readonly device: BlockDevice;
  readonly clock: Clock;
  readonly random: Random;
  readonly label?: string;
  readonly uuid?: Uint8Array;
  /** Default: the whole device. */
  readonly blockCount?: number;
  /** Of the root directory. Default: root's. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;

/**
 * Writes an empty filesystem to the device and returns when it is durable. Whatever was there is lost.
 *
 * The inode map has the bits of all numbers below FIRST_FREE_INO set, whether there is such an inode or not; `usedInodes`
 * counts inodes that exist, the metadata files included.
 */
export function createVolume({
  device,
  clock,
  random,
  label = "",
  uuid = randomUuid(random),
  blockCount = device.blockCount,
  owner = { uid: 0, gid: 0 },
}: CreateOptions): void {
  if (blockCount < VOLUME_BLOCKS_MIN || blockCount > VOLUME_BLOCKS_MAX) {
    throw new UserError(
      "usage",
      `a volume has ${VOLUME_BLOCKS_MIN} to ${VOLUME_BLOCKS_MAX} blocks of 4 KiB, not ${blockCount}`,
      "give a --size between 256K and 16T",
    );
  }
  wipeFsinfo(device, blockCount);
  const fsinfo = emptyFsinfo({ clock, random, label, uuid, blockCount });
  const state = openState({ device, clock, random, writable: true }, fsinfo, []);
  const { active, store } = state;
  const made = new Map<Ino, Inode>();
  for (const number of [ACTIVE_MAP_INO, ROOT_INO, INODE_MAP_INO, ORPHAN_INO]) {
    const now = clock.now();
    const inode: Inode = {
      ino: ino(number),
      mode: number === ROOT_INO ? S_IFDIR | 0o755 : S_IFREG | 0o600,
      uid: number === ROOT_INO ? owner.uid : 0,
      gid: number === ROOT_INO ? owner.gid : 0,
      linkCount: number === ROOT_INO ? 2 : 1,
      rdev: 0,
      inline: false,
      generation: 0,
      parent: number === ROOT_INO ? ROOT_INO : 0,
      atime: now,
      mtime: now,
      ctime: now,
      btime: now,
      xattrIno: 0,
      orphanSlot: 0,
      donor: 0,
      entryCount: 0,
      tree: emptyTree(),
    };
    made.set(number, inode);
    active.markDirty(inode);
  }
  (made.get(ACTIVE_MAP_INO) as Inode).tree.sizeBytes = regionCountOf(blockCount) * BLOCK_BYTES;
  const inodeMap = made.get(INODE_MAP_INO) as Inode;
  setBits(dirtyBlockAt(store, inodeMap.tree, 0).words, 0, FIRST_FREE_INO);
  inodeMap.tree.sizeBytes = BLOCK_BYTES;
  active.counters.usedInodes = made.size;
  takeCp(state, "unmount");
}

/**
 * Ends the volume that was there before. Else a crash could leave one of its copies of fsinfo, with more consistency points
 * than a new volume has, above blocks that were written since.
 */
function wipeFsinfo(device: BlockDevice, blockCount: number): void {
  const old = readFsinfoCopies(device).map(({ vbn }) => vbn);
  const zeros = new Uint8Array(BLOCK_BYTES);
  for (const vbn of new Set([...old, ...fsinfoVbns(reservedBlocksFor(blockCount))])) {
    if (vbn < device.blockCount) device.writeDurable(vbn, zeros);
  }
}

function emptyFsinfo({
  clock,
  random,
  label,
  uuid,
  blockCount,
}: Required<Pick<CreateOptions, "clock" | "random" | "label" | "uuid" | "blockCount">>): Fsinfo {
  const nothing = recordOfTree(emptyTree());
  return {
    magic: VOLUME_MAGIC,
    version: VOLUME_VERSION,
    features: 0,
    uuid,
    label,
    blockCount,
    reservedBlocks: reservedBlocksFor(blockCount),
    cpCount: 0,
    logSeq: 0,
    createdAt: clock.now(),
    cpAt: clock.now(),
    inodeFile: nothing,
    snapshotTable: nothing,
    usedBlocks: 0,
    activeBlocks: 0,
    usedInodes: 0,
    generationNext: 1,
    snapshotIdNext: 1,
    lineage: 1,
    role: ROLE_ACTIVE,
    hashSeed: random.u32(),
    topUuid: new Uint8Array(16),
    receivedAt: EPOCH,
    ...logAreaFor(blockCount, reservedBlocksFor(blockCount)),
    logHead: 0,
    logNonce: NO_FRAMES,
    logUuid: new Uint8Array(16),
    reserved: new Uint8Array(BLOCK_BYTES - 532),
    checksum: 0,
  };
}
