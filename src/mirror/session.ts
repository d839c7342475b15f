/**
 * The session of a mirror: two state machines that make one volume follow another over a link that may break.
 *
 *   source (source.ts)                              destination (destination.ts)
 *
 *   waiting --connect--> greeting   --- HELLO --->     vacant
 *   greeting                        <-- HELLO, STATE   ready      what it is, what it has of a cut transfer
 *   ready: look, take, plan         --- OFFER --->
 *   offered                         <-- ACCEPT         receiving  (or REFUSE: ready)
 *   shipping                        --- FRAME k ->
 *                                   <-- ACK w, d       w frames written, d of them durable
 *   shipping, all sent              <-- SWITCHED       ready      flushed, then one write of fsinfo
 *   ready: drops the old base       --- HEARTBEAT - both ways, each second - ERROR or BYE ends it
 *
 * They are pure: events in, actions out, time handed in. `run.ts` and `serve.ts` carry the actions out with sockets and
 * disks; a test does so with a seeded network that delays and cuts. Neither machine remembers anything over a
 * connection that it could not be told again: the destination says in STATE what it is and how far it got, the
 * source compares that with the snapshots it holds. So a lost message, a cut and a kill -9 are one case.
 *
 * Invariants:
 * - The source holds, as hidden snapshots, the state the destination is at and the one it is being sent. The first is
 *   dropped only after SWITCHED, or a STATE, said that the destination is at a newer one: there is always a common base.
 * - An increment is offered only on the very state that the destination is at: same UUID, same root (requirement
 *   221). A full image is offered only to a destination without a volume. All else is an error that a person solves.
 * - What is shipped is the newest consistency point at the time of looking. Those between were skipped (138).
 * - The window bounds what is on its way. An acknowledged frame is never sent again over the life of a destination
 *   process; after a crash of it, a durable one never.
 * - A silent link is a dead one: both ends give it up after DEAD_MS and the source begins anew, with a delay that grows.
 *
 * From zrepl (the two sides compare what they have, then plan), ZFS (resume tokens) and SnapMirror (the base is held).
 */

import { formatUuid } from "../core/uuid.ts";
import type { MirrorMessage } from "../format/mirror-message.ts";
import { isNoState, type StateIdentity } from "../format/mirror-message.ts";

export const HEARTBEAT_MS = 1000;
/** Silence after which a link is taken for dead. */
export const DEAD_MS = 6000;
/** A gap between two ticks that tells that this process, not the link, stood still. */
export const STALL_MS = 2000;
export const BACKOFF_MS_MIN = 200;
export const BACKOFF_MS_MAX = 30_000;
/** Bytes of frames that may be on their way. */
export const WINDOW_BYTES = 4 << 20;
/** A destination makes durable what it has got, and remembers it for a resumption, each time it has so much more. */
export const CHECKPOINT_BYTES = 32 << 20;
/** How often the machines want a tick. */
export const TICK_MS = 100;

/** When the other side was heard, and when it last heard of us. */
export interface Pulse {
  heard(nowMs: number): void;
  /** To be called at every tick. "beat": a heartbeat is due. "dead": nothing was heard for too long. */
  tick(nowMs: number): "beat" | "dead" | "quiet";
}

export function pulse(startMs: number): Pulse {
  let heardMs = startMs;
  let beatMs = Number.NEGATIVE_INFINITY;
  let tickMs = startMs;
  return {
    heard(nowMs): void {
      heardMs = nowMs;
    },
    tick(nowMs) {
      // While this process stood still (a flush, a suspended host), it could hear nothing: that says nothing of the link.
      if (nowMs - tickMs > STALL_MS) heardMs = nowMs;
      tickMs = nowMs;
      if (nowMs - heardMs > DEAD_MS) return "dead";
      if (nowMs - beatMs < HEARTBEAT_MS) return "quiet";
      beatMs = nowMs;
      return "beat";
    },
  };
}

/** For messages: enough of an identity to find it in a list. */
export function describeState(state: StateIdentity): string {
  return isNoState(state) ? "none" : `${formatUuid(state.uuid).slice(0, 8)} (cp ${state.cpCount})`;
}

/** The newest of a list of states, for messages. */
export function describeStates(states: readonly StateIdentity[]): string {
  const shown = states.slice(-SHOWN_MAX).map(describeState).join(", ");
  if (states.length === 0) return "none";
  return states.length > SHOWN_MAX ? `${shown} and ${states.length - SHOWN_MAX} older` : shown;
}

const SHOWN_MAX = 5;

/** A message that has no place in the state the receiver is in: the other side is not what it says. */
export function outOfPlace(message: MirrorMessage, phase: string): string {
  return `${message.type} message has no place here (${phase})`;
}
