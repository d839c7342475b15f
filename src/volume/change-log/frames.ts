/**
 * Frames of the change log on the disk: sealed by their checksum, found by number and nonce. Whatever is not the next
 * frame ends the log: zeros, a torn write, a frame of an earlier time.
 */
import { BLOCK_BYTES } from "../../core/block.ts";
import { checksum } from "../../core/checksum.ts";
import { sameBytes } from "../../core/uuid.ts";
import type { BlockDevice } from "../../device/block-device.ts";
import {
  frameBlocks,
  LOG_FRAME_BLOCKS_MAX,
  LOG_FRAME_MAGIC,
  type LogFrameHeader,
  logFrameHeader,
} from "../../format/change-record.ts";
import type { Fsinfo } from "../../format/fsinfo.ts";

/** A frame to be written. */
export interface LogFrame {
  readonly vbn: number;
  /** Whole blocks. */
  readonly bytes: Uint8Array<ArrayBuffer>;
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

export type LogPlace = Pick<Fsinfo, "logFirst" | "logBlocks" | "logHead" | "logSeq" | "logNonce">;

/** Which device has the log, and where on it. */
export interface LogLocation {
  readonly device: BlockDevice;
  readonly place: LogPlace;
}

/** More than are made between two frames; and all numbers stay far below 2^53. */
const FRAME_CHANGES_MAX = 2 ** 40;
const CHECKSUM_END = logFrameHeader.offset.checksum + 4;

/** Writes the header and the checksum of a frame whose payload stands behind the place of the header. */
export function sealFrame(bytes: Uint8Array, header: Omit<LogFrameHeader, "magic" | "checksum" | "reserved">): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  logFrameHeader.encode(view, 0, { ...header, magic: LOG_FRAME_MAGIC, checksum: 0, reserved: new Uint8Array(20) });
  logFrameHeader.set.checksum(view, 0, checksum(bytes.subarray(CHECKSUM_END)));
}

/** Makes a frame durable, for who may wait. */
export function writeFrame(device: BlockDevice, { vbn, bytes, needsFlush }: LogFrame): void {
  if (needsFlush) device.flush();
  device.writeDurable(vbn, bytes);
}

/** The frames behind a consistency point, in order. Changes nothing. Throws FsError EIO. */
export function readFrames({ device, place }: LogLocation): readonly FoundFrame[] {
  const found: FoundFrame[] = [];
  let blocks = 0;
  let seq = place.logSeq;
  let offset = place.logHead;
  for (;;) {
    const frame = nextFrame(device, place, offset, seq);
    if (frame === undefined) return found;
    blocks += frameBlocks(frame.header.payloadBytes);
    if (blocks > place.logBlocks) return found; // around the ring and into itself: not by us
    found.push(frame);
    seq = frame.header.lastSeq;
    offset = frame.head;
  }
}

/** Are there changes that only the log has? */
export function hasFrames({ device, place }: LogLocation): boolean {
  return place.logBlocks > 0 && nextFrame(device, place, place.logHead, place.logSeq) !== undefined;
}

/** The frame after change `seq`: where the one before ends, or at the start of the ring, if there was no room for it. */
function nextFrame(device: BlockDevice, place: LogPlace, offset: number, seq: number): FoundFrame | undefined {
  return (
    (offset < place.logBlocks ? frameAt(device, place, offset, seq) : undefined) ??
    (offset > 0 ? frameAt(device, place, 0, seq) : undefined)
  );
}

function frameAt(device: BlockDevice, place: LogPlace, offset: number, seq: number): FoundFrame | undefined {
  const { logFirst, logBlocks, logNonce } = place;
  if (offset >= logBlocks) return undefined;
  const first = new Uint8Array(BLOCK_BYTES);
  device.read(logFirst + offset, 1, first, 0);
  const header = logFrameHeader.decode(new DataView(first.buffer), 0);
  if (header.magic !== LOG_FRAME_MAGIC || !sameBytes(header.nonce, logNonce)) return undefined;
  if (header.firstSeq !== seq + 1 || header.lastSeq < header.firstSeq) return undefined;
  if (header.lastSeq - header.firstSeq >= FRAME_CHANGES_MAX) return undefined;
  const blocks = frameBlocks(header.payloadBytes);
  if (blocks > LOG_FRAME_BLOCKS_MAX || offset + blocks > logBlocks) return undefined;
  const bytes = new Uint8Array(blocks * BLOCK_BYTES);
  device.read(logFirst + offset, blocks, bytes, 0);
  if (checksum(bytes.subarray(CHECKSUM_END)) !== header.checksum) return undefined;
  const payload = bytes.subarray(logFrameHeader.size, logFrameHeader.size + header.payloadBytes);
  return { header, payload, head: offset + blocks };
}
