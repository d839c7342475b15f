/**
 * Receiving: makes a volume out of image streams, or advances one.
 *
 * The blocks of a stream go to their own VBNs at once: none of them is one that the destination's active filesystem
 * or a snapshot that stays refers to, so whatever comes, and wherever it stops, the volume is what it was. When all
 * of it has come, is durable and agrees with what it claims, one write of fsinfo makes the volume what the source
 * was: active filesystem, snapshots and counters together.
 *
 *   header          data ...                 trailer          finish
 *   does it fit? -> write to free blocks  -> totals, digest -> planes = blocks? -> flush -> fsinfo (both copies)
 *   |<------------ the old state, whatever happens ------------------------------------>|<- the new state
 *
 * After a crash at any point the volume is at its old or at its new state. Only one thing may happen before the
 * switch: a snapshot that the source no longer has and that stands where a block must go is dropped, by an fsinfo
 * of its own, before that block is written. So the snapshots of a destination are a subset of the source's.
 *
 * Before the switch the new state is opened from the blocks on the device and its planes are compared with what
 * came: (sum of the tops) - base must be exactly the blocks of the stream. A stream whose blocks are all right but
 * which lacks one is refused too.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import type { Clock } from "../core/clock.ts";
import { CorruptionError, UserError } from "../core/errors.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { fsinfoVbns } from "../format/constants.ts";
import { encodeFsinfo, type Fsinfo, NO_FRAMES, ROLE_MIRROR } from "../format/fsinfo.ts";
import { FRAME_BLOCKS, type ImageHeader, patchRecord } from "../format/image-frame.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import { repairFsinfo, writeFsinfo } from "../volume/fsinfo-copies.ts";
import { openSnapshotTable, type SnapshotTable } from "../volume/snapshot-table.ts";
import { openPlane, type Plane } from "../volume/space/plane.ts";
import type { Volume } from "../volume/volume.ts";
import {
  checkDestination,
  checkNothingLost,
  type Guard,
  guardVolume,
  holds,
  NO_GUARD,
  unbornFsinfo,
} from "./destination.ts";
import { type DataFrame, openFrameReader, type StreamPosition } from "./frames-in.ts";
import { candidateDevice, openReadOnly } from "./open-state.ts";
import { applyPatch } from "./patch.ts";
import { receivedBlocks } from "./received-blocks.ts";
import { selectBlocks } from "./select.ts";
import type { Progress } from "./send.ts";
import { usedBlocksAfter } from "./used-blocks.ts";

/** Where a stream goes: a place for a block file, which may hold a volume already. See targets/volume-file.ts. */
export interface ReceiveTarget {
  /** For messages. */
  readonly name: string;
  /** The device of the volume that is there; undefined: none yet. */
  readonly device: BlockDevice | undefined;
  /** A device of at least so many blocks: makes the block file or grows it. What it holds stays. */
  prepare(blockCount: number): BlockDevice;
}

/** What must be kept to go on with a transfer after an interruption. Good for the same destination, unchanged. */
export interface ResumePoint extends StreamPosition {
  /** Frame 0 of the stream. */
  readonly headerFrame: Uint8Array;
  /** CP count of the destination; 0: no volume yet. */
  readonly cpCount: number;
}

export interface ReceiveOptions {
  /** ROLE_MIRROR: only streams change the volume. Default: as it was; a new volume is an ordinary one. */
  readonly role?: number | undefined;
  readonly clock: Clock;
  /** Refuse a stream with which a snapshot of the destination would go. Default: those that the source has not go. */
  readonly keepSnapshots?: boolean | undefined;
  readonly resume?: ResumePoint | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface ReceiveResult {
  /** What the active filesystem is now. */
  readonly top: SnapshotRecord;
  readonly blocksReceived: number;
  readonly cpCount: number;
  /** Snapshots of the destination that are gone because the source no longer has them. */
  readonly dropped: readonly SnapshotRecord[];
}

/** A receiver of one stream. Synchronous; any error ends it, and leaves the destination as it was. */
export interface ImageReceiver {
  /** Known as soon as frame 0 is complete, or from the resume point. */
  readonly header: ImageHeader | undefined;
  /** The frame that is expected next. */
  readonly frameNumber: number;
  /** True when the trailer has come and everything agrees: `finish` may be called. */
  readonly complete: boolean;
  /**
   * Takes bytes of the stream, cut anywhere; writes blocks to places that nothing at the destination refers to.
   * Throws UserError "mismatch" (not for this destination), CorruptionError (broken stream), FsError (device).
   */
  push(chunk: Uint8Array): void;
  /** Makes what has come so far durable. The point from which another receiver goes on; frame 0 must have come. */
  checkpoint(): ResumePoint;
  /** Everything durable, then the one switch. Throws CorruptionError when the stream is not complete. */
  finish(): ReceiveResult;
}

/** What a receiver has once it knows the header. */
interface Transfer {
  readonly header: ImageHeader;
  readonly headerFrame: Uint8Array;
  readonly device: BlockDevice;
  /** The state before; undefined: there is no volume yet. */
  readonly volume: Volume | undefined;
  readonly guard: Guard;
  readonly table: SnapshotTable;
  /** As last committed. */
  fsinfo: Fsinfo;
  readonly dropped: SnapshotRecord[];
}

/** A receiver at the header, or at the resume point. Throws UserError "mismatch" when that is not of this destination. */
export function openReceiver(
  target: ReceiveTarget,
  { role, clock, keepSnapshots = false, resume, onProgress }: ReceiveOptions,
): ImageReceiver {
  const received = receivedBlocks();
  let patched: Uint8Array | undefined; // the blocks of a frame that has patches
  let transfer: Transfer | undefined;
  let switched = false;
  const frames = openFrameReader(
    {
      header(header, headerFrame): void {
        transfer = beginTransfer(target, header, { headerFrame, keepSnapshots });
      },
      data: (frame) => writeRuns(transfer as Transfer, frame),
    },
    resume,
  );
  const resumedAt = resume?.vbnNext ?? 0;
  if (resume !== undefined) {
    const { headerFrame } = resume;
    transfer = beginTransfer(target, frames.header as ImageHeader, { headerFrame, keepSnapshots });
    if (transfer.fsinfo.cpCount !== resume.cpCount) {
      throw new UserError(
        "mismatch",
        `${target.name} is at CP ${transfer.fsinfo.cpCount}, but the transfer to resume began at CP ${resume.cpCount}`,
        "begin it anew",
      );
    }
  }

  function writeRuns(current: Transfer, frame: DataFrame): void {
    const { runCount, vbns, counts } = frame;
    const isWhole = frame.patchCount === 0;
    if (!isWhole) patched ??= new Uint8Array(FRAME_BLOCKS * BLOCK_BYTES);
    const bytes = patched === undefined || isWhole ? frame.bytes : patched;
    let at = isWhole ? frame.blocksAt : 0;
    if (!isWhole) applyPatches(current.device, frame, bytes);
    for (let index = 0; index < runCount; index += 1) {
      const vbn = vbns[index] as number;
      const count = counts[index] as number;
      if (current.guard.clear(vbn, count)) {
        current.device.write(vbn, count, bytes, at);
      } else {
        for (let i = 0; i < count; i += 1) {
          writeContested(current, vbn + i, bytes.subarray(at + i * BLOCK_BYTES, at + (i + 1) * BLOCK_BYTES));
        }
      }
      received.add(vbn, count);
      at += count * BLOCK_BYTES;
    }
  }

  return {
    get header(): ImageHeader | undefined {
      return frames.header;
    },
    get frameNumber(): number {
      return frames.frameNumber;
    },
    get complete(): boolean {
      return frames.complete;
    },
    push(chunk): void {
      frames.push(chunk);
      onProgress?.({
        blocksDone: frames.blocksDone,
        blocksTotal: frames.header?.blockCount ?? 0,
        bytes: frames.bytes,
      });
    },
    checkpoint(): ResumePoint {
      if (transfer === undefined) throw new UserError("failed", "the image stream has not begun");
      transfer.device.flush();
      const { frameNumber, digest, blocksDone, vbnNext } = frames;
      const { headerFrame, fsinfo } = transfer;
      return { headerFrame, frameNumber, digest, blocksDone, vbnNext, cpCount: fsinfo.cpCount };
    },
    finish(): ReceiveResult {
      frames.end();
      if (transfer === undefined || switched) throw new UserError("failed", "the image has been received already");
      switched = true;
      return switchTo(transfer);
    },
  };

  function switchTo(current: Transfer): ReceiveResult {
    const { header, device, table, dropped } = current;
    const top = header.tops.at(-1) as SnapshotRecord;
    dropped.push(...current.guard.loose);
    updateTable(current);
    const isMirror = (role ?? current.fsinfo.role) === ROLE_MIRROR;
    const draft: Fsinfo = {
      ...current.fsinfo,
      blockCount: header.volumeBlocks,
      cpCount: Math.max(current.fsinfo.cpCount + 1, top.cpCount),
      logSeq: Math.max(current.fsinfo.logSeq, header.logSeq),
      cpAt: top.createdAt,
      inodeFile: top.root,
      snapshotTable: table.freeze(),
      activeBlocks: top.activeBlocks,
      usedInodes: top.usedInodes,
      generationNext: Math.max(current.fsinfo.generationNext, header.generationNext),
      snapshotIdNext: Math.max(current.fsinfo.snapshotIdNext, header.snapshotIdNext, top.id + 1),
      lineage: Math.max(current.fsinfo.lineage, header.lineage),
      role: role ?? current.fsinfo.role,
      topUuid: isMirror ? top.uuid : new Uint8Array(16),
      receivedAt: isMirror ? clock.now() : current.fsinfo.receivedAt,
      logNonce: NO_FRAMES, // the log of the state before does not follow this one
      logUuid: new Uint8Array(16),
    };
    const candidate = openReadOnly(candidateDevice(device, draft));
    checkPlanes(candidate, current);
    commit(current, { ...draft, usedBlocks: countUsed(candidate, current, draft) });
    return { top, blocksReceived: header.blockCount, cpCount: current.fsinfo.cpCount, dropped };
  }

  /** (Sum of the tops) - base, as the planes on the device have it, must be what the stream has carried. */
  function checkPlanes(candidate: Volume, { header, volume }: Transfer): void {
    const { store } = candidate.active;
    const open = ({ root }: SnapshotRecord): Plane => openPlane(store, root, header.volumeBlocks);
    const base = volume?.snapshots().find(({ uuid }) => header.base !== undefined && sameBytes(uuid, header.base.uuid));
    const selection = selectBlocks(
      { tops: header.tops.map(open), base: base === undefined ? undefined : open(base) },
      () => store.beginOperation(),
    );
    if (selection.blockCount !== header.blockCount) {
      throw new CorruptionError(
        `the image carries ${header.blockCount} blocks, but by its snapshots it should be ${selection.blockCount}`,
      );
    }
    const region = received.differs(selection, Math.max(resumedAt, header.reservedBlocks));
    if (region !== undefined) {
      throw new CorruptionError(`the image does not carry the blocks that its snapshots have in region ${region}`);
    }
  }
}

/** All blocks of a frame as they are when its patches have been applied to blocks of the base, one after the other. */
function applyPatches(device: BlockDevice, frame: DataFrame, into: Uint8Array): void {
  const { bytes, blockCount, patchCount, patchTableAt, blocksAt } = frame;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let patchAt = patchTableAt + patchCount * patchRecord.size;
  let from = blocksAt;
  let index = 0;
  const copyUpTo = (end: number): void => {
    const length = (end - index) * BLOCK_BYTES;
    into.set(bytes.subarray(from, from + length), index * BLOCK_BYTES);
    from += length;
    index = end;
  };
  for (let row = 0; row < patchCount; row += 1) {
    const patch = patchRecord.decode(view, patchTableAt + row * patchRecord.size);
    copyUpTo(patch.index);
    const target = index * BLOCK_BYTES;
    device.read(patch.baseVbn, 1, into, target);
    applyPatch(bytes.subarray(patchAt, patchAt + patch.bytes), into, target);
    if (checksum(into.subarray(target, target + BLOCK_BYTES)) !== patch.checksum) {
      throw new CorruptionError(
        `block ${patch.baseVbn} of the base is not what the image is a difference to: run tidemark check`,
      );
    }
    patchAt += patch.bytes;
    index += 1;
  }
  copyUpTo(blockCount);
}

/** Checks that the stream is for this destination; makes the block file, or grows it. */
function beginTransfer(
  target: ReceiveTarget,
  header: ImageHeader,
  { headerFrame, keepSnapshots }: { readonly headerFrame: Uint8Array; readonly keepSnapshots: boolean },
): Transfer {
  if (target.device === undefined) {
    if (header.base !== undefined) {
      throw new UserError(
        "mismatch",
        `the image is an increment to snapshot ${formatUuid(header.base.uuid)} of CP ${header.base.cpCount}, but ${target.name} holds no volume`,
        "receive the full image first",
      );
    }
    const device = target.prepare(header.volumeBlocks);
    const fsinfo = unbornFsinfo(header);
    const table = openSnapshotTable(device, fsinfo);
    return { header, headerFrame, device, volume: undefined, guard: NO_GUARD, table, fsinfo, dropped: [] };
  }
  let device = target.device;
  let volume = openReadOnly(device);
  checkDestination(target.name, volume, header);
  if (keepSnapshots) checkNothingLost(target.name, volume, header);
  repairFsinfo(device);
  if (device.blockCount < header.volumeBlocks) {
    device = target.prepare(header.volumeBlocks);
    volume = openReadOnly(device);
  }
  const fsinfo = volume.committed;
  const guard = guardVolume(volume, header);
  return { header, headerFrame, device, volume, guard, table: openSnapshotTable(device, fsinfo), fsinfo, dropped: [] };
}

/** Writes a block to which something at the destination may refer. */
function writeContested(current: Transfer, vbn: number, bytes: Uint8Array): void {
  const { guard, device } = current;
  if (guard.isKept(vbn)) {
    if (holds(device, vbn, bytes)) return; // the same block: common to both, and older than the base
    throw new UserError(
      "mismatch",
      `the image has other contents for block ${vbn} than the filesystem or a snapshot that both sides keep`,
      "the two have diverged: receive a full image into a new path",
    );
  }
  const records = guard.givingWay(vbn);
  if (records.length > 0) dropNow(current, records);
  device.write(vbn, 1, bytes, 0);
}

/** Drops snapshots by an fsinfo of its own, durable before a block of theirs is written over. */
function dropNow(current: Transfer, records: readonly SnapshotRecord[]): void {
  const { table, fsinfo, guard, dropped } = current;
  for (const { id } of records) table.remove(id);
  const draft: Fsinfo = { ...fsinfo, cpCount: fsinfo.cpCount + 1, snapshotTable: table.freeze() };
  const candidate = openReadOnly(candidateDevice(current.device, draft));
  commit(current, { ...draft, usedBlocks: countUsed(candidate, current, draft) });
  guard.forget(records);
  dropped.push(...records);
}

/** The table as the source has it, of those snapshots whose blocks are here. */
function updateTable({ header, guard, table }: Transfer): void {
  for (const { id } of guard.loose) table.remove(id);
  const names = new Map(header.held.map(({ uuid, name }) => [formatUuid(uuid), name]));
  for (const record of table.records) {
    const name = names.get(formatUuid(record.uuid));
    if (name !== undefined && name !== record.name) table.replace({ ...record, name });
  }
  for (const top of header.tops) {
    if (!table.records.some(({ uuid }) => sameBytes(uuid, top.uuid))) table.add(top);
  }
}

function countUsed(candidate: Volume, { fsinfo, device }: Transfer, draft: Fsinfo): number {
  const rootsOf = (state: Fsinfo): Fsinfo["inodeFile"][] => {
    const roots = openSnapshotTable(device, state).records.map(({ root }) => root);
    return state.inodeFile.sizeBytes === 0 ? roots : [...roots, state.inodeFile];
  };
  return usedBlocksAfter(candidate, {
    before: rootsOf(fsinfo),
    usedBlocks: fsinfo.usedBlocks,
    after: rootsOf(draft),
    blockCount: draft.blockCount,
  });
}

/** The switch. */
function commit(current: Transfer, fsinfo: Fsinfo): void {
  current.device.flush();
  writeFsinfo(current.device, encodeFsinfo(fsinfo), fsinfoVbns(fsinfo.reservedBlocks));
  current.table.commit();
  current.fsinfo = fsinfo;
}
