/**
 * Sending: forms the stream of a storage image.
 *
 * A snapshot's blocks never change, so they are read straight from the block file, in VBN order, run by run, in
 * reads of up to 1 MiB: no tree, no inode, no path. The sender needs nothing of the process that has the volume
 * mounted but that it holds the snapshots meanwhile; before the trailer it looks whether they are still there.
 *
 *   planImage:  snapshots -> planes -> selection, exact counts, header         (reads map blocks only)
 *   openSender: selection -> frame 0, 1, 2 ... n, one at a time, in one buffer   (reads the blocks)
 *
 * Frame k begins with block (k - 1) * 256 of the selection, and the selection knows how many blocks each region
 * has: a sender begins at any frame without reading what comes before.
 */
import assert from "node:assert/strict";
import { has } from "../bitset/plane.ts";
import { nextGap, nextMember } from "../bitset/runs.ts";
import { BLOCK_BYTES, makeBlock, REGION_BLOCKS, REGION_WORDS } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { UserError } from "../core/errors.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import type { BlockDevice } from "../device/block-device.ts";
import {
  DATA_BODY_BYTES_MAX,
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
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import { eachChangedMetadata } from "../volume/changed-metadata.ts";
import { openPlane, type Plane } from "../volume/space/plane.ts";
import type { Volume } from "../volume/volume.ts";
import { openReadOnly } from "./open-state.ts";
import { makePatch } from "./patch.ts";
import { regionOf, regionStart, type Selection, selectBlocks } from "./select.ts";

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
  /** Blocks of the selection that may be sent as patches, and the blocks of the base that they have come from. */
  readonly bases: ReadonlyMap<number, number>;
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
  /** The next frame, whole; undefined after the trailer. Valid until the next call: the buffer is used again. */
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
    bases: base === undefined ? new Map() : basesOf(volume, { tops, base, plane: planeOf(base) }),
    headerFrame: encodeImageHeader(header),
    frameCount: frameCountFor(selection.blockCount),
    blockCount: selection.blockCount,
  };
}

/**
 * Where the metadata of the tops has come from. Each top is compared with the one before it, the first with the base; what
 * has changed twice leads back to the base over two steps.
 */
function basesOf(
  { active: { store } }: Volume,
  {
    tops,
    base,
    plane,
  }: { readonly tops: readonly SnapshotRecord[]; readonly base: SnapshotRecord; readonly plane: Plane },
): ReadonlyMap<number, number> {
  const bases = new Map<number, number>();
  let before = base;
  for (const top of tops) {
    eachChangedMetadata(store, { before: before.root, after: top.root }, (vbn, vbnBefore) => {
      if (bases.size >= BASES_MAX) return;
      const from = bases.get(vbnBefore) ?? vbnBefore;
      store.beginOperation();
      const region = regionOf(from);
      if (region < plane.regionCount && has(plane.words(region), from - regionStart(region))) bases.set(vbn, from);
    });
    before = top;
  }
  return bases;
}

/** Of 1 GiB of changed metadata; what comes beyond is sent whole. */
const BASES_MAX = 1 << 18;

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
 * is of another stream, and at the trailer when a snapshot of the plan was deleted meanwhile; FsError EIO.
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
  const { header, selection, bases, headerFrame, frameCount, blockCount } = plan;
  const stream = frameHeader.get.bodyChecksum(viewOf(headerFrame), 0);
  const buffer = new Uint8Array(frameHeader.size + DATA_BODY_BYTES_MAX);
  const view = viewOf(buffer);
  const runVbns = new Uint32Array(FRAME_BLOCKS);
  const runCounts = new Uint32Array(FRAME_BLOCKS);
  const patches = openPatches(device, bases);
  const cursor = openCursor(selection);
  let frameNumber = 0;
  let blocksDone = 0;
  let bytes = 0;
  let digest = DIGEST_START;
  if (resume !== undefined) startAt(resume);

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
    const wanted = Math.min(FRAME_BLOCKS, blockCount - blocksDone);
    let runCount = 0;
    for (let blocks = 0; blocks < wanted; ) {
      const run = cursor.take(wanted - blocks);
      const last = runCount - 1;
      if (last >= 0 && (runVbns[last] as number) + (runCounts[last] as number) === cursor.vbn) {
        runCounts[last] = (runCounts[last] as number) + run; // goes on in the next region
      } else {
        runVbns[runCount] = cursor.vbn;
        runCounts[runCount] = run;
        runCount += 1;
      }
      blocks += run;
    }
    for (let index = 0; index < runCount; index += 1) {
      runRecord.set.vbn(view, frameHeader.size + index * runRecord.size, runVbns[index] as number);
      runRecord.set.count(view, frameHeader.size + index * runRecord.size, runCounts[index] as number);
    }
    const runs = { runCount, vbns: runVbns, counts: runCounts };
    const patchCount = patches.collect(runs);
    const blocksAt = patches.store(buffer, frameHeader.size + runCount * runRecord.size);
    const frame = buffer.subarray(0, readBlocks(runs, blocksAt));
    sealFrame(frame, { kind: FRAME_DATA, frameNumber, stream, runCount, blockCount: wanted, patchCount });
    blocksDone += wanted;
    return frame;
  }

  /** Reads what lies between patched blocks in one go; returns where the last block ends. */
  function readBlocks({ runCount, vbns, counts }: Runs, from: number): number {
    let at = from;
    let block = 0; // of the frame
    for (let index = 0; index < runCount; index += 1) {
      const end = block + (counts[index] as number);
      const offset = (vbns[index] as number) - block;
      while (block < end) {
        const next = Math.min(end, patches.nextIndex(block));
        if (next > block) device.read(offset + block, next - block, buffer, at);
        at += (next - block) * BLOCK_BYTES;
        block = next < end ? next + 1 : end;
      }
    }
    return at;
  }

  function trailerFrame(): Uint8Array {
    checkStillHeld(device, header);
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

/** The blocks of one frame. */
interface Runs {
  readonly runCount: number;
  readonly vbns: Uint32Array;
  readonly counts: Uint32Array;
}

/** The patches of one frame. */
interface Patches {
  /** Makes the patches of the blocks that are worth one; returns how many. */
  collect(runs: Runs): number;
  /** Writes their table and then themselves from `at` on; returns where they end. */
  store(into: Uint8Array, at: number): number;
  /** The first patched block of the frame that is not before `index`. */
  nextIndex(index: number): number;
}

function openPatches(device: BlockDevice, bases: ReadonlyMap<number, number>): Patches {
  if (bases.size === 0) return { collect: () => 0, store: (_, at) => at, nextIndex: () => FRAME_BLOCKS };
  const table = new Uint8Array(FRAME_BLOCKS * patchRecord.size);
  const tableView = viewOf(table);
  const bytes = new Uint8Array(FRAME_BLOCKS * PATCH_BYTES_MAX);
  const bytesView = viewOf(bytes);
  const isPatched = new Uint8Array(FRAME_BLOCKS);
  const [block, base] = [makeBlock(), makeBlock()];
  let count = 0;
  let end = 0; // of `bytes`

  function collectOne(index: number, vbn: number, baseVbn: number): void {
    device.read(vbn, 1, block.bytes, 0);
    device.read(baseVbn, 1, base.bytes, 0);
    const length = makePatch(base.words, block.words, bytesView, end);
    if (length < 0) return;
    const patch = { index, bytes: length, baseVbn, checksum: checksum(block.bytes) };
    patchRecord.encode(tableView, count * patchRecord.size, patch);
    isPatched[index] = 1;
    count += 1;
    end += length;
  }

  return {
    collect({ runCount, vbns, counts }): number {
      count = 0;
      end = 0;
      isPatched.fill(0);
      for (let run = 0, index = 0; run < runCount; run += 1) {
        const vbn = vbns[run] as number;
        for (let i = 0; i < (counts[run] as number); i += 1, index += 1) {
          const baseVbn = bases.get(vbn + i);
          if (baseVbn !== undefined) collectOne(index, vbn + i, baseVbn);
        }
      }
      return count;
    },
    store(into, at): number {
      const patchesAt = at + count * patchRecord.size;
      into.set(table.subarray(0, count * patchRecord.size), at);
      into.set(bytes.subarray(0, end), patchesAt);
      return patchesAt + end;
    },
    nextIndex(index): number {
      const next = isPatched.indexOf(1, index);
      return next < 0 ? FRAME_BLOCKS : next;
    },
  };
}

/** Goes through the members of a selection, run by run. */
interface Cursor {
  /** First block of the run that `take` gave. */
  readonly vbn: number;
  /** Takes the next run, of at most `limit` blocks; returns how many. */
  take(limit: number): number;
  skip(blocks: number): void;
}

function openCursor(selection: Selection): Cursor {
  const words = new Uint32Array(REGION_WORDS);
  let region = -1;
  let at = REGION_BLOCKS; // within the region
  let vbn = 0;

  function enterNextRegion(): void {
    do region += 1;
    while (selection.regionCounts[region] === 0);
    assert.ok(region < selection.regionCounts.length, "more blocks asked for than selected");
    selection.fill(region, words);
    at = 0;
  }

  function take(limit: number): number {
    let start = at < REGION_BLOCKS ? nextMember(words, at) : REGION_BLOCKS;
    while (start === REGION_BLOCKS) {
      enterNextRegion();
      start = nextMember(words, 0);
    }
    const end = Math.min(nextGap(words, start), start + limit);
    vbn = regionStart(region) + start;
    at = end;
    return end - start;
  }

  return {
    get vbn(): number {
      return vbn;
    },
    take,
    skip(blocks): void {
      let left = blocks;
      while (left > 0 && left >= (selection.regionCounts[region + 1] as number)) {
        region += 1;
        left -= selection.regionCounts[region] as number;
      }
      while (left > 0) left -= take(left);
    },
  };
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
