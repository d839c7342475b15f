/**
 * Write-anywhere allocation, and the rule that makes every crash harmless.
 *
 * A block of the volume is, at any moment, in one of these states:
 *
 *             allocate                    freeze                      free
 *     free ------------> fresh, active ------------> active ---------------------> frozen
 *      ^                      |                                                      |
 *      |        free          |                 commit of the CP that frees it,      |
 *      +----------------------+                 unless a snapshot holds it           |
 *      +-----------------------------------------------------------------------------+
 *
 * - active: its bit in the active map is set. That map is an ordinary file of the tree, changed here bit by bit.
 * - held: its bit is set in some snapshot's plane (the summary map).
 * - fresh: allocated since the last freeze, so no root on disk references it: if it is freed it can be used at once. Not so
 *   once the change log refers to it: it is pinned then, as if it were of the freeze before.
 * - frozen: not active any more, but the durable root still references it. Two generations: freed in the open CP, and
 *   freed in the CP that is in flight; the latter become free when that CP is committed.
 *
 * Invariants, asserted where they are cheap: only a block that is neither active, held nor frozen is handed out;
 * nothing that the durable root or a snapshot references is ever overwritten (requirements 13, 24, 45).
 *
 * Space is counted, never guessed: free = allocatable now; every dirty block in memory has one of them set aside, the
 * map blocks that a consistency point may still change have a reserve, deletions have another one.
 */
import assert from "node:assert/strict";
import { REGION_BLOCKS, REGION_SHIFT, REGION_WORDS } from "../../core/block.ts";
import { CorruptionError, FsError } from "../../core/errors.ts";
import { assertNever } from "../../core/numbers.ts";
import { shaped } from "../../core/shaped.ts";
import type { BlockStore } from "../../tree/block-store.ts";
import { type BlockTree, dirtyBlockAt } from "../../tree/block-tree.ts";
import type { Purpose, Space } from "../../tree/space.ts";
import { bitCount, clearRunFrom, NO_RUN, type Run, setBits } from "./map-words.ts";
import { type Plane, planeOf, regionCountOf } from "./plane.ts";
import { orPlanes, type SnapshotPlane } from "./summary-map.ts";

export interface Allocator extends Space {
  readonly freeBlocks: number;
  /** Blocks that ordinary writers could still use. */
  readonly availableBlocks: number;
  readonly activeBlocks: number;
  /** Blocks that are active or held by a snapshot. */
  readonly usedBlocks: number;
  readonly dirtyBlocks: number;
  /** Blocks that become free when the open consistency point is committed, at most. */
  readonly frozenBlocks: number;
  /** So many blocks are kept from writers, for what the kernel has taken from some of them already. */
  setAside(blocks: number): void;
  /**
   * Clears the bits of all blocks that have been freed, which makes map blocks dirty; `reserve` does it too. Throws FsError
   * EIO, CorruptionError; what could not be settled is tried again the next time.
   */
  settle(): void;
  /** The change log on disk refers to these blocks: not to be used again before a CP that contains the change is durable. */
  pin(vbn: number, count: number): void;
  /**
   * Before the change log is replayed: blocks that it refers to, and that are free as far as the durable root goes, are not
   * to be given to anybody else. Throws CorruptionError when one of them is in use.
   */
  withhold(vbn: number, count: number): void;
  /** The replay has come to where such a block becomes one of a file. Throws CorruptionError when it is in use. */
  claim(vbn: number): void;
  /** The open CP has its final bits: what it freed is now in flight, and the counters are those of the CP. */
  freeze(change: SnapshotChange): void;
  /** The frozen CP is durable. */
  commit(): void;
  /** The active filesystem is to be that of a snapshot, whose plane this is: all that only the present one uses is freed. */
  revert(into: SnapshotPlane): void;
  /** Blocks that would be held by nobody if these snapshots were gone: exact, from the planes. */
  released(gone: readonly SnapshotPlane[], kept: readonly SnapshotPlane[]): number;
}

/** What happens to the snapshots in the CP that is frozen. */
export interface SnapshotChange {
  readonly created: boolean;
  readonly deleted: readonly SnapshotPlane[];
}

interface ActiveMap {
  readonly store: BlockStore;
  readonly tree: BlockTree;
}

export interface AllocatorOptions {
  readonly blockCount: number;
  readonly reservedBlocks: number;
  readonly activeBlocks: number;
  readonly usedBlocks: number;
  /** The active map: another one after a restore. */
  readonly activeMap: () => ActiveMap;
  /** The same, to be changed: its inode is dirty, or the tree would be forgotten with its changes. Throws as `settle` does. */
  readonly changingMap: () => ActiveMap;
  /** All snapshots whose blocks are held, those whose deletion is not frozen yet included. In the order of ids. */
  readonly snapshots: () => readonly SnapshotPlane[];
}

/** What is known of a region in memory. Bitmaps are made when they are needed. */
interface Region {
  readonly index: number;
  /** OR of the planes; undefined: no snapshot holds anything here, or `heldKnown` is false. */
  held: Uint32Array | undefined;
  heldKnown: boolean;
  /** active | held | frozen and what lies outside of the volume; made when the allocator enters the region. */
  busy: Uint32Array | undefined;
  fresh: Uint32Array | undefined;
  frozenOpen: Uint32Array | undefined;
  frozenInFlight: Uint32Array | undefined;
}

/** Regions whose bitmaps stay in memory although nothing of them is needed any more: 8 MiB. */
const REGIONS_CACHED_MAX = 1024;

export function openAllocator(options: AllocatorOptions): Allocator {
  const { blockCount, reservedBlocks, activeMap, changingMap, snapshots } = options;
  const regionCount = regionCountOf(blockCount);
  const total = blockCount - reservedBlocks;
  const regions = new Map<number, Region>();
  /** Every map block and its parents can become dirty while a CP is frozen. */
  const cpReserve = regionCount + Math.ceil(regionCount / 512) + 16;
  const deleteReserve = Math.min(
    1024,
    Math.max(Math.floor(blockCount / 128), Math.min(64, Math.floor(blockCount / 8))),
  );

  /** 1: the region has been looked through, and had no free block. On a volume that is nearly full most are so. */
  const exhausted = new Uint8Array(regionCount);

  let { activeBlocks, usedBlocks } = options;
  let freeBlocks = total - usedBlocks;
  let frozenBlocks = 0;
  let dirtyBlocks = 0;
  let asideBlocks = 0;
  let releasedAtCommit = 0;
  let inFlight = false;
  let runLength = 0;
  let currentRegion = 0;
  let currentBit = 0;
  /** Blocks that the active filesystem does not reference any more, and whose bits are still set. */
  const givenUp: number[] = [];
  let settledCount = 0; // those at the front of the queue that are done
  let settling = false;

  function regionAt(index: number): Region {
    let region = regions.get(index);
    if (region === undefined) {
      region = {
        index,
        held: undefined,
        heldKnown: false,
        busy: undefined,
        fresh: undefined,
        frozenOpen: undefined,
        frozenInFlight: undefined,
      };
      regions.set(index, region);
    }
    return region;
  }

  /** The active map's words of a region, to be changed. */
  function activeWords(index: number): Uint32Array {
    const { store, tree } = changingMap();
    return dirtyBlockAt(store, tree, index).words;
  }

  function activePlane(): Plane {
    const { store, tree } = activeMap();
    return planeOf(store, tree, blockCount);
  }

  function heldWords(region: Region, planesOf: () => readonly SnapshotPlane[]): Uint32Array | undefined {
    if (!region.heldKnown) {
      const planes = planesOf();
      const words = new Uint32Array(REGION_WORDS);
      region.held = planes.length > 0 && orPlanes(planes, region.index, words) ? words : undefined;
      region.heldKnown = true;
    }
    return region.held;
  }

  function busyWords(region: Region): Uint32Array {
    if (region.busy !== undefined) return region.busy;
    const active = activePlane().words(region.index);
    const held = heldWords(region, snapshots);
    const busy = active.slice();
    for (const more of [held, region.frozenOpen, region.frozenInFlight]) {
      if (more === undefined) continue;
      for (let w = 0; w < REGION_WORDS; w++) busy[w] = (busy[w] as number) | (more[w] as number);
    }
    const first = region.index * REGION_BLOCKS;
    if (first < reservedBlocks) setBits(busy, 0, Math.min(REGION_BLOCKS, reservedBlocks - first));
    if (first + REGION_BLOCKS > blockCount) setBits(busy, blockCount - first, first + REGION_BLOCKS - blockCount);
    region.busy = busy;
    return busy;
  }

  /** Only reads: the map block of a region that has nothing to give is not made dirty, and its bitmaps are not kept. */
  function findRun(index: number, fromBit: number, countMax: number): Run {
    const region = regionAt(index);
    const run = clearRunFrom(busyWords(region), fromBit, countMax);
    if (run.length > 0 || fromBit > 0) return run;
    exhausted[index] = 1;
    region.busy = undefined;
    const { fresh, frozenOpen, frozenInFlight } = region;
    if (fresh === undefined && frozenOpen === undefined && frozenInFlight === undefined) regions.delete(index);
    return run;
  }

  function reserve(blocks: number, purpose: Purpose): void {
    settle();
    const kept = keptFrom(purpose);
    if (freeBlocks - dirtyBlocks - kept < blocks)
      throw new FsError("ENOSPC", `${blocks} blocks needed, ${Math.max(0, freeBlocks - dirtyBlocks - kept)} available`);
  }

  function keptFrom(purpose: Purpose): number {
    switch (purpose) {
      case "cp":
        return 0;
      case "delete":
        return cpReserve;
      case "write-back":
        return cpReserve + deleteReserve;
      case "write":
        return cpReserve + deleteReserve + asideBlocks;
      default:
        return assertNever(purpose);
    }
  }

  function allocate(countMax: number): number {
    for (let tried = 0; tried <= regionCount; tried++) {
      const run = exhausted[currentRegion] === 1 ? NO_RUN : findRun(currentRegion, currentBit, countMax);
      if (run.length > 0) {
        const region = regionAt(currentRegion);
        const words = activeWords(currentRegion);
        const busy = busyWords(region);
        region.fresh ??= new Uint32Array(REGION_WORDS);
        setBits(busy, run.start, run.length);
        setBits(words, run.start, run.length);
        setBits(region.fresh, run.start, run.length);
        currentBit = run.start + run.length;
        freeBlocks -= run.length;
        activeBlocks += run.length;
        usedBlocks += run.length;
        runLength = run.length;
        const vbn = currentRegion * REGION_BLOCKS + run.start;
        assert(vbn >= reservedBlocks, "allocated in the reserved area");
        assert(vbn + run.length <= blockCount, "allocated beyond the end");
        return vbn;
      }
      currentRegion = (currentRegion + 1) % regionCount;
      currentBit = 0;
    }
    throw new FsError("ENOSPC", "no free block");
  }

  /**
   * Clears the bits of what has been given up so far. That reads map blocks and makes them dirty, so it can fail; it happens
   * where an operation may still fail, when it reserves its space, and not in the middle of its changes. A map block that
   * becomes dirty gives up its own old place: it goes to the end of the queue.
   */
  function settle(): void {
    if (settling) return;
    settling = true;
    try {
      for (; settledCount < givenUp.length; settledCount += 1) freeOne(givenUp[settledCount] as number);
      givenUp.length = 0;
      settledCount = 0;
    } finally {
      settling = false;
    }
  }

  function freeOne(vbn: number): void {
    if (vbn < reservedBlocks || vbn >= blockCount)
      throw new CorruptionError(`block ${vbn} to be freed is outside of the volume`);
    const index = vbn >>> REGION_SHIFT;
    const bit = vbn & (REGION_BLOCKS - 1);
    const word = bit >>> 5;
    const mask = 1 << (bit & 31);
    const words = activeWords(index);
    if (((words[word] as number) & mask) === 0)
      throw new CorruptionError(`block ${vbn} to be freed is not in the active map`);
    words[word] = (words[word] as number) & ~mask;
    activeBlocks -= 1;
    const region = regionAt(index);
    if (region.fresh !== undefined && ((region.fresh[word] as number) & mask) !== 0) {
      region.fresh[word] = (region.fresh[word] as number) & ~mask;
      if (region.busy !== undefined) region.busy[word] = (region.busy[word] as number) & ~mask;
      exhausted[index] = 0;
      usedBlocks -= 1;
      freeBlocks += 1;
      return;
    }
    region.frozenOpen ??= new Uint32Array(REGION_WORDS);
    region.frozenOpen[word] = (region.frozenOpen[word] as number) | mask;
    frozenBlocks += 1;
  }

  function pin(vbn: number, count: number): void {
    for (let next = vbn; next < vbn + count; next++) {
      const fresh = regions.get(next >>> REGION_SHIFT)?.fresh;
      const bit = next & (REGION_BLOCKS - 1);
      if (fresh !== undefined) fresh[bit >>> 5] = (fresh[bit >>> 5] as number) & ~(1 << (bit & 31));
    }
  }

  function withhold(vbn: number, count: number): void {
    if (vbn < reservedBlocks || vbn + count > blockCount) {
      throw new CorruptionError(`the change log refers to blocks ${vbn} to ${vbn + count - 1}, outside of the volume`);
    }
    for (let next = vbn; next < vbn + count; next++) {
      const region = regionAt(next >>> REGION_SHIFT);
      const bit = next & (REGION_BLOCKS - 1);
      const word = bit >>> 5;
      const mask = 1 << (bit & 31);
      region.frozenOpen ??= new Uint32Array(REGION_WORDS);
      if (((region.frozenOpen[word] as number) & mask) !== 0) continue; // referred to twice
      const busy = busyWords(region);
      if (((busy[word] as number) & mask) !== 0)
        throw new CorruptionError(`the change log refers to block ${next}, which is in use`);
      busy[word] = (busy[word] as number) | mask;
      region.frozenOpen[word] = (region.frozenOpen[word] as number) | mask;
      frozenBlocks += 1;
      freeBlocks -= 1;
      usedBlocks += 1;
    }
  }

  function claim(vbn: number): void {
    const region = regionAt(vbn >>> REGION_SHIFT);
    const bit = vbn & (REGION_BLOCKS - 1);
    const word = bit >>> 5;
    const mask = 1 << (bit & 31);
    const { frozenOpen } = region;
    if (frozenOpen === undefined || ((frozenOpen[word] as number) & mask) === 0)
      throw new CorruptionError(`the change log gives block ${vbn} to a file, but it is in use`);
    const words = activeWords(region.index);
    frozenOpen[word] = (frozenOpen[word] as number) & ~mask;
    words[word] = (words[word] as number) | mask;
    frozenBlocks -= 1;
    activeBlocks += 1;
  }

  /** Visits, by region, the bits that these planes have and neither the active map nor the kept planes: what they alone hold. */
  function eachReleased(
    gone: readonly SnapshotPlane[],
    kept: readonly SnapshotPlane[],
    visit: (region: number, words: Uint32Array) => void,
  ): void {
    if (gone.length === 0) return;
    const active = activePlane();
    const neighbours = gone.map(({ record }) => neighboursOf(record.id, kept));
    const sum = new Uint32Array(REGION_WORDS);
    const held = new Uint32Array(REGION_WORDS);
    for (let index = 0; index < regionCount; index++) {
      let any = false;
      for (let i = 0; i < gone.length; i++) {
        const { plane } = gone[i] as SnapshotPlane;
        const pointer = plane.pointer(index);
        if (pointer.vbn === 0) continue;
        const shared = (other: Plane): boolean => {
          const theirs = other.pointer(index);
          return theirs.vbn === pointer.vbn && theirs.checksum === pointer.checksum;
        };
        if (shared(active) || (neighbours[i] as readonly Plane[]).some(shared)) continue;
        if (!any) sum.fill(0);
        any = true;
        const words = plane.words(index);
        for (let w = 0; w < REGION_WORDS; w++) sum[w] = (sum[w] as number) | (words[w] as number);
      }
      if (!any) continue;
      held.fill(0);
      orPlanes(kept, index, held);
      const current = active.words(index);
      for (let w = 0; w < REGION_WORDS; w++)
        sum[w] = (sum[w] as number) & ~(current[w] as number) & ~(held[w] as number);
      visit(index, sum);
    }
  }

  function freeze({ created, deleted }: SnapshotChange): void {
    assert(!inFlight, "a consistency point is in flight");
    assert.equal(givenUp.length, 0, "all that the consistency point frees is settled");
    inFlight = true;
    for (const region of regions.values()) {
      region.frozenInFlight = region.frozenOpen;
      region.frozenOpen = undefined;
      region.fresh = undefined;
    }
    frozenBlocks = 0;
    const gone = new Set(deleted.map(({ record }) => record.id));
    const kept = (): readonly SnapshotPlane[] => snapshots().filter(({ record }) => !gone.has(record.id));
    if (gone.size > 0) {
      for (const region of regions.values()) region.heldKnown = false;
      eachReleased(deleted, kept(), (index, words) => {
        const region = regionAt(index);
        region.frozenInFlight ??= new Uint32Array(REGION_WORDS);
        for (let w = 0; w < REGION_WORDS; w++)
          region.frozenInFlight[w] = (region.frozenInFlight[w] as number) | (words[w] as number);
      });
    }
    releasedAtCommit = 0;
    const active = activePlane();
    for (const region of regions.values()) {
      // First: what is not known yet is found from the kept planes, among which the one being created is not.
      if (region.frozenInFlight !== undefined) heldWords(region, kept);
      if (created && region.heldKnown) {
        const held = region.held ?? new Uint32Array(REGION_WORDS);
        const words = active.words(region.index);
        for (let w = 0; w < REGION_WORDS; w++) held[w] = (held[w] as number) | (words[w] as number);
        region.held = held;
      }
      if (region.frozenInFlight === undefined) continue;
      const held = heldWords(region, kept);
      for (let w = 0; w < REGION_WORDS; w++) {
        const bits = (region.frozenInFlight[w] as number) & ~(held === undefined ? 0 : (held[w] as number));
        releasedAtCommit += bitCount(bits);
        region.frozenInFlight[w] = bits;
      }
    }
    usedBlocks -= releasedAtCommit;
  }

  function commit(): void {
    assert(inFlight, "no consistency point is in flight");
    inFlight = false;
    for (const region of regions.values()) {
      if (region.frozenInFlight === undefined) continue;
      if (region.busy !== undefined) {
        for (let w = 0; w < REGION_WORDS; w++)
          region.busy[w] = (region.busy[w] as number) & ~(region.frozenInFlight[w] as number);
      }
      region.frozenInFlight = undefined;
      exhausted[region.index] = 0;
    }
    freeBlocks += releasedAtCommit;
    releasedAtCommit = 0;
    if (regions.size > REGIONS_CACHED_MAX) {
      for (const region of regions.values()) {
        if (region.fresh === undefined && region.frozenOpen === undefined && region.index !== currentRegion)
          regions.delete(region.index);
      }
    }
  }

  /**
   * What has changed since the last CP is dropped with everything else that only the present state uses. All that is needed is
   * read first: where that fails, nothing has been dropped.
   */
  function revert(into: SnapshotPlane): void {
    const { tree } = activeMap();
    const active = activePlane();
    const frozenIn = new Map<number, Uint32Array>();
    for (let index = 0; index < regionCount; index++) {
      const known = regions.get(index);
      const now = active.pointer(index);
      const then = into.plane.pointer(index);
      const changed = tree.dirtyNodes?.has(index) === true || known?.frozenOpen !== undefined;
      if (!changed && now.vbn === then.vbn && now.checksum === then.checksum) continue;
      const frozen = known?.frozenOpen?.slice() ?? new Uint32Array(REGION_WORDS);
      const words = active.words(index);
      for (let w = 0; w < REGION_WORDS; w++) frozen[w] = (frozen[w] as number) | (words[w] as number);
      const back = into.plane.words(index);
      for (let w = 0; w < REGION_WORDS; w++) frozen[w] = (frozen[w] as number) & ~(back[w] as number);
      frozenIn.set(index, frozen);
    }
    frozenBlocks = 0;
    givenUp.length = 0; // their bits are set, and are frozen with all others that the snapshot does not have
    settledCount = 0;
    for (const [index, frozen] of frozenIn) {
      const region = regionAt(index);
      region.frozenOpen = frozen;
      for (let w = 0; w < REGION_WORDS; w++) frozenBlocks += bitCount(frozen[w] as number);
      region.busy = undefined;
      region.fresh = undefined;
      exhausted[index] = 0;
    }
    activeBlocks = into.record.activeBlocks;
    dirtyBlocks = 0;
  }

  return shaped({
    get freeBlocks(): number {
      return freeBlocks;
    },
    get availableBlocks(): number {
      return Math.max(0, freeBlocks - dirtyBlocks - cpReserve - deleteReserve);
    },
    get activeBlocks(): number {
      return activeBlocks;
    },
    get usedBlocks(): number {
      return usedBlocks;
    },
    get dirtyBlocks(): number {
      return dirtyBlocks;
    },
    get frozenBlocks(): number {
      return frozenBlocks + releasedAtCommit + givenUp.length - settledCount;
    },
    reserve,
    setAside(blocks): void {
      asideBlocks = blocks;
    },
    dirtied(count): void {
      dirtyBlocks += count;
    },
    allocate,
    get runLength(): number {
      return runLength;
    },
    free: (vbn) => void givenUp.push(vbn),
    settle,
    pin,
    withhold,
    claim,
    freeze,
    commit,
    revert,
    released(gone, kept): number {
      settle();
      let count = 0;
      eachReleased(gone, kept, (_region, words) => {
        for (let w = 0; w < REGION_WORDS; w++) count += bitCount(words[w] as number);
      });
      return count;
    },
  });
}

/** The kept snapshots next to an id on either side: the likeliest to share its map blocks. */
function neighboursOf(id: number, kept: readonly SnapshotPlane[]): readonly Plane[] {
  let low = 0;
  let high = kept.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((kept[middle] as SnapshotPlane).record.id < id) low = middle + 1;
    else high = middle;
  }
  return [kept[low - 1], kept[low]].filter((found) => found !== undefined).map(({ plane }) => plane);
}
