/** Running a history: each step is done to the real filesystem and to the model, and whatever differs is a failure. */
import assert from "node:assert/strict";
import { FsError } from "../../src/core/errors.ts";
import type { DurableAt } from "../../src/fs/file-system.ts";
import { PowerCut } from "../support/devices.ts";
import { applyToReal, entryAt, errnoOf, nodeAt, nodeOfSlot, withOpen } from "../support/fs-paths.ts";
import {
  applyToModel,
  copyModel,
  type Model,
  type ModelNode,
  modelNodeAt,
  type Operation,
} from "../support/model-fs.ts";
import { sliceOf } from "../support/sparse-bytes.ts";
import { peek, recover, rot, watch } from "./crashes.ts";
import { compareDamaged } from "./damaged.ts";
import { digestOfReal } from "./digest.ts";
import { openListing } from "./listing.ts";
import { type Action, encodeHistory, type History, type Setup, type Step } from "./steps.ts";
import {
  addVersion,
  type Content,
  type Counts,
  compareWorld,
  contentOf,
  explain,
  openDisk,
  openWorld,
  show,
  type Version,
  versionOf,
  type World,
} from "./world.ts";

export interface RunOptions {
  readonly trace?: (line: string) => void;
}

/** Runs steps until there are no more. Throws at the first thing that is not as it must be. */
export function runHistory({ setup, steps }: History, { trace = (): void => {} }: RunOptions = {}): Counts {
  const world = openWorld(setup, trace);
  for (const step of steps) runStep(world, step);
  finish(world);
  return countsOf(world);
}

/** Runs a history that is made up as it goes: `next` sees the world. Returns it too, in what was thrown as well. */
export function runAndRecord(
  setup: Setup,
  next: (world: World) => Step | undefined,
  { trace = (): void => {} }: RunOptions = {},
): { readonly history: History; readonly counts: Counts; readonly failure: unknown } {
  const steps: Step[] = [];
  const world = openWorld(setup, trace);
  let failure: unknown;
  try {
    for (let step = next(world); step !== undefined; step = next(world)) {
      steps.push(step);
      runStep(world, step);
    }
    finish(world);
  } catch (error) {
    failure = error;
  }
  return { history: { setup, steps }, counts: countsOf(world), failure };
}

function countsOf({ counts, looks, other }: World): Counts {
  return { ...counts, alike: looks.known, transfers: other.transfers, otherCrashes: other.crashes };
}

const ORIGIN_SECONDS = 1_100_000_000;

function runStep(world: World, step: Step): void {
  const { seconds, nanoseconds } = world.clock.now();
  world.clock.advanceMs(step.at - ((seconds - ORIGIN_SECONDS) * 1000 + nanoseconds / 1e6));
  world.trace(encodeStep(step));
  const refusedBefore = world.faults.refused;
  const { faults } = world;
  try {
    act(world, step);
  } catch (error) {
    if (error instanceof PowerCut) {
      const crash = world.armed;
      assert(crash !== undefined, "the power goes when it was told to");
      world.armed = undefined;
      recover(world, crash);
    } else if (error instanceof FsError && faults.refused > refusedBefore) {
      fail(world, step, error);
    } else throw error;
  }
  if (world.volume.failure !== undefined) fail(world, step, world.volume.failure);
}

/**
 * Something could not be made durable, and so the volume has failed: it shows what it did, but what was about to be written
 * may be lost, and whoever runs it can only open it again. A consistency point that was on its way when the log failed may
 * come to its end.
 */
function fail(world: World, { at }: Step, error: unknown): void {
  world.trace(`  the volume has failed: ${String(error)}`);
  world.counts.refusals += 1;
  world.armed = undefined;
  world.disk.cutAfter(Number.POSITIVE_INFINITY);
  const { last } = world.faults;
  const isInMemory = last?.inLog === true || last?.on === "flush";
  quietly(world, () => (isInMemory ? compareWorld(world) : compareDamaged(world.fs, world.model)));
  if (last?.inLog === true) {
    world.counts.logRefusals += 1;
    if (at % 3 === 0) world.host.settle();
  }
  recover(world, { how: at % 2 === 0 ? "kill" : "power", seed: at, again: [] });
}

function encodeStep(step: Step): string {
  return encodeHistory({ setup: {} as Setup, steps: [step] }).split("\n")[1] as string;
}

/** The end of a history: nothing is refused any more, and all is as it must be. */
function finish(world: World): void {
  world.trace("the end");
  world.faults.disarm();
  world.disk.cutAfter(Number.POSITIVE_INFINITY);
  world.host.finish();
  show(world, openDisk(world), contentOf(world) as Version);
  const isReclaimed = reclaimAll(world);
  world.host.finish();
  compareWorld(world);
  peek(world, 0);
  // Nobody uses what has no name any more, so it has been freed.
  if (isReclaimed) assert.equal(world.volume.status().usedInodes, inodesOf(world.model), "inodes in use");
}

/** False: there is no room for it. */
function reclaimAll(world: World): boolean {
  try {
    while (world.fs.reclaimSlice()) world.host.finish();
    return true;
  } catch (error) {
    if (!(error instanceof FsError) || error.code !== "ENOSPC") throw error;
    return false;
  }
}

/** The files that hold the metadata, and the root. */
const FIRST_INODES = 4;

/** What is in use when only the nodes of the model are: each that has attributes keeps them in an inode of their own. */
function inodesOf(model: Model): number {
  const seen = new Set<ModelNode>();
  let inodes = FIRST_INODES - 1;
  const visit = (node: ModelNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    inodes += node.xattrs.size > 0 ? 2 : 1;
    for (const child of node.entries.values()) visit(child);
  };
  visit(model.root);
  return inodes;
}

function act(world: World, action: Action): void {
  switch (action.kind) {
    case "do":
      operate(world, action.op);
      break;
    case "fsync":
      fsync(world, action);
      break;
    case "sync":
      waitFor(world, world.fs.syncAll(), versionOf(world), action.wait);
      break;
    case "cp":
      world.host.advance();
      break;
    case "log":
      world.host.advanceLog();
      break;
    case "relieve":
      world.volume.relieve();
      break;
    case "reclaim":
      refusable(world, () => void world.fs.reclaimSlice());
      break;
    case "compare":
      quietly(world, () => compareWorld(world));
      break;
    case "reopen":
      world.host.finish("unmount");
      world.isLogApart = action.apart;
      show(world, openDisk(world), contentOf(world) as Version);
      quietly(world, () => compareWorld(world));
      break;
    case "snapshot":
      changeSnapshots(world, action);
      break;
    case "list":
      list(world, action);
      break;
    case "read":
      read(world, action);
      break;
    case "crash":
      world.armed = undefined;
      recover(world, action);
      break;
    case "cut":
      world.armed = action;
      world.disk.cutAfter(action.after);
      break;
    case "peek":
      for (let i = 0; i < action.count; i++) peek(world, action.seed + i);
      break;
    case "watch":
      watch(world, action);
      break;
    case "rot":
      rot(world, action);
      break;
    case "fault":
      world.faults.arm(action);
      break;
    case "send": {
      world.host.settle();
      const record = world.volume.findSnapshot(action.name);
      const content = world.durable.snapshots.get(action.name);
      if (record === undefined || content === undefined || world.setup.isFilled) return;
      if (world.snapshots.get(action.name) !== content) return; // it is on its way only
      world.other.send(world.disk.contents(), record, content.digest);
      break;
    }
    case "receive":
      world.other.receive(action.frames, action);
      break;
    case "cutOther":
      world.other.cut(action.after, action.seed);
      break;
  }
}

/** Nothing is refused while it runs: for looking, which changes nothing that counts. */
function quietly(world: World, look: () => void): void {
  world.faults.disarm();
  look();
}

function operate(world: World, op: Operation): void {
  world.counts.operations += 1;
  const now = world.clock.now();
  const { refused } = world.faults;
  const { usedInodes } = world.volume.status();
  const found = applyToReal(world.fs, world.slots, op);
  if (op.kind === "truncate" || op.kind === "fallocate") {
    world.counts.heirs += Math.max(0, world.volume.status().usedInodes - usedInodes);
  }
  if (found !== "") world.trace(`  ${found}`);
  if (world.faults.refused > refused && (found === "EIO" || found === "ENOSPC")) {
    world.counts.refusals += 1;
    if (world.volume.failure !== undefined) return;
    quietly(world, () => unchanged(world));
    return;
  }
  if (found !== "ENOSPC") {
    settleOperation(world, op, found, now);
    return;
  }
  world.counts.fullAnswers += 1;
  const deletes = op.kind === "unlink" || op.kind === "rmdir" || (op.kind === "truncate" && op.sizeBytes === 0);
  if (!deletes) return;
  // A full volume can always delete, once what was deleted before is free.
  world.host.finish();
  world.host.finish();
  const { refused: refusedAgain } = world.faults;
  const again = applyToReal(world.fs, world.slots, op);
  if (world.faults.refused > refusedAgain && again !== "") return;
  assert.notEqual(again, "ENOSPC", "a full volume cannot delete");
  settleOperation(world, op, again, now);
}

/** The model does it too, and answers alike. */
function settleOperation(world: World, op: Operation, found: string, now: ReturnType<World["clock"]["now"]>): void {
  assert.equal(found, applyToModel(world.model, op, now), `answer to ${op.kind}`);
  if (found !== "") return;
  quietly(world, () => learnNumber(world, op));
  addVersion(world, now);
  world.listing?.notice();
}

function unchanged(world: World): void {
  if (digestOfReal(world.fs) !== contentOf(world).digest) explain(world.fs, [contentOf(world)]);
}

/** The inode number of what was made is the real one's choice. It must not be in use. */
function learnNumber(world: World, op: Operation): void {
  const { model, fs, slots } = world;
  let node: ModelNode | undefined;
  let ino = 0;
  if (op.kind === "tmpfile") {
    node = model.slots.get(op.slot);
    ino = (nodeOfSlot(slots, op.slot) ?? 0) % 2 ** 32;
  } else if (op.kind === "create" || op.kind === "mkdir" || op.kind === "mknod" || op.kind === "symlink") {
    node = modelNodeAt(model, op.path);
    ({ ino } = entryAt(fs, op.path).attributes);
  }
  if (node === undefined) return;
  node.ino = ino;
}

/** False: the device or a full volume has refused, and nothing has changed. */
function refusable(world: World, change: () => void): boolean {
  const { refused } = world.faults;
  const answer = errnoOf(change);
  if (answer === "") return true;
  if (answer === "ENOSPC") world.counts.fullAnswers += 1;
  else assert(world.faults.refused > refused, `${answer}, and the device has refused nothing`);
  world.faults.disarm();
  return false;
}

function fsync(world: World, { path, slot, wait }: Extract<Action, { kind: "fsync" }>): void {
  const { fs, model, slots } = world;
  const node = path === undefined ? model.slots.get(slot as number) : modelNodeAt(model, path);
  if (node === undefined || (node.kind !== "file" && node.kind !== "directory")) return;
  const version = Math.max(world.restoredIn, world.changedIn.get(node.ctime) ?? 0);
  let at: DurableAt = 0;
  const asked = refusable(world, () => {
    if (path === undefined) at = fs.fsync(slots.get(slot as number) as Parameters<typeof fs.fsync>[0]);
    else if (node.kind === "file") at = withOpen(fs, path, 0, (handle) => fs.fsync(handle));
    else {
      const { handle } = fs.openDirectory(nodeAt(fs, path));
      at = fs.fsync(handle);
      fs.releaseDirectory(handle);
    }
  });
  if (asked) waitFor(world, at, version, wait);
}

function waitFor({ host }: World, at: DurableAt, version: number, wait: boolean): void {
  host.wait(at, version);
  if (wait) host.waitFor(at);
}

function changeSnapshots(world: World, action: Extract<Action, { kind: "snapshot" }>): void {
  const { volume, snapshots, host } = world;
  const { name } = action;
  const content = snapshots.get(name);
  switch (action.what) {
    case "create":
      if (content !== undefined) {
        assert.equal(
          errnoOf(() => volume.createSnapshot(name)),
          "EEXIST",
        );
        return;
      }
      host.settle();
      if (!refusable(world, () => void volume.createSnapshot(name))) return;
      snapshots.set(name, contentOf(world));
      host.freeze("snapshot");
      break;
    case "delete":
      if (content === undefined)
        assert.equal(
          errnoOf(() => volume.deleteSnapshot(name)),
          "ENOENT",
        );
      else if (refusable(world, () => volume.deleteSnapshot(name))) snapshots.delete(name);
      break;
    case "rename":
      if (content === undefined || snapshots.has(action.into)) return;
      if (!refusable(world, () => volume.renameSnapshot(name, action.into))) return;
      snapshots.delete(name);
      snapshots.set(action.into, content);
      break;
    case "restore":
      if (content !== undefined) restore(world, name, content);
      break;
  }
}

function restore(world: World, name: string, { model }: Content): void {
  if (!refusable(world, () => world.volume.restoreSnapshot(name))) return;
  world.model = copyModel(model);
  for (const handle of world.slots.values()) world.fs.release(handle);
  world.slots.clear();
  world.listing = undefined;
  addVersion(world, world.clock.now());
  world.restoredIn = versionOf(world);
}

function list(world: World, { path, count }: Extract<Action, { kind: "list" }>): void {
  refusable(world, () => {
    world.listing ??= openListing(world.fs, world.model, path);
    if (world.listing?.read(count) === true) world.listing = undefined;
  });
}

function read(world: World, { path, offset, length }: Extract<Action, { kind: "read" }>): void {
  const node = modelNodeAt(world.model, path);
  if (node?.kind !== "file") return;
  const into = new Uint8Array(length);
  refusable(world, () => {
    const count = withOpen(world.fs, path, 0, (handle) => world.fs.read(handle, offset, length, into, 0));
    const expected = sliceOf(node.data, offset, offset + length);
    assert.equal(
      Buffer.compare(into.subarray(0, count), expected),
      0,
      `bytes ${offset} to ${offset + length} of ${path}`,
    );
  });
}
