/**
 * What must be durable before its reply goes out: the server thread's side of it. A frame of the change log is the way,
 * a consistency point the other one, where the log cannot take what has changed.
 */
import { type ChangeSeq, changeSeq } from "../core/numbers.ts";
import type { DurableAt } from "../fs/file-system.ts";
import type { LogFrame } from "../volume/change-log/frames.ts";
import type { Volume } from "../volume/volume.ts";
import type { LogAnswer } from "./log-line.ts";
import { plainError } from "./plain-error.ts";
import { wantEased } from "./server-slices.ts";
import type { Server } from "./server-state.ts";

/** The reply waits at the log thread, behind a frame; or at the main thread, for a consistency point, which is asked for. */
export function hold(server: Server, seq: ChangeSeq, descriptor: number, reply: Uint8Array): void {
  if (postToLog(server, { kind: "reply", descriptor, reply })) {
    makeRoomInLog(server);
    return;
  }
  server.send({ kind: "held", durableAt: seq, reply: new Uint8Array(reply) });
  wantDurable(server, seq);
}

/** True: all changes so far are in frames, and these on their way, with the answer behind them. False: they need a consistency point. */
export function postToLog({ volume, fileSystem, turns, line }: Server, answer: LogAnswer | undefined): boolean {
  if (line === undefined || !volume.log.isOpen || turns.state.phase === "failed") return false;
  let frame: LogFrame | undefined;
  try {
    frame = fileSystem.logFrame();
  } catch (error) {
    turns.fail(`the change log could not be written: ${plainError(error).message}`);
    return false;
  }
  if (!volume.log.isOpen) return false;
  if (frame !== undefined || answer !== undefined) line.post(frame, answer);
  return true;
}

/** The same for a reply that waits at the main thread already. */
export function makeDurable(server: Server, seq: ChangeSeq): void {
  if (postToLog(server, { kind: "tell", seq })) makeRoomInLog(server);
  else wantDurable(server, seq);
}

function makeRoomInLog(server: Server): void {
  if (server.volume.log.isHalfFull && server.turns.state.phase === "idle") wantEased(server, "log");
}

function wantDurable(server: Server, seq: ChangeSeq): void {
  const { state } = server.turns;
  if (state.phase === "flushing" && state.cp.logSeq >= seq) return;
  if (server.volume.committed.logSeq < seq) wantEased(server, "fsync");
}

/** The last change, once for each: what a reply waits for when every change must be durable before its reply. */
export function lastChange(volume: Volume): () => DurableAt {
  let seen = volume.log.seq;
  return () => {
    const { seq } = volume.log;
    if (seq === seen) return 0;
    seen = seq;
    return changeSeq(seq);
  };
}
