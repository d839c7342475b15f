/**
 * The two copies of fsinfo: the only blocks written in place, and the moment at which a consistency point happens.
 *
 * They are written one after the other, each durable before the next, after everything they lead to is durable. A crash
 * can tear one of them, never both: the other is whole, and is either the state before or the same state.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError, UserError } from "../core/errors.ts";
import { sameBytes } from "../core/uuid.ts";
import type { BlockDevice } from "../device/block-device.ts";
import {
  fsinfoVbns,
  RESERVED_BLOCKS_MAX,
  RESERVED_BLOCKS_MIN,
  reservedBlocksFor,
  VOLUME_MAGIC,
} from "../format/constants.ts";
import { decodeFsinfo, type Fsinfo } from "../format/fsinfo.ts";

/** What is wrong with one copy; undefined: nothing. */
export interface FsinfoCopy {
  readonly vbn: number;
  readonly fsinfo: Fsinfo | undefined;
  readonly problem: string | undefined;
}

/**
 * Both copies as they are. The first names the place of the second; when the first is damaged the second is looked for where
 * a volume of the device's size has it, and then at every block where it can lie.
 */
export function readFsinfoCopies(device: BlockDevice): readonly [FsinfoCopy, FsinfoCopy] {
  const first = readCopy(device, 0);
  if (first.fsinfo !== undefined) return [first, readCopy(device, fsinfoVbns(first.fsinfo.reservedBlocks)[1])];
  const usual = fsinfoVbns(reservedBlocksFor(device.blockCount))[1];
  const guess = readCopy(device, usual);
  if (guess.fsinfo !== undefined) return [first, guess];
  for (let reserved = RESERVED_BLOCKS_MIN; reserved <= Math.min(RESERVED_BLOCKS_MAX, device.blockCount); reserved++) {
    const vbn = fsinfoVbns(reserved)[1];
    if (!hasMagic(device, vbn)) continue;
    const copy = readCopy(device, vbn);
    if (copy.fsinfo !== undefined && copy.fsinfo.reservedBlocks === reserved) return [first, copy];
  }
  return [first, guess];
}

/** A reader beside the writer can catch a copy half written, and would fall back to the other, older one: it looks again. */
const READ_TRIES_MAX = 4;

function readCopy(device: BlockDevice, vbn: number): FsinfoCopy {
  if (vbn >= device.blockCount) return { vbn, fsinfo: undefined, problem: "beyond the end of the device" };
  const block = new Uint8Array(BLOCK_BYTES);
  for (let tried = 1; ; tried += 1) {
    device.read(vbn, 1, block, 0);
    try {
      return { vbn, fsinfo: decodeFsinfo(block), problem: undefined };
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      if (tried === READ_TRIES_MAX) return { vbn, fsinfo: undefined, problem: error.message };
    }
  }
}

/** The newest copy that verifies. Throws UserError "corrupt" when there is none, and says what was found in each. */
export function readFsinfo(device: BlockDevice): Fsinfo {
  const [first, second] = readFsinfoCopies(device);
  const newest = newer(first.fsinfo, second.fsinfo);
  if (newest === undefined) {
    const { path = "the device" } = device;
    if (![first, second].some(({ vbn }) => hasMagic(device, vbn))) {
      throw new UserError(
        "corrupt",
        `${path} is not a Tidemark volume: neither block ${first.vbn} nor block ${second.vbn} has its root`,
        "tidemark format makes one; one whose start and end were written over can be restored from image files",
      );
    }
    throw new UserError(
      "corrupt",
      `neither copy of the root of ${path} can be used: block ${first.vbn}: ${first.problem}; block ${second.vbn}: ${second.problem}`,
      "where they are damaged, restore the volume from image files",
    );
  }
  if (newest.blockCount > device.blockCount) {
    throw new UserError(
      "corrupt",
      `the volume has ${newest.blockCount} blocks, but its file only ${device.blockCount}`,
      "the file has been cut short: restore it",
    );
  }
  return newest;
}

function newer(a: Fsinfo | undefined, b: Fsinfo | undefined): Fsinfo | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return b.cpCount > a.cpCount ? b : a;
}

/** True when the device holds a volume, damaged or not: formatting would destroy it. */
export function looksLikeVolume(device: BlockDevice): boolean {
  if (readFsinfoCopies(device).some((copy) => copy.fsinfo !== undefined)) return true;
  return hasMagic(device, 0);
}

function hasMagic(device: BlockDevice, vbn: number): boolean {
  if (vbn >= device.blockCount) return false;
  const block = new Uint8Array(BLOCK_BYTES);
  device.read(vbn, 1, block, 0);
  return sameBytes(block.subarray(0, VOLUME_MAGIC.length), VOLUME_MAGIC);
}

/**
 * Makes both copies the newest, durably. Whoever is going to write to a volume does this first: a crash may have left one copy
 * behind, and as long as that is so the other must not be written in place, and what it has freed must not be used.
 *
 * Both are written even if they read well: a process that was killed, or a write that failed, may have left a copy that is in
 * the host's memory and not on the disk. The newest first: the other place is whole on the disk until it is.
 */
export function repairFsinfo(device: BlockDevice): void {
  const { cpCount, reservedBlocks } = readFsinfo(device);
  const block = new Uint8Array(BLOCK_BYTES);
  const newest = readFsinfoCopies(device).find(({ fsinfo }) => fsinfo?.cpCount === cpCount);
  assert(newest !== undefined, "the newest copy is one of the two");
  device.read(newest.vbn, 1, block, 0);
  device.writeDurable(newest.vbn, block);
  for (const vbn of fsinfoVbns(reservedBlocks)) if (vbn !== newest.vbn) device.writeDurable(vbn, block);
}

/** Commits: both copies, each durable before the next. Everything the new state needs must have been flushed before. */
export function writeFsinfo(device: BlockDevice, encoded: Uint8Array, vbns: readonly [number, number]): void {
  for (const vbn of vbns) device.writeDurable(vbn, encoded);
}
