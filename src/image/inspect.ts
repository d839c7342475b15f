/** `image inspect`: what a stream file is, from its header and its trailer, without reading what lies between. */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { formatTime } from "../core/clock.ts";
import { CorruptionError, UserError } from "../core/errors.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import {
  decodeFrameHeader,
  decodeImageHeader,
  decodeImageTrailer,
  FRAME_HEADER,
  FRAME_TRAILER,
  frameCountFor,
  frameHeader,
  IMAGE_VERSION,
  type ImageHeader,
  identityOf,
  imageTrailer,
  type SnapshotIdentity,
} from "../format/image-frame.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import { GOES_ON } from "./frames-in.ts";
import { openPartReader, type PartReader } from "./targets/file.ts";

export interface SnapshotSummary {
  readonly name: string;
  readonly uuid: string;
  readonly cpCount: number;
  readonly createdAt: string;
  readonly rootChecksum: number;
}

/** The snapshot that an increment needs. */
export interface BaseSummary extends Pick<SnapshotSummary, "uuid" | "cpCount" | "rootChecksum"> {
  /** At the source, when that still had it. */
  readonly name: string | null;
}

/** As it is shown by --json. */
export interface ImageSummary {
  readonly formatVersion: number;
  readonly kind: "full" | "incremental";
  readonly volume: { readonly uuid: string; readonly label: string; readonly blockCount: number };
  /** Snapshots it carries; the last one becomes the active filesystem. */
  readonly tops: readonly SnapshotSummary[];
  readonly base: BaseSummary | null;
  /** Snapshots that the source had when it was sent. */
  readonly held: readonly { readonly name: string; readonly uuid: string }[];
  readonly createdAt: string;
  readonly blocks: number;
  readonly dataBytes: number;
  readonly frames: number;
  readonly streamBytes: number;
}

export interface InspectResult extends ImageSummary {
  readonly file: string;
  /** Whether the file ends with its own trailer. Says nothing of the blocks: `image verify` reads them. */
  readonly hasTrailer: boolean;
}

/** Throws UserError "corrupt" when the header does not verify. */
export async function inspectImage(file: string): Promise<InspectResult> {
  const reader = await openPartReader(file);
  try {
    const { header, stream } = await readHeader(reader);
    const hasTrailer = await endsWithTrailer(reader, header, stream);
    return { file, ...summaryOf(header, reader.sizeBytes), hasTrailer };
  } catch (error) {
    if (error instanceof CorruptionError) throw corrupt(file, error.message, error);
    throw error;
  } finally {
    await reader.close();
  }
}

/** What a broken stream is called, wherever it is found. */
export function corrupt(file: string, problem: string, cause?: unknown): UserError {
  const hint = problem === GOES_ON ? "" : "make the image again, or use another copy of it";
  return new UserError("corrupt", `image ${file}: ${problem}`, hint, { cause });
}

async function readHeader(reader: PartReader): Promise<{ header: ImageHeader; stream: number }> {
  const raw = await reader.read(0, frameHeader.size);
  if (raw.length < frameHeader.size) throw new CorruptionError(`${raw.length} bytes are no image stream`);
  const frame = decodeFrameHeader(raw);
  if (frame.kind !== FRAME_HEADER || frame.frameNumber !== 0) {
    throw new CorruptionError(`it begins with frame ${frame.frameNumber} of kind ${frame.kind}, not with a header`);
  }
  const body = await reader.read(frameHeader.size, frame.bodyBytes);
  if (body.length !== frame.bodyBytes) throw new CorruptionError("it ends within its header");
  if (checksum(body) !== frame.bodyChecksum) throw new CorruptionError("the body of its header does not verify");
  return { header: decodeImageHeader(body), stream: frame.bodyChecksum };
}

async function endsWithTrailer(reader: PartReader, header: ImageHeader, stream: number): Promise<boolean> {
  const size = frameHeader.size + imageTrailer.size;
  const raw = await reader.read(Math.max(0, reader.sizeBytes - size), size);
  if (raw.length < size) return false;
  try {
    const frame = decodeFrameHeader(raw.subarray(0, frameHeader.size));
    const body = raw.subarray(frameHeader.size);
    return (
      frame.kind === FRAME_TRAILER &&
      frame.stream === stream &&
      frame.frameNumber === frameCountFor(header.blockCount) - 1 &&
      frame.bodyChecksum === checksum(body) &&
      decodeImageTrailer(body).blockCount === header.blockCount
    );
  } catch (error) {
    if (error instanceof CorruptionError) return false;
    throw error;
  }
}

export function summaryOf(header: ImageHeader, streamBytes: number): ImageSummary {
  return {
    formatVersion: IMAGE_VERSION,
    kind: header.base === undefined ? "full" : "incremental",
    volume: { uuid: formatUuid(header.volumeUuid), label: header.label, blockCount: header.volumeBlocks },
    tops: header.tops.map(snapshotSummary),
    base: header.base === undefined ? null : baseSummary(header.base, header.held),
    held: header.held.map(({ name, uuid }) => ({ name, uuid: formatUuid(uuid) })),
    createdAt: formatTime(header.createdAt),
    blocks: header.blockCount,
    dataBytes: header.blockCount * BLOCK_BYTES,
    frames: frameCountFor(header.blockCount),
    streamBytes,
  };
}

function baseSummary({ uuid, cpCount, rootChecksum }: SnapshotIdentity, held: ImageHeader["held"]): BaseSummary {
  const name = held.find((snapshot) => sameBytes(snapshot.uuid, uuid))?.name ?? null;
  return { name, uuid: formatUuid(uuid), cpCount, rootChecksum };
}

/** "monday (UUID, CP 12)". */
export function baseText({ name, uuid, cpCount }: BaseSummary): string {
  return name === null ? `${uuid}, CP ${cpCount}` : `${name} (${uuid}, CP ${cpCount})`;
}

function snapshotSummary(record: SnapshotRecord): SnapshotSummary {
  const { rootChecksum } = identityOf(record);
  const { name, cpCount } = record;
  return { name, uuid: formatUuid(record.uuid), cpCount, createdAt: formatTime(record.createdAt), rootChecksum };
}
