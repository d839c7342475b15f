/**
 * The log thread: makes frames of the change log durable, and sends the answers that have waited for that. It does
 * nothing else, and so may wait for the disk. See log-line.ts for what it is given, and in which order.
 *
 * Blocks that a frame refers to are flushed before it is written. If anything fails, what waits is answered with EIO, and
 * nothing is written any more: a frame behind one that is missing would not be found.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { type FileDevice, type FileIdentity, openFileDevice } from "../device/file-device.ts";
import { errorReply, sendReply } from "../fuse/kernel/loop.ts";
import { writeFrames } from "../volume/change-log/frames.ts";
import { type FromLog, type ToLog, WORD_DONE, WORD_POSTED } from "./log-line.ts";

export interface LogStart {
  readonly blockFile: string;
  /** The file that is locked: the path must still name it. */
  readonly identity: FileIdentity;
  /** The file that has the log: the block file, or one of its own. */
  readonly logFile: string;
  /** From the server thread. */
  readonly line: MessagePort;
  /** From the main thread: the end. */
  readonly last: MessagePort;
  readonly words: SharedArrayBuffer;
}

run(workerData as LogStart);

function run({ blockFile, identity, logFile, line, last, words: shared }: LogStart): void {
  const words = new Int32Array(shared);
  let files: Files | undefined; // opened for the first frame: before, the log file may not be there
  let failure: string | undefined;
  let durableSeq = 0; // of the frames of this opening
  for (;;) {
    const seen = Atomics.load(words, WORD_POSTED);
    const isLast = receiveMessageOnPort(last) !== undefined; // looked at first: what was given before is done
    const messages = takeAll(line);
    if (messages.length === 0) {
      if (isLast) break;
      Atomics.wait(words, WORD_POSTED, seen);
      continue;
    }
    try {
      if (failure === undefined) {
        files ??= openFiles(blockFile, identity, logFile);
        const { whole, log } = files;
        const frames = messages.flatMap((message) => (message.kind === "frame" ? [message.frame] : []));
        if (frames.some(({ needsFlush }) => needsFlush)) whole.flush();
        durableSeq = writeFrames(frames, durableSeq, (vbn, buffers) => log.writeGather(vbn, buffers));
      }
    } catch (error) {
      failure = `cannot write the change log in ${logFile}: ${(error as Error).message}`;
      tell({ kind: "failed", message: failure });
    }
    for (const message of messages) {
      if (message.kind === "reply") {
        answer(message.descriptor, failure === undefined ? message.reply : errorReply(message.reply));
      } else if (message.kind === "tell" && failure === undefined) {
        tell({ kind: "durable", seq: message.seq });
      }
    }
    if (isLast) break;
    Atomics.add(words, WORD_DONE, messages.length);
    Atomics.notify(words, WORD_DONE);
  }
  files?.log.close();
  files?.whole.close();
  line.close();
  last.close();
}

/** A reply that cannot be sent must not keep the others from being sent. */
function answer(descriptor: number, reply: Uint8Array): void {
  try {
    sendReply(descriptor, reply);
  } catch (error) {
    tell({ kind: "failed", message: `a reply could not be sent: ${(error as Error).message}` });
  }
}

function tell(message: FromLog): void {
  parentPort?.postMessage(message, []);
}

function takeAll(port: MessagePort): readonly ToLog[] {
  const messages: ToLog[] = [];
  for (;;) {
    const message = receiveMessageOnPort(port)?.message as ToLog | undefined;
    if (message === undefined) return messages;
    messages.push(message);
  }
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
