/**
 * What must be durable before its reply goes out: the server thread's side of it. A frame of the change log is the way,
 * a consistency point the other one, where the log cannot take what has changed.
 */
import { type ChangeSeq, type CpCount, changeSeq } from "../core/numbers.ts";
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

/** By the next consistency point. While one is in flight it is too early for that: after it the log may be open. */
function wantDurable(server: Server, seq: ChangeSeq): void {
  const { state } = server.turns;
  if (state.phase === "flushing") server.awaitedSeq = Math.max(server.awaitedSeq, seq);
  else if (server.volume.committed.logSeq < seq) wantEased(server, "fsync");
}

/**
 * A consistency point is committed. What waits for more than it has is made durable by the log, if it is open now: else those who
 * come while one is in flight would each time need another one, and the log would stay closed as long as there are any.
 */
export function committed(server: Server, cpCount: CpCount): void {
  const { volume, turns, awaitedSeq } = server;
  turns.committed(cpCount);
  if (turns.state.phase !== "idle" || awaitedSeq <= volume.committed.logSeq) return; // or the next one is on its way, which has it
  if (!postToLog(server, { kind: "tell", seq: changeSeq(volume.log.seq) })) wantEased(server, "fsync");
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
