/**
 * One simulated host: a volume, what the daemon does for it, and the model of what it must hold.
 *
 *     versions of the model    1 --- 2 --- 3 --- 4 --- 5 --- 6        one for each operation that was done
 *                                          ^     ^           ^
 *                         acknowledged as durable |          what is shown now
 *                              the last consistency point on the disk
 *
 * After a crash the filesystem must be one of the versions, none older than what was acknowledged or than the consistency point
 * that the disk has; and the snapshots must be those of that consistency point, each as it was taken.
 */
import assert from "node:assert/strict";
import { manualClock, type Time } from "../../src/core/clock.ts";
import { prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { decodeFsinfo } from "../../src/format/fsinfo.ts";
import type { FileRootRecord } from "../../src/format/inode.ts";
import { encodeLogFileHead } from "../../src/format/log-file.ts";
import type { SnapshotRecord } from "../../src/format/snapshot-record.ts";
import { type OpenFileSystem, openFileSystem } from "../../src/fs/active.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume } from "../../src/volume/volume.ts";
import {
  type CrashDevice,
  crashDevice,
  guardedDevice,
  type MemoryDevice,
  memoryDevice,
  powerSupply,
} from "../support/devices.ts";
import { assertEqual, forgetful, type Slots } from "../support/fs-paths.ts";
import { copyModel, type Model } from "../support/model-fs.ts";
import { protectedBlocks } from "../support/protected-blocks.ts";
import { baseVolume, FILLER } from "./base-volumes.ts";
import { type Digest, digestOfModel, digestOfReal } from "./digest.ts";
import { type Faults, openFaults } from "./faults.ts";
import { type Host, openHost } from "./host.ts";
import type { Listing } from "./listing.ts";
import { type Image, type Looks, openLooks } from "./looks.ts";
import { type Other, openOther } from "./other-volume.ts";
import type { Crash, Setup } from "./steps.ts";

/** A state of the filesystem by the model. Never changed. */
export interface Content {
  readonly model: Model;
  readonly digest: Digest;
}

export interface Version extends Content {
  readonly number: number;
}

/** What a consistency point holds. */
export interface SavedCp {
  readonly cpCount: number;
  readonly version: number;
  readonly snapshots: ReadonlyMap<string, Content>;
}

export interface Counts {
  operations: number;
  /** Power cuts and kills that the history goes on from, those during recovery among them. */
  crashes: number;
  /** Those of them during recovery. */
  again: number;
  /** Crashes that were looked at, and the history went on without them. */
  peeks: number;
  /** Those of them that left in all blocks that count what one before had left. */
  alike: number;
  consistencyPoints: number;
  fullAnswers: number;
  refusals: number;
  /** Times that the volume has failed for a log apart that refused. */
  logRefusals: number;
  /** Times that something large was cut out of a file. */
  heirs: number;
  /** Crashes when something was yet to be freed in slices. */
  doomed: number;
  rotten: number;
  /** Logs with rot in a frame that was acknowledged. */
  rottenLogs: number;
  /** Recoveries that ended with a refusal of the disk, and were tried again. */
  refusedRecoveries: number;
  transfers: number;
  otherCrashes: number;
}

export function sumOf(a: Counts, b: Counts): Counts {
  return Object.fromEntries(
    Object.entries(a).map(([name, n]) => [name, n + b[name as keyof Counts]]),
  ) as unknown as Counts;
}

export interface World {
  readonly setup: Setup;
  readonly clock: ReturnType<typeof manualClock>;
  /** For the identities that a volume gives. */
  readonly random: Random;
  readonly trace: (line: string) => void;
  readonly counts: Counts;
  readonly other: Other;
  disk: CrashDevice;
  /** Where the change log is when it is not in the volume. */
  log: CrashDevice;
  isLogApart: boolean;
  faults: Faults;
  volume: Volume;
  fs: OpenFileSystem;
  slots: Slots;
  host: Host;
  /** As the filesystem shows itself now. */
  model: Model;
  /** In order; the last one is `model`. Those that no crash can bring back any more are dropped. */
  versions: Version[];
  /** The version that a node was changed in, by its ctime. */
  readonly changedIn: WeakMap<Time, number>;
  /** The version that replaced all nodes last. */
  restoredIn: number;
  /** The oldest version that a crash may bring back. */
  acknowledged: number;
  snapshots: Map<string, Content>;
  durable: SavedCp;
  inFlight: SavedCp | undefined;
  /** What the consistency point at the end of a replay holds, while that goes on. */
  recovering: SavedCp | undefined;
  guards: ((vbn: number) => boolean)[];
  /** The last change of the newest frame of the log that refers to the block; 0: none does. */
  referredBy: (vbn: number) => number;
  listing: Listing | undefined;
  /** The crash that comes when the device has done its count. */
  armed: Crash | undefined;
  readonly looks: Looks<Seen>;
  readonly checks: Looks<void>;
  /** States by their roots: what hangs below is told by checksums, and has been read once. */
  readonly knownRoots: Map<string, Digest>;
}

/** What a disk has, as an opening for writing shows it. */
export interface Seen {
  /** Of the consistency point that was found. */
  readonly cpCount: number;
  readonly digest: Digest;
  /** By name. */
  readonly snapshots: ReadonlyMap<string, Digest>;
}

/** Roots that are remembered. */
const ROOTS_MAX = 4096;
const LOG_UUID = new Uint8Array(16).fill(9);
const LOG_BLOCKS = 25;

export function openWorld(setup: Setup, trace: (line: string) => void): World {
  const clock = manualClock({ seconds: 1_100_000_000, nanoseconds: 0 });
  const base = baseVolume(setup);
  const first: Version = { number: 0, model: copyModel(base.model), digest: digestOfModel(base.model) };
  const world = {
    setup,
    clock,
    random: prng(1),
    trace,
    counts: {
      operations: 0,
      crashes: 0,
      again: 0,
      peeks: 0,
      alike: 0,
      consistencyPoints: 0,
      fullAnswers: 0,
      refusals: 0,
      logRefusals: 0,
      heirs: 0,
      doomed: 0,
      rotten: 0,
      rottenLogs: 0,
      refusedRecoveries: 0,
      transfers: 0,
      otherCrashes: 0,
    },
    other: openOther(clock, trace),
    versions: [first],
    changedIn: new WeakMap(),
    restoredIn: 0,
    acknowledged: 0,
    snapshots: new Map(),
    guards: [],
    referredBy: () => 0,
    inFlight: undefined,
    listing: undefined,
    armed: undefined,
    looks: openLooks(),
    checks: openLooks(),
    isLogApart: false,
    knownRoots: new Map(),
  } as unknown as World;
  const volume = openVolume({ device: base.device, clock, random: prng(1), writable: false });
  const names = volume.snapshots().map(({ name }) => name);
  const snapshots = new Map(names.filter((name) => name !== FILLER).map((name) => [name, first]));
  world.durable = { cpCount: volume.committed.cpCount, version: 0, snapshots };
  attach(world, { disk: base.device, log: newLog(volume.committed.uuid) });
  show(world, openDisk(world), first);
  return world;
}

function newLog(volumeUuid: Uint8Array): MemoryDevice {
  const log = memoryDevice(LOG_BLOCKS);
  log.write(0, 1, encodeLogFileHead({ blockCount: LOG_BLOCKS, uuid: LOG_UUID, volumeUuid }), 0);
  return log;
}

/** From here on these are the disks. All that is on them is durable. */
export function attach(world: World, image: Image): void {
  const power = powerSupply();
  world.disk = crashDevice({ random: prng(0), base: image.disk, power });
  world.log = crashDevice({ random: prng(0), base: image.log, power });
  goOn(world);
}

/** The process has died, the host lives: these are the disks still. */
export function goOn(world: World): void {
  world.disk.cutAfter(Number.POSITIVE_INFINITY);
  world.faults = openFaults();
  world.guards = [protectedBlocks(world.disk, readFsinfo(world.disk))];
}

export function contentsOf({ disk, log }: World): Image {
  return { disk: disk.contents(), log: log.contents() };
}

export function crashOf({ disk, log, isLogApart }: World, random: Random): Image {
  return { disk: disk.crash(random), log: isLogApart ? log.crash(random) : log.contents() };
}

export interface Opened {
  readonly volume: Volume;
  readonly fs: OpenFileSystem;
}

/** Opens for writing, as a mount does. */
export function openOn(
  { setup, clock, isLogApart }: World,
  random: Random,
  disk: BlockDevice,
  log: BlockDevice,
): Opened {
  const logDevice = isLogApart ? { device: log, uuid: LOG_UUID } : undefined;
  const volume = openVolume({
    device: disk,
    clock,
    random,
    writable: true,
    cacheBytesMax: setup.cacheBytes,
    logDevice,
  });
  return { volume, fs: openFileSystem({ volume, clock, accessTimes: setup.accessTimes }) };
}

/** Does a frame that a power cut now might have replayed refer to the block? Those that the consistency point has are not. */
function isReferred({ disk, referredBy }: World, vbn: number): boolean {
  const seq = referredBy(vbn);
  return seq > 0 && seq > readFsinfo(disk.durable()).logSeq;
}

/** Opens what is on the disk for the history to go on. */
export function openDisk(world: World): Opened {
  const { faults, random } = world;
  const isGuarded = (vbn: number): boolean => world.guards.some((guard) => guard(vbn)) || isReferred(world, vbn);
  const disk = guardedDevice(faults.faulty(world.disk, { isLog: false }), isGuarded);
  return openOn(world, random, disk, faults.faulty(world.log, { isLog: true }));
}

/** Goes on with what was opened, which is this version. */
export function show(world: World, { volume, fs }: Opened, version: Version): void {
  world.volume = volume;
  world.fs = forgetful(fs);
  world.model = copyModel(version.model);
  world.versions = world.versions.filter(({ number }) => number <= version.number);
  world.restoredIn = Math.min(world.restoredIn, version.number);
  world.snapshots = new Map(world.durable.snapshots);
  world.slots = new Map();
  world.listing = undefined;
  world.inFlight = undefined;
  world.recovering = undefined;
  world.guards = [protectedBlocks(world.disk, volume.committed)];
  world.host = openHost({
    volume,
    fs: world.fs,
    device: volume.device,
    trace: world.trace,
    onAcknowledged: (number) => acknowledge(world, number),
    onFrozen: ({ fsinfo, cpCount }) => {
      world.inFlight = { cpCount, version: versionOf(world), snapshots: new Map(world.snapshots) };
      world.guards.push(protectedBlocks(world.disk, decodeFsinfo(fsinfo)));
      world.counts.consistencyPoints += 1;
    },
    onDurable: () => {
      world.durable = world.inFlight as SavedCp;
      acknowledge(world, world.durable.version);
    },
    onCommitted: () => {
      world.inFlight = undefined;
      world.guards = world.guards.slice(-1);
    },
  });
  world.referredBy = (vbn) => world.host.referredBy(vbn);
}

export function versionOf(world: World): number {
  return (world.versions.at(-1) as Version).number;
}

/** The filesystem has changed: this is a version of its own. */
export function addVersion(world: World, now: Time): void {
  const number = versionOf(world) + 1;
  const digest = digestOfModel(world.model);
  world.versions.push({ number, model: copyModel(world.model), digest });
  world.changedIn.set(now, number);
}

export function contentOf(world: World): Content {
  return world.versions.at(-1) as Version;
}

export function acknowledge(world: World, number: number): void {
  if (number <= world.acknowledged) return;
  world.acknowledged = number;
  world.versions = world.versions.filter((version) => version.number >= number);
}

/** What a state on a disk is by the model: one of the versions from `oldest` on. Fails when it is none. */
export function identify(world: World, digest: Digest, oldest: number, opened: () => Opened): Version {
  const candidates = world.versions.filter(({ number }) => number >= oldest);
  const version = candidates.findLast((one) => one.digest === digest);
  if (version !== undefined) return version;
  const older = world.versions.find((one) => one.digest === digest);
  assert(older === undefined, `version ${older?.number} has come back, and ${oldest} had been acknowledged`);
  return explain(opened().fs, candidates);
}

/** Says in what way the filesystem differs from what it must be, one of these. */
export function explain(fs: OpenFileSystem, candidates: readonly Content[]): never {
  const differences = candidates.map(({ model }) => {
    try {
      assertEqual(fs, model);
      return "inode numbers differ";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  });
  assert.fail(`the filesystem is none of ${candidates.length} versions; from the last one: ${differences.at(-1)}`);
}

/** What was opened, and is a state of a consistency point: either that of the disk, or what a replay has made of it. */
export function see(world: World, { volume, fs }: Opened, cpCount: number): Seen {
  return {
    cpCount,
    digest: digestAt(world, volume.committed.inodeFile, () => fs),
    snapshots: snapshotDigests(world, volume),
  };
}

function snapshotDigests(world: World, volume: Volume): ReadonlyMap<string, Digest> {
  const records = volume.snapshots().filter(({ name }) => name !== FILLER);
  return new Map(
    records.map((record) => [record.name, digestAt(world, record.root, () => snapshotOf(world, volume, record))]),
  );
}

function snapshotOf({ clock }: World, volume: Volume, snapshot: SnapshotRecord): OpenFileSystem {
  return openFileSystem({ volume, clock, snapshot, readOnly: true });
}

function digestAt(world: World, root: FileRootRecord, fs: () => OpenFileSystem): Digest {
  const key = rootKey(root);
  return world.knownRoots.get(key) ?? remember(world, key, digestOfReal(fs()));
}

/** All snapshots are there, and each is as it was taken. */
export function compareSnapshots(
  world: World,
  found: ReadonlyMap<string, Digest>,
  expected: ReadonlyMap<string, Content>,
  opened: () => Opened,
): void {
  assert.deepEqual([...found.keys()].toSorted(), [...expected.keys()].toSorted(), "names of snapshots");
  for (const [name, { digest, model }] of expected) {
    if (found.get(name) === digest) continue;
    const { volume } = opened();
    assertEqual(snapshotOf(world, volume, volume.findSnapshot(name) as SnapshotRecord), model);
    assert.fail(`inode numbers in snapshot ${name} differ`);
  }
}

function remember({ knownRoots }: World, key: string, digest: Digest): Digest {
  if (knownRoots.size >= ROOTS_MAX) knownRoots.clear();
  knownRoots.set(key, digest);
  return digest;
}

function rootKey({ sizeBytes, pointers }: FileRootRecord): string {
  return `${sizeBytes} ${Buffer.from(pointers).toString("latin1")}`;
}

/** The filesystem and the snapshots are what the model says. */
export function compareWorld(world: World): void {
  if (digestOfReal(world.fs) !== contentOf(world).digest) explain(world.fs, [contentOf(world)]);
  compareSnapshots(world, snapshotDigests(world, world.volume), world.snapshots, () => world);
}
