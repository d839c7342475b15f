/** Short sequences of steps that chance alone seldom makes. Each next step is made up when it is its turn. */
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { below, type Random } from "../../src/core/prng.ts";
import { POINTERS_PER_BLOCK } from "../../src/format/constants.ts";
import { type Model, modelNodeAt, type Operation } from "../support/model-fs.ts";
import { type Found, pathsOf, pick, SLOTS } from "./operations.ts";
import { type Action, pattern } from "./steps.ts";
import type { World } from "./world.ts";

export type Script = readonly ((world: World) => Action)[];

/** Written at once to fill a volume up. */
const FILL_BYTES_MAX = 3 << 20;
/** Less than goes to the disk at once. */
const SMALL_BYTES = 15 * BLOCK_BYTES;
/** Apart: each in a leaf of the tree of its own, which is what makes freeing them expensive. */
const LEAF_BYTES = POINTERS_PER_BLOCK * BLOCK_BYTES;
/** Freeing more leaves takes several slices. */
const LEAVES = 18;
/** More than it takes to fill a small volume, or its log. */
const SMALL_WRITES = 16;
/** Directories above one another: more inodes than the smallest cache keeps. */
const DEPTH = 10;

const cp = (): Action => ({ kind: "cp" });
const look = (): Action => ({ kind: "compare" });
const reclaim = (): Action => ({ kind: "reclaim" });
const fsync = (): Action => ({ kind: "fsync", path: "/", wait: true });
const times = (count: number, some: Script): Script => Array.from({ length: count }, () => some).flat();

export function randomScript(random: Random): Script {
  const peek = (): Action => ({ kind: "peek", seed: random.u32(), count: 3 });
  const watch = (): Action => ({ kind: "watch", count: 30, seed: random.u32() });
  const change = ({ model }: World): Action => ({
    kind: "do",
    op: { kind: "chmod", path: pathsOf(model)[0]?.path ?? "/", mode: below(random, 0o1000) },
  });
  switch (below(random, 10)) {
    case 0: // what a frame refers to is given up, and all that is free is used
      return [write, fsync, pick(random, [remove, cut]), write, write, peek];
    case 1: // dirty blocks are all that fills the volume
      return [...times(SMALL_WRITES, [append]), remove, watch, ...times(5, [cp])];
    case 2: // frames around the ring while a consistency point is on its way
      return [fsync, cp, watch, ...times(SMALL_WRITES, [change, fsync]), peek];
    case 3: // a write of several frames is torn, and the ones after it are like them
      return [
        fsync,
        ...times(3, [change, (): Action => ({ kind: "sync", wait: false })]),
        (): Action => ({ kind: "cut", after: 0, how: "power", seed: random.u32(), again: [] }),
        (): Action => ({ kind: "log" }),
        ...times(2, [change, fsync, peek]),
      ];
    case 4: // many records of the snapshot table in one consistency point
      return [...times(SMALL_WRITES / 2, [changeSnapshot]), watch, ...times(6, [cp])];
    case 5:
    case 6: // what is cut out of a file is freed in slices, with crashes between them
      return [
        ...times(LEAVES, [spread]),
        pick(random, [cp, fsync, spread]),
        cutLongest,
        pick(random, [cp, fsync, changeSnapshot, cutLongest, removeLongest]),
        pick(random, [watch, peek, cutLongest, removeLongest]),
        ...times(3, [reclaim, pick(random, [cp, fsync, cutLongest, spread, peek])]),
        pick(random, [peek, crash]),
        ...times(2, [reclaim, cp]),
      ];
    case 7: // the device refuses that the log is on, also while a consistency point is on its way
      return [
        (): Action => ({ kind: "reopen", apart: true }),
        change,
        fsync,
        pick(random, [cp, fsync]),
        change,
        refuseLog,
        pick(random, [fsync, watch]),
        change,
        fsync,
        peek,
      ];
    case 8: // between changes more is looked at than memory keeps
      return [
        ...times(DEPTH, [deepen]),
        ...times(5, [cp]),
        pick(random, [remove, change, cut]),
        pick(random, [look, moveBelow]),
        pick(random, [remove, change, moveBelow]),
        look,
        ...times(5, [pick(random, [cp, fsync])]),
        peek,
      ];
    default: // a file without a name gets one
      return [
        fsync,
        (): Action => ({ kind: "do", op: { kind: "tmpfile", path: "/", slot: SLOTS, excl: false } }),
        (): Action => ({ kind: "do", op: { kind: "linkSlot", slot: SLOTS, into: "/b" } }),
        fsync,
        peek,
      ];
  }

  /** A directory on the way to the deepest one goes below that, which must be refused, or gives it its place. */
  function moveBelow({ model }: World): Action {
    const deepest = deepestOf(model) || "/d";
    const names = deepest.split("/");
    const path = names.slice(0, 2 + below(random, names.length - 1)).join("/");
    const [into, flags] = pick(random, [
      [`${deepest}/e`, 0],
      [deepest, 0],
      [deepest, 2],
    ] as const);
    return { kind: "do", op: { kind: "rename", path, into, flags } };
  }

  function cut(world: World): Action {
    return { kind: "do", op: { kind: "truncate", path: someFile(random, world), sizeBytes: 0 } };
  }

  function remove(world: World): Action {
    return { kind: "do", op: { kind: "unlink", path: someFile(random, world) } };
  }

  function refuseLog(): Action {
    const on = pick(random, ["write", "flush"] as const);
    const code = pick(random, ["EIO", "ENOSPC"] as const);
    return { kind: "fault", inLog: true, on, code, after: below(random, 2), times: 1 };
  }

  /** A few bytes behind the end of the longest file, in a leaf of their own. */
  function spread({ model }: World): Action {
    const [file] = filesByLength(model);
    if (file === undefined) return { kind: "do", op: { kind: "create", path: "/a", mode: 0o644, uid: 0 } };
    const offset = Math.ceil(file.node.data.length / LEAF_BYTES) * LEAF_BYTES + below(random, LEAF_BYTES);
    return {
      kind: "do",
      op: { kind: "write", path: file.path, offset, data: pattern(100, 1 + below(random, 255), 7) },
    };
  }

  /** Its end, its start, or a part of its middle. */
  function cutLongest({ model }: World): Action {
    const [file] = filesByLength(model);
    if (file === undefined) return { kind: "cp" };
    const { path } = file;
    const { length } = file.node.data;
    const at = pick(random, [0, 0, below(random, BLOCK_BYTES), below(random, Math.min(length + 1, 4 * LEAF_BYTES))]);
    const op: Operation =
      below(random, 2) === 0
        ? { kind: "truncate", path, sizeBytes: at }
        : { kind: "fallocate", path, mode: 3, offset: at, length: Math.max(1, length - below(random, 2 * LEAF_BYTES)) };
    return { kind: "do", op };
  }

  function crash(): Action {
    return { kind: "crash", how: pick(random, ["power", "kill"]), seed: random.u32(), again: [] };
  }

  function write(world: World): Action {
    return { kind: "do", op: fill(random, world) };
  }

  function append(world: World): Action {
    const path = someFile(random, world);
    const end = modelNodeAt(world.model, path)?.data.length;
    if (end === undefined) return { kind: "do", op: { kind: "create", path, mode: 0o644, uid: 0 } };
    return {
      kind: "do",
      op: { kind: "write", path, offset: end, data: pattern(SMALL_BYTES, 1 + below(random, 255), 7) },
    };
  }

  function changeSnapshot({ snapshots }: World): Action {
    const name = snapshots.size === 0 ? "one" : pick(random, [...snapshots.keys()]);
    if (below(random, 2) === 0) return { kind: "snapshot", what: "delete", name };
    return { kind: "snapshot", what: "rename", name, into: `${name}'` };
  }
}

function deepen({ model }: World): Action {
  return { kind: "do", op: { kind: "mkdir", path: `${deepestOf(model)}/d`, mode: 0o755, uid: 0 } };
}

/** The path of the directory that most are above; "": there is only the root. */
function deepestOf(model: Model): string {
  const depths = pathsOf(model)
    .filter(({ node }) => node.kind === "directory")
    .map(({ path }) => ({ path, depth: path.split("/").length }));
  return depths.toSorted((a, b) => b.depth - a.depth)[0]?.path ?? "";
}

function removeLongest({ model }: World): Action {
  return { kind: "do", op: { kind: "unlink", path: filesByLength(model)[0]?.path ?? "/a" } };
}

function filesByLength(model: Model): readonly Found[] {
  const files = pathsOf(model).filter(({ node }) => node.kind === "file");
  return files.toSorted((a, b) => b.node.data.length - a.node.data.length);
}

function someFile(random: Random, { model }: World): string {
  const files = pathsOf(model).filter(({ node }) => node.kind === "file");
  return files.length === 0 ? "/a" : pick(random, files).path;
}

/** Writes what is free but for a few blocks, or as much as may be written. */
export function fill(random: Random, { model, volume }: World): Operation {
  const files = pathsOf(model).filter(({ node }) => node.kind === "file");
  const [found] = files.length === 0 ? [] : [pick(random, files)];
  if (found === undefined) return { kind: "create", path: "/a", mode: 0o644, uid: 0 };
  const blocks = volume.availableNowBlocks - below(random, 6);
  const length = Math.max(1, Math.min(FILL_BYTES_MAX, blocks * BLOCK_BYTES - below(random, 2) * 100));
  const end = found.node.data.length;
  const offset = pick(random, [0, end, Math.ceil(end / BLOCK_BYTES) * BLOCK_BYTES]);
  return { kind: "write", path: found.path, offset, data: pattern(length, 1 + below(random, 255), below(random, 256)) };
}
