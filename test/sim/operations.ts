/** Random operations for a simulation: mostly ones that succeed on what there is, some that must be refused. */
import { below, type Random } from "../../src/core/prng.ts";
import type { Model, ModelNode, Operation } from "../support/model-fs.ts";
import { pattern } from "./steps.ts";

const NAMES = [
  "a",
  "b",
  "c",
  "d",
  "e",
  "f",
  "g",
  "h",
  "quite a long name, as they come with photographs.jpeg",
  "z".repeat(255),
];
/** Open files: the first so many slots are for files with names, as many more for files made without one. */
export const SLOTS = 3;
/** Sizes around the edges of inline data, blocks, the direct way to the disk and indirect blocks. */
const SIZES = [1, 100, 128, 129, 4096, 4097, 8000, 65_536, 70_000, 300_000];
/**
 * Far out: more than is cut out of a file in one go, and around the edges of what trees of height 1 and 2 hold. What lies between
 * are holes, so these files are small.
 */
const FAR = [8 << 20, 9 << 20, 2 ** 25 - 4096, 2 ** 25, 2 ** 25 + 5000, 40 << 20, 2 ** 34 - 1, 2 ** 34 + 4096];
const PATHS_MAX = 400;

export interface Sizes {
  /** Of what is written at once, and about that of files. */
  readonly sizeMax: number;
  /** Some are much longer, and have holes. */
  readonly isFar: boolean;
}

export function randomOperation(random: Random, model: Model, { sizeMax, isFar }: Sizes): Operation {
  const paths = pathsOf(model);
  const files = paths.filter(({ node }) => node.kind === "file");
  const old = (): string => paths[below(random, paths.length)]?.path ?? "/a";
  const file = (): string => files[below(random, files.length)]?.path ?? "/a";
  const directory = (): string =>
    pick(random, ["/", ...paths.filter(({ node }) => node.kind === "directory").map(({ path }) => path)]);
  const fresh = (): string => newPath(random, paths);
  const slot = below(random, SLOTS);
  const anySlot = below(random, 2 * SLOTS);
  const bytes = (): number => Math.min(sizeMax, pick(random, SIZES) + below(random, 3));
  const offset = (): number =>
    isFar && below(random, 3) === 0
      ? pick(random, FAR)
      : Math.min(sizeMax * 2, pick(random, [0, 0, 0, 50, 127, 4095, 4096, 16 * 4096, 20 * 4096 - 1, 200_000]));
  switch (below(random, 29)) {
    case 0:
    case 1:
    case 2:
      return { kind: "create", path: fresh(), mode: 0o644, uid: below(random, 3) };
    case 3:
    case 4:
      return { kind: "mkdir", path: fresh(), mode: pick(random, [0o755, 0o2775]), uid: below(random, 3) };
    case 5:
      return {
        kind: "mknod",
        path: fresh(),
        mode: pick(random, [0o010600, 0o020600, 0o060600, 0o140600]),
        rdev: below(random, 70_000),
      };
    case 6:
      return { kind: "symlink", path: fresh(), target: "t".repeat(1 + below(random, pick(random, [100, 4000]))) };
    case 7:
      return { kind: "link", path: file(), into: fresh() };
    case 8:
    case 9:
    case 10:
      return { kind: "unlink", path: old() };
    case 11:
      return { kind: "rmdir", path: old() };
    case 12:
    case 13:
      return { kind: "rename", path: old(), into: fresh(), flags: pick(random, [0, 0, 0, 1, 2]) };
    case 14:
      return { kind: "rename", path: old(), into: old(), flags: pick(random, [0, 1, 2]) };
    case 15:
    case 16:
    case 17:
    case 18:
      return { kind: "write", path: file(), offset: offset(), data: randomData(random, bytes()) };
    case 19:
      return { kind: "truncate", path: file(), sizeBytes: pick(random, [0, bytes(), offset()]) };
    case 20:
      return {
        kind: "fallocate",
        path: file(),
        mode: pick(random, [0, 1, 3, 3, 16, 17]),
        offset: offset(),
        length: isFar && below(random, 3) === 0 ? pick(random, FAR) : bytes(),
      };
    case 21:
      return pick<Operation>(random, [
        { kind: "chmod", path: old(), mode: below(random, 0o10000) },
        { kind: "chown", path: old(), uid: below(random, 5), gid: below(random, 5) },
        {
          kind: "utimes",
          path: old(),
          mtime: { seconds: below(random, 2 ** 32) - 2 ** 31, nanoseconds: below(random, 1e9) },
        },
      ]);
    case 22: {
      const value = "v".repeat(below(random, pick(random, [10, 300, Math.min(sizeMax, 20_000)])));
      return {
        kind: "setxattr",
        path: old(),
        name: pick(random, ["user.a", "user.b"]),
        value,
        flags: pick(random, [0, 0, 1, 2]),
      };
    }
    case 23:
      return { kind: "removexattr", path: old(), name: pick(random, ["user.a", "user.b"]) };
    case 24:
      if (model.slots.has(anySlot)) return { kind: "close", slot: anySlot };
      if (anySlot < SLOTS) return { kind: "open", path: file(), slot: anySlot };
      return { kind: "tmpfile", path: directory(), slot: anySlot, excl: below(random, 4) === 0 };
    case 25:
      return { kind: "linkSlot", slot: SLOTS + slot, into: fresh() };
    case 26:
      return {
        kind: "setAccess",
        path: old(),
        of: pick(random, ["access", "default"]),
        user: below(random, 5),
        permissions: below(random, 0o100000),
      };
    case 27:
      return {
        kind: "copyRange",
        path: file(),
        fromOffset: offset(),
        into: file(),
        offset: offset(),
        length: bytes(),
      };
    default:
      return { kind: "writeSlot", slot: anySlot, offset: offset(), data: randomData(random, bytes()) };
  }
}

export interface Found {
  readonly path: string;
  readonly node: ModelNode;
}

/** Paths of all that there is but the root, up to a bound. */
export function pathsOf(model: Model): readonly Found[] {
  const found: Found[] = [];
  const visit = (dir: ModelNode, prefix: string): void => {
    for (const [name, node] of dir.entries) {
      if (found.length >= PATHS_MAX) return;
      const path = `${prefix}/${name}`;
      found.push({ path, node });
      if (node.kind === "directory") visit(node, path);
    }
  };
  visit(model.root, "");
  return found;
}

/** A name in one of the directories that there are; it may be taken. */
function newPath(random: Random, paths: readonly Found[]): string {
  const dirs = paths.filter(({ node, path }) => node.kind === "directory" && path.length < 600);
  const dir = below(random, 3) === 0 ? undefined : dirs[below(random, dirs.length)];
  return `${dir?.path ?? ""}/${pick(random, NAMES)}`;
}

function randomData(random: Random, length: number): Uint8Array {
  return pattern(length, 1 + below(random, 255), below(random, 256));
}

export function pick<T>(random: Random, from: readonly T[]): T {
  return from[below(random, from.length)] as T;
}
