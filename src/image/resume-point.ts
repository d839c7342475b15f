/** The point at which an interrupted transfer goes on, as bytes for a file. */
import { checksum } from "../core/checksum.ts";
import { CorruptionError } from "../core/errors.ts";
import { sameBytes } from "../core/uuid.ts";
import {
  decodeFrameHeader,
  decodeImageHeader,
  frameCountFor,
  frameHeader,
  RESUME_MAGIC,
  resumeRecord,
} from "../format/image-frame.ts";
import type { ResumePoint } from "./receive.ts";

export function encodeResumePoint({ headerFrame, ...point }: ResumePoint): Uint8Array {
  const encoded = new Uint8Array(resumeRecord.size + headerFrame.length);
  const view = new DataView(encoded.buffer);
  resumeRecord.encode(view, 0, {
    ...point,
    magic: RESUME_MAGIC,
    headerBytes: headerFrame.length,
    reserved: new Uint8Array(60),
    checksum: 0,
  });
  encoded.set(headerFrame, resumeRecord.size);
  resumeRecord.set.checksum(view, 0, checksum(encoded.subarray(0, resumeRecord.offset.checksum)));
  return encoded;
}

/** undefined: it does not verify, and the transfer begins anew. */
export function decodeResumePoint(encoded: Uint8Array): ResumePoint | undefined {
  if (encoded.length < resumeRecord.size + frameHeader.size) return undefined;
  const copy = new Uint8Array(encoded);
  const record = resumeRecord.decode(new DataView(copy.buffer), 0);
  if (!sameBytes(record.magic, RESUME_MAGIC)) return undefined;
  if (checksum(copy.subarray(0, resumeRecord.offset.checksum)) !== record.checksum) return undefined;
  const headerFrame = copy.subarray(resumeRecord.size);
  if (headerFrame.length !== record.headerBytes) return undefined;
  const { frameNumber, digest, blocksDone, vbnNext, cpCount } = record;
  return isWhole(headerFrame, frameNumber)
    ? { headerFrame, frameNumber, digest, blocksDone, vbnNext, cpCount }
    : undefined;
}

function isWhole(headerFrame: Uint8Array, frameNumber: number): boolean {
  try {
    const { bodyBytes, bodyChecksum } = decodeFrameHeader(headerFrame.subarray(0, frameHeader.size));
    const body = headerFrame.subarray(frameHeader.size);
    if (body.length !== bodyBytes || checksum(body) !== bodyChecksum) return false;
    const { blockCount } = decodeImageHeader(body);
    return frameNumber >= 1 && frameNumber <= frameCountFor(blockCount);
  } catch (error) {
    if (error instanceof CorruptionError) return false;
    throw error;
  }
}
