/** Making histories up: what comes next, by chance and by what there is. Everything follows from the seed. */
import { below, prng, type Random } from "../../src/core/prng.ts";
import { FILLED_BLOCKS } from "./base-volumes.ts";
import { pathsOf, pick, randomOperation, type Sizes, SLOTS } from "./operations.ts";
import { fill, randomScript, type Script } from "./scripts.ts";
import type { Action, Crash, Setup, Step } from "./steps.ts";
import type { World } from "./world.ts";

/** One history in so many begins with a volume whose first region is full. */
const FILLED_EVERY = 40;
/** With 20 snapshots the table has several blocks. */
const SNAPSHOT_NAMES = ["one", "two", "three", "four", ...Array.from({ length: 16 }, (_, i) => `snapshot ${i + 5}`)];

export interface Generator {
  readonly setup: Setup;
  readonly next: (world: World) => Step | undefined;
}

export function generator(seed: number): Generator {
  const random = prng(seed);
  const isFilled = below(random, FILLED_EVERY) === 0;
  const blockCount = pick(random, [64, 128, 192, 256, 256, 400, 400, 400, 800, 1024, 4096, 40_000]);
  const setup: Setup = {
    blockCount: isFilled ? FILLED_BLOCKS : blockCount,
    isFilled,
    cacheBytes: pick(random, [1 << 14, 1 << 16, 1 << 18, 1 << 20]),
    accessTimes: pick(random, ["relatime", "strictatime", "noatime"]),
    snapshots: isFilled ? 0 : pick(random, [0, 0, 0, 15, 30]),
  };
  const sizeMax = Math.max(5000, Math.min(300_000, blockCount * pick(random, [16, 64, 400])));
  const left = pick(random, [30, 60, 150, 400]);
  const scriptEvery = pick(random, [10, 30, 1000]);
  /** Some histories go mostly by consistency points, some mostly by fsync, some have hardly a crash, some little else; some fill up. */
  const mood: Mood = {
    sizeMax,
    isFar: below(random, 3) === 0,
    consistencyPoints: pick(random, [2, 20, 20]),
    durability: pick(random, [2, 10, 40]),
    crashes: pick(random, [1, 4, 10]),
    faults: pick(random, [0, 2, 8]),
    fills: pick(random, [0, 3, 12]),
    snapshots: pick(random, [0, 3, 10, 40]),
    names: SNAPSHOT_NAMES.slice(0, pick(random, [2, 4, 20])),
    sends: isFilled ? 0 : pick(random, [0, 0, 4]),
    reopens: pick(random, [1, 4]),
  };
  let steps = 0;
  let at = 0;
  let script: Script = [];
  return {
    setup,
    next: (world) => {
      if (steps === left) return undefined;
      steps += 1;
      at += 1 + below(random, 30);
      if (script.length === 0 && below(random, scriptEvery) === 0) script = randomScript(random);
      const [first, ...rest] = script;
      script = rest;
      return { ...(first?.(world) ?? nextAction(random, world, mood)), at };
    },
  };
}

interface Mood extends Sizes {
  /** Weights, beside 100 for operations. */
  readonly consistencyPoints: number;
  readonly durability: number;
  readonly crashes: number;
  readonly faults: number;
  readonly fills: number;
  readonly snapshots: number;
  readonly names: readonly string[];
  readonly sends: number;
  readonly reopens: number;
}

function nextAction(random: Random, world: World, mood: Mood): Action {
  const { model, snapshots, host, volume, isLogApart } = world;
  const rows: readonly (readonly [number, () => Action])[] = [
    [100, () => ({ kind: "do", op: randomOperation(random, model, mood) })],
    [mood.fills, () => ({ kind: "do", op: fill(random, world) })],
    [mood.consistencyPoints, () => ({ kind: "cp" })],
    [mood.durability / 2, () => ({ kind: "log" })],
    [mood.durability, () => fsync(random, world)],
    [mood.durability / 3, () => ({ kind: "sync", wait: below(random, 2) === 0 })],
    [mood.snapshots, () => changeSnapshots(random, mood.names, [...snapshots.keys()])],
    [3, () => ({ kind: "relieve" })],
    [3, () => ({ kind: "reclaim" })],
    [1, () => ({ kind: "compare" })],
    [mood.reopens, () => ({ kind: "reopen", apart: below(random, 2) === 0 })],
    [4, () => ({ kind: "list", path: somePath(random, world, "directory"), count: 1 + below(random, 5) })],
    [
      4,
      () => ({
        kind: "read",
        path: somePath(random, world, "file"),
        offset: below(random, mood.sizeMax),
        length: below(random, mood.sizeMax),
      }),
    ],
    [mood.crashes * (host.isBetweenCopies ? 10 : 1), () => ({ kind: "crash", ...crash(random) })],
    [mood.crashes * 2, () => ({ kind: "cut", after: below(random, pick(random, [3, 10, 60])), ...crash(random) })],
    [mood.crashes * 4, () => ({ kind: "peek", seed: random.u32(), count: 1 + below(random, 4) })],
    [mood.crashes * 4, () => ({ kind: "watch", count: 1 + below(random, pick(random, [4, 30])), seed: random.u32() })],
    [
      host.provenSeq > volume.committed.logSeq ? mood.durability : mood.faults / 2,
      () => ({ kind: "rot", seed: random.u32() }),
    ],
    [isLogApart ? mood.faults + 2 : mood.faults, () => fault(random, world)],
    [mood.sends, () => ({ kind: "send", name: pick(random, snapshots.size > 0 ? [...snapshots.keys()] : mood.names) })],
    [mood.sends * 3, () => ({ kind: "receive", frames: 1 + below(random, 4), checkpoint: below(random, 2) === 0 })],
    [mood.sends * 2, () => ({ kind: "cutOther", after: below(random, 6), seed: random.u32() })],
  ];
  let total = 0;
  for (const [weight] of rows) total += weight;
  let luck = (random.u32() / 2 ** 32) * total;
  for (const [weight, make] of rows) {
    luck -= weight;
    if (luck < 0) return make();
  }
  return { kind: "compare" };
}

function crash(random: Random): Crash {
  const again = Array.from({ length: pick(random, [0, 0, 0, 1, 1, 2]) }, () => below(random, pick(random, [2, 8])));
  return { how: below(random, 4) === 0 ? "kill" : "power", seed: random.u32(), again };
}

function fsync(random: Random, world: World): Action {
  const wait = below(random, 2) === 0;
  const slot = below(random, 2 * SLOTS);
  if (below(random, 4) === 0 && world.model.slots.has(slot)) return { kind: "fsync", slot, wait };
  return { kind: "fsync", path: somePath(random, world, pick(random, ["file", "file", "directory"])), wait };
}

function changeSnapshots(random: Random, names: readonly string[], there: readonly string[]): Action {
  const name = pick(random, names);
  const old = there.length === 0 ? name : pick(random, there);
  switch (below(random, 9)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
      return { kind: "snapshot", what: "create", name };
    case 5:
    case 6:
      return { kind: "snapshot", what: "delete", name: old };
    case 7:
      return { kind: "snapshot", what: "rename", name: old, into: name };
    default:
      return { kind: "snapshot", what: "restore", name: old };
  }
}

function fault(random: Random, { isLogApart }: World): Action {
  const inLog = isLogApart && below(random, 2) === 0;
  return {
    kind: "fault",
    inLog,
    on: inLog ? pick(random, ["write", "flush"]) : pick(random, ["read", "write", "write", "flush"]),
    code: pick(random, ["EIO", "ENOSPC"]),
    after: below(random, pick(random, [1, 5, 20])),
    times: pick(random, [1, 1, 3]),
  };
}

function somePath(random: Random, { model }: World, kind: "file" | "directory"): string {
  const found = pathsOf(model).filter(({ node }) => node.kind === kind);
  if (kind === "directory" && below(random, 2) === 0) return "/";
  return found.length === 0 ? "/" : pick(random, found).path;
}
