/**
 * Sending: forms the stream of a storage image.
 *
 * A snapshot's blocks never change, so they are read straight from the block file, in VBN order, run by run, in
 * reads of up to 1 MiB, whatever they belong to. The sender needs nothing of the process that has the volume
 * mounted but that it holds the snapshots meanwhile; before the trailer it looks whether they are still there.
 *
 *   planImage:  snapshots -> planes -> selection, exact counts, header            (reads map blocks only)
 *   openSender: trees -> what blocks must hold, and have come from                (reads metadata that is new)
 *               selection -> frame 0, 1, 2 ... n, one at a time, in one buffer      (reads the blocks)
 *
 * Every block is checked against its parent on the way; the trailer is sent only when all of them agree.
 *
 * Frame k begins with block (k - 1) * 256 of the selection, and the selection knows how many blocks each region
 * has: a sender begins at any frame without reading what comes before.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { blockAppender, checksum } from "../core/checksum.ts";
import { UserError } from "../core/errors.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import { type BlockDevice, WAITING } from "../device/block-device.ts";
import { spanReader } from "../device/span-reader.ts";
import {
  DIGEST_START,
  digestFrame,
  encodeImageHeader,
  encodeImageTrailer,
  FRAME_BLOCKS,
  FRAME_DATA,
  frameCountFor,
  frameHeader,
  type ImageHeader,
  identityOf,
  PATCH_BYTES_MAX,
  patchRecord,
  runRecord,
  sealFrame,
} from "../format/image-frame.ts";
import type { FileRootRecord } from "../format/inode.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import { openPlane, type Plane } from "../volume/space/plane.ts";
import type { Volume } from "../volume/volume.ts";
import { openCursor } from "./cursor.ts";
import { type ExpectedBlocks, openExpectedBlocks } from "./expected-blocks.ts";
import { openReadOnly } from "./open-state.ts";
import { openPatches, type Runs } from "./patches-out.ts";
import { openReadAhead } from "./read-ahead.ts";
import { type Selection, selectBlocks } from "./select.ts";

/** Where the blocks of a frame lie in its buffer: its tables end there, however long they are. */
const BLOCKS_AT = frameHeader.size + FRAME_BLOCKS * (runRecord.size + patchRecord.size + PATCH_BYTES_MAX);

export interface Progress {
  readonly blocksDone: number;
  readonly blocksTotal: number;
  /** Bytes of stream so far. */
  readonly bytes: number;
}

/** What will be sent, known exactly before a block is read. Small: counts by region, not the blocks. */
export interface ImagePlan {
  readonly header: ImageHeader;
  readonly selection: Selection;
  /** Root of the base, if there is one. */
  readonly baseRoot: FileRootRecord | undefined;
  /** Frame 0. */
  readonly headerFrame: Uint8Array;
  /** Frames of the stream, header and trailer too. */
  readonly frameCount: number;
  /** Blocks it carries, as in the header. */
  readonly blockCount: number;
}

/** How a transfer that was interrupted goes on: what the destination has, in 72 bytes. */
export interface ResumeRequest {
  /** Which stream: `digestOfHeader` of its frame 0. */
  readonly headerDigest: Uint8Array;
  /** The frame to begin with, 1 to `frameCount` - 1: those before it are there, and durable. */
  readonly frameNumber: number;
  /** The digest of those before it. */
  readonly digest: Uint8Array;
}

export interface ImageSender {
  readonly plan: ImagePlan;
  /** Number of the frame that `next` gives out next. */
  readonly frameNumber: number;
  /** The next frame, whole; undefined after the trailer. Valid until the call after the next: there are two buffers. */
  next(): Uint8Array | undefined;
}

/**
 * Chooses the blocks of (sum of `tops`) - `base`. `tops`, oldest first, become snapshots of the destination in one
 * switch, the last one its active filesystem. Both are records of `volume.snapshots()`; the volume may be open
 * read-only. The same volume, tops and base with the same snapshots held give the same plan, byte for byte. Throws
 * UserError "mismatch" when a record is not a snapshot of the volume, or the base is not older than the newest top.
 */
export function planImage(
  volume: Volume,
  { tops, base }: { readonly tops: readonly SnapshotRecord[]; readonly base?: SnapshotRecord | undefined },
): ImagePlan {
  const { committed, active } = volume;
  const held = volume.snapshots();
  const top = newestTop(held, { tops, base });
  const { store } = active;
  const planeOf = (record: SnapshotRecord): Plane => openPlane(store, record.root, committed.blockCount);
  const selection = selectBlocks(
    { tops: tops.map(planeOf), base: base === undefined ? undefined : planeOf(base) },
    () => store.beginOperation(),
  );
  const header: ImageHeader = {
    volumeUuid: committed.uuid,
    label: committed.label,
    volumeBlocks: committed.blockCount,
    reservedBlocks: committed.reservedBlocks,
    volumeCreatedAt: committed.createdAt,
    createdAt: top.createdAt,
    hashSeed: committed.hashSeed,
    generationNext: committed.generationNext,
    snapshotIdNext: committed.snapshotIdNext,
    lineage: committed.lineage,
    logSeq: committed.logSeq,
    blockCount: selection.blockCount,
    tops,
    base: base === undefined ? undefined : identityOf(base),
    held: held.map(({ uuid, name }) => ({ uuid, name })),
  };
  return {
    header,
    selection,
    baseRoot: base?.root,
    headerFrame: encodeImageHeader(header),
    frameCount: frameCountFor(selection.blockCount),
    blockCount: selection.blockCount,
  };
}

/** Checks what is asked for, and returns the newest top. */
function newestTop(
  held: readonly SnapshotRecord[],
  { tops, base }: { readonly tops: readonly SnapshotRecord[]; readonly base: SnapshotRecord | undefined },
): SnapshotRecord {
  const newest = tops.at(-1);
  if (newest === undefined) throw new UserError("usage", "an image needs at least one snapshot");
  for (const record of base === undefined ? tops : [...tops, base]) {
    if (!held.some(({ uuid }) => sameBytes(uuid, record.uuid))) {
      throw new UserError("mismatch", `${JSON.stringify(record.name)} is not a snapshot of this volume`);
    }
  }
  let previous: SnapshotRecord | undefined = base;
  for (const top of tops) {
    if (previous !== undefined && top.id <= previous.id) {
      const [older, newer] = [JSON.stringify(top.name), JSON.stringify(previous.name)];
      throw new UserError("mismatch", `snapshot ${older} is not newer than ${newer}`, "give the older one as the base");
    }
    previous = top;
  }
  return newest;
}

/** Identity of a stream: the digest after its frame 0. */
export function digestOfHeader(headerFrame: Uint8Array): Uint8Array {
  return digestFrame(DIGEST_START, headerFrame.subarray(0, frameHeader.size));
}

/**
 * The frames of a plan, read from the device that the plan's volume is on. Throws UserError "mismatch" when `resume`
 * is of another stream, and at the trailer when a snapshot of the plan was deleted meanwhile; CorruptionError when a block
 * is not what its parent expects, at once or at the trailer; FsError EIO.
 */
export function openSender(
  device: BlockDevice,
  plan: ImagePlan,
  {
    resume,
    onProgress,
  }: {
    readonly resume?: ResumeRequest | undefined;
    readonly onProgress?: ((progress: Progress) => void) | undefined;
  } = {},
): ImageSender {
  const { header, selection, headerFrame, frameCount, blockCount } = plan;
  const stream = frameHeader.get.bodyChecksum(viewOf(headerFrame), 0);
  let [current, other] = [frameBuffer(), frameBuffer()];
  const runVbns = new Uint32Array(FRAME_BLOCKS);
  const runCounts = new Uint32Array(FRAME_BLOCKS);
  const cursor = openCursor(selection);
  let frameNumber = 0;
  let blocksDone = 0;
  let bytes = 0;
  let digest = DIGEST_START;
  if (resume !== undefined) startAt(resume);
  const expected = expectedOf(device, plan, blocksDone === blockCount ? header.volumeBlocks : cursor.peek());
  const patches = openPatches(device, expected);
  const readAhead = openReadAhead(device, selection, blocksDone);
  const spans = spanReader(device);
  const appendBlock = blockAppender();

  function startAt(from: ResumeRequest): void {
    if (!sameBytes(from.headerDigest, digestOfHeader(headerFrame))) {
      throw new UserError("mismatch", "the transfer to resume is of another image stream", "begin it anew");
    }
    if (from.frameNumber < 1 || from.frameNumber >= frameCount) {
      throw new UserError("mismatch", `cannot resume at frame ${from.frameNumber} of ${frameCount}`, "begin it anew");
    }
    frameNumber = from.frameNumber;
    digest = from.digest;
    blocksDone = Math.min(blockCount, (frameNumber - 1) * FRAME_BLOCKS);
    cursor.skip(blocksDone);
  }

  /** Collects the runs of the next blocks of the selection, then reads each block that is not patched into its place. */
  function dataFrame(): Uint8Array {
    [current, other] = [other, current];
    const { bytes: buffer, view } = current;
    readAhead(blocksDone);
    const wanted = Math.min(FRAME_BLOCKS, blockCount - blocksDone);
    let runCount = 0;
    for (let taken = 0; taken < wanted; ) {
      const run = cursor.take(wanted - taken);
      const last = runCount - 1;
      if (last >= 0 && (runVbns[last] as number) + (runCounts[last] as number) === cursor.vbn) {
        runCounts[last] = (runCounts[last] as number) + run; // goes on in the next region
      } else {
        runVbns[runCount] = cursor.vbn;
        runCounts[runCount] = run;
        runCount += 1;
      }
      taken += run;
    }
    const runs = { runCount, vbns: runVbns, counts: runCounts };
    const patchCount = patches.collect(runs);
    const patchesAt = BLOCKS_AT - patches.bytes;
    const runsAt = patchesAt - runCount * runRecord.size;
    patches.store(buffer, patchesAt);
    for (let index = 0; index < runCount; index += 1) {
      runRecord.set.vbn(view, runsAt + index * runRecord.size, runVbns[index] as number);
      runRecord.set.count(view, runsAt + index * runRecord.size, runCounts[index] as number);
    }
    const bodyChecksum = readBlocks(runs, checksum(buffer.subarray(runsAt, BLOCKS_AT)));
    const end = BLOCKS_AT + (wanted - patchCount) * BLOCK_BYTES;
    const frame = buffer.subarray(runsAt - frameHeader.size, end);
    const fields = { kind: FRAME_DATA, frameNumber, stream, runCount, blockCount: wanted, patchCount };
    sealFrame(frame, fields, bodyChecksum);
    blocksDone += wanted;
    return frame;
  }

  /** Reads the blocks that are not patched. Returns `sum`, the checksum of what lies before them, continued. */
  function readBlocks(runs: Runs, sum: number): number {
    const { bytes: buffer, blocks } = current;
    let place = 0;
    spans.begin(buffer, BLOCKS_AT, WAITING);
    eachUnpatched(runs, (vbn, count) => {
      spans.add(vbn, count, place);
      place += count;
    });
    spans.end();
    let bodySum = sum;
    place = 0;
    eachUnpatched(runs, (vbn, count) => {
      for (let i = 0; i < count; i += 1, place += 1) {
        const blockSum = checksum(blocks[place] as Uint8Array);
        expected.sent(vbn + i, blockSum);
        bodySum = appendBlock(bodySum, blockSum);
      }
    });
    return bodySum;
  }

  function eachUnpatched({ runCount, vbns, counts }: Runs, take: (vbn: number, count: number) => void): void {
    let index = 0; // of a block of the frame
    for (let run = 0; run < runCount; run += 1) {
      const end = index + (counts[run] as number);
      const offset = (vbns[run] as number) - index;
      while (index < end) {
        const next = Math.min(end, patches.nextIndex(index));
        if (next > index) take(offset + index, next - index);
        index = next + 1; // it is patched
      }
      index = end;
    }
  }

  function trailerFrame(): Uint8Array {
    checkStillHeld(device, header);
    expected.check();
    return encodeImageTrailer({ frameCount, blockCount, digest }, stream);
  }

  return {
    plan,
    get frameNumber(): number {
      return frameNumber;
    },
    next(): Uint8Array | undefined {
      if (frameNumber === frameCount) return undefined;
      const last = frameNumber === frameCount - 1;
      const frame = frameNumber === 0 ? headerFrame : last ? trailerFrame() : dataFrame();
      digest = digestFrame(digest, frame.subarray(0, frameHeader.size));
      frameNumber += 1;
      bytes += frame.length;
      onProgress?.({ blocksDone, blocksTotal: blockCount, bytes });
      return frame;
    },
  };
}

interface FrameBuffer {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly blocks: readonly Uint8Array[];
}

function frameBuffer(): FrameBuffer {
  const bytes = new Uint8Array(BLOCKS_AT + FRAME_BLOCKS * BLOCK_BYTES);
  const blocks = Array.from({ length: FRAME_BLOCKS }, (_, i) =>
    bytes.subarray(BLOCKS_AT + i * BLOCK_BYTES, BLOCKS_AT + (i + 1) * BLOCK_BYTES),
  );
  return { bytes, view: viewOf(bytes), blocks };
}

/** What the blocks of a plan from `fromVbn` on must hold. Throws CorruptionError for metadata that does not. */
export function expectedOf(
  device: BlockDevice,
  { header, selection, baseRoot }: ImagePlan,
  fromVbn: number,
): ExpectedBlocks {
  return openExpectedBlocks(device, {
    selection,
    base: baseRoot,
    tops: header.tops.map(({ root }) => root),
    firstVbn: header.reservedBlocks,
    endVbn: header.volumeBlocks,
    fromVbn,
  });
}

/** Blocks of a snapshot that is deleted are written over: a stream read meanwhile must not get its trailer. */
function checkStillHeld(device: BlockDevice, { tops, base }: ImageHeader): void {
  const records = openReadOnly(device).snapshots();
  for (const { uuid } of base === undefined ? tops : [...tops, base]) {
    if (!records.some((record) => sameBytes(record.uuid, uuid))) {
      throw new UserError(
        "mismatch",
        `snapshot ${formatUuid(uuid)} was deleted while its image was being sent`,
        "send another snapshot",
      );
    }
  }
}

function viewOf(raw: Uint8Array): DataView {
  return new DataView(raw.buffer, raw.byteOffset, raw.length);
}
