/** Memory and space, the server thread's share: changes stay within their bound, and a full volume is given a chance. */
import type { FsError } from "../core/errors.ts";
import { committed } from "./server-durable.ts";
import { reclaim, relieveSlice, wantEased } from "./server-slices.ts";
import type { Server } from "./server-state.ts";
import { fullText, spaceOf } from "./space-holders.ts";
import { type WriteBackRoom, writeBackRoom } from "./write-back-room.ts";

/** Slices of deleted files that are freed for who waits for space. */
const SPACE_SLICES = 16;
/** Between two lines in the log about a volume that is full. */
const FULL_NOTE_MS = 60_000;
/** Between two times that the status hears of it: what holds the space has to be counted for that. */
const FULL_STATUS_MS = 10_000;

/** Changes that come on top of a full measure are looked through so many times. */
const RELIEF_STEPS = 16;

/**
 * Keeps the changes in memory within their bound, and those few that come while a consistency point is eased. While one is in
 * flight, data goes to its final blocks ahead of the next one; what is left are changes of metadata, and those wait.
 */
export function balance(server: Server): void {
  const { volume, turns, dirtyBytesMax } = server;
  if (turns.state.phase === "failed") return;
  if (volume.dirtyBytes >= dirtyBytesMax) wantEased(server, "dirty");
  else if (server.easing === undefined || turns.state.phase !== "idle") {
    server.relieveAtBytes = dirtyBytesMax;
    return;
  }
  if (volume.dirtyBytes < server.relieveAtBytes) return;
  // Where nothing is left to write, not again before there is something to gain.
  if (!relieveSlice(server)) server.relieveAtBytes = volume.dirtyBytes + dirtyBytesMax / RELIEF_STEPS;
  if (volume.dirtyBytes < 2 * dirtyBytesMax) return;
  turns.want("dirty");
  while (volume.dirtyBytes >= 2 * dirtyBytesMax && turns.state.phase === "flushing") waitForMain(server);
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

/**
 * Tells of a full volume, and of what holds its space, or that the disk of the host is full: of each now and then to the log, and
 * in between to the status.
 */
export function fullNotes({
  volume,
  nowMs,
  send,
}: Pick<Server, "volume" | "nowMs" | "send">): (error: FsError) => void {
  const ofHost = { toldMs: Number.NEGATIVE_INFINITY, loggedMs: Number.NEGATIVE_INFINITY };
  const ofVolume = { ...ofHost };
  return (error) => {
    const now = nowMs();
    const last = error.cause === undefined ? ofVolume : ofHost;
    if (now - last.toldMs < FULL_STATUS_MS) return;
    last.toldMs = now;
    const again = now - last.loggedMs < FULL_NOTE_MS;
    if (!again) last.loggedMs = now;
    const message =
      error.cause === undefined ? fullText(spaceOf(volume)) : `the disk of the host is full: ${error.message}`;
    send({ kind: "full", message, again });
  };
}

/** Where the kernel may keep what is written. */
export function openRoom(server: Server, dirtyPagesBytesMax: number): WriteBackRoom {
  return writeBackRoom(server.volume, {
    dirtyPagesBytesMax,
    makeSpace: () => makeSpace(server),
    isFreeing: () => server.fileSystem.doomedCount > 0,
    cachedCount: () => server.writers.cachedCount,
    nowMs: server.nowMs,
    drain: (bytesMax, delayMs) => server.send({ kind: "drain", dirtyPagesBytesMax: bytesMax, delayMs }),
    allow: (bytesMax) => server.send({ kind: "allow", dirtyPagesBytesMax: bytesMax }),
  });
}

/** Waits until no consistency point is in flight or wanted. */
export function settle(server: Server): void {
  while (server.turns.state.phase === "flushing") waitForMain(server);
}

/** In the middle of a request: what concerns consistency points is handled, everything else is put off. */
function waitForMain(server: Server): void {
  const message = server.inbox.wait();
  if (message.kind === "committed") committed(server, message.cpCount);
  else if (message.kind === "failed") server.turns.fail(message.message);
  else server.inbox.putOff(message);
}
