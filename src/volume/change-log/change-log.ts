/**
 * The change log: what makes a change durable without a consistency point.
 *
 * Each change of the active filesystem has a number. Those since the last consistency point are described, and when one
 * of them must be durable the descriptions of all that are not yet are written as one frame, in one durable write. After
 * a crash the frames behind the last consistency point are found and their changes done again, by the same operations
 * (../../fs/replay.ts): the state is then that of the last frame.
 *
 *     CP 7 (contains changes up to 40, head = a)                                       CP 8 (up to 52, head = d)
 *       ring:  ... | a: 41..45 | b: 46..46 | c: 47..52 | d: 53..60 | e: ...
 *                    ^ replayed after a crash before CP 8 is durable: all from a on; after it: all from d on
 *
 * The log goes through these phases:
 *
 *            freeze of CP n                commit of CP n
 *     off -----------------> armed (n) --------------------> open
 *      ^                        |                              |
 *      +-- interrupted ---------+------------------------------+
 *
 * - off: changes are not described; only the next consistency point makes them durable. So it is after opening, because
 *   only a consistency point of ours puts our nonce into fsinfo, and whenever something happens that has no description,
 *   or when there is too much to describe, or no room.
 * - armed: described again, but no frame can be written before the CP that they follow is durable.
 * - open: frames can be written. A freeze leaves it open if all changes are in frames; otherwise what was described
 *   is dropped, since the CP has it, and the log is armed.
 *
 * Invariants:
 * - Frames are found by number: the first has the number after that of fsinfo, each next one the number after the one
 *   before, and all have the nonce of fsinfo. A nonce is that of one opening of the volume, and numbers are never used
 *   twice in it: so no frame of an earlier time can be taken for one of now, whatever the ring still holds.
 * - A frame never overwrites one that a crash would still need: its room is behind the head of the last durable CP.
 * - Blocks that a frame refers to are not used again before a CP that contains the frame's changes is durable.
 * - A frame says up to which change the log was durable before it was written. If the log ends earlier, that is no torn
 *   end but damage, and nobody goes on from there unasked: see frames.ts.
 *
 * The idea is that of the intent log of ZFS and of the NVRAM log of WAFL.
 */
import assert from "node:assert/strict";
import { shaped } from "../../core/shaped.ts";
import { type Fsinfo, NO_FRAMES } from "../../format/fsinfo.ts";
import type { FoundFrame } from "./frames.ts";

/** What a consistency point says of the log. */
export type LogRoot = Pick<Fsinfo, "logSeq" | "logHead" | "logNonce" | "logUuid">;

/** Where frames are written: blocks of the volume's own device, or of another one that has this identity. */
export interface LogRing {
  readonly first: number;
  readonly blocks: number;
  /** Zero: the volume's own. */
  readonly uuid: Uint8Array;
}

export const OWN_DEVICE = new Uint8Array(16);

export type LogPhase =
  | { readonly name: "none" }
  | { readonly name: "unreplayed"; readonly frames: readonly FoundFrame[] }
  | { readonly name: "off" }
  | { readonly name: "armed"; readonly cpCount: number }
  | { readonly name: "open" };

export interface ChangeLog {
  /** Number of the last change. */
  readonly seq: number;
  /** Number of the last change that is in a frame, or in a consistency point that is frozen. */
  readonly framedSeq: number;
  /** Frames are there that must be replayed before anything else is changed. */
  readonly isUnreplayed: boolean;
  /** These. */
  readonly unreplayed: readonly FoundFrame[];
  /** Frames can be written. */
  readonly isOpen: boolean;
  /** Grows when what was described is not needed any more. */
  readonly dropCount: number;
  /** More than half of the room is taken: a consistency point is due. */
  readonly isHalfFull: boolean;
  /** Blocks that are taken, of how many. */
  readonly usedBlocks: number;
  readonly blockCount: number;
  readonly nonce: Uint8Array;
  /** Numbers a change. True: it is to be described. */
  change(): boolean;
  /** Something has happened that is not described: it needs a consistency point, and so does all after it. */
  interrupt(): void;
  /** Takes room for a frame with all changes up to now; returns its VBN. Undefined: there is none, and it is interrupted. */
  place(blocks: number): number | undefined;
  /** All frames have been replayed, up to this change; the next frame goes to `head`. */
  replayed(end: { readonly seq: number; readonly head: number }): void;
  /** `closing`: nothing follows. What fsinfo says of the log is then that it is the volume's own, and that there are no frames. */
  freeze(cpCount: number, how: { readonly closing: boolean }): LogRoot;
  commit(cpCount: number): void;
}

export interface ChangeLogOptions {
  readonly fsinfo: Fsinfo;
  readonly ring: LogRing;
  /** The ring is another one than that of fsinfo. */
  readonly isMoved: boolean;
  /** Of this opening of the volume. */
  readonly nonce: Uint8Array;
  /** Frames behind fsinfo, to be replayed. */
  readonly unreplayed: readonly FoundFrame[];
}

export function openChangeLog({ fsinfo, ring, isMoved, nonce, unreplayed }: ChangeLogOptions): ChangeLog {
  const { first: logFirst, blocks: logBlocks } = ring;
  let phase: LogPhase = { name: logBlocks === 0 ? "none" : "off" };
  if (unreplayed.length > 0) phase = { name: "unreplayed", frames: unreplayed };
  let seq = fsinfo.logSeq;
  let framedSeq = seq;
  let dropCount = 0;
  /** Blocks from the start of the ring, counted on and on. */
  let head = isMoved ? 0 : fsinfo.logHead;
  let tail = head;
  let tailInFlight = head;

  function drop(next: LogPhase): void {
    if (phase.name === "none") return;
    assert(phase.name !== "unreplayed", "the change log has not been replayed");
    phase = next;
    dropCount += 1;
  }

  return shaped({
    get seq(): number {
      return seq;
    },
    get framedSeq(): number {
      return framedSeq;
    },
    get isUnreplayed(): boolean {
      return phase.name === "unreplayed";
    },
    get unreplayed(): readonly FoundFrame[] {
      return phase.name === "unreplayed" ? phase.frames : [];
    },
    get isOpen(): boolean {
      return phase.name === "open";
    },
    get dropCount(): number {
      return dropCount;
    },
    get isHalfFull(): boolean {
      return 2 * (head - tailInFlight) > logBlocks;
    },
    get usedBlocks(): number {
      return head - tail;
    },
    blockCount: logBlocks,
    nonce,
    change(): boolean {
      if (phase.name === "unreplayed") return false; // being replayed: they have their numbers
      seq += 1;
      return phase.name === "open" || phase.name === "armed";
    },
    interrupt: () => drop({ name: "off" }),
    place(blocks): number | undefined {
      assert(phase.name === "open", "a frame is placed in a log that is not open");
      const offset = head % logBlocks;
      const skipped = offset + blocks > logBlocks ? logBlocks - offset : 0; // a frame is never split
      if (head + skipped + blocks - tail > logBlocks) {
        drop({ name: "off" });
        return undefined;
      }
      const vbn = logFirst + ((head + skipped) % logBlocks);
      head += skipped + blocks;
      framedSeq = seq;
      return vbn;
    },
    replayed(end): void {
      assert(phase.name === "unreplayed", "there is nothing to replay");
      phase = { name: "off" };
      seq = end.seq;
      framedSeq = seq;
      if (!isMoved) head = end.head;
      tail = head;
      tailInFlight = head;
    },
    freeze(cpCount, { closing }): LogRoot {
      assert(phase.name !== "unreplayed", "the change log has not been replayed");
      if (closing) {
        drop({ name: "off" });
        framedSeq = seq;
        return { logSeq: seq, logHead: 0, logNonce: NO_FRAMES, logUuid: OWN_DEVICE };
      }
      if (phase.name !== "open" || framedSeq !== seq) drop({ name: "armed", cpCount });
      framedSeq = seq;
      tailInFlight = head;
      return { logSeq: seq, logHead: logBlocks === 0 ? 0 : head % logBlocks, logNonce: nonce, logUuid: ring.uuid };
    },
    commit(cpCount): void {
      tail = tailInFlight;
      if (phase.name === "armed" && phase.cpCount === cpCount) phase = { name: "open" };
    },
  });
}
