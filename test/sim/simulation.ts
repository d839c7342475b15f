/**
 * Deterministic simulation of one host: random operations, consistency points in their single steps, snapshots, full
 * volumes, power cuts at any write with any part of what was not flushed lost or torn, and opening again.
 *
 * Beside the filesystem runs the model. At each freeze a copy of it is kept: after a crash the filesystem must equal the
 * copy of the consistency point whose number fsinfo has, which is the last one known to be durable or the one that was on
 * its way. All the time no write may hit a block that the durable state, the one on its way, or a snapshot of either
 * refers to, and the check must find nothing. Everything follows from the seed.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock, type Time } from "../../src/core/clock.ts";
import { FsError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { logFrameHeader } from "../../src/format/change-record.ts";
import { decodeFsinfo } from "../../src/format/fsinfo.ts";
import { type OpenFileSystem, openFileSystem } from "../../src/fs/active.ts";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
import { parseFrame } from "../../src/fs/replay.ts";
import { type LogFrame, readFrames } from "../../src/volume/change-log/frames.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { createVolume } from "../../src/volume/create.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { FrozenCp, Volume } from "../../src/volume/volume.ts";
import {
  type CrashDevice,
  crashDevice,
  guardedDevice,
  type MemoryDevice,
  memoryDevice,
  PowerCut,
} from "../support/devices.ts";
import { applyToReal, asName, assertEqual, forgetful, putFile, type Slots, writeAt } from "../support/fs-paths.ts";
import { applyToModel, copyModel, emptyModel, type Model, type Operation } from "../support/model-fs.ts";
import { protectedBlocks } from "../support/protected-blocks.ts";
import { pick, randomOperation } from "./operations.ts";

export interface SimulationOptions {
  readonly seed: number;
  /** Default: what the seed says. */
  readonly steps?: number;
  /** Says each step: for repeating a failure. */
  readonly trace?: (line: string) => void;
  /** Goes on from a volume like that of `filledVolume` instead of a new one. */
  readonly filled?: MemoryDevice | undefined;
}

export interface SimulationResult {
  readonly steps: number;
  readonly crashes: number;
  readonly frames: number;
  readonly replays: number;
  readonly consistencyPoints: number;
  readonly fullAnswers: number;
}

/** All that a state on disk consists of, by the model. Copies: never changed. */
interface Saved {
  readonly cpCount: number;
  /** Number of the last change in it. */
  readonly seq: number;
  readonly model: Model;
  readonly snapshots: ReadonlyMap<string, Model>;
}

/** What a frame of the change log makes durable. */
interface Framed {
  readonly seq: number;
  readonly model: Model;
  readonly refersTo: (vbn: number) => boolean;
}

/** A consistency point on its way: what has been done for it so far. */
interface InFlight {
  readonly frozen: FrozenCp;
  readonly saved: Saved;
  stage: number;
}

interface World {
  readonly random: Random;
  readonly clock: ReturnType<typeof manualClock>;
  readonly sizeMax: number;
  readonly trace: (line: string) => void;
  disk: CrashDevice;
  device: BlockDevice;
  volume: Volume;
  fs: OpenFileSystem;
  slots: Slots;
  model: Model;
  snapshots: Map<string, Model>;
  durable: Saved;
  inFlight: InFlight | undefined;
  /** The consistency point at the end of the replay that is under way. */
  recovering: Saved | undefined;
  /** Frames since the last durable consistency point. */
  framed: Framed[];
  /** All changes up to this one have been said to be durable. */
  acknowledged: number;
  frames: number;
  replays: number;
  guards: ((vbn: number) => boolean)[];
  crashes: number;
  consistencyPoints: number;
  fullAnswers: number;
}

const FILLER = "filler";
const FILLED_BLOCKS = 34_000;
const FILLER_BYTES = 31_096 * BLOCK_BYTES;
const SNAPSHOT_NAMES = ["one", "two", "three", "four"];
/** Steps of a commit: flush, first copy, second copy, commit. */
const STAGES = 4;

/** Runs one history. Throws when anything is not as it must be. */
export function simulate({ seed, steps, filled, trace = (): void => {} }: SimulationOptions): SimulationResult {
  const random = prng(seed);
  const blockCount = pick(random, [128, 192, 256, 400, 1024, 4096, 40_000]);
  const stepCount = steps ?? pick(random, [60, 150, 400]);
  const clock = manualClock();
  const base = filled?.clone() ?? memoryDevice(blockCount);
  if (filled === undefined) createVolume({ device: base, clock, random, label: "simulation" });
  trace(`volume of ${base.blockCount} blocks, ${stepCount} steps`);
  const { cpCount, logSeq } = readFsinfo(base);
  const nothing: Saved = { cpCount, seq: logSeq, model: emptyModel(rootTime(base)), snapshots: new Map() };
  const sizeMax = Math.max(5000, Math.min(300_000, base.blockCount * 64));
  const world = openWorld({ random, clock, sizeMax, trace }, base, nothing);
  for (let step = 0; step < stepCount; step++) {
    clock.advanceMs(1 + below(random, 5));
    cutSometimes(world);
    try {
      takeStep(world);
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
      recover(world);
    }
  }
  world.disk.cutAfter(Number.POSITIVE_INFINITY);
  finishCp(world);
  compareAll(world);
  return {
    steps: stepCount,
    crashes: world.crashes,
    frames: world.frames,
    replays: world.replays,
    consistencyPoints: world.consistencyPoints,
    fullAnswers: world.fullAnswers,
  };
}

/**
 * A volume of two regions whose first is full but for a few blocks, held by a snapshot of its own, while the active
 * filesystem is empty: what is written from here on lies around the border of the two.
 */
export function filledVolume(): MemoryDevice {
  const clock = manualClock();
  const device = memoryDevice(FILLED_BLOCKS);
  createVolume({ device, clock, random: prng(1) });
  const volume = openVolume({ device, clock, random: prng(2), writable: true });
  const fs = forgetful(openFileSystem({ volume, clock }));
  putFile(fs, "/filler");
  const data = new Uint8Array(FILLER_BYTES / 8).fill(7);
  for (let at = 0; at < FILLER_BYTES; at += data.length) writeAt(fs, "/filler", at, data);
  volume.createSnapshot(FILLER);
  volume.takeCp("snapshot");
  fs.unlink(ROOT_NODE, asName("filler"));
  while (fs.reclaimSlice());
  volume.takeCp("sync");
  return device;
}

/** When the root directory of an otherwise empty filesystem was changed last. */
function rootTime(base: MemoryDevice): Time {
  const clock = manualClock();
  const volume = openVolume({ device: base, clock, random: prng(1), writable: false });
  return openFileSystem({ volume, clock }).getAttributes(ROOT_NODE).attributes.mtime;
}

function openWorld(
  fixed: Pick<World, "random" | "clock" | "sizeMax" | "trace">,
  base: MemoryDevice,
  durable: Saved,
): World {
  const disk = crashDevice({ random: fixed.random, base });
  const world: Partial<World> & { guards: World["guards"] } = {
    ...fixed,
    disk,
    durable,
    guards: [],
    recovering: undefined,
    framed: [],
    acknowledged: durable.seq,
    frames: 0,
    replays: 0,
    crashes: 0,
    consistencyPoints: 0,
    fullAnswers: 0,
  };
  world.device = guardedDevice(disk, guardOf(world as World));
  reopen(world as World);
  return world as World;
}

function guardOf(world: World): (vbn: number) => boolean {
  return (vbn) => world.guards.some((guard) => guard(vbn)) || world.framed.some(({ refersTo }) => refersTo(vbn));
}

/** Opens what is on the disk, which is the state `world.durable` and what frames of the log have after it, and takes that over. */
function reopen(world: World): void {
  const { clock, random, durable, disk } = world;
  world.guards = [];
  world.volume = openVolume({ device: world.device, clock, random, writable: true, cacheBytesMax: 1 << 20 });
  world.guards = [protectedBlocks(disk, world.volume.committed)];
  assert.equal(world.volume.committed.cpCount, durable.cpCount);
  const seq = readFrames({ device: disk, place: world.volume.committed }).at(-1)?.header.lastSeq ?? durable.seq;
  world.trace(
    `changes up to ${seq}, ${world.acknowledged} of them acknowledged, ${durable.seq} in the consistency point`,
  );
  assert(seq >= world.acknowledged, `changes up to ${world.acknowledged} were durable, those up to ${seq} are there`);
  const framed = world.framed.find((frame) => frame.seq === seq);
  assert(seq === durable.seq || framed !== undefined, `no frame has ended at change ${seq}`);
  const { model } = framed ?? durable;
  world.acknowledged = seq;
  if (seq > durable.seq) world.recovering = { ...durable, cpCount: durable.cpCount + 1, seq, model };
  world.fs = forgetful(openFileSystem({ volume: world.volume, clock }));
  world.recovering = undefined;
  if (world.volume.committed.cpCount !== durable.cpCount) {
    world.replays += 1;
    world.guards = [protectedBlocks(disk, world.volume.committed)];
    assert.deepEqual(checkVolume(disk, { readData: disk.blockCount !== FILLED_BLOCKS }).findings, [], "after a replay");
  }
  const { cpCount } = world.volume.committed;
  world.durable = { cpCount, seq, model, snapshots: durable.snapshots };
  world.framed = [];
  world.model = copyModel(model);
  world.snapshots = new Map(durable.snapshots);
  world.slots = new Map();
  world.inFlight = undefined;
}

function cutSometimes(world: World): void {
  if (below(world.random, 40) > 0) return;
  const operations = below(world.random, pick(world.random, [3, 10, 60]));
  world.trace(`the power will go after ${operations} device operations`);
  world.disk.cutAfter(operations);
}

/** The power went: what the disk kept must be the durable state or the one that was on its way. */
function recover(world: World): void {
  const { clock, random } = world;
  world.crashes += 1;
  const left = world.disk.crash();
  const { findings } = checkVolume(left, { readData: left.blockCount !== FILLED_BLOCKS });
  assert.deepEqual(findings, [], "findings after a crash");
  const looked = openVolume({ device: left, clock, random, writable: false }).committed.cpCount;
  const next = world.inFlight?.saved ?? world.recovering;
  const kept = looked === next?.cpCount ? next : world.durable;
  world.trace(
    `power cut: consistency point ${looked} of ${world.durable.cpCount}${world.inFlight === undefined ? "" : ` and ${world.inFlight.saved.cpCount}`}`,
  );
  assert.equal(looked, kept.cpCount, "a consistency point that was durable is gone");
  if (world.inFlight !== undefined && world.inFlight.stage > 1)
    assert.equal(looked, world.inFlight.saved.cpCount, "fsinfo was durable");
  world.disk = crashDevice({ random, base: left });
  world.device = guardedDevice(world.disk, guardOf(world));
  world.durable = kept;
  world.framed = world.framed.filter(({ seq }) => seq > kept.seq);
  world.inFlight = undefined;
  world.recovering = undefined;
  cutSometimes(world);
  try {
    reopen(world);
    compareAll(world);
  } catch (error) {
    if (!(error instanceof PowerCut)) throw error;
    recover(world); // while recovering
  }
}

function takeStep(world: World): void {
  const { random, volume } = world;
  const choice = below(random, 140);
  if (choice >= 100) sync(world);
  else if (choice < 72) operate(world, randomOperation(random, world.model, world.sizeMax));
  else if (choice < 86) advanceCp(world);
  else if (choice < 88) volume.relieve();
  else if (choice < 90) reclaim(world);
  else if (choice < 97) changeSnapshots(world);
  else if (choice < 98) {
    world.trace("compare");
    compareAll(world);
  } else if (choice < 99) {
    world.trace("close and open");
    finishCp(world);
    reopen(world);
    compareAll(world);
  } else throw new PowerCut("now, between two operations");
}

function operate(world: World, op: Operation): void {
  const now = world.clock.now();
  const found = applyToReal(world.fs, world.slots, op);
  world.trace(`${describe(op)} -> ${found === "" ? "done" : found}`);
  if (found !== "ENOSPC") {
    assert.equal(found, applyToModel(world.model, op, now), `answer to ${describe(op)}`);
    return;
  }
  world.fullAnswers += 1;
  const deletes = op.kind === "unlink" || op.kind === "rmdir" || (op.kind === "truncate" && op.sizeBytes === 0);
  if (!deletes) return;
  // A full volume can always delete, once what was deleted before is free.
  finishCp(world);
  finishCp(world);
  const again = applyToReal(world.fs, world.slots, op);
  assert.equal(again, applyToModel(world.model, op, now), `a full volume cannot ${describe(op)}`);
}

/** As fsync: what has been changed is durable afterwards, by a frame of the log if it is open. */
function sync(world: World): void {
  const { fs, volume, device } = world;
  const frame = fs.logFrame();
  if (frame === undefined) {
    world.trace(`sync: no frame, the log is ${volume.log.isOpen ? "open" : "closed"}`);
    return;
  }
  world.trace(
    `sync: changes up to ${frame.lastSeq} in ${frame.bytes.length / BLOCK_BYTES} blocks${frame.needsFlush ? ", after a flush" : ""}`,
  );
  world.frames += 1;
  const referred = new Set<number>();
  for (const { record } of extentsOf(frame)) {
    for (let i = 0; record.vbn !== 0 && i < record.blockCount; i++) referred.add(record.vbn + i);
  }
  if (frame.needsFlush) device.flush();
  world.framed.push({ seq: frame.lastSeq, model: copyModel(world.model), refersTo: (vbn) => referred.has(vbn) });
  device.writeDurable(frame.vbn, frame.bytes);
  world.acknowledged = frame.lastSeq;
}

function extentsOf({ bytes }: LogFrame): ReturnType<typeof parseFrame>["extents"] {
  const header = logFrameHeader.decode(new DataView(bytes.buffer), 0);
  const payload = bytes.subarray(logFrameHeader.size, logFrameHeader.size + header.payloadBytes);
  return parseFrame({ header, payload }).extents;
}

/** Freezes a consistency point, or takes the one on its way a step further. */
function advanceCp(world: World): void {
  if (world.inFlight === undefined) freeze(world);
  else stepCp(world, world.inFlight);
}

function freeze(world: World): void {
  const { volume } = world;
  const frozen = volume.freezeCp("timer");
  world.trace(`freeze consistency point ${frozen.cpCount}`);
  const saved: Saved = {
    cpCount: frozen.cpCount,
    seq: frozen.logSeq,
    model: copyModel(world.model),
    snapshots: new Map(world.snapshots),
  };
  world.inFlight = { frozen, saved, stage: 0 };
  world.consistencyPoints += 1;
  world.guards.push(protectedBlocks(world.disk, decodeFsinfo(frozen.fsinfo)));
}

function stepCp(world: World, inFlight: InFlight): void {
  const { frozen, stage } = inFlight;
  world.trace(`consistency point ${frozen.cpCount}: ${["flush", "fsinfo", "fsinfo", "commit"][stage]}`);
  inFlight.stage += 1;
  if (stage === 0) {
    inFlight.stage = 0;
    world.device.flush();
    inFlight.stage = 1;
  } else if (stage < STAGES - 1) {
    inFlight.stage = stage;
    world.device.writeDurable(frozen.fsinfoVbns[stage - 1] as number, frozen.fsinfo);
    inFlight.stage = stage + 1;
  } else {
    world.volume.commitCp(frozen);
    world.durable = inFlight.saved;
    world.acknowledged = Math.max(world.acknowledged, world.durable.seq);
    world.framed = world.framed.filter(({ seq }) => seq > world.durable.seq);
    world.inFlight = undefined;
    world.guards = world.guards.slice(-1);
    const { findings } = checkVolume(world.disk, { readData: world.disk.blockCount !== FILLED_BLOCKS });
    assert.deepEqual(findings, [], "findings after a consistency point");
  }
}

/** Everything changed so far is durable afterwards. */
function finishCp(world: World): void {
  while (world.inFlight !== undefined) stepCp(world, world.inFlight);
  freeze(world);
  while (world.inFlight !== undefined) stepCp(world, world.inFlight);
}

function reclaim(world: World): void {
  try {
    world.fs.reclaimSlice();
  } catch (error) {
    if (!(error instanceof FsError) || error.code !== "ENOSPC") throw error;
    world.fullAnswers += 1;
  }
}

function changeSnapshots(world: World): void {
  const { random, volume, snapshots } = world;
  const name = pick(random, SNAPSHOT_NAMES);
  const choice = below(random, 8);
  const has = snapshots.has(name);
  if (choice < 4 && !has) {
    while (world.inFlight !== undefined) stepCp(world, world.inFlight);
    world.trace(`snapshot create ${name}`);
    try {
      volume.createSnapshot(name);
    } catch (error) {
      if (error instanceof FsError && error.code === "ENOSPC") return;
      throw error;
    }
    snapshots.set(name, copyModel(world.model));
    freeze(world);
  } else if (choice < 4) {
    assert.throws(() => volume.createSnapshot(name), FsError);
  } else if (choice < 6) {
    world.trace(`snapshot delete ${name}${has ? "" : ", which there is not"}`);
    if (!has) assert.throws(() => volume.deleteSnapshot(name), FsError);
    else if (answered(() => volume.deleteSnapshot(name))) snapshots.delete(name);
  } else if (choice < 7) {
    const into = pick(random, SNAPSHOT_NAMES);
    const content = snapshots.get(name);
    if (content === undefined || snapshots.has(into)) return;
    world.trace(`snapshot rename ${name} ${into}`);
    if (!answered(() => volume.renameSnapshot(name, into))) return;
    snapshots.delete(name);
    snapshots.set(into, content);
  } else if (has) {
    world.trace(`snapshot restore ${name}`);
    volume.restoreSnapshot(name);
    world.model = copyModel(snapshots.get(name) as Model);
    for (const handle of world.slots.values()) world.fs.release(handle);
    world.slots.clear();
  }
}

/** False: the reserved area is full for now. */
function answered(change: () => void): boolean {
  try {
    change();
    return true;
  } catch (error) {
    if (error instanceof FsError && error.code === "ENOSPC") return false;
    throw error;
  }
}

function compareAll(world: World): void {
  assertEqual(world.fs, world.model);
  const { volume, clock } = world;
  assert.deepEqual(
    volume
      .snapshots()
      .map(({ name }) => name)
      .filter((name) => name !== FILLER)
      .toSorted(),
    [...world.snapshots.keys()].toSorted(),
    "names of snapshots",
  );
  for (const [name, model] of world.snapshots) {
    const snapshot = volume.findSnapshot(name);
    assert(snapshot !== undefined);
    assertEqual(openFileSystem({ volume, clock, snapshot, readOnly: true }), model);
  }
}

function describe(op: Operation): string {
  return JSON.stringify(op, (_key, value: unknown) => {
    if (value instanceof Uint8Array) return `${value.length} bytes`;
    return typeof value === "string" && value.length > 60 ? `${value.slice(0, 40)}... (${value.length})` : value;
  });
}
