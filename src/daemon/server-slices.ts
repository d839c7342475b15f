/**
 * What takes long is done in slices: files that were deleted are freed, and what a consistency point would have to write at once
 * is written before it is frozen.
 *
 * A slice comes while nobody asks for anything. Who makes one request after the other comes back within some ten microseconds:
 * so after an answer it is waited for a little, and only then is it a slice's turn; slices follow one another while no
 * request comes between. Where requests never cease one is due now and then, so that an operation of several requests meets one
 * at most, and the processor is free for who makes them.
 *
 * What needs their end waits for it here: a consistency point, and before it, where it is that of a snapshot, the files.
 *
 * The loop that serves the kernel finds the time by itself (fuse/kernel/next-request.ts). Where it cannot be told whether a request
 * waits, it asks the main thread to be told to go on, and requests come between.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import type { Slices } from "../fuse/kernel/next-request.ts";
import type { CpCause } from "../volume/volume.ts";
import { plainError } from "./plain-error.ts";
import type { Server } from "./server-state.ts";

/** Written in one go: 32 KiB, so that who meets a slice waits for little. */
const SLICE_BLOCKS = 8;
export const SLICE_BYTES: number = SLICE_BLOCKS * BLOCK_BYTES;
/** Between two slices while requests keep coming. */
const PAUSE_MS = 1;
/** Longer than who makes one request after the other takes to come back. */
const QUIET_US = 100;
/** For so long a snapshot waits for what was deleted before it. */
export const RECLAIM_MS_MAX = 5000;

/** A consistency point of what is dirty; one that is being eased will do, if it comes about: a change may be refused. */
export function wantEased(server: Server, cause: CpCause): void {
  if (server.easing !== undefined) server.easing.wanted ??= cause;
  else afterEasing(server, () => wantDirty(server, cause));
}

function wantDirty({ volume, turns }: Server, cause: CpCause): void {
  if (volume.dirty) turns.want(cause);
}

/**
 * Before a consistency point is frozen, which `freeze` does, what it would have to write at once is written in slices. What comes
 * on top meanwhile is answered with twice as much (`balance`): so little is left after twice the slices that what is dirty now
 * needs, however fast somebody writes, and none puts it off for ever.
 */
export function afterEasing(server: Server, freeze: () => void): void {
  if (server.easing !== undefined) {
    server.easing.waiting.push(freeze);
    return;
  }
  if (server.turns.state.phase === "failed") {
    freeze(); // which will be told so
    return;
  }
  const slicesLeft = 2 * Math.ceil(server.volume.dirtyBytes / SLICE_BYTES);
  server.easing = { slicesLeft, waiting: [freeze], wanted: undefined };
  server.relieveAtBytes = Math.min(server.relieveAtBytes, server.volume.dirtyBytes);
  if (slicesLeft === 0) ease(server);
}

/** A slice. As long as another consistency point is in flight the disk has enough to do. */
function ease(server: Server): void {
  const { easing, turns } = server;
  if (easing === undefined || turns.state.phase === "flushing") return;
  if (turns.state.phase !== "idle" || easing.slicesLeft <= 0 || !relieveSlice(server)) endEasing(server);
}

function endEasing(server: Server): void {
  const { easing } = server;
  server.easing = undefined;
  for (const freeze of easing?.waiting ?? []) freeze();
  if (easing?.wanted !== undefined) wantDirty(server, easing.wanted);
}

/** What waits for the last slice waits no longer. */
export function endWaiting(server: Server): void {
  for (const { take } of server.reclaiming.splice(0)) take();
  endEasing(server);
}

/** True: something is left. The next one is wanted when half as much has come on top: who adds nothing is not held up for it. */
export function relieveSlice(server: Server): boolean {
  const { volume, turns, easing } = server;
  try {
    const isLeft = volume.relieve({ blocksMax: SLICE_BLOCKS });
    if (easing !== undefined) easing.slicesLeft -= 1;
    server.relieveAtBytes = volume.dirtyBytes + SLICE_BYTES / 2;
    return isLeft;
  } catch (error) {
    turns.fail(`changes could not be written: ${plainError(error).message}`);
    return false;
  }
}

/** What could not be freed is tried again after the next consistency point, and not before. */
export function reclaim(server: Server): void {
  const { fileSystem, volume, send } = server;
  try {
    fileSystem.reclaimSlice();
  } catch (error) {
    server.stuckAtCp = volume.committed.cpCount;
    send({ kind: "log", message: `cannot free a deleted file: ${plainError(error).message}` });
  }
}

function canReclaim({ fileSystem, volume, stuckAtCp }: Server): boolean {
  return fileSystem.doomedCount > 0 && stuckAtCp !== volume.committed.cpCount;
}

/**
 * Before a snapshot is taken what was deleted is freed, or the snapshot would hold it for as long as it is there. Not without
 * end: what cannot be freed in time, because the disk is slow or others go on deleting, is held.
 */
export function afterReclaiming(server: Server, take: () => void): void {
  if (server.turns.state.phase === "failed" || !canReclaim(server)) take();
  else server.reclaiming.push({ untilMs: server.nowMs() + RECLAIM_MS_MAX, take });
}

/** In the order of asking, which is that of the times. */
function endReclaiming(server: Server): void {
  const { reclaiming } = server;
  const nowMs = server.nowMs();
  for (let next = reclaiming[0]; next !== undefined; next = reclaiming[0]) {
    if (canReclaim(server) && nowMs < next.untilMs) return;
    reclaiming.shift();
    next.take();
  }
}

function isMore(server: Server): boolean {
  const { easing, reclaiming, turns } = server;
  if (turns.state.phase === "failed") return false;
  return (easing !== undefined && turns.state.phase === "idle") || reclaiming.length > 0 || canReclaim(server);
}

/** A slice of each. */
export function goOn(server: Server): void {
  if (canReclaim(server)) reclaim(server);
  endReclaiming(server);
  ease(server);
}

/** For the loop. */
export function slicesOf(server: Server): Slices {
  const { nowMs } = server;
  let doneMs = Number.NEGATIVE_INFINITY;
  return {
    isMore: () => isMore(server),
    isDue: () => isMore(server) && nowMs() - doneMs >= PAUSE_MS,
    quietUs: () => (server.isAsked ? QUIET_US : 0),
    next(): void {
      goOn(server);
      server.isAsked = false;
      doneMs = nowMs();
    },
  };
}

/** For who has no loop that finds the time: the main thread is to say when to go on. To be called when nothing else waits. */
export function offerToGoOn(server: Server): void {
  if (server.isUnfinished || !isMore(server)) return;
  server.isUnfinished = true;
  server.send({ kind: "unfinished" });
}
