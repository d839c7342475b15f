/** How many blocks a set of states holds together: counted only in the regions where the set has changed. */

import { count, union } from "../bitset/plane.ts";
import { REGION_WORDS } from "../core/block.ts";
import { type FileRootRecord, fileRoot } from "../format/inode.ts";
import { openPlane, type Plane, regionCountOf } from "../volume/space/plane.ts";
import type { Volume } from "../volume/volume.ts";

export interface StateSets {
  /** Roots of the states that `usedBlocks` counts: active filesystem and snapshots, oldest first. */
  readonly before: readonly FileRootRecord[];
  readonly usedBlocks: number;
  readonly after: readonly FileRootRecord[];
  readonly blockCount: number;
}

/**
 * Blocks in the union of the planes of `after`. A region in which every plane that comes or goes has a map block
 * that a staying one has too (or none) is not read: an increment costs what it has changed.
 */
export function usedBlocksAfter({ active }: Volume, { before, usedBlocks, after, blockCount }: StateSets): number {
  const { store } = active;
  const open = (roots: readonly FileRootRecord[]): Map<string, Plane> =>
    new Map(roots.map((root) => [rootKey(root), openPlane(store, root, blockCount)]));
  const old = open(before);
  const now = open(after);
  const moving: Plane[] = [];
  const staying: Plane[] = [];
  for (const [key, plane] of now) (old.has(key) ? staying : moving).push(plane);
  for (const [key, plane] of old) if (!now.has(key)) moving.push(plane);
  staying.reverse(); // the newest is the likeliest to share with what comes

  let used = usedBlocks;
  const planesNow = [...now.values()];
  const planesBefore = [...old.values()];
  const words = new Uint32Array(REGION_WORDS);
  for (let region = 0; region < regionCountOf(blockCount); region += 1) {
    store.beginOperation();
    if (moving.every((plane) => isShared(plane, staying, region))) continue;
    used += countUnion(planesNow, region, words) - countUnion(planesBefore, region, words);
  }
  return used;

  function countUnion(planes: readonly Plane[], region: number, into: Uint32Array): number {
    store.beginOperation();
    into.fill(0);
    let last = { vbn: 0, checksum: 0 };
    for (const plane of planes) {
      const pointer = plane.pointer(region);
      if (pointer.vbn === 0 || (pointer.vbn === last.vbn && pointer.checksum === last.checksum)) continue;
      union(into, into, plane.words(region));
      last = pointer;
    }
    return count(into);
  }
}

function isShared(plane: Plane, staying: readonly Plane[], region: number): boolean {
  const pointer = plane.pointer(region);
  if (pointer.vbn === 0) return true;
  return staying.some((other) => {
    const { vbn, checksum } = other.pointer(region);
    return vbn === pointer.vbn && checksum === pointer.checksum;
  });
}

/** Two states with the same root are the same state. */
export function rootKey(root: FileRootRecord): string {
  const encoded = Buffer.alloc(fileRoot.size);
  fileRoot.encode(new DataView(encoded.buffer, encoded.byteOffset, encoded.length), 0, root);
  return encoded.toString("latin1");
}
