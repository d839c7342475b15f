/** The two maps of a state, compared with what a check has found to be in use, page by page. */

import { bitCount } from "../bitset/plane.ts";
import { REGION_BLOCKS, REGION_WORDS } from "../core/block.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import type { BlockStore } from "../tree/block-store.ts";
import { nodeAt } from "../tree/block-tree.ts";
import type { Inode } from "../tree/inode-file.ts";
import { eachMarked, type Marks, makeMarks, mark, pageFor } from "./check-marks.ts";
import type { Report } from "./check-report.ts";
import type { Walk } from "./check-walk.ts";

/** Blocks of the present state, and of any state so far. */
export interface BlockSets {
  readonly reached: Marks;
  readonly used: Marks;
  /** Blocks in `reached`. */
  reachedCount: number;
}

/** What a read gives, or undefined where a block is damaged: which was reported when it was verified. */
export function readable<T>(store: BlockStore, read: () => T): T | undefined {
  store.beginOperation();
  try {
    return read();
  } catch (error) {
    if (error instanceof CorruptionError || error instanceof FsError) return undefined;
    throw error;
  }
}

/** Takes what the walk found into the sets. Returns the regions that it touched. */
export function takeBlocks(walk: Walk, report: Report, sets: BlockSets): Marks {
  const touched = makeMarks();
  for (const index of walk.added.pages.keys()) mark(touched, index);
  for (const index of walk.removed.pages.keys()) mark(touched, index);
  eachMarked(touched, (region) => {
    const now = pageFor(sets.reached, region);
    const union = pageFor(sets.used, region);
    const added = walk.added.pages.get(region);
    const removed = walk.removed.pages.get(region);
    for (let w = 0; w < REGION_WORDS; w++) {
      const old = now[w] as number;
      const kept = old & ~(removed?.[w] ?? 0);
      const come = added?.[w] ?? 0;
      if ((kept & come) !== 0) {
        const vbn = region * REGION_BLOCKS + w * 32 + lowest(kept & come);
        const message = `block ${vbn} is referred to twice, by a file that has changed and one that has not`;
        report.add("pointer", message, { vbn });
      }
      now[w] = kept | come;
      union[w] = (union[w] as number) | kept | come;
      sets.reachedCount += bitCount(kept | come) - bitCount(old);
    }
  });
  walk.added = makeMarks();
  walk.removed = makeMarks();
  return touched;
}

export interface MapPage {
  readonly kind: "block-map" | "inode-map";
  /** Undefined: the map is missing, which was reported. */
  readonly map: Inode | undefined;
  readonly index: number;
  /** Undefined: all zero. */
  readonly expected: Uint32Array | undefined;
}

/** Compares a page of a map with what it should be; one finding a page. */
export function checkMapPage(store: BlockStore, report: Report, { kind, map, index, expected }: MapPage): void {
  if (map === undefined) return;
  store.beginOperation();
  let found: Uint32Array | undefined;
  try {
    found = nodeAt(store, map.tree, 0, index)?.words;
  } catch (error) {
    if (!(error instanceof CorruptionError) && !(error instanceof FsError)) throw error;
    const { message, vbn } = error;
    const place = { ino: map.ino, ...(vbn === undefined ? {} : { vbn }) };
    report.add(
      error instanceof FsError ? "unreadable" : "checksum",
      `the ${nouns[kind].map} cannot be read: ${message}`,
      place,
    );
    return;
  }
  let first: number | undefined;
  let tooMany = 0;
  let missing = 0;
  for (let w = 0; w < REGION_WORDS; w++) {
    const is = found?.[w] ?? 0;
    const right = expected?.[w] ?? 0;
    if (is === right) continue;
    first ??= index * REGION_BLOCKS + w * 32 + lowest(is ^ right);
    tooMany += bitCount(is & ~right);
    missing += bitCount(right & ~is);
  }
  if (first === undefined) return;
  const { map: name, member, idle, busy } = nouns[kind];
  const counts = `${tooMany} ${member}s that ${idle}, and not ${missing} that ${busy}`;
  report.add(kind, `the ${name} has ${counts}, from ${member} ${first} on`, { ino: map.ino });
}

const nouns = {
  "block-map": { map: "active map", member: "block", idle: "nothing refers to", busy: "are referred to" },
  "inode-map": { map: "inode map", member: "inode", idle: "are free", busy: "are in use" },
} as const;

function lowest(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}
