/**
 * Frames of the change log on the disk: sealed by their checksum, found by number and nonce. What is not the next frame
 * ends the log: zeros, a torn write, a frame of an earlier time.
 *
 * Or a frame that was acknowledged, and has rotted since. To tell these apart each frame is sealed with the number of the
 * last change that was durable before it was written:
 *
 *     frame            a: 41..45   b: 46..46   c: 47..52   d: 53..60
 *     durable before      40          45          46          46         c and d were written at once
 *
 *     b does not verify    c says that 46 had been durable: damage
 *     c does not verify    nobody says that 47 had been: the write of c and d was torn, and nobody was told that it was done
 *
 * Such a word is true whoever finds it and wherever it stands, and a consistency point that has the changes is behind all
 * that the ring has lost: so any frame of the nonce counts, at any block. What was written last, one frame or several at
 * once, has nobody who speaks for it until the next frame or consistency point.
 */
import { BLOCK_BYTES } from "../../core/block.ts";
import { checksum } from "../../core/checksum.ts";
import { FsError } from "../../core/errors.ts";
import { sameBytes } from "../../core/uuid.ts";
import type { BlockDevice } from "../../device/block-device.ts";
import {
  frameBlocks,
  LOG_FRAME_BLOCKS_MAX,
  LOG_FRAME_MAGIC,
  type LogFrameHeader,
  logFrameHeader,
} from "../../format/change-record.ts";
import { type Fsinfo, NO_FRAMES } from "../../format/fsinfo.ts";

/** A frame to be written. */
export interface LogFrame {
  readonly vbn: number;
  /** Whole blocks, yet to be sealed. */
  readonly bytes: Uint8Array;
  /** All changes up to this number are durable when it is. */
  readonly lastSeq: number;
  /** It refers to blocks: the device must be flushed before. */
  readonly needsFlush: boolean;
}

/** A frame that was found. */
export interface FoundFrame {
  readonly header: LogFrameHeader;
  /** Behind the header. */
  readonly payload: Uint8Array;
  /** Block of the ring, counted from its first one, that follows the frame. */
  readonly head: number;
}

/** The log behind a consistency point. */
export interface FoundLog {
  /** In order. */
  readonly frames: readonly FoundFrame[];
  /** Why it cannot have ended there. */
  readonly damage: LogDamage | undefined;
}

export interface LogDamage {
  /** Where the frame should be that is missing. */
  readonly vbn: number;
  readonly message: string;
}

export type LogPlace = Pick<Fsinfo, "logFirst" | "logBlocks" | "logHead" | "logSeq" | "logNonce">;

/** Which device has the log, and where on it. */
export interface LogLocation {
  readonly device: BlockDevice;
  readonly place: LogPlace;
}

/** The place of a log that has a device of this length to itself: all behind its first block. */
export function placeApart(place: LogPlace, blockCount: number): LogPlace {
  const { logHead, logSeq, logNonce } = place;
  return { logFirst: 1, logBlocks: blockCount - 1, logHead, logSeq, logNonce };
}

/** More than are made between two frames; and all numbers stay far below 2^53. */
const FRAME_CHANGES_MAX = 2 ** 40;
const CHECKSUM_END = logFrameHeader.offset.checksum + 4;

/** The last step before a frame is written: what was durable then, and the checksum of it all. */
export function sealFrame(bytes: Uint8Array, durableSeq: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  logFrameHeader.set.durableSeq(view, 0, durableSeq);
  logFrameHeader.set.checksum(view, 0, checksum(bytes.subarray(CHECKSUM_END)));
}

/**
 * Writes frames in order, those at once that lie side by side. `write` returns when it is durable. `durableSeq`: the last
 * change that a frame before has made durable, 0 if there was none. Returns what it is then.
 */
export function writeFrames(
  frames: readonly LogFrame[],
  durableSeq: number,
  write: (vbn: number, buffers: readonly Uint8Array[]) => void,
): number {
  let seq = durableSeq;
  for (let first = 0; first < frames.length; ) {
    let end = first + 1;
    while (end < frames.length && follows(frames[end] as LogFrame, frames[end - 1] as LogFrame)) end += 1;
    const neighbours = frames.slice(first, end);
    for (const { bytes } of neighbours) sealFrame(bytes, seq);
    write(
      (neighbours[0] as LogFrame).vbn,
      neighbours.map(({ bytes }) => bytes),
    );
    seq = (neighbours.at(-1) as LogFrame).lastSeq;
    first = end;
  }
  return seq;
}

function follows(frame: LogFrame, before: LogFrame): boolean {
  return frame.vbn === before.vbn + before.bytes.length / BLOCK_BYTES;
}

/** The log behind a consistency point. Changes nothing. */
export function readLog({ device, place }: LogLocation): FoundLog {
  const frames: FoundFrame[] = [];
  if (place.logBlocks === 0 || sameBytes(place.logNonce, NO_FRAMES)) return { frames, damage: undefined };
  let blocks = 0;
  let seq = place.logSeq;
  let offset = place.logHead;
  const damaged = (message: string): FoundLog => ({ frames, damage: { vbn: place.logFirst + offset, message } });
  try {
    for (;;) {
      const frame = nextFrame(device, place, offset, seq);
      if (frame === undefined) break;
      blocks += frameBlocks(frame.header.payloadBytes);
      if (blocks > place.logBlocks) break; // around the ring and into itself: not by us
      frames.push(frame);
      seq = frame.header.lastSeq;
      offset = frame.head;
    }
  } catch (error) {
    if (!(error instanceof FsError)) throw error;
    return damaged(`changes from ${seq + 1} on cannot be read: ${error.message}`);
  }
  const durableSeq = lastDurable(device, place);
  if (durableSeq <= seq) return { frames, damage: undefined };
  return damaged(
    `changes ${seq + 1} to ${durableSeq} had been made durable, and the frame that has them does not verify`,
  );
}

/** The frame after change `seq`: where the one before ends, or at the start of the ring, if there was no room for it. */
function nextFrame(device: BlockDevice, place: LogPlace, offset: number, seq: number): FoundFrame | undefined {
  const isNext = ({ firstSeq }: LogFrameHeader): boolean => firstSeq === seq + 1;
  return (
    (offset < place.logBlocks ? frameAt(device, place, offset, isNext) : undefined) ??
    (offset > 0 ? frameAt(device, place, 0, isNext) : undefined)
  );
}

/** The last change that had been durable, by all that is in the ring. What cannot be read says nothing. */
function lastDurable(device: BlockDevice, place: LogPlace): number {
  let seq = 0;
  const saysMore = ({ durableSeq }: LogFrameHeader): boolean => durableSeq > seq;
  const block = new Uint8Array(BLOCK_BYTES);
  for (let offset = 0; offset < place.logBlocks; offset++) {
    try {
      seq = frameAt(device, place, offset, saysMore, block)?.header.durableSeq ?? seq;
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
    }
  }
  return seq;
}

function frameAt(
  device: BlockDevice,
  place: LogPlace,
  offset: number,
  isWanted: (header: LogFrameHeader) => boolean,
  first: Uint8Array<ArrayBuffer> = new Uint8Array(BLOCK_BYTES),
): FoundFrame | undefined {
  const { logFirst, logBlocks, logNonce } = place;
  device.read(logFirst + offset, 1, first, 0);
  const view = new DataView(first.buffer);
  if (logFrameHeader.get.magic(view, 0) !== LOG_FRAME_MAGIC) return undefined;
  const header = logFrameHeader.decode(view, 0);
  if (!sameBytes(header.nonce, logNonce) || !isWanted(header)) return undefined;
  const { firstSeq, lastSeq, payloadBytes } = header;
  if (lastSeq < firstSeq || lastSeq - firstSeq >= FRAME_CHANGES_MAX) return undefined;
  const blocks = frameBlocks(payloadBytes);
  if (blocks > LOG_FRAME_BLOCKS_MAX || offset + blocks > logBlocks) return undefined;
  const bytes = new Uint8Array(blocks * BLOCK_BYTES);
  device.read(logFirst + offset, blocks, bytes, 0);
  if (checksum(bytes.subarray(CHECKSUM_END)) !== header.checksum) return undefined;
  const payload = bytes.subarray(logFrameHeader.size, logFrameHeader.size + payloadBytes);
  return { header, payload, head: offset + blocks };
}
