/**
 * The log thread: makes frames of the change log durable, and sends the answers that have waited for that. It does
 * nothing else, and so may wait for the disk. See log-line.ts for what it is given, and in which order.
 *
 * Blocks that a frame refers to are flushed before it is written. If anything fails, what waits is answered with EIO, and
 * nothing is written any more: a frame behind one that is missing would not be found.
 */
import { parentPort, workerData } from "node:worker_threads";
import { type FileDevice, type FileIdentity, openFileDevice } from "../device/file-device.ts";
import { errorReply, sendReply } from "../fuse/kernel/loop.ts";
import { type LogFrame, writeFrames } from "../volume/change-log/frames.ts";
import { logLineEnd } from "./log-line.ts";

export interface LogStart {
  readonly blockFile: string;
  /** The file that is locked: the path must still name it. */
  readonly identity: FileIdentity;
  /** The file that has the log: the block file, or one of its own. */
  readonly logFile: string;
  /** The line from the server thread: see log-line.ts. */
  readonly line: SharedArrayBuffer;
}

/** To the main thread. */
export type FromLog =
  | { readonly kind: "durable"; readonly seq: number }
  | { readonly kind: "failed"; readonly message: string };

run(workerData as LogStart);

function run({ blockFile, identity, logFile, line: shared }: LogStart): void {
  const line = logLineEnd(shared);
  let files: Files | undefined; // opened for the first frame: before, the log file may not be there
  let failure: string | undefined;
  let durableSeq = 0; // of the frames of this opening
  for (let posted = line.take(); posted.length > 0; posted = line.take()) {
    const frames: LogFrame[] = [];
    let [answers, writes] = [0, 0];
    for (const { frame, answer } of posted) {
      if (frame !== undefined) frames.push(frame);
      if (answer !== undefined) answers += 1;
    }
    try {
      if (failure === undefined) {
        files ??= openFiles(blockFile, identity, logFile);
        const { whole, log } = files;
        if (frames.some(({ needsFlush }) => needsFlush)) whole.flush();
        durableSeq = writeFrames(frames, durableSeq, (vbn, buffers) => {
          log.writeGather(vbn, buffers);
          writes += 1;
        });
        line.count({ answers, frames: frames.length, writes });
      }
    } catch (error) {
      failure = `cannot write the change log in ${logFile}: ${(error as Error).message}`;
      tell({ kind: "failed", message: failure });
    }
    for (const { answer } of posted) {
      if (answer?.kind === "reply") {
        send(answer.descriptor, failure === undefined ? answer.reply : errorReply(answer.reply));
      } else if (answer !== undefined && failure === undefined) tell({ kind: "durable", seq: answer.seq });
    }
    line.done();
  }
  files?.log.close();
  files?.whole.close();
}

/** A reply that cannot be sent must not keep the others from being sent. */
function send(descriptor: number, reply: Uint8Array): void {
  try {
    sendReply(descriptor, reply);
  } catch (error) {
    tell({ kind: "failed", message: `a reply could not be sent: ${(error as Error).message}` });
  }
}

function tell(message: FromLog): void {
  parentPort?.postMessage(message, []);
}

/** The block file, to flush it, and the file of the log, whose writes are durable when they return. */
interface Files {
  readonly whole: FileDevice;
  readonly log: FileDevice;
}

function openFiles(blockFile: string, identity: FileIdentity, logFile: string): Files {
  const whole = openFileDevice(blockFile, { writable: true, identity });
  const isApart = logFile !== blockFile;
  return {
    whole,
    log: openFileDevice(logFile, { writable: true, isDurable: true, identity: isApart ? undefined : identity }),
  };
}
