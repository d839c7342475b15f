/**
 * Whose turn it is: the server thread's side of consistency points.
 *
 *            begin                       committed
 *   idle ------------> flushing --------------------> idle, or the next one at once if it is wanted
 *                         | failed
 *                         v
 *                      failed: nothing becomes durable any more
 *
 * One is in flight at a time. What is asked for meanwhile is gathered into the next. Changes that must be frozen right
 * after they are made (a snapshot) wait here for their turn, each with a consistency point of its own.
 */
import type { CpCount } from "../core/numbers.ts";
import { shaped } from "../core/shaped.ts";
import type { CpCause, FrozenCp, Volume } from "../volume/volume.ts";

export type TurnState =
  | { readonly phase: "idle" }
  | { readonly phase: "flushing"; readonly cp: FrozenCp }
  | { readonly phase: "failed"; readonly message: string };

/** A change to be made right before a consistency point is frozen. */
export interface Change {
  readonly cause: CpCause;
  /** Makes it; false: it was refused, and needs no consistency point. */
  apply(): boolean;
  /** Called when the consistency point that has it is committed. */
  committed(cpCount: CpCount): void;
  failed(message: string): void;
}

export interface CpTurns {
  readonly state: TurnState;
  /** A consistency point as soon as possible; one that is wanted already will do. */
  want(cause: CpCause): void;
  /** A change and its consistency point, in the order of asking. */
  change(change: Change): void;
  committed(cpCount: CpCount): void;
  fail(message: string): void;
}

export interface TurnOptions {
  /** Hands a frozen consistency point to whoever makes it durable. */
  readonly send: (cp: FrozenCp) => void;
  /** Called before a consistency point is frozen. */
  readonly beforeFreeze?: () => void;
  /** Told once, when the volume fails. */
  readonly onFailure: (message: string) => void;
}

export function cpTurns(volume: Volume, { send, beforeFreeze, onFailure }: TurnOptions): CpTurns {
  let state: TurnState = { phase: "idle" };
  let wanted: CpCause | undefined;
  const changes: Change[] = [];
  let current: Change | undefined; // its consistency point is in flight

  function fail(message: string): void {
    if (state.phase === "failed") return;
    state = { phase: "failed", message };
    wanted = undefined;
    current?.failed(message);
    current = undefined;
    for (const change of changes.splice(0)) change.failed(message);
    onFailure(message);
  }

  function freeze(cause: CpCause): void {
    beforeFreeze?.();
    if (state.phase === "failed") return;
    try {
      const cp = volume.freezeCp(cause);
      wanted = undefined;
      state = { phase: "flushing", cp };
      send(cp);
    } catch (error) {
      fail(`consistency point could not be written: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  function next(): void {
    while (state.phase === "idle") {
      const change = changes.shift();
      if (change === undefined) {
        if (wanted !== undefined) freeze(wanted);
        return;
      }
      if (!change.apply()) continue;
      current = change;
      freeze(change.cause);
    }
  }

  return shaped({
    get state() {
      return state;
    },
    want(cause): void {
      if (state.phase === "failed") return;
      wanted ??= cause;
      next();
    },
    change(change): void {
      if (state.phase === "failed") {
        change.failed(state.message);
        return;
      }
      changes.push(change);
      next();
    },
    committed(cpCount): void {
      if (state.phase !== "flushing" || state.cp.cpCount !== cpCount) return;
      volume.commitCp(state.cp);
      state = { phase: "idle" };
      const done = current;
      current = undefined;
      done?.committed(cpCount);
      next();
    },
    fail,
  });
}
