// Random operations on the real core, over a device in memory, and on a model that knows nothing of blocks: after each
// they have answered alike, and whenever the state is taken to disk and back they are equal in everything.
import assert from "node:assert/strict";
import { test } from "node:test";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { applyToReal, assertEqual, type Bench, makeBench, type Slots, tick } from "../support/fs-paths.ts";
import { applyToModel, copyModel, emptyModel, type Model, type Operation } from "../support/model-fs.ts";

const SEEDS = seeds();
const STEPS = 600;
const NAMES = ["a", "b", "c", "d", "e", "a name that is longer than the others", "\xff\xfe", "z".repeat(255)];
const SNAPSHOTS = ["one", "two", "three"];
const SLOTS = 4;

function seeds(): number[] {
  const given = process.env["SEED"];
  if (given !== undefined) return [Number(given)];
  return Array.from({ length: Number(process.env["RUNS"] ?? 12) }, (_, i) => i + 1);
}

for (const seed of SEEDS) {
  test(`random operations answer as the model does (SEED=${seed})`, () => {
    runSeed(seed);
  });
}

/** All that a run goes on with. `saved` is the model at the last consistency point. */
interface Run {
  readonly random: Random;
  readonly bench: Bench;
  readonly slots: Slots;
  readonly snapshots: Map<string, Model>;
  /** Snapshots at the last consistency point. */
  savedSnapshots: Map<string, Model>;
  model: Model;
  saved: Model;
}

function runSeed(seed: number): void {
  const random = prng(seed);
  const bench = makeBench(32768);
  const model = emptyModel(bench.clock.now());
  const state: Run = {
    random,
    bench,
    slots: new Map(),
    snapshots: new Map(),
    savedSnapshots: new Map(),
    model,
    saved: copyModel(model),
  };
  for (let step = 0; step < STEPS; step++) {
    tick(bench.clock);
    const what = `SEED=${seed} step ${step}`;
    if (below(random, 12) === 0) volumeStep(state, what);
    else {
      const op = randomOperation(random);
      const expected = applyToModel(state.model, op, bench.clock.now());
      const found = applyToReal(bench.fs, state.slots, op);
      assert.equal(found, expected, `${what}: ${JSON.stringify(op, shorten)}`);
    }
  }
  compareAll(state, `SEED=${seed} at the end`);
}

function volumeStep(state: Run, what: string): void {
  const { random, bench } = state;
  const name = pick(random, SNAPSHOTS);
  switch (below(random, 9)) {
    case 0:
    case 1:
      commit(state);
      return;
    case 2:
      commit(state);
      bench.reopen();
      closeSlots(state);
      compareAll(state, what);
      return;
    case 3: // power cut: back to the last consistency point
      bench.reopen();
      state.model = copyModel(state.saved);
      state.snapshots.clear();
      for (const [kept, model] of state.savedSnapshots) state.snapshots.set(kept, model);
      closeSlots(state);
      compareAll(state, what);
      return;
    case 4:
    case 5:
      if (state.snapshots.has(name)) return;
      bench.volume.createSnapshot(name);
      commit(state);
      state.snapshots.set(name, copyModel(state.model));
      state.savedSnapshots = new Map(state.snapshots);
      return;
    case 6:
      if (!state.snapshots.delete(name)) return;
      bench.volume.deleteSnapshot(name);
      return;
    case 7: {
      const model = state.snapshots.get(name);
      if (model === undefined) return;
      commit(state);
      bench.volume.restoreSnapshot(name);
      state.model = copyModel(model);
      commit(state);
      for (const handle of state.slots.values()) bench.fs.release(handle);
      closeSlots(state);
      compareAll(state, what);
      return;
    }
    default:
      while (bench.fs.reclaimSlice());
      compareAll(state, what);
  }
}

function commit(state: Run): void {
  state.bench.volume.takeCp("sync");
  state.saved = copyModel(state.model);
  state.savedSnapshots = new Map(state.snapshots);
}

function closeSlots(state: Run): void {
  state.slots.clear();
  state.model.slots.clear();
}

function compareAll(state: Run, what: string): void {
  const { bench } = state;
  assertEqual(bench.fs, state.model);
  for (const [name, model] of state.snapshots) assertEqual(bench.fs, model, `.snapshot/${name}`);
  if (!bench.volume.dirty) {
    const { findings } = checkVolume(bench.device);
    assert.deepEqual(findings, [], what);
  }
}

function randomOperation(random: Random): Operation {
  const path = randomPath(random);
  const slot = below(random, SLOTS);
  switch (below(random, 24)) {
    case 0:
    case 1:
    case 2:
      return { kind: "create", path, mode: pick(random, [0o644, 0o600, 0o4755, 0o2755]), uid: below(random, 3) };
    case 3:
    case 4:
      return { kind: "mkdir", path, mode: pick(random, [0o755, 0o700, 0o2775]), uid: below(random, 3) };
    case 5:
      return {
        kind: "mknod",
        path,
        mode: pick(random, [0o010000, 0o020000, 0o060000, 0o140000, 0o100000]) | 0o640,
        rdev: below(random, 70000),
      };
    case 6:
      return { kind: "symlink", path, target: "t".repeat(1 + below(random, below(random, 2) === 0 ? 100 : 4094)) };
    case 7:
      return { kind: "link", path, into: randomPath(random) };
    case 8:
    case 9:
      return { kind: "unlink", path };
    case 10:
      return { kind: "rmdir", path };
    case 11:
    case 12:
    case 13:
      return { kind: "rename", path, into: randomPath(random), flags: pick(random, [0, 0, 0, 1, 2, 3]) };
    case 14:
    case 15:
      return { kind: "write", path, offset: randomOffset(random), data: randomData(random) };
    case 16:
      return { kind: "truncate", path, sizeBytes: pick(random, [0, randomOffset(random)]) };
    case 17:
      return {
        kind: "fallocate",
        path,
        mode: pick(random, [0, 1, 3, 16, 17]),
        offset: randomOffset(random),
        length: 1 + randomOffset(random),
      };
    case 18:
      return pick<Operation>(random, [
        { kind: "chmod", path, mode: below(random, 0o10000) },
        { kind: "chown", path, uid: below(random, 5), gid: below(random, 5) },
        { kind: "utimes", path, mtime: { seconds: below(random, 2 ** 32) - 2 ** 31, nanoseconds: below(random, 1e9) } },
      ]);
    case 19:
      return {
        kind: "setxattr",
        path,
        name: pick(random, ["user.a", "user.b", "security.capability"]),
        value: "v".repeat(below(random, pick(random, [10, 300, 20000]))),
        flags: below(random, 3),
      };
    case 20:
      return { kind: "removexattr", path, name: pick(random, ["user.a", "user.b"]) };
    case 21:
      return pick<Operation>(random, [
        { kind: "open", path, slot },
        { kind: "tmpfile", path, slot: slot + SLOTS, excl: below(random, 3) === 0 },
      ]);
    case 22:
      return pick<Operation>(random, [
        { kind: "close", slot },
        { kind: "close", slot: slot + SLOTS },
        { kind: "linkSlot", slot: slot + SLOTS, into: path },
      ]);
    default:
      return {
        kind: "writeSlot",
        slot: below(random, 2 * SLOTS),
        offset: randomOffset(random),
        data: randomData(random),
      };
  }
}

function randomPath(random: Random): string {
  const depth = 1 + below(random, 3);
  return Array.from({ length: depth }, () => `/${pick(random, NAMES)}`).join("");
}

/** Around the edges of inline data, blocks and indirect blocks. */
function randomOffset(random: Random): number {
  const base = pick(random, [0, 0, 100, 128, 4096, 8192, 65536, 17 * 4096, 300_000]);
  return Math.max(0, base + below(random, 200) - 100);
}

function randomData(random: Random): Uint8Array {
  const data = new Uint8Array(pick(random, [1, 20, 128, 1000, 4096, 5000, 20_000, 90_000]) + below(random, 10));
  const fill = 1 + below(random, 255);
  for (let i = 0; i < data.length; i++) data[i] = (fill + i * 7) & 0xff;
  return data;
}

function pick<T>(random: Random, from: readonly T[]): T {
  return from[below(random, from.length)] as T;
}

function shorten(_key: string, value: unknown): unknown {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  return typeof value === "string" && value.length > 60 ? `${value.slice(0, 60)}...` : value;
}
