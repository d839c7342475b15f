/**
 * The server thread's line to the log thread: frames of the change log to be made durable, and behind them the answers
 * that wait for them, all in the order in which they were given.
 *
 *     server thread                                    log thread
 *     post(frame, answer) --- copy, count, wake ------> takes all there is; one flush if any frame needs it; frames
 *                         <-- done: how many ---------- that follow each other in one write; then the answers
 *
 * So callers that ask while a write is under way share the next one, and nobody but them waits for the disk. Too much
 * that is under way holds the server thread back.
 *
 * All goes through one piece of shared memory, for messages between threads cost more than the copy: they are serialised, and
 * transferred memory is made anew for each (native-notes/performance.md).
 *
 *     words | counts | a slot for each thing posted, in turn | the bytes of frames and replies, in turn as well
 *
 * Each word has one writer, but for WAKE. The counts are the log thread's, for whoever wants to know: they outgrow a word, and so
 * Atomics cannot be had for them, but a number that is aligned is read whole. The server places the bytes, and from the start again
 * whenever nothing is under way: the memory used is then what lies in the caches of the processors.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../core/block.ts";
import { LOG_FRAME_BYTES_MAX } from "../format/change-record.ts";
import { type Struct, struct, u8, u32, u64 } from "../format/struct.ts";
import { errorReply, sendReply } from "../fuse/kernel/loop.ts";
import type { LogFrame } from "../volume/change-log/frames.ts";

/** What waits until all frames before it are durable. */
export type LogAnswer =
  /** A reply to the kernel, by way of this descriptor. */
  | { readonly kind: "reply"; readonly descriptor: number; readonly reply: Uint8Array }
  /** Whoever waits for these changes is at the main thread. */
  | { readonly kind: "tell"; readonly seq: number };

/** A frame, an answer, or both: the answer waits for the frame. */
export interface Posted {
  readonly frame: LogFrame | undefined;
  readonly answer: LogAnswer | undefined;
}

export interface LogLine {
  /** The answer is sent when the frame and all before are durable; EIO in the place of a reply when they cannot be. */
  post(frame: LogFrame | undefined, answer: LogAnswer | undefined): void;
}

/** The log thread's end. */
export interface LogLineEnd {
  /** Waits until something is posted, and returns all that is, in order; nothing: that was the last. */
  take(): readonly Posted[];
  /** So much of what was taken is durable, before anybody is told. */
  count(more: LogCounts): void;
  /** All that was taken is done: its bytes may be overwritten. */
  done(): void;
}

/** What the log thread has done since it was started: fewer writes than answers, where callers shared them. */
export interface LogCounts {
  /** Calls that waited for the log, and were answered when it was durable. */
  readonly answers: number;
  readonly frames: number;
  /** Durable writes. */
  readonly writes: number;
}

/** How many things were posted and, by the log thread, done; counted around. */
const WORD_POSTED = 0;
const WORD_DONE = 1;
/** Not 0: the log thread is gone, and does nothing more; DONE is the main thread's then. */
const WORD_GONE = 2;
/** Not 0: nothing more will be posted. */
const WORD_ENDING = 3;
/** Changes whenever the log thread is to look. */
const WORD_WAKE = 4;
const WORDS = 5;

const COUNTS_AT = 32;
const COUNT_ANSWERS = 0;
const COUNT_FRAMES = 1;
const COUNT_WRITES = 2;
const COUNTS = 3;

/** Things under way, a power of two: more than there are requests that the kernel has under way at once. */
const SLOTS = 1024;
const slotShape = {
  /** Where its bytes are in the memory: those of the frame, and behind them those of the reply. */
  at: u32,
  frameBytes: u32,
  replyBytes: u32,
  descriptor: u32,
  vbn: u64,
  lastSeq: u64,
  tellSeq: u64,
  needsFlush: u8,
  isReply: u8,
  isTell: u8,
  pad0: u8,
  pad1: u32,
};
const slot: Struct<typeof slotShape> = struct(48, slotShape);

const SLOTS_AT = 64;
const BYTES_AT: number = Math.ceil((SLOTS_AT + SLOTS * slot.size) / BLOCK_BYTES) * BLOCK_BYTES;
/** Room for the largest frame with the largest reply, twice. Nobody uses most of it, and so it is no memory. */
const BYTES = 4 * LOG_FRAME_BYTES_MAX;

/** Of a volume that is written to. */
export function logMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(BYTES_AT + BYTES);
}

/** The server thread's end. */
export function logLine(shared: SharedArrayBuffer): LogLine {
  const words = new Int32Array(shared, 0, WORDS);
  const slots = new DataView(shared, SLOTS_AT, SLOTS * slot.size);
  const memory = new Uint8Array(shared, BYTES_AT, BYTES);
  let posted = 0;
  let head = 0; // behind the bytes posted last

  /** Where so many bytes can be placed, a whole number of blocks; undefined: what is under way has to be done first. */
  function place(bytes: number, done: number): number | undefined {
    const underWay = (posted - done) | 0;
    if (underWay === 0) return 0;
    if (underWay === SLOTS) return undefined;
    const tail = slot.get.at(slots, slotAt(done));
    if (head <= tail) return head + bytes <= tail ? head : undefined;
    if (head + bytes <= BYTES) return head;
    return bytes <= tail ? 0 : undefined;
  }

  /** Undefined: the log thread is gone, and the main thread knows, and answers who waits there. */
  function waitForPlace(bytes: number): number | undefined {
    for (;;) {
      const done = Atomics.load(words, WORD_DONE);
      if (Atomics.load(words, WORD_GONE) !== 0) return undefined; // looked at behind that: see breakLogLine
      const at = place(bytes, done);
      if (at !== undefined) return at;
      Atomics.wait(words, WORD_DONE, done);
    }
  }

  return {
    post(frame, answer): void {
      const reply = answer?.kind === "reply" ? answer.reply : undefined;
      const frameBytes = frame?.bytes.length ?? 0;
      const replyBytes = reply?.length ?? 0;
      const bytes = frameBytes + Math.ceil(Math.max(1, replyBytes) / BLOCK_BYTES) * BLOCK_BYTES;
      assert(bytes <= BYTES, "a frame and its answer fit");
      const at = waitForPlace(bytes);
      if (at === undefined) {
        refuse(answer);
        return;
      }
      if (frame !== undefined) memory.set(frame.bytes, at);
      if (reply !== undefined) memory.set(reply, at + frameBytes);
      head = at + bytes;
      const to = slotAt(posted);
      const { set } = slot;
      set.at(slots, to, at);
      set.frameBytes(slots, to, frameBytes);
      set.replyBytes(slots, to, replyBytes);
      set.descriptor(slots, to, answer?.kind === "reply" ? answer.descriptor : 0);
      set.vbn(slots, to, frame?.vbn ?? 0);
      set.lastSeq(slots, to, frame?.lastSeq ?? 0);
      set.tellSeq(slots, to, answer?.kind === "tell" ? answer.seq : 0);
      set.needsFlush(slots, to, frame?.needsFlush === true ? 1 : 0);
      set.isReply(slots, to, reply === undefined ? 0 : 1);
      set.isTell(slots, to, answer?.kind === "tell" ? 1 : 0);
      posted = (posted + 1) | 0;
      Atomics.store(words, WORD_POSTED, posted);
      wake(words);
      if (Atomics.load(words, WORD_GONE) !== 0) refuse(answer); // who has broken the line may not have seen it
    },
  };
}

/** It is never made durable. To be told so twice does no harm: no number of a request is used again. */
function refuse(answer: LogAnswer | undefined): void {
  if (answer?.kind === "reply") sendReply(answer.descriptor, errorReply(answer.reply));
}

/** What stands in a slot. */
function slotReader(shared: SharedArrayBuffer): (count: number) => Posted {
  const slots = new DataView(shared, SLOTS_AT, SLOTS * slot.size);
  const { get } = slot;
  return (count) => {
    const at = slotAt(count);
    const start = BYTES_AT + get.at(slots, at);
    const frameBytes = get.frameBytes(slots, at);
    const frame: LogFrame | undefined =
      frameBytes === 0
        ? undefined
        : {
            vbn: get.vbn(slots, at),
            bytes: new Uint8Array(shared, start, frameBytes),
            lastSeq: get.lastSeq(slots, at),
            needsFlush: get.needsFlush(slots, at) !== 0,
          };
    if (get.isTell(slots, at) !== 0) return { frame, answer: { kind: "tell", seq: get.tellSeq(slots, at) } };
    if (get.isReply(slots, at) === 0) return { frame, answer: undefined };
    const reply = new Uint8Array(shared, start + frameBytes, get.replyBytes(slots, at));
    return { frame, answer: { kind: "reply", descriptor: get.descriptor(slots, at), reply } };
  };
}

/** The log thread's end. */
export function logLineEnd(shared: SharedArrayBuffer): LogLineEnd {
  const words = new Int32Array(shared, 0, WORDS);
  const counts = new Float64Array(shared, COUNTS_AT, COUNTS);
  const read = slotReader(shared);
  let taken = 0;

  return {
    take(): readonly Posted[] {
      for (;;) {
        const seen = Atomics.load(words, WORD_WAKE);
        const isEnding = Atomics.load(words, WORD_ENDING) !== 0; // looked at first: what was posted before is taken
        const posted = Atomics.load(words, WORD_POSTED);
        const things: Posted[] = [];
        for (; taken !== posted; taken = (taken + 1) | 0) things.push(read(taken));
        if (things.length > 0 || isEnding) return things;
        Atomics.wait(words, WORD_WAKE, seen);
      }
    },
    count({ answers, frames, writes }): void {
      counts[COUNT_ANSWERS] = (counts[COUNT_ANSWERS] as number) + answers;
      counts[COUNT_FRAMES] = (counts[COUNT_FRAMES] as number) + frames;
      counts[COUNT_WRITES] = (counts[COUNT_WRITES] as number) + writes;
    },
    done(): void {
      Atomics.store(words, WORD_DONE, taken);
      Atomics.notify(words, WORD_DONE);
    },
  };
}

export function logCounts(shared: SharedArrayBuffer): LogCounts {
  const [answers = 0, frames = 0, writes = 0] = new Float64Array(shared, COUNTS_AT, COUNTS);
  return { answers, frames, writes };
}

/** Nothing more will be posted: the log thread does what it has, and ends. */
export function endLogLine(shared: SharedArrayBuffer): void {
  const words = new Int32Array(shared, 0, WORDS);
  Atomics.store(words, WORD_ENDING, 1);
  wake(words);
}

/**
 * The log thread is gone: nobody is to wait for it. Who waits for what it has not done is told that it failed, while replies can
 * be sent.
 */
export function breakLogLine(shared: SharedArrayBuffer, { canSend }: { readonly canSend: boolean }): void {
  const words = new Int32Array(shared, 0, WORDS);
  const read = slotReader(shared);
  Atomics.store(words, WORD_GONE, 1);
  const posted = Atomics.load(words, WORD_POSTED);
  if (canSend)
    for (let count = Atomics.load(words, WORD_DONE); count !== posted; count = (count + 1) | 0)
      refuse(read(count).answer);
  Atomics.add(words, WORD_DONE, 1); // another number: who has looked, and is about to wait, does not
  Atomics.notify(words, WORD_DONE);
}

function slotAt(count: number): number {
  return (count & (SLOTS - 1)) * slot.size;
}

function wake(words: Int32Array): void {
  Atomics.add(words, WORD_WAKE, 1);
  Atomics.notify(words, WORD_WAKE);
}
