// The power goes at every write and flush of a scripted workload, one after the other, and each time the disk keeps
// several random parts of what was not flushed. What is left must be one of two states: the last consistency point that
// was durable, or the one that was on its way. Nothing between, nothing older, and every snapshot as it was taken.

import assert from "node:assert/strict";
import { test } from "node:test";
import { manualClock } from "../../src/core/clock.ts";
import { FsError, UserError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { decodeFsinfo } from "../../src/format/fsinfo.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume } from "../../src/volume/volume.ts";
import {
  crashDevice,
  erringDevice,
  guardedDevice,
  type MemoryDevice,
  memoryDevice,
  PowerCut,
} from "../support/devices.ts";
import { applyToReal, assertEqual, forgetful, type Slots } from "../support/fs-paths.ts";
import { applyToModel, copyModel, emptyModel, type Model, type Operation } from "../support/model-fs.ts";
import { protectedBlocks } from "../support/protected-blocks.ts";

const BLOCKS = 2048;
const CRASHES_PER_POINT = 3;

type VolumeStep =
  /** A consistency point: `freeze`, some more steps, `commit`; or all at once. */
  | { readonly kind: "freeze" | "commit" | "cp" | "relieve" }
  | { readonly kind: "snapshot" | "delete" | "restore"; readonly name: string }
  | { readonly kind: "renameSnapshot"; readonly from: string; readonly into: string };
type Step = Operation | VolumeStep;

const VOLUME_STEPS: ReadonlySet<string> = new Set([
  "freeze",
  "commit",
  "cp",
  "relieve",
  "snapshot",
  "delete",
  "restore",
  "renameSnapshot",
]);

function isVolumeStep(step: Step): step is VolumeStep {
  return VOLUME_STEPS.has(step.kind);
}

interface State {
  readonly cpCount: number;
  readonly model: Model;
  readonly snapshots: ReadonlyMap<string, Model>;
}

/** What a run knows when the power goes. */
interface Progress {
  durable: State;
  /** The consistency point on its way. */
  next: State | undefined;
}

function bytes(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * seed + (i >>> 8)) & 0xff);
}

const make = (path: string): Operation => ({ kind: "create", path, mode: 0o644, uid: 1 });
const write = (path: string, offset: number, length: number, seed: number): Operation => ({
  kind: "write",
  path,
  offset,
  data: bytes(length, seed),
});
const unlink = (path: string): Operation => ({ kind: "unlink", path });

const WORKLOAD: readonly Step[] = [
  { kind: "mkdir", path: "/d", mode: 0o755, uid: 1 },
  make("/d/inline"),
  write("/d/inline", 0, 100, 3),
  make("/d/small"),
  write("/d/small", 0, 5000, 5),
  make("/large"),
  write("/large", 0, 400_000, 7),
  { kind: "cp" },
  write("/large", 100_000, 150_000, 11), // straight to its blocks
  write("/d/small", 2000, 100, 13),
  { kind: "snapshot", name: "one" },
  { kind: "rename", path: "/d/small", into: "/small", flags: 0 },
  { kind: "symlink", path: "/link", target: "d/inline" },
  { kind: "freeze" },
  unlink("/large"),
  write("/small", 0, 9000, 17),
  { kind: "setxattr", path: "/small", name: "user.note", value: "x".repeat(5000), flags: 0 },
  { kind: "commit" },
  { kind: "cp" },
  make("/second"),
  write("/second", 0, 200_000, 19),
  { kind: "relieve" },
  { kind: "snapshot", name: "two" },
  { kind: "delete", name: "one" },
  { kind: "cp" },
  make("/third"),
  write("/third", 0, 300_000, 23), // where "one" was
  { kind: "open", path: "/third", slot: 0 },
  unlink("/third"), // open: an orphan
  { kind: "cp" },
  { kind: "renameSnapshot", from: "two", into: "kept" },
  { kind: "close", slot: 0 },
  { kind: "freeze" },
  { kind: "truncate", path: "/second", sizeBytes: 5000 },
  { kind: "commit" },
  { kind: "restore", name: "kept" },
  make("/after"),
  write("/after", 0, 100_000, 29),
  { kind: "cp" },
  { kind: "delete", name: "kept" },
  unlink("/second"),
  { kind: "cp" },
  ...Array.from({ length: 40 }, (_, i) => make(`/d/file ${i}`)),
  { kind: "cp" },
  ...Array.from({ length: 40 }, (_, i) => unlink(`/d/file ${i}`)),
  { kind: "cp" },
];

/** Runs the workload. Throws PowerCut when the device does; then `progress` says between which states it was. */
function runWorkload(device: BlockDevice, guards: ((vbn: number) => boolean)[], progress: Progress): void {
  const clock = manualClock({ seconds: 1_000_000_100, nanoseconds: 0 });
  const volume = openVolume({ device, clock, random: prng(2), writable: true });
  guards.push(protectedBlocks(device, volume.committed));
  const fs = forgetful(openFileSystem({ volume, clock }));
  let model = copyModel(progress.durable.model);
  const snapshots = new Map<string, Model>();
  const slots: Slots = new Map();
  let pending: ReturnType<Volume["freezeCp"]> | undefined;

  const freeze = (): void => {
    pending = volume.freezeCp("sync");
    progress.next = { cpCount: pending.cpCount, model: copyModel(model), snapshots: new Map(snapshots) };
    guards.push(protectedBlocks(device, decodeFsinfo(pending.fsinfo)));
  };
  const commit = (): void => {
    assert(pending !== undefined && progress.next !== undefined);
    device.flush();
    for (const [index, vbn] of pending.fsinfoVbns.entries()) {
      device.writeDurable(vbn, pending.fsinfo);
      if (index === 0) progress.durable = progress.next; // one whole copy is enough
    }
    volume.commitCp(pending);
    progress.next = undefined;
    guards.shift();
  };

  const takeVolumeStep = (step: VolumeStep): void => {
    switch (step.kind) {
      case "freeze":
        freeze();
        break;
      case "commit":
        commit();
        break;
      case "cp":
        freeze();
        commit();
        break;
      case "relieve":
        volume.relieve();
        break;
      case "snapshot":
        volume.createSnapshot(step.name);
        snapshots.set(step.name, copyModel(model));
        freeze();
        commit();
        break;
      case "delete":
        volume.deleteSnapshot(step.name);
        snapshots.delete(step.name);
        break;
      case "restore":
        volume.restoreSnapshot(step.name);
        model = copyModel(snapshots.get(step.name) as Model);
        break;
      case "renameSnapshot":
        volume.renameSnapshot(step.from, step.into);
        snapshots.set(step.into, snapshots.get(step.from) as Model);
        snapshots.delete(step.from);
        break;
    }
  };

  for (const step of WORKLOAD) {
    clock.advanceMs(1);
    if (isVolumeStep(step)) takeVolumeStep(step);
    else {
      assert.equal(applyToReal(fs, slots, step), "");
      assert.equal(applyToModel(model, step, clock.now()), "");
    }
  }
}

function assertState(image: MemoryDevice, state: State, what: string): void {
  const clock = manualClock({ seconds: 2_000_000_000, nanoseconds: 0 });
  const volume = openVolume({ device: image, clock, random: prng(3), writable: true });
  assert.equal(volume.committed.cpCount, state.cpCount, what);
  assertEqual(openFileSystem({ volume, clock }), state.model);
  assert.deepEqual(
    volume.snapshots().map(({ name }) => name),
    [...state.snapshots.keys()],
    what,
  );
  for (const [name, model] of state.snapshots) {
    const snapshot = volume.findSnapshot(name);
    assertEqual(openFileSystem({ volume, clock, snapshot, readOnly: true }), model);
  }
  volume.takeCp("recovery");
  assert.deepEqual(checkVolume(image).findings, [], what);
}

test("every crash point leaves the state before or the state after, checks clean, and can be written to again", () => {
  const base = memoryDevice(BLOCKS);
  createVolume({ device: base, clock: manualClock(), random: prng(1) });
  const model = emptyModel(manualClock().now());
  const states = new Set<number>();
  let points = 0;
  for (let budget = 0, done = false; !done; budget++) {
    for (let seed = 0; seed < CRASHES_PER_POINT && !done; seed++) {
      const disk = crashDevice({ random: prng(budget * CRASHES_PER_POINT + seed), base: base.clone() });
      const guards: ((vbn: number) => boolean)[] = [];
      const device = guardedDevice(disk, (vbn) => guards.some((guard) => guard(vbn)));
      const progress: Progress = { durable: { cpCount: 1, model, snapshots: new Map() }, next: undefined };
      disk.cutAfter(budget);
      try {
        runWorkload(device, guards, progress);
        done = true;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        const what = `crash at device operation ${budget}, seed ${seed}`;
        const image = disk.crash();
        assert.deepEqual(checkVolume(image).findings, [], what);
        const kept = openVolume({ device: image, clock: manualClock(), random: prng(4), writable: false }).committed
          .cpCount;
        const state = kept === progress.next?.cpCount ? progress.next : progress.durable;
        assertState(image, state, what);
        states.add(kept);
        points += 1;
      }
    }
  }
  assert(points > 60 * CRASHES_PER_POINT, `${points} crashes`);
  assert(states.size > 8, `${states.size} different states were found`);
});

test("a crash while a device is formatted leaves a volume that is clean, or none", () => {
  const old = memoryDevice(512);
  createVolume({ device: old, clock: manualClock(), random: prng(1), label: "old", blockCount: 300 });
  const volume = openVolume({ device: old, clock: manualClock(), random: prng(2), writable: true });
  for (let i = 0; i < 20; i++) {
    volume.createSnapshot(`${i}`);
    volume.takeCp("snapshot");
  }
  for (const base of [memoryDevice(512), old]) {
    for (let budget = 0, done = false; !done; budget++) {
      for (let seed = 0; seed < 10 && !done; seed++) {
        const disk = crashDevice({ random: prng(seed), base: base.clone() });
        disk.cutAfter(budget);
        try {
          createVolume({ device: disk, clock: manualClock(), random: prng(3), label: "new" });
          done = true;
        } catch (error) {
          if (!(error instanceof PowerCut)) throw error;
        }
        const image = disk.crash();
        try {
          assert.deepEqual(checkVolume(image).findings, [], `crash at device operation ${budget}, seed ${seed}`);
        } catch (error) {
          if (!(error instanceof UserError)) throw error;
          assert(!done, "a volume that was formatted is none");
        }
      }
    }
  }
});

/** Undefined: the device refuses what opening writes. */
function openedUnless(device: BlockDevice): Volume | undefined {
  try {
    return openVolume({ device, clock: manualClock(), random: prng(2), writable: true });
  } catch (error) {
    if (error instanceof FsError) return undefined;
    throw error;
  }
}

test("a write or flush that the device refuses changes nothing, or fails the volume, and what is on the disk stays good", () => {
  const base = memoryDevice(BLOCKS);
  createVolume({ device: base, clock: manualClock(), random: prng(1) });
  let refused = 0;
  let failed = 0;
  for (let budget = 0, done = false; !done; budget++) {
    const disk = base.clone();
    let operations = 0;
    const device = erringDevice(disk, () => (operations++ === budget ? "EIO" : undefined));
    const clock = manualClock();
    const volume = openedUnless(device);
    if (volume === undefined) {
      assert.deepEqual(checkVolume(disk).findings, []);
      continue;
    }
    const fs = forgetful(openFileSystem({ volume, clock }));
    const slots: Slots = new Map();
    const model = emptyModel(clock.now());
    for (const op of [
      make("/a"),
      write("/a", 0, 100_000, 3),
      write("/a", 50, 300_000, 5),
      make("/b"),
      write("/b", 0, 5000, 7),
    ]) {
      const answer = applyToReal(fs, slots, op);
      if (answer === "") applyToModel(model, op, clock.now());
      else {
        assert.equal(answer, "EIO");
        refused += 1;
        assertEqual(fs, model);
      }
    }
    try {
      volume.takeCp("sync");
      volume.createSnapshot("one");
      volume.takeCp("snapshot");
    } catch (error) {
      assert(error instanceof FsError);
      failed += 1;
      assert.notEqual(volume.failure, undefined);
      assert.throws(() => volume.takeCp("sync"), "a volume that has failed takes no more consistency points");
    }
    assert.deepEqual(checkVolume(disk).findings, []);
    done = operations <= budget;
  }
  assert(refused >= 2, `${refused} operations were refused`);
  assert(failed >= 8, `${failed} consistency points failed`);
});
