/** What crashes leave: recovering from one, looking at what one would leave, and at what is left of a disk that rots. */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { CorruptionError, FsError, UserError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { fsinfoVbns } from "../../src/format/constants.ts";
import type { Fsinfo } from "../../src/format/fsinfo.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { type MemoryDevice, PowerCut } from "../support/devices.ts";
import { protectedBlocks } from "../support/protected-blocks.ts";
import { FILLED_BLOCKS } from "./base-volumes.ts";
import { compareDamaged } from "./damaged.ts";
import { unreadable } from "./faults.ts";
import type { Crash } from "./steps.ts";
import {
  attach,
  compareSnapshots,
  identify,
  newDisk,
  type Opened,
  openDisk,
  openOn,
  remember,
  rootKey,
  type SavedCp,
  show,
  type Version,
  type World,
} from "./world.ts";

/** One in so many of the crashes that are only looked at goes on to a consistency point. */
const GOES_ON_EVERY = 4;

/** The process is gone. The disk must have a version that is recent enough; the history goes on from there. */
export function recover(world: World, { how, seed, again }: Crash): void {
  const random = prng(seed);
  for (const after of [...again, undefined]) {
    world.counts.crashes += 1;
    if (how === "power") attach(world, newDisk(world.disk.crash(random)));
    else {
      world.disk.cutAfter(Number.POSITIVE_INFINITY);
      attach(world, world.disk);
    }
    world.faults.disarm();
    const saved = savedOn(world, world.disk.contents());
    world.trace(`  ${how === "power" ? "power cut" : "killed"}: consistency point ${saved.cpCount} is on the disk`);
    world.durable = saved;
    world.inFlight = undefined;
    world.recovering = { ...saved, cpCount: saved.cpCount + 1 };
    if (after !== undefined) world.disk.cutAfter(after);
    try {
      const opened = openDisk(world);
      const version = verify(world, opened, saved);
      world.disk.cutAfter(Number.POSITIVE_INFINITY);
      const { cpCount } = opened.volume.committed;
      world.durable = { ...saved, cpCount, version: cpCount === saved.cpCount ? saved.version : version.number };
      if (how === "power") world.acknowledged = version.number; // what has survived is on the disk for good
      show(world, opened, version);
      return;
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
      world.counts.again += 1;
    }
  }
  assert.fail("the last recovery was not cut");
}

/** The consistency point that the disk has, which must be clean. */
function savedOn(world: World, image: MemoryDevice): SavedCp {
  assertClean(image);
  const { cpCount } = readFsinfo(image);
  const { durable, inFlight, recovering } = world;
  const saved = [inFlight, recovering].find((one) => one?.cpCount === cpCount) ?? durable;
  assert.equal(
    cpCount,
    saved.cpCount,
    "the consistency point on the disk is neither the durable one nor the one on its way",
  );
  return saved;
}

export function assertClean(image: BlockDevice): void {
  const { findings } = checkVolume(image, { readData: image.blockCount !== FILLED_BLOCKS });
  assert.deepEqual(findings, [], "check");
}

/** What was opened is a version that a crash may leave, with the snapshots of its consistency point. */
function verify(world: World, opened: Opened, saved: SavedCp): Version {
  compareSnapshots(world, opened, saved.snapshots);
  const key = rootKey(opened.volume.committed.inodeFile);
  const oldest = Math.max(world.acknowledged, saved.version);
  const version = identify(world, opened, oldest, world.knownRoots.get(key));
  remember(world, key, version.digest);
  return version;
}

/** Looks at what crashes now would leave. */
export function peek(world: World, { seed, count }: { readonly seed: number; readonly count: number }): void {
  for (let i = 0; i < count; i++) {
    const random = prng(seed + i);
    const image = world.disk.crash(random);
    world.counts.peeks += 1;
    const saved = savedOn(world, image);
    const opened = openOn(world, image);
    const version = verify(world, opened, saved);
    if (below(random, GOES_ON_EVERY) > 0) continue;
    opened.volume.takeCp("recovery");
    assertClean(image);
    const later = openOn(world, image);
    const { number } = verify(world, later, saved);
    assert.equal(number, version.number, "the version after a recovery and a consistency point");
  }
}

const ROTTEN_MAX = 4;
const TRIES_MAX = 400;

/** Flips bits in a copy of the disk, and makes blocks of it unreadable: an error or the right data comes, never wrong data. */
export function rot(world: World, { seed }: { readonly seed: number }): void {
  const random = prng(seed);
  const image = world.disk.contents();
  const saved = savedOn(world, image);
  const twin = image.clone();
  const { model } = verify(world, openOn(world, twin), saved); // with what the change log has
  const fsinfo = readFsinfo(image);
  const isProtected = protectedBlocks(image, fsinfo);
  const lost = new Set<number>();
  let isFound = false;
  for (let i = below(random, ROTTEN_MAX) + 1; i > 0; i--) {
    const vbn = usedBlock(random, fsinfo, isProtected);
    if (below(random, 3) === 0) lost.add(vbn);
    else image.corrupt(vbn * BLOCK_BYTES + below(random, BLOCK_BYTES), 1 << below(random, 8));
    isFound ||= isProtected(vbn);
    world.trace(`  block ${vbn} is ${lost.has(vbn) ? "unreadable" : "damaged"}`);
  }
  world.counts.rotten += 1;
  const device = unreadable(image, lost);
  try {
    const { findings } = checkVolume(device);
    if (isFound) assert(findings.length > 0, "the check has found no damage");
    const opened = openOn(world, device);
    compareDamaged(opened.fs, model);
  } catch (error) {
    if (!isRefusal(error)) throw error;
  }
}

/** A clear answer to damage. */
export function isRefusal(error: unknown): boolean {
  return (
    error instanceof CorruptionError || error instanceof UserError || (error instanceof FsError && error.code === "EIO")
  );
}

/** A block that a state on the disk needs, or the second copy of fsinfo. */
function usedBlock(
  random: Random,
  { blockCount, reservedBlocks }: Fsinfo,
  isProtected: (vbn: number) => boolean,
): number {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const vbn =
      below(random, 2) === 0 ? below(random, Math.min(blockCount, reservedBlocks + 200)) : below(random, blockCount);
    if (isProtected(vbn)) return vbn;
  }
  return fsinfoVbns(reservedBlocks)[1];
}
