/**
 * The image stream: a storage image in transit. native-notes/stream-format.md describes every byte.
 *
 *   frame 0: header | frame 1: data | frame 2: data | ... | frame n: trailer
 *
 * Every frame is a 48-byte frame header and a body. Each is numbered, names its stream and checks itself, so a
 * cut, a swap, a repeat or a splice is found at the frame where it happens. A data frame carries the same number
 * of blocks as all others but the last, so that the block with which frame k begins is known without reading
 * the ones before it: a transfer resumes at any frame. The digest is a chain over the frame headers, which hold
 * the checksums of their bodies: 32 bytes of state carry it over an interruption.
 *
 * What is read here is hostile: nothing is believed before its check, and no size is allocated unbounded.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { deflate, inflate } from "../core/deflate.ts";
import { DIGEST_BYTES, sha256 } from "../core/digest.ts";
import { CorruptionError } from "../core/errors.ts";
import { sameBytes } from "../core/uuid.ts";
import { RESERVED_BLOCKS_MAX, RESERVED_BLOCKS_MIN, TREE_HEIGHT_MAX, VOLUME_BLOCKS_MIN } from "./constants.ts";
import { timeRecord } from "./inode.ts";
import { rootChecksum, type SnapshotRecord, snapshotRecord } from "./snapshot-record.ts";
import { bytes, nested, type Struct, struct, text, u8, u16, u32, u64, type ValueOf } from "./struct.ts";

/** "TMFR": begins every frame. */
export const FRAME_MAGIC: Uint8Array = new TextEncoder().encode("TMFR");
/** "TIDEIMG" and a zero: begins the body of the header frame. */
export const IMAGE_MAGIC: Uint8Array = new TextEncoder().encode("TIDEIMG\0");
/** "TIDEEND" and a zero: the last bytes of a stream. */
export const IMAGE_END: Uint8Array = new TextEncoder().encode("TIDEEND\0");
export const IMAGE_VERSION = 2;

export const FRAME_HEADER = 1;
export const FRAME_DATA = 2;
export const FRAME_TRAILER = 3;

/** Encodings: the body as it is; a data body with patches; the deflated body of a header. */
export const BODY_PLAIN = 0;
export const BODY_PATCHED = 1;
export const BODY_DEFLATED = 2;

/** Blocks of every data frame but the last, which may have fewer: 1 MiB. */
export const FRAME_BLOCKS = 256;
/** Snapshots that a stream carries or names at most: more than the reserved area of any volume holds. */
export const IMAGE_SNAPSHOTS_MAX = 32768;

const frameShape = {
  magic: bytes(4), // "TMFR"
  kind: u8, // 1: header, 2: data, 3: trailer; any other is refused
  encoding: u8, // 0: the body as it is; 1: data with patches; 2: deflated, as every header is; any other is refused
  reserved: bytes(2), // zero
  frameNumber: u32, // 0 for the header, then one more for each frame
  stream: u32, // the body checksum of frame 0: which stream the frame is of; 0 in frame 0 itself
  runCount: u32, // data: entries of the run table that the body begins with; else 0
  blockCount: u32, // data: blocks in these runs; else 0
  patchCount: u32, // data: how many of them come as patches; else 0
  bodyBytes: u32, // length of the body
  bodyChecksum: u32, // CRC-32 of the body
  reserved2: bytes(8), // zero
  checksum: u32, // CRC-32 of the bytes before it
};
/** The first 48 bytes of every frame. */
export type FrameHeader = ValueOf<typeof frameShape>;
export const frameHeader: Struct<typeof frameShape> = struct(48, frameShape);

const runShape = {
  vbn: u32, // first block of the run
  count: u32, // blocks in it, at least 1
};
/** A run of blocks with consecutive VBNs. */
export type Run = ValueOf<typeof runShape>;
export const runRecord: Struct<typeof runShape> = struct(8, runShape);

const patchShape = {
  index: u16, // which block of the frame
  bytes: u16, // length of its patch
  baseVbn: u32, // the block of the base that it is a patch to
  checksum: u32, // CRC-32 of the whole block
};
/** A block that comes as what differs from one that the base has, and so the destination. */
export type Patch = ValueOf<typeof patchShape>;
export const patchRecord: Struct<typeof patchShape> = struct(12, patchShape);

const segmentShape = {
  offset: u16, // first byte of the block that differs
  bytes: u16, // how many do, which follow: at least 1
};
/** A patch is a sequence of these, ascending. */
export const segmentRecord: Struct<typeof segmentShape> = struct(4, segmentShape);

/** A patch that would be longer is not worth it: the block is sent. */
export const PATCH_BYTES_MAX = 2048;

const headerShape = {
  magic: bytes(8), // "TIDEIMG" and a zero
  version: u32, // version of this format; an unknown one is refused
  features: u32, // required feature bits; an unknown one is refused
  volumeUuid: bytes(16), // identity of the volume
  label: text(64), // for people
  volumeBlocks: u32, // blocks of the volume; a destination that has fewer grows
  reservedBlocks: u32, // blocks at the front that are never in a stream
  volumeCreatedAt: nested(timeRecord, "time"), // when the volume was formatted
  createdAt: nested(timeRecord, "time"), // when the newest top was taken
  hashSeed: u32, // seed of the directory hash
  generationNext: u32, // generation number of the next inode
  snapshotIdNext: u32, // number of the next snapshot
  lineage: u32, // lineage of the active filesystem of the source
  logSeq: u64, // number of the last change that the source's fsinfo contains
  kind: u8, // 0: full, 1: incremental
  reserved: bytes(3), // zero
  topCount: u32, // snapshots that the stream carries, at least 1
  heldCount: u32, // snapshots that the source holds, these among them
  blockCount: u32, // blocks in the stream
  baseUuid: bytes(16), // incremental: the snapshot that the destination must have; full: zero
  baseCpCount: u64, // incremental: its consistency point; full: 0
  baseRootChecksum: u32, // incremental: CRC-32 of its file root; full: 0
  reserved2: bytes(60), // zero
};
export type ImageHeaderRecord = ValueOf<typeof headerShape>;
/** Body of frame 0: this, then `topCount` snapshot records, then `heldCount` held snapshots. */
export const imageHeaderRecord: Struct<typeof headerShape> = struct(256, headerShape);

const heldShape = {
  uuid: bytes(16), // identity of the snapshot
  name: text(256), // its name at the source, 1 to 255 bytes
};
/** A snapshot that the source holds: a destination drops those that are not named, and renames the others. */
export type HeldSnapshot = ValueOf<typeof heldShape>;
export const heldRecord: Struct<typeof heldShape> = struct(272, heldShape);

const trailerShape = {
  frameCount: u32, // frames of the stream, this one too
  blockCount: u32, // blocks of all data frames
  digest: bytes(DIGEST_BYTES), // the digest after the frame before this one
  end: bytes(8), // "TIDEEND" and a zero
};
export type ImageTrailer = ValueOf<typeof trailerShape>;
/** Body of the last frame. */
export const imageTrailer: Struct<typeof trailerShape> = struct(48, trailerShape);

const resumeShape = {
  magic: bytes(8), // "TIDERES" and a zero
  frameNumber: u32, // the frame to go on with
  blocksDone: u32, // blocks of the frames before it
  vbnNext: u32, // all of them lie below this one
  headerBytes: u32, // length of frame 0, which follows this record
  cpCount: u64, // the destination's consistency point; 0: there is no volume yet
  digest: bytes(DIGEST_BYTES), // the digest of the frames before it
  reserved: bytes(60), // zero
  checksum: u32, // CRC-32 of the bytes before it
};
/** Where a transfer that was interrupted goes on: a file that a mirror keeps beside its volume. */
export const resumeRecord: Struct<typeof resumeShape> = struct(128, resumeShape);
/** "TIDERES" and a zero. */
export const RESUME_MAGIC: Uint8Array = new TextEncoder().encode("TIDERES\0");

export const IMAGE_FULL = 0;
export const IMAGE_INCREMENTAL = 1;

/** Longest body of a data frame: every block a run of its own. */
export const DATA_BODY_BYTES_MAX: number = FRAME_BLOCKS * (runRecord.size + BLOCK_BYTES);
const deflatedShape = {
  plainBytes: u32, // length of what follows when it is inflated
};
/** Before a deflated body. */
export const deflatedHead: Struct<typeof deflatedShape> = struct(4, deflatedShape);

/** Longest body of a header, before it is deflated. */
const HEADER_PLAIN_BYTES_MAX = imageHeaderRecord.size + IMAGE_SNAPSHOTS_MAX * (snapshotRecord.size + heldRecord.size);
/** Longest body of a header frame: what deflate cannot shorten it stores, with 5 bytes to 16 KiB at most. */
export const HEADER_BODY_BYTES_MAX: number =
  deflatedHead.size + HEADER_PLAIN_BYTES_MAX + (HEADER_PLAIN_BYTES_MAX >>> 10) + 16;

/** What a snapshot is, wherever it lies: never a name or a number alone. */
export interface SnapshotIdentity {
  readonly uuid: Uint8Array;
  readonly cpCount: number;
  readonly rootChecksum: number;
}

/** The header frame, checked and in terms of the program. */
export interface ImageHeader
  extends Omit<
    ImageHeaderRecord,
    | "magic"
    | "version"
    | "features"
    | "kind"
    | "reserved"
    | "reserved2"
    | "topCount"
    | "heldCount"
    | "baseUuid"
    | "baseCpCount"
    | "baseRootChecksum"
  > {
  /** Snapshots that the stream carries, oldest first; the last one becomes the active filesystem. At least one. */
  readonly tops: readonly SnapshotRecord[];
  /** undefined: a full image. */
  readonly base: SnapshotIdentity | undefined;
  readonly held: readonly HeldSnapshot[];
}

/** Frames of a stream of so many blocks: header, data, trailer. */
export function frameCountFor(blockCount: number): number {
  return Math.ceil(blockCount / FRAME_BLOCKS) + 2;
}

/** The digest before frame 0. */
export const DIGEST_START: Uint8Array = new Uint8Array(DIGEST_BYTES);

/** One link of the digest: `header` is the 48 bytes of the frame's header. */
export function digestFrame(digest: Uint8Array, header: Uint8Array): Uint8Array {
  return sha256(digest, header);
}

/** Identity of a snapshot from its record. */
export function identityOf(record: SnapshotRecord): SnapshotIdentity {
  return { uuid: record.uuid, cpCount: record.cpCount, rootChecksum: rootChecksum(record) };
}

export interface FrameFields {
  readonly kind: number;
  readonly frameNumber: number;
  readonly stream: number;
  readonly runCount: number;
  readonly blockCount: number;
  readonly patchCount: number;
}

/**
 * Completes a frame whose body lies at `frame[frameHeader.size..]`: writes its header. The body must be complete; its checksum
 * is given where it is known already.
 */
export function sealFrame(frame: Uint8Array, fields: FrameFields, bodyChecksum?: number): void {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const body = frame.subarray(frameHeader.size);
  frameHeader.encode(view, 0, {
    ...fields,
    magic: FRAME_MAGIC,
    encoding: fields.kind === FRAME_HEADER ? BODY_DEFLATED : fields.patchCount > 0 ? BODY_PATCHED : BODY_PLAIN,
    reserved: new Uint8Array(2),
    bodyBytes: body.length,
    bodyChecksum: bodyChecksum ?? checksum(body),
    reserved2: new Uint8Array(8),
    checksum: 0,
  });
  frameHeader.set.checksum(view, 0, checksum(frame.subarray(0, frameHeader.offset.checksum)));
}

/** Reads a frame header of 48 bytes. Throws CorruptionError. Checks all that can be checked without the stream. */
export function decodeFrameHeader(raw: Uint8Array): FrameHeader {
  const view = new DataView(raw.buffer, raw.byteOffset, frameHeader.size);
  const header = frameHeader.decode(view, 0);
  if (!sameBytes(header.magic, FRAME_MAGIC)) throw new CorruptionError("no frame begins here: frame magic missing");
  const found = checksum(raw.subarray(0, frameHeader.offset.checksum));
  if (found !== header.checksum) {
    throw new CorruptionError(`frame header has checksum ${hex(found)}, expected ${hex(header.checksum)}`);
  }
  checkEncoding(header);
  if (!isZero(header.reserved) || !isZero(header.reserved2))
    throw new CorruptionError("frame header uses reserved bytes");
  if (header.kind === FRAME_DATA) checkDataSizes(header);
  else if (header.runCount !== 0 || header.blockCount !== 0 || header.patchCount !== 0)
    throw new CorruptionError("a frame without data counts blocks");
  if (header.bodyBytes > bodyBytesMax(header.kind)) {
    throw new CorruptionError(`frame body of ${header.bodyBytes} bytes, at most ${bodyBytesMax(header.kind)} expected`);
  }
  return header;
}

/** There is one encoding for each frame, so that the same image is the same bytes. */
function checkEncoding({ kind, encoding, patchCount }: FrameHeader): void {
  if (encoding > BODY_DEFLATED) {
    throw new CorruptionError(`frame has encoding ${encoding}, this program reads 0 to ${BODY_DEFLATED}`);
  }
  const expected = kind === FRAME_HEADER ? BODY_DEFLATED : patchCount > 0 ? BODY_PATCHED : BODY_PLAIN;
  if (encoding !== expected) throw new CorruptionError(`frame of kind ${kind} has encoding ${encoding}`);
}

/** Exact but for the patches, whose lengths the body tells. */
function checkDataSizes({ runCount, blockCount, patchCount, bodyBytes }: FrameHeader): void {
  if (blockCount < 1 || blockCount > FRAME_BLOCKS || runCount < 1 || runCount > blockCount) {
    throw new CorruptionError(`data frame of ${blockCount} blocks in ${runCount} runs, 1 to ${FRAME_BLOCKS} expected`);
  }
  if (patchCount > blockCount)
    throw new CorruptionError(`data frame of ${blockCount} blocks has ${patchCount} patches`);
  const least = runCount * runRecord.size + patchCount * patchRecord.size + (blockCount - patchCount) * BLOCK_BYTES;
  if (bodyBytes < least || bodyBytes > least + patchCount * PATCH_BYTES_MAX) {
    throw new CorruptionError(`data frame body of ${bodyBytes} bytes, expected ${least}`);
  }
}

function bodyBytesMax(kind: number): number {
  if (kind === FRAME_HEADER) return HEADER_BODY_BYTES_MAX;
  if (kind === FRAME_DATA) return DATA_BODY_BYTES_MAX;
  if (kind === FRAME_TRAILER) return imageTrailer.size;
  throw new CorruptionError(`frame of unknown kind ${kind}`);
}

/** Frame 0, complete. */
export function encodeImageHeader(header: ImageHeader): Uint8Array {
  const { tops, held, base } = header;
  const heldAt = imageHeaderRecord.size + tops.length * snapshotRecord.size;
  const plain = new Uint8Array(heldAt + held.length * heldRecord.size);
  const view = new DataView(plain.buffer);
  imageHeaderRecord.encode(view, 0, {
    ...header,
    magic: IMAGE_MAGIC,
    version: IMAGE_VERSION,
    features: 0,
    kind: base === undefined ? IMAGE_FULL : IMAGE_INCREMENTAL,
    reserved: new Uint8Array(3),
    topCount: tops.length,
    heldCount: held.length,
    baseUuid: base?.uuid ?? new Uint8Array(16),
    baseCpCount: base?.cpCount ?? 0,
    baseRootChecksum: base?.rootChecksum ?? 0,
    reserved2: new Uint8Array(60),
  });
  tops.forEach((top, index) => {
    const at = imageHeaderRecord.size + index * snapshotRecord.size;
    snapshotRecord.encode(view, at, top);
    snapshotRecord.set.checksum(view, at, checksum(plain.subarray(at, at + snapshotRecord.offset.checksum)));
  });
  held.forEach((snapshot, index) => heldRecord.encode(view, heldAt + index * heldRecord.size, snapshot));
  return headerFrameOf(plain);
}

/** Frame 0 with this body: its length, then the body, deflated. Most of a header is the zeros after names. */
export function headerFrameOf(plain: Uint8Array): Uint8Array {
  const packed = deflate(plain);
  const frame = new Uint8Array(frameHeader.size + deflatedHead.size + packed.length);
  deflatedHead.set.plainBytes(new DataView(frame.buffer), frameHeader.size, plain.length);
  frame.set(packed, frameHeader.size + deflatedHead.size);
  sealFrame(frame, { kind: FRAME_HEADER, frameNumber: 0, stream: 0, runCount: 0, blockCount: 0, patchCount: 0 });
  return frame;
}

/** The body of frame 0 as it was before it was deflated. No more memory is used than it says, and that is bounded. */
export function plainHeaderBody(body: Uint8Array): Uint8Array {
  const head = new DataView(body.buffer, body.byteOffset, body.length);
  const plainBytes = body.length < deflatedHead.size ? 0 : deflatedHead.get.plainBytes(head, 0);
  if (plainBytes < imageHeaderRecord.size || plainBytes > HEADER_PLAIN_BYTES_MAX) {
    throw new CorruptionError(
      `image header of ${plainBytes} bytes, ${imageHeaderRecord.size} to ${HEADER_PLAIN_BYTES_MAX} expected`,
    );
  }
  const plain = inflate(body.subarray(deflatedHead.size), plainBytes);
  if (plain === undefined) throw new CorruptionError("image header cannot be inflated to its length");
  return plain;
}

/** Reads the body of frame 0. Throws CorruptionError that says what is wrong. The result keeps no view of `body`. */
export function decodeImageHeader(body: Uint8Array): ImageHeader {
  const plain = plainHeaderBody(body);
  const view = new DataView(plain.buffer, plain.byteOffset, plain.length);
  const { magic, version, features, kind, ...record } = imageHeaderRecord.decode(view, 0);
  const { topCount, heldCount, baseUuid, baseCpCount, baseRootChecksum, reserved, reserved2, ...fields } = record;
  if (!sameBytes(magic, IMAGE_MAGIC)) throw new CorruptionError("not an image stream: magic missing");
  if (version !== IMAGE_VERSION) {
    throw new CorruptionError(`image stream has format version ${version}, this program reads ${IMAGE_VERSION}`);
  }
  if (features !== 0)
    throw new CorruptionError(`image stream needs features ${hex(features)} that this program does not have`);
  if (kind !== IMAGE_FULL && kind !== IMAGE_INCREMENTAL)
    throw new CorruptionError(`image stream of unknown kind ${kind}`);
  if (!isZero(reserved) || !isZero(reserved2)) throw new CorruptionError("image header uses reserved bytes");
  const expected = imageHeaderRecord.size + topCount * snapshotRecord.size + heldCount * heldRecord.size;
  if (topCount < 1 || topCount > IMAGE_SNAPSHOTS_MAX || heldCount > IMAGE_SNAPSHOTS_MAX || plain.length !== expected) {
    throw new CorruptionError(
      `image header of ${plain.length} bytes with ${topCount} tops and ${heldCount} held snapshots: ${expected} expected`,
    );
  }
  const heldAt = imageHeaderRecord.size + topCount * snapshotRecord.size;
  const header: ImageHeader = {
    ...fields,
    tops: Array.from({ length: topCount }, (_, index) =>
      decodeTop(plain, view, imageHeaderRecord.size + index * snapshotRecord.size),
    ),
    base:
      kind === IMAGE_INCREMENTAL ? { uuid: baseUuid, cpCount: baseCpCount, rootChecksum: baseRootChecksum } : undefined,
    held: Array.from({ length: heldCount }, (_, index) => heldRecord.decode(view, heldAt + index * heldRecord.size)),
  };
  checkSizes(header);
  checkSnapshots(header);
  return header;
}

function decodeTop(raw: Uint8Array, view: DataView, at: number): SnapshotRecord {
  const top = snapshotRecord.decode(view, at);
  const found = checksum(raw.subarray(at, at + snapshotRecord.offset.checksum));
  if (found !== top.checksum) {
    throw new CorruptionError(
      `snapshot record in the image header has checksum ${hex(found)}, expected ${hex(top.checksum)}`,
    );
  }
  return top;
}

function checkSizes({ volumeBlocks, reservedBlocks, blockCount, logSeq, tops }: ImageHeader): void {
  if (
    volumeBlocks < VOLUME_BLOCKS_MIN ||
    reservedBlocks < RESERVED_BLOCKS_MIN ||
    reservedBlocks > RESERVED_BLOCKS_MAX ||
    reservedBlocks >= volumeBlocks
  ) {
    throw new CorruptionError(`image of a volume of ${volumeBlocks} blocks, ${reservedBlocks} of them reserved`);
  }
  if (blockCount > volumeBlocks - reservedBlocks) {
    throw new CorruptionError(`image of ${blockCount} blocks of a volume that has ${volumeBlocks - reservedBlocks}`);
  }
  for (const { root, cpCount } of tops) {
    if (!Number.isSafeInteger(cpCount) || !Number.isSafeInteger(root.sizeBytes) || root.height > TREE_HEIGHT_MAX) {
      throw new CorruptionError("image header has a snapshot with an impossible root");
    }
  }
  if (!Number.isSafeInteger(logSeq)) throw new CorruptionError("image header has an impossible log sequence number");
}

function checkSnapshots({ tops, base, held }: ImageHeader): void {
  const names = new Set<string>();
  const heldNames = new Map<string, string>();
  for (const { uuid, name } of held) {
    if (!isSnapshotName(name))
      throw new CorruptionError(`image header holds an impossible snapshot name ${JSON.stringify(name)}`);
    names.add(name);
    heldNames.set(key(uuid), name);
  }
  if (heldNames.size !== held.length || names.size !== held.length) {
    throw new CorruptionError("image header names a snapshot twice");
  }
  let previous: SnapshotRecord | undefined;
  for (const top of tops) {
    if (top.id === 0) throw new CorruptionError("image header has a snapshot without a number");
    if (heldNames.get(key(top.uuid)) !== top.name) {
      throw new CorruptionError(
        `image header carries snapshot ${JSON.stringify(top.name)} but does not list it as held`,
      );
    }
    if (previous !== undefined && (top.id <= previous.id || top.cpCount < previous.cpCount)) {
      throw new CorruptionError("image header has snapshots out of order");
    }
    previous = top;
  }
  if (base !== undefined && tops.some((top) => sameBytes(top.uuid, base.uuid))) {
    throw new CorruptionError("image header has a base that is one of its tops");
  }
}

/** A name that can stand in a directory. */
function isSnapshotName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !name.includes("/") && Buffer.byteLength(name) <= 255;
}

/** The last frame, complete. */
export function encodeImageTrailer(trailer: Omit<ImageTrailer, "end">, stream: number): Uint8Array {
  const frame = new Uint8Array(frameHeader.size + imageTrailer.size);
  imageTrailer.encode(new DataView(frame.buffer), frameHeader.size, { ...trailer, end: IMAGE_END });
  const frameNumber = trailer.frameCount - 1;
  sealFrame(frame, { kind: FRAME_TRAILER, frameNumber, stream, runCount: 0, blockCount: 0, patchCount: 0 });
  return frame;
}

/** Reads the body of the last frame. Throws CorruptionError. The result keeps no view of `body`. */
export function decodeImageTrailer(body: Uint8Array): ImageTrailer {
  if (body.length !== imageTrailer.size) {
    throw new CorruptionError(`image trailer of ${body.length} bytes, ${imageTrailer.size} expected`);
  }
  const trailer = imageTrailer.decode(new DataView(new Uint8Array(body).buffer), 0);
  if (!sameBytes(trailer.end, IMAGE_END)) throw new CorruptionError("image trailer has no end mark");
  return trailer;
}

function isZero(raw: Uint8Array): boolean {
  return raw.every((byte) => byte === 0);
}

function key(uuid: Uint8Array): string {
  return Buffer.from(uuid).toString("hex");
}

function hex(n: number): string {
  return `0x${n.toString(16).padStart(8, "0")}`;
}
