/**
 * Room for what the kernel has taken from writers and not handed over yet: every write(2) that has returned will find its space.
 *
 * The kernel keeps at most a known number of dirty pages for a mount (fuse/kernel/backing-device.ts), here D. While writers
 * may go through its cache, 2 D are set aside, which only its pages may use: one D for the pages, one for the
 * blocks above them and for the writes that are under way when it is noticed that there is no more. In a drawing of what is available:
 *
 *      0                D               2 D              3 D
 *      |----------------+----------------|----------------|----------------------------------
 *      | set aside, until the cache is   | files are      | files are opened with the cache
 *      | empty and stays so              | opened without |
 *                                        ^ below: shut    ^ from here on: open again
 *
 *     open: 2 D aside  --less than 2 D, or a request that finds no space-->  draining: 2 D aside, the main thread gives the kernel
 *       ^                                                                    a smaller D, and has it write back what it has
 *       |                                                                      | done
 *       +------------- 3 D available ----------------------------------------  dry: nothing aside, writers with a cache are refused
 *
 * A write(2) that is under way when it is shut goes on to its end. So all lines lie higher by a little for each handle with a
 * cache; and it becomes dry, and what was set aside is there for others, only when no pages have come for longer than the kernel holds
 * up a writer who has reached its limit.
 *
 * D becomes a quarter of what is available, so that it is open again at once, until it is as small as it gets; and grows again with
 * what is available. So writers with a cache get at nearly all, and without one at all there is.
 *
 * Refusing is the kernel's affair (fuse/kernel/room.ts). Who finds no space while it is open or draining, or would be refused
 * while it is draining, waits until it is dry. Blocks that the next consistency point frees do not count, but before it
 * is shut such a point is taken, if that may help.
 *
 * Not covered: what is written through mappings, which hears of it at msync and until then takes room that was meant for the pages
 * of others, and write(2) of more than D, or through more handles than are counted, that began when there was room.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { shaped } from "../core/shaped.ts";
import { dirtyPagesWanted } from "../fuse/kernel/backing-device.ts";
import type { Room } from "../fuse/kernel/room.ts";
import type { Volume, VolumeStatus } from "../volume/volume.ts";

export interface WriteBackRoom extends Room {
  /** To be called after each request. */
  look(): void;
  /** All that was in the kernel's cache has come, and it keeps no more than this: these requests are to be asked again. */
  drained(dirtyPagesBytesMax: number): readonly Uint8Array[];
}

export interface RoomOptions {
  /** Dirty pages that the kernel keeps, at most. */
  readonly dirtyPagesBytesMax: number;
  /** Takes the consistency point that frees what can be freed; false: that is nothing. */
  readonly makeSpace: () => boolean;
  /** Deleted files are still being freed, which `makeSpace` goes on with. */
  readonly isFreeing: () => boolean;
  /** Handles that what is written through goes into the kernel's cache. */
  readonly cachedCount: () => number;
  readonly nowMs: () => number;
  /** Has the kernel keep no more than this, and write back all pages of the mount, after this time. */
  readonly drain: (dirtyPagesBytesMax: number, delayMs: number) => void;
  /** It may keep so much again. */
  readonly allow: (dirtyPagesBytesMax: number) => void;
}

type Phase = "open" | "draining" | "dry";

/** The least that the kernel is to keep: a 128th of the volume, within these bounds. Writers may be in as many calls as fit. */
const LEAST_SHARE = 128;
const LEAST_BLOCKS_MIN = (1 << 20) / BLOCK_BYTES;
const LEAST_BLOCKS_MAX = (8 << 20) / BLOCK_BYTES;
/** What a write(2) takes at once, in general; and of the volume, for all of them, no more than this share. */
const CALL_BLOCKS = (1 << 20) / BLOCK_BYTES;
const CALLS_SHARE = 16;
/** The kernel holds up who writes for 200 ms at most (MAX_PAUSE, mm/page-writeback.c). Mappings may never be quiet. */
const QUIET_MS = 250;
const QUIET_STEP_MS = 50;
const UNQUIET_MS_MAX = 2000;
/** It keeps a quarter of what is available, and is allowed more when that has doubled. */
const KEPT_SHARE = 4;
const GROWTH = 2;

/** Dirty pages that the kernel is to keep, at most. */
export function keptBlocksOf({
  blockCount,
  availableBlocks,
}: Pick<VolumeStatus, "blockCount" | "availableBlocks">): number {
  const least = Math.min(LEAST_BLOCKS_MAX, Math.max(LEAST_BLOCKS_MIN, Math.floor(blockCount / LEAST_SHARE)));
  const most = Math.ceil(dirtyPagesWanted() / BLOCK_BYTES);
  return Math.min(most, Math.max(least, Math.floor(availableBlocks / KEPT_SHARE)));
}

export function writeBackRoom(volume: Volume, options: RoomOptions): WriteBackRoom {
  const { makeSpace, isFreeing, cachedCount, nowMs, drain, allow } = options;
  const mostBlocks = Math.ceil(dirtyPagesWanted() / BLOCK_BYTES);
  const { blockCount } = volume.committed;
  let keptBlocks = Math.ceil(options.dirtyPagesBytesMax / BLOCK_BYTES);
  let phase: Phase = "dry"; // no file has been opened yet
  let waiting: Uint8Array[] = [];
  let tookMs = Number.NEGATIVE_INFINITY;
  let shutMs = Number.NEGATIVE_INFINITY;

  function enter(next: Phase): void {
    phase = next;
    volume.setAside(next === "dry" ? 0 : above(2));
  }

  /** So many times what is kept, and what calls that are under way may take. */
  function above(measures: number): number {
    return measures * keptBlocks + callBlocks();
  }

  function callBlocks(): number {
    return Math.min(CALL_BLOCKS * cachedCount(), Math.floor(blockCount / CALLS_SHARE));
  }

  function isBelow(measures: number): boolean {
    return volume.availableNowBlocks < above(measures);
  }

  function fittingBlocks(): number {
    return keptBlocksOf({ blockCount, availableBlocks: volume.availableNowBlocks - callBlocks() });
  }

  /** No more than what fits, nor than it keeps now. */
  function drainAfter(delayMs: number): void {
    drain(Math.min(keptBlocks, fittingBlocks()) * BLOCK_BYTES, delayMs);
  }

  function shut(): void {
    if (phase !== "open") return;
    shutMs = nowMs();
    enter("draining");
    drainAfter(0);
  }

  /** Whether somebody may be in the middle of a write(2) still. */
  function isUnquiet(): boolean {
    return nowMs() - tookMs < QUIET_MS && nowMs() - shutMs < UNQUIET_MS_MAX;
  }

  /** Whether a consistency point can bring it to where it is open again: not for less, or each write would take one. */
  function canGain(): boolean {
    if (isFreeing()) return true;
    return volume.frozenBlocks > 0 && volume.availableNowBlocks + volume.frozenBlocks >= above(3);
  }

  function look(): void {
    if (phase === "draining" || (phase === "dry" && isBelow(3))) return;
    enter("open"); // also anew: for the handles with a cache that there are now
    if (isBelow(2)) {
      if (!(canGain() && makeSpace()) || isBelow(2)) shut();
    } else if (keptBlocks < mostBlocks && !isBelow(KEPT_SHARE * GROWTH)) {
      keptBlocks = fittingBlocks();
      enter("open");
      allow(keptBlocks * BLOCK_BYTES);
    }
  }

  look();
  return shaped({
    get isShort(): boolean {
      return phase !== "open" || volume.availableNowBlocks < above(3) + CALL_BLOCKS; // with one handle more
    },
    get isShut(): boolean {
      return phase !== "open";
    },
    get isOwed(): boolean {
      return phase !== "dry";
    },
    admits(): boolean {
      if (phase === "dry" && canGain()) makeSpace();
      look();
      return phase === "open";
    },
    defer(request): void {
      waiting.push(request);
      shut();
    },
    took(): void {
      tookMs = nowMs();
    },
    look,
    drained(dirtyPagesBytesMax): readonly Uint8Array[] {
      const before = keptBlocks;
      keptBlocks = Math.ceil(dirtyPagesBytesMax / BLOCK_BYTES);
      // What has come has taken space: it may have to be less still. Not where the kernel does not do as it is told.
      if (keptBlocks < before && isBelow(3) && fittingBlocks() < keptBlocks) {
        drainAfter(0);
        return [];
      }
      if (isBelow(3) && isUnquiet()) {
        drainAfter(QUIET_STEP_MS);
        return [];
      }
      enter("dry");
      const all = waiting;
      waiting = [];
      return all;
    },
  });
}
