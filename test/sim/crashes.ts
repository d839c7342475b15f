/** What crashes leave: recovering from one, looking at what one would leave, and at what is left of a disk that rots. */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { CorruptionError, FsError, UserError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { frameBlocks } from "../../src/format/change-record.ts";
import { fsinfoVbns } from "../../src/format/constants.ts";
import { encodeFsinfo, type Fsinfo } from "../../src/format/fsinfo.ts";
import { type FoundFrame, placeApart, readLog } from "../../src/volume/change-log/frames.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { PowerCut } from "../support/devices.ts";
import { protectedBlocks } from "../support/protected-blocks.ts";
import { FILLED_BLOCKS } from "./base-volumes.ts";
import { compareDamaged } from "./damaged.ts";
import { openFaults, unreadable } from "./faults.ts";
import type { Image } from "./looks.ts";
import { pick } from "./operations.ts";
import type { Crash, Fault } from "./steps.ts";
import {
  attach,
  compareSnapshots,
  contentsOf,
  crashOf,
  goOn,
  identify,
  type Opened,
  openDisk,
  openOn,
  type SavedCp,
  type Seen,
  see,
  show,
  type Version,
  type World,
} from "./world.ts";

/** One in so many of the crashes that are only looked at goes on to a consistency point. */
const GOES_ON_EVERY = 4;
/** And one in so many of these after a recovery that the disk refused something. */
const REFUSED_EVERY = 3;
/** Calls of a kind that a recovery and its consistency point make, about. */
const CALLS = 12;
/** Looked at in the middle of a write: most are alike, and cost little. */
const CRASHES_PER_WRITE = 3;

/** The process is gone. The disk must have a version that is recent enough; the history goes on from there. */
export function recover(world: World, { how, seed, again }: Crash): void {
  const random = prng(seed);
  world.disk.watch(undefined);
  world.log.watch(undefined);
  for (const after of [...again, undefined]) {
    world.counts.crashes += 1;
    if (world.fs.doomedCount > 0) world.counts.doomed += 1;
    if (how === "power") attach(world, crashOf(world, random));
    else goOn(world);
    const image = contentsOf(world);
    assertClean(world, image);
    const saved = savedAs(world, readFsinfo(image.disk).cpCount);
    world.trace(`  ${how === "power" ? "power cut" : "killed"}: consistency point ${saved.cpCount} is on the disk`);
    world.durable = saved;
    world.inFlight = undefined;
    world.recovering = { ...saved, cpCount: saved.cpCount + 1 };
    if (after !== undefined) world.disk.cutAfter(after);
    try {
      const opened = openDisk(world);
      const version = judge(world, see(world, opened, saved.cpCount), () => opened);
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

/** What the world knows of the consistency point that a disk has. */
function savedAs({ durable, inFlight, recovering }: World, cpCount: number): SavedCp {
  const saved = [inFlight, recovering].find((one) => one?.cpCount === cpCount) ?? durable;
  assert.equal(
    cpCount,
    saved.cpCount,
    "the consistency point on the disk is neither the durable one nor the one on its way",
  );
  return saved;
}

/** The check follows from the newest fsinfo and what hangs below it; what stands in the log has to show when it is opened. */
function assertClean({ checks }: World, image: Image): void {
  const fsinfo = readFsinfo(image.disk);
  const { reservedBlocks, logFirst } = fsinfo;
  checks.look(
    image,
    Buffer.from(encodeFsinfo(fsinfo)).toString("latin1"),
    (disk) => {
      const { findings } = checkVolume(disk, { readData: disk.blockCount !== FILLED_BLOCKS });
      assert.deepEqual(findings, [], "check");
    },
    (vbn) => vbn === 0 || (vbn >= logFirst && vbn < reservedBlocks),
  );
}

/** What was found is a version that a crash may leave, with the snapshots of its consistency point. */
function judge(world: World, { cpCount, digest, snapshots }: Seen, opened: () => Opened): Version {
  const saved = savedAs(world, cpCount);
  compareSnapshots(world, snapshots, saved.snapshots, opened);
  return identify(world, digest, Math.max(world.acknowledged, saved.version), opened);
}

/** Looks at what a crash now would leave. */
export function peek(world: World, seed: number): void {
  const random = prng(seed);
  const image = crashOf(world, random);
  const goesOn = below(random, GOES_ON_EVERY) === 0;
  const fault = goesOn && below(random, REFUSED_EVERY) === 0 ? faultIn(world, random) : undefined;
  world.counts.peeks += 1;
  if (world.fs.doomedCount > 0) world.counts.doomed += 1;
  const about = JSON.stringify([world.isLogApart, goesOn, fault]);
  const seen = world.looks.look(image, about, (disk, log) => lookAt(world, { image, disk, log, goesOn, fault }));
  judge(world, seen, () => openOn(world, random, image.disk, image.log));
}

interface Look {
  readonly image: Image;
  /** Of the image. */
  readonly disk: BlockDevice;
  readonly log: BlockDevice;
  readonly goesOn: boolean;
  /** Of the first recovery. */
  readonly fault: Fault | undefined;
}

function lookAt(world: World, { image, disk, log, goesOn, fault }: Look): Seen {
  assertClean(world, image);
  const random = prng(0);
  const { cpCount } = readFsinfo(disk);
  if (fault !== undefined) recoverRefused(world, disk, log, fault);
  const opened = openOn(world, random, disk, log);
  const seen = see(world, opened, cpCount);
  if (!goesOn) return seen;
  opened.volume.takeCp("recovery");
  assertClean(world, image);
  const later = see(world, openOn(world, random, disk, log), cpCount);
  assert.deepEqual(later, seen, "the version after a recovery and a consistency point");
  return seen;
}

/** Calls of a recovery that the disk refuses: it goes on to its end, or says so. The next one finds what there was to be found. */
function recoverRefused(world: World, disk: BlockDevice, log: BlockDevice, fault: Fault): void {
  const faults = openFaults();
  faults.arm(fault);
  try {
    const refusing = faults.faulty(disk, { isLog: false });
    openOn(world, prng(0), refusing, faults.faulty(log, { isLog: true })).volume.takeCp("recovery");
  } catch (error) {
    if (faults.refused === 0 || !isRefusal(error)) throw error;
    world.counts.refusedRecoveries += 1;
  }
}

function faultIn({ isLogApart }: World, random: Random): Fault {
  const on = pick(random, ["read", "write", "flush"] as const);
  const inLog = isLogApart && below(random, 2) === 0;
  return {
    on,
    inLog,
    code: "EIO",
    after: below(random, on === "flush" || inLog ? 3 : CALLS),
    times: 1 + below(random, 2),
  };
}

/** Looks at what crashes in the middle of the next writes and flushes would leave. */
export function watch(world: World, { count, seed }: { readonly count: number; readonly seed: number }): void {
  let left = count;
  const glance = (): void => {
    if (left === 0) return;
    left -= 1;
    try {
      for (let i = 0; i < CRASHES_PER_WRITE; i++) peek(world, seed + left * CRASHES_PER_WRITE + i);
    } catch (cause) {
      // Nobody between here and the end of the history may take it for an answer.
      throw new Error(`after a crash in the middle of a write: ${(cause as Error).message}`, { cause });
    }
  };
  world.disk.watch(glance);
  world.log.watch(glance);
}

const ROTTEN_MAX = 4;
const TRIES_MAX = 400;

/** Flips bits in a copy of the disk, and makes blocks of it unreadable: an error or the right data comes, never wrong data. */
export function rot(world: World, { seed }: { readonly seed: number }): void {
  const random = prng(seed);
  const whole = contentsOf(world);
  const fsinfo = readFsinfo(whole.disk);
  const frames = provenFrames(world, whole, fsinfo);
  if (frames.length > 0 && below(random, 3) > 0) {
    rotLog(world, whole, fsinfo, random, pick(random, frames));
    return;
  }
  const image = whole.disk;
  const twin = openOn(world, random, image.clone(), whole.log.clone());
  const { model } = judge(world, see(world, twin, fsinfo.cpCount), () => twin); // with what the change log has
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
    const opened = openOn(world, random, device, whole.log);
    compareDamaged(opened.fs, model);
  } catch (error) {
    if (!isRefusal(error)) throw error;
  }
}

/** Frames that others were written after, so that no damage of them can pass for the end of the log. */
function provenFrames({ isLogApart, log, host }: World, image: Image, fsinfo: Fsinfo): readonly FoundFrame[] {
  const isApart = isLogApart && fsinfo.logUuid.some((byte) => byte !== 0);
  const place = isApart ? placeApart(fsinfo, log.blockCount) : fsinfo;
  const { frames } = readLog({ device: isApart ? image.log : image.disk, place });
  return frames.filter(({ header }) => header.lastSeq <= host.provenSeq);
}

/** One bit of a frame that was acknowledged flips, or one of its blocks cannot be read: nobody goes on without it. */
function rotLog(
  world: World,
  { disk, log }: Image,
  fsinfo: Fsinfo,
  random: Random,
  { header, head }: FoundFrame,
): void {
  const isApart = fsinfo.logUuid.some((byte) => byte !== 0);
  const device = isApart ? log : disk;
  const blocks = frameBlocks(header.payloadBytes);
  const first = (isApart ? 1 : fsinfo.logFirst) + head - blocks;
  const lost = new Set<number>();
  if (below(random, 4) === 0) lost.add(first + below(random, blocks));
  else device.corrupt(first * BLOCK_BYTES + below(random, blocks * BLOCK_BYTES), 1 << below(random, 8));
  world.trace(`  the frame with changes ${header.firstSeq} to ${header.lastSeq} in block ${first} is damaged`);
  world.counts.rottenLogs += 1;
  const bad = unreadable(device, lost);
  assert.throws(() => openOn(world, random, isApart ? disk : bad, isApart ? bad : log), isCorrupt, "rot in the log");
  const { findings } = checkVolume(isApart ? disk : bad, { logFile: isApart ? bad : undefined });
  const kinds = findings.map(({ kind }) => kind);
  assert.deepEqual(kinds, ["change-log"], "check of a log with rot in it");
}

function isCorrupt(error: unknown): boolean {
  return error instanceof UserError && error.failure === "corrupt";
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
