/**
 * The summary map, by region and on demand: the OR of all bit planes. A block is free when it is neither in the active
 * map nor in the summary map.
 *
 * With thousands of snapshots most planes share their map blocks. Snapshots of one lineage stand in the order of time,
 * and a map block that an older and a newer one share was never replaced between them: its VBN could not be given to
 * another block while the older held it. So if both ends of a range have the same pointer, all of the range has, and
 * the distinct blocks are found by halving: O(distinct x log snapshots), each distinct block read once.
 */
import type { SnapshotRecord } from "../../format/snapshot-record.ts";
import type { Plane } from "./plane.ts";

/** A snapshot and its plane. */
export interface SnapshotPlane {
  readonly record: SnapshotRecord;
  readonly plane: Plane;
}

/** out = OR of the planes in one region. `planes` is in the order of ids. False: nothing is set. */
export function orPlanes(planes: readonly SnapshotPlane[], region: number, out: Uint32Array): boolean {
  let any = false;
  const add = (at: number): void => {
    const { plane } = planes[at] as SnapshotPlane;
    if (plane.pointer(region).vbn === 0) return;
    const words = plane.words(region);
    for (let w = 0; w < out.length; w++) out[w] = (out[w] as number) | (words[w] as number);
    any = true;
  };
  const same = (a: number, b: number): boolean => {
    const left = (planes[a] as SnapshotPlane).plane.pointer(region);
    const right = (planes[b] as SnapshotPlane).plane.pointer(region);
    return left.vbn === right.vbn && left.checksum === right.checksum;
  };
  /** Adds what lies strictly between two that are added already. */
  const between = (low: number, high: number): void => {
    if (high - low < 2 || same(low, high)) return;
    const middle = (low + high) >>> 1;
    if (!same(low, middle) && !same(middle, high)) add(middle);
    between(low, middle);
    between(middle, high);
  };
  for (let low = 0; low < planes.length; ) {
    const { lineage } = (planes[low] as SnapshotPlane).record;
    let high = low;
    while (high + 1 < planes.length && (planes[high + 1] as SnapshotPlane).record.lineage === lineage) high += 1;
    add(low);
    if (high > low && !same(low, high)) add(high);
    between(low, high);
    low = high + 1;
  }
  return any;
}
