/**
 * Reads a stream: takes bytes cut anywhere, gives out whole frames, each checked before anything of it is used.
 *
 *   header -> data* -> trailer -> complete;    any failed check ends in "failed" for good
 *
 * Every frame is asked for the one number, kind and size that it must have at its place, so a stream that was cut,
 * put together from others, or has frames twice, missing or in another order is found at the first wrong frame.
 * Memory is bounded by the largest frame, whatever the stream says.
 */

import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { CorruptionError } from "../core/errors.ts";
import { sameBytes } from "../core/uuid.ts";
import {
  DIGEST_START,
  decodeFrameHeader,
  decodeImageHeader,
  decodeImageTrailer,
  digestFrame,
  FRAME_BLOCKS,
  FRAME_DATA,
  FRAME_HEADER,
  FRAME_TRAILER,
  type FrameHeader,
  frameCountFor,
  frameHeader,
  type ImageHeader,
  type ImageTrailer,
  PATCH_BYTES_MAX,
  patchRecord,
  runRecord,
} from "../format/image-frame.ts";
import { isPatch } from "./patch.ts";

/** A data frame, checked. All of it is valid during the call only. */
export interface DataFrame {
  readonly runCount: number;
  /** First block of each run, and how many: the first `runCount` entries. Ascending through the whole stream. */
  readonly vbns: Uint32Array;
  readonly counts: Uint32Array;
  readonly blockCount: number;
  /** Blocks that come as patches: their table begins at `patchTableAt` of `bytes`, the patches follow it. */
  readonly patchCount: number;
  readonly patchTableAt: number;
  /** The blocks that do not, of all runs, one after the other, from byte `blocksAt` of `bytes` on. */
  readonly blocksAt: number;
  readonly bytes: Uint8Array;
}

export interface FrameHandlers {
  header(header: ImageHeader, headerFrame: Uint8Array): void;
  data(frame: DataFrame): void;
}

/** Where in a stream one is. */
export interface StreamPosition {
  /** The frame that comes next. */
  readonly frameNumber: number;
  /** The digest of all before it. */
  readonly digest: Uint8Array;
  readonly blocksDone: number;
  /** All blocks before it lie below this one. */
  readonly vbnNext: number;
}

export interface FrameReader extends StreamPosition {
  readonly header: ImageHeader | undefined;
  /** Bytes taken so far. */
  readonly bytes: number;
  readonly complete: boolean;
  /** Throws CorruptionError; what handlers throw passes through. After an error every call throws it again. */
  push(chunk: Uint8Array): void;
  /** The stream has ended. Throws CorruptionError when its trailer has not come. */
  end(): void;
}

/** Nothing is broken: what to do is all said. */
export const GOES_ON =
  "the image stream goes on after its trailer: of several images each is a file, or comes by a pipe, of its own";

/** A reader at the start of a stream, or at a frame of one whose frame 0 is known. */
export function openFrameReader(
  handlers: FrameHandlers,
  resume?: StreamPosition & { readonly headerFrame: Uint8Array },
): FrameReader {
  const head = new Uint8Array(frameHeader.size); // header of the frame that is coming in
  let frame: FrameHeader | undefined; // the same, decoded, once it is complete
  let body = new Uint8Array(0); // grows to the largest body that came in pieces
  let filled = 0; // bytes of head, then of body
  let bytes = 0;
  let header: ImageHeader | undefined;
  let stream = 0;
  let frameCount = 0;
  let frameNumber = 0;
  let digest = DIGEST_START;
  let blocksDone = 0;
  let vbnNext = 0;
  let failure: Error | undefined;
  const vbns = new Uint32Array(FRAME_BLOCKS);
  const counts = new Uint32Array(FRAME_BLOCKS);

  if (resume !== undefined) {
    const first = decodeFrameHeader(resume.headerFrame.subarray(0, frameHeader.size));
    takeHeader(first, resume.headerFrame.subarray(frameHeader.size));
    ({ frameNumber, digest, blocksDone, vbnNext } = resume);
  }

  function push(chunk: Uint8Array): void {
    if (failure !== undefined) throw failure;
    try {
      for (let at = 0; at < chunk.length; ) at += take(chunk, at);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
    bytes += chunk.length;
  }

  /** Takes bytes from `at` on, up to the end of a frame header or body; returns how many. */
  function take(chunk: Uint8Array, at: number): number {
    if (header !== undefined && frameNumber === frameCount) {
      throw new CorruptionError(GOES_ON);
    }
    if (frame === undefined) {
      const some = fill(head, head.length, chunk, at);
      if (filled === head.length) {
        frame = decodeFrame();
        filled = 0;
      }
      return some;
    }
    const { bodyBytes } = frame;
    if (filled === 0 && chunk.length - at >= bodyBytes) {
      takeFrame(frame, chunk.subarray(at, at + bodyBytes)); // whole in this chunk: not copied
      return bodyBytes;
    }
    if (body.length < bodyBytes) body = new Uint8Array(bodyBytes);
    const some = fill(body, bodyBytes, chunk, at);
    if (filled === bodyBytes) takeFrame(frame, body.subarray(0, bodyBytes));
    return some;
  }

  function fill(into: Uint8Array, size: number, chunk: Uint8Array, at: number): number {
    const some = Math.min(size - filled, chunk.length - at);
    into.set(chunk.subarray(at, at + some), filled);
    filled += some;
    return some;
  }

  /** The frame header in `head`, which must be the one that belongs here. */
  function decodeFrame(): FrameHeader {
    const found = located(() => decodeFrameHeader(head));
    if (found.frameNumber !== frameNumber) {
      throw new CorruptionError(`image stream has frame ${found.frameNumber} where frame ${frameNumber} is expected`);
    }
    if (found.stream !== stream) throw new CorruptionError(`frame ${frameNumber} is of another image stream`);
    const kind = frameNumber === 0 ? FRAME_HEADER : frameNumber === frameCount - 1 ? FRAME_TRAILER : FRAME_DATA;
    if (found.kind !== kind) {
      throw new CorruptionError(`frame ${frameNumber} is of kind ${found.kind}, expected ${kind}`);
    }
    const blocks = kind === FRAME_DATA ? Math.min(FRAME_BLOCKS, (header?.blockCount ?? 0) - blocksDone) : 0;
    if (found.blockCount !== blocks) {
      throw new CorruptionError(`frame ${frameNumber} has ${found.blockCount} blocks, expected ${blocks}`);
    }
    return found;
  }

  function takeFrame(current: FrameHeader, raw: Uint8Array): void {
    const sum = checksum(raw);
    if (sum !== current.bodyChecksum) {
      throw new CorruptionError(
        `body of frame ${frameNumber} has checksum ${hex(sum)}, expected ${hex(current.bodyChecksum)}`,
      );
    }
    if (current.kind === FRAME_HEADER) {
      const opened = takeHeader(current, raw);
      const whole = new Uint8Array(head.length + raw.length);
      whole.set(head);
      whole.set(raw, head.length);
      handlers.header(opened, whole);
    } else if (current.kind === FRAME_DATA) {
      handlers.data(takeRuns(current, raw));
    } else {
      checkTrailer(located(() => decodeImageTrailer(raw)));
    }
    digest = digestFrame(digest, head);
    blocksDone += current.blockCount;
    frameNumber += 1;
    frame = undefined;
    filled = 0;
  }

  function takeHeader(current: FrameHeader, raw: Uint8Array): ImageHeader {
    const opened = decodeImageHeader(raw);
    header = opened;
    stream = current.bodyChecksum;
    frameCount = frameCountFor(opened.blockCount);
    vbnNext = opened.reservedBlocks;
    return opened;
  }

  function takeRuns(current: FrameHeader, raw: Uint8Array): DataFrame {
    const { volumeBlocks } = header as ImageHeader;
    const { runCount, blockCount, patchCount } = current;
    const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
    let blocks = 0;
    let next = vbnNext;
    for (let index = 0; index < runCount; index += 1) {
      const vbn = runRecord.get.vbn(view, index * runRecord.size);
      const count = runRecord.get.count(view, index * runRecord.size);
      if (vbn < next || count < 1 || count > blockCount || vbn + count > volumeBlocks) {
        throw new CorruptionError(
          `frame ${frameNumber} has blocks ${vbn} to ${vbn + count - 1}, expected some from ${next} to ${volumeBlocks - 1}`,
        );
      }
      vbns[index] = vbn;
      counts[index] = count;
      blocks += count;
      next = vbn + count;
    }
    if (blocks !== blockCount) {
      throw new CorruptionError(`frame ${frameNumber} lists ${blocks} blocks, expected ${blockCount}`);
    }
    vbnNext = next;
    const patchTableAt = runCount * runRecord.size;
    const blocksAt = checkPatches(view, patchTableAt, current);
    return { runCount, vbns, counts, blockCount, patchCount, patchTableAt, blocksAt, bytes: raw };
  }

  /** Checks all of the patches but what they are patches to. Returns where the blocks begin. */
  function checkPatches(view: DataView, tableAt: number, { patchCount, blockCount, bodyBytes }: FrameHeader): number {
    const { reservedBlocks, volumeBlocks } = header as ImageHeader;
    let at = tableAt + patchCount * patchRecord.size;
    let least = 0;
    for (let patch = 0; patch < patchCount; patch += 1) {
      const { index, bytes: length, baseVbn } = patchRecord.decode(view, tableAt + patch * patchRecord.size);
      const isPlaced = index >= least && index < blockCount && baseVbn >= reservedBlocks && baseVbn < volumeBlocks;
      const isWithin = length <= PATCH_BYTES_MAX && at + length <= bodyBytes;
      if (!isPlaced || !isWithin || !isPatch(view, at, length)) {
        throw new CorruptionError(`patch ${patch} of frame ${frameNumber} is none`);
      }
      least = index + 1;
      at += length;
    }
    const end = at + (blockCount - patchCount) * BLOCK_BYTES;
    if (end !== bodyBytes) {
      throw new CorruptionError(`body of frame ${frameNumber} has ${bodyBytes} bytes, ${end} expected`);
    }
    return at;
  }

  function checkTrailer(trailer: ImageTrailer): void {
    const { blockCount } = header as ImageHeader;
    if (trailer.frameCount !== frameCount || trailer.blockCount !== blockCount) {
      throw new CorruptionError(
        `image trailer counts ${trailer.blockCount} blocks in ${trailer.frameCount} frames, expected ${blockCount} in ${frameCount}`,
      );
    }
    if (!sameBytes(trailer.digest, digest)) throw new CorruptionError("the digest of the image stream does not agree");
  }

  /** Says at which frame. */
  function located<T>(decode: () => T): T {
    try {
      return decode();
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      throw new CorruptionError(`frame ${frameNumber}: ${error.message}`, { cause: error });
    }
  }

  const isComplete = (): boolean => header !== undefined && frameNumber === frameCount;
  return {
    get header(): ImageHeader | undefined {
      return header;
    },
    get bytes(): number {
      return bytes;
    },
    get complete(): boolean {
      return failure === undefined && isComplete();
    },
    get frameNumber(): number {
      return frameNumber;
    },
    get digest(): Uint8Array {
      return digest;
    },
    get blocksDone(): number {
      return blocksDone;
    },
    get vbnNext(): number {
      return vbnNext;
    },
    push,
    end(): void {
      if (failure !== undefined) throw failure;
      if (isComplete()) return;
      const where = filled > 0 || frame !== undefined ? `within frame ${frameNumber}` : `before frame ${frameNumber}`;
      const total = header === undefined ? "" : ` of ${frameCount}`;
      throw new CorruptionError(`the image stream ends after ${bytes} bytes, ${where}${total}: it has been cut short`);
    },
  };
}

function hex(n: number): string {
  return `0x${n.toString(16).padStart(8, "0")}`;
}
