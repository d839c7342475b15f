/**
 * Memory and space, the server thread's share: changes stay within their bound, a full volume is given a chance, and what
 * is large is done in slices, so that no request waits for all of it.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import type { FsError } from "../core/errors.ts";
import type { CpCause, Volume } from "../volume/volume.ts";
import { plainError } from "./plain-error.ts";
import type { Server } from "./server-state.ts";
import { fullText, spaceOf } from "./space-holders.ts";
import type { FromServer } from "./thread-messages.ts";
import { type WriteBackRoom, writeBackRoom } from "./write-back-room.ts";

/** Slices of deleted files that are freed for who waits for space. */
const SPACE_SLICES = 16;
/** Between two lines in the log about a volume that is full. */
const FULL_NOTE_MS = 60_000;

/** Changes that come on top of a full measure are looked through so many times. */
const RELIEF_STEPS = 16;
/** Written in one go before a consistency point: 128 KiB, a fifth of a millisecond. Requests come between. */
const EASE_BLOCKS = 32;
/** Slices while no request waits, before the main thread's messages are looked at. */
const EASE_SLICES = 8;
/**
 * While somebody makes one request after the other, a slice is taken now and then: an operation of several requests meets one at
 * most, and the processor is free for who makes them. Knocks and the like are requests too.
 */
const ANSWERED_FEW = 3;
const PAUSE_MS = 1;

/**
 * Keeps the changes in memory within their bound. While a consistency point is in flight, data goes to its final
 * blocks ahead of the next one; what is left are changes of metadata, and those wait.
 */
export function balance(server: Server): void {
  const { volume, turns, dirtyBytesMax } = server;
  if (volume.dirtyBytes < dirtyBytesMax) {
    server.relieveAtBytes = dirtyBytesMax;
    return;
  }
  if (turns.state.phase === "failed") return;
  wantEased(server, "dirty");
  if (volume.dirtyBytes < server.relieveAtBytes) return;
  // It looks at every changed inode: where no data is left, not again before there is something to gain.
  if (!relieveSlice(server)) server.relieveAtBytes = volume.dirtyBytes + dirtyBytesMax / RELIEF_STEPS;
  if (volume.dirtyBytes < 2 * dirtyBytesMax) return;
  turns.want("dirty");
  while (volume.dirtyBytes >= 2 * dirtyBytesMax && turns.state.phase === "flushing") waitForMain(server);
}

/** A consistency point of what is dirty; one that is being eased will do. */
export function wantEased(server: Server, cause: CpCause): void {
  if (server.easing !== undefined) return;
  afterEasing(server, () => void (server.volume.dirty && server.turns.want(cause)));
}

/**
 * Before a consistency point is frozen, which `freeze` does, what it would have to write at once is written in slices: as many
 * as what is dirty now needs, so that who goes on writing does not put it off for ever.
 */
export function afterEasing(server: Server, freeze: () => void): void {
  if (server.easing !== undefined) {
    server.easing.waiting.push(freeze);
    return;
  }
  const slicesLeft = Math.ceil(server.volume.dirtyBytes / (EASE_BLOCKS * BLOCK_BYTES));
  server.easing = { slicesLeft, waiting: [freeze] };
  ease(server);
}

/** A slice, or some while nobody makes requests. As long as another consistency point is in flight the disk has enough to do. */
export function ease(server: Server): void {
  const { easing, turns } = server;
  if (easing === undefined || turns.state.phase === "flushing") return;
  for (let slices = 0; turns.state.phase === "idle" && easing.slicesLeft > 0 && relieveSlice(server); ) {
    easing.slicesLeft -= 1;
    slices += 1;
    if (!server.isBusy && slices < EASE_SLICES && !server.isRequestWaiting()) continue;
    offerToGoOn(server);
    return;
  }
  endEasing(server);
}

/** What waits for the last slice waits no longer. */
export function endEasing(server: Server): void {
  const { easing } = server;
  server.easing = undefined;
  for (const freeze of easing?.waiting ?? []) freeze();
}

/** True: something is left. */
function relieveSlice({ volume, turns }: Server): boolean {
  try {
    return volume.relieve({ blocksMax: EASE_BLOCKS });
  } catch (error) {
    turns.fail(`changes could not be written: ${plainError(error).message}`);
    return false;
  }
}

/** Blocks freed since the last consistency point can be used after the next. False: that would be nothing. */
export function makeSpace(server: Server): boolean {
  const { volume, turns, fileSystem } = server;
  if (turns.state.phase === "failed") return false;
  for (let slice = 0; slice < SPACE_SLICES && fileSystem.doomedCount > 0; slice++) reclaim(server);
  if (volume.frozenBlocks === 0) return false;
  settle(server);
  turns.want("space");
  settle(server);
  return turns.state.phase === "idle";
}

/** Tells of a full volume, and of what holds its space, now and then. */
export function fullNotes(volume: Volume, send: (message: FromServer) => void): (error?: FsError) => void {
  let lastMs = Number.NEGATIVE_INFINITY;
  return (error) => {
    const nowMs = performance.now();
    if (nowMs - lastMs < FULL_NOTE_MS) return;
    lastMs = nowMs;
    const isHost = error?.cause !== undefined;
    send({
      kind: "log",
      message: isHost ? `the disk of the host is full: ${error.message}` : fullText(spaceOf(volume)),
    });
  };
}

/** Where the kernel may keep what is written. */
export function openRoom(server: Server, dirtyPagesBytesMax: number): WriteBackRoom {
  return writeBackRoom(server.volume, {
    dirtyPagesBytesMax,
    makeSpace: () => makeSpace(server),
    isFreeing: () => server.fileSystem.doomedCount > 0,
    drain: (bytesMax) => server.send({ kind: "drain", dirtyPagesBytesMax: bytesMax }),
    allow: (bytesMax) => server.send({ kind: "allow", dirtyPagesBytesMax: bytesMax }),
    onFull: () => server.onFull(),
  });
}

/** Waits until no consistency point is in flight or wanted. */
export function settle(server: Server): void {
  while (server.turns.state.phase === "flushing") waitForMain(server);
}

/** In the middle of a request: what concerns consistency points is handled, everything else is put off. */
function waitForMain(server: Server): void {
  const message = server.inbox.wait();
  if (message.kind === "committed") server.turns.committed(message.cpCount);
  else if (message.kind === "failed") server.turns.fail(message.message);
  else server.inbox.putOff(message);
}

/**
 * Large files that were deleted are freed, and data is written ahead of a consistency point, slice by slice: so requests come
 * between. Where the loop does not keep the time, the main thread does.
 */
export function offerToGoOn(server: Server): void {
  const { fileSystem, easing, turns } = server;
  const isMore = fileSystem.doomedCount > 0 || (easing !== undefined && turns.state.phase !== "flushing");
  if (!isMore || server.isUnfinished || turns.state.phase === "failed") return;
  server.isUnfinished = true;
  const delayMs = server.isBusy ? PAUSE_MS : 0;
  if (server.keepsTime) server.goOnAtMs = performance.now() + delayMs;
  else server.send({ kind: "unfinished", delayMs });
}

/** The next slices, if it is time for them. */
export function goOnInTime(server: Server): void {
  if (server.goOnAtMs !== Number.POSITIVE_INFINITY && performance.now() >= server.goOnAtMs) goOn(server);
}

/** How long there is nothing to go on with. */
export function idleMs({ goOnAtMs }: Server): number {
  return goOnAtMs === Number.POSITIVE_INFINITY ? goOnAtMs : Math.max(0, goOnAtMs - performance.now());
}

export function goOn(server: Server): void {
  server.isUnfinished = false;
  server.goOnAtMs = Number.POSITIVE_INFINITY;
  server.isBusy = server.answeredCount > ANSWERED_FEW;
  server.answeredCount = 0;
  if (server.fileSystem.doomedCount > 0) reclaim(server);
  ease(server);
  balance(server);
  offerToGoOn(server);
}

export function reclaim({ fileSystem, send }: Server): void {
  try {
    fileSystem.reclaimSlice();
  } catch (error) {
    send({ kind: "log", message: `cannot free a deleted file: ${plainError(error).message}` });
  }
}
