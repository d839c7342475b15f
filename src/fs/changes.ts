/**
 * Describing changes: what the change log of a volume is told of what is done here.
 *
 * Each operation that has changed something says so as its last step, when nothing can fail any more. The description is
 * what was asked for and what came of it: the time, and the numbers of the inodes that were made. Contents of files are
 * not described when they are written, but when a frame is made: which blocks were touched is noted, and what stands in
 * them then goes into the frame, as bytes if they are few and in memory only, else as the places that they have got, or
 * are given now. So what is overwritten ten times is logged once, and large data is written once.
 *
 * What is not described: access times, and whatever happens to a file that has no name, which no crash brings back. If
 * such a file is given a name, the log is interrupted: a consistency point has to make that durable.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../core/block.ts";
import { EPOCH } from "../core/clock.ts";
import {
  birthRecord,
  changeKind,
  changeRecord,
  extentRecord,
  frameBlocks,
  LOG_FRAME_BYTES_MAX,
  LOG_FRAME_MAGIC,
  logFrameHeader,
  presentBit,
} from "../format/change-record.ts";
import { type ChangeExtent, fileExtents } from "../tree/file-extents.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import type { LogFrame } from "../volume/change-log/frames.ts";
import type { Volume } from "../volume/volume.ts";
import type { Caller, Name } from "./file-system.ts";
import { isRegular } from "./modes.ts";
import type { OperationClock } from "./operation-clock.ts";

export interface Changes {
  /** Names are of directories; `dir` and `inode` are as they are after the change. */
  made(dir: Inode, name: Name, what: Made): void;
  linked(inode: Inode, dir: Inode, name: Name): void;
  removed(dir: Inode, name: Name, what: { readonly isDirectory: boolean }): void;
  renamed(from: Inode, fromName: Name, into: Inode, intoName: Name, flags: number): void;
  attributesSet(inode: Inode, changes: StampedChanges): void;
  allocated(inode: Inode, mode: number, offset: number, length: number, killPriv: boolean): void;
  wrote(inode: Inode, offset: number, length: number, killPriv: boolean): void;
  xattrSet(inode: Inode, name: Name, value: Uint8Array, flags: number): void;
  xattrRemoved(inode: Inode, name: Name): void;
  /** Something has changed that has no description: a file without a name has got one, or an operation failed half-way. */
  undescribed(): void;
}

export interface Made {
  readonly mode: number;
  readonly rdev?: number;
  readonly target?: Uint8Array;
  readonly caller: Caller;
}

/** What was set, with the times that "now" meant. */
export interface StampedChanges {
  readonly mode?: number | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly sizeBytes?: number | undefined;
  readonly atime?: Inode["atime"] | undefined;
  readonly mtime?: Inode["mtime"] | undefined;
  readonly ctime?: Inode["ctime"] | undefined;
  readonly killPriv?: boolean | undefined;
}

export interface ChangeRecorder extends Changes {
  /** To be called at the start of every operation. */
  begin(inodes: InodeFile): void;
  /**
   * A frame with all that is described and in no frame yet; whoever is given it makes it durable before any later one.
   * Undefined: all is in frames, or the log cannot take it; then it is not open any more.
   */
  frame(inodes: InodeFile): LogFrame | undefined;
}

/** Descriptions that wait for a frame. Beyond, a consistency point is the better way. */
const PENDING_BYTES_MAX = 1 << 20;
const TOUCHED_RANGES_MAX = 1 << 15;
/** Blocks in memory of one file, and of all, that go into a frame as they are; where there are more, the file's get their places. */
const FILE_INLINE_BLOCKS_MAX = 64;
const INLINE_BLOCKS_MAX = 256;
const NO_BYTES = new Uint8Array(0);

/** Blocks of a file that were written. */
interface TouchedRange {
  readonly ino: number;
  readonly first: number;
  readonly last: number;
}

/** Ranges that were touched, column by column: a write allocates nothing. */
interface TouchedRanges {
  /** False: there are too many. */
  add(ino: number, first: number, last: number): boolean;
  clear(): void;
  /** By file, and by where they begin. */
  sorted(): readonly TouchedRange[];
}

function touchedRanges(): TouchedRanges {
  const inos: number[] = [];
  const firsts: number[] = [];
  const lasts: number[] = [];
  let count = 0;
  return {
    add(ino, first, last): boolean {
      const before = count - 1;
      const end = lasts[before] as number;
      if (count > 0 && inos[before] === ino && first >= (firsts[before] as number) && first <= end + 1) {
        lasts[before] = Math.max(end, last);
        return true;
      }
      if (count === TOUCHED_RANGES_MAX) return false;
      inos[count] = ino;
      firsts[count] = first;
      lasts[count] = last;
      count += 1;
      return true;
    },
    clear(): void {
      count = 0;
    },
    sorted(): readonly TouchedRange[] {
      const ranges: TouchedRange[] = [];
      for (let i = 0; i < count; i++) {
        ranges.push({ ino: inos[i] as number, first: firsts[i] as number, last: lasts[i] as number });
      }
      return ranges.toSorted((a, b) => a.ino - b.ino || a.first - b.first);
    },
  };
}

export function changeRecorder(volume: Volume, clock: OperationClock): ChangeRecorder {
  const { log } = volume;
  let births: InodeFile["births"]["made"] = [];
  let pending: Buffer | undefined;
  let view: DataView | undefined;
  let used = 0;
  let changeCount = 0;
  const touched = touchedRanges();
  /** Where the last description stands if it is of a write, and of which file: the next write of the same file adds to it. */
  let writtenAt = -1;
  let writtenIno = 0;
  let dropCount = log.dropCount;

  function clear(): void {
    used = 0;
    changeCount = 0;
    writtenAt = -1;
    touched.clear();
    dropCount = log.dropCount;
  }

  /** Begins a description, and returns where; undefined: there is to be none. */
  function describe(
    kind: number,
    subject: Inode,
    name: Name | "",
    intoName: Name | "",
    value: Uint8Array,
  ): number | undefined {
    if (!log.change()) return undefined;
    if (log.dropCount !== dropCount) clear();
    const variable = births.length * birthRecord.size + name.length + intoName.length + value.length;
    if (used + changeRecord.size + variable > PENDING_BYTES_MAX) {
      log.interrupt();
      clear();
      return undefined;
    }
    if (pending === undefined) {
      pending = Buffer.alloc(PENDING_BYTES_MAX);
      view = new DataView(pending.buffer, pending.byteOffset, pending.length);
    }
    const at = used;
    const { set } = changeRecord;
    const to = view as DataView;
    pending.fill(0, at, at + changeRecord.size);
    set.kind(to, at, kind);
    set.birthCount(to, at, births.length);
    set.nameBytes(to, at, name.length);
    set.intoNameBytes(to, at, intoName.length);
    set.valueBytes(to, at, value.length);
    set.ino(to, at, subject.ino);
    set.generation(to, at, subject.generation);
    set.at(to, at, clock.last ?? EPOCH);
    let next = at + changeRecord.size;
    for (const birth of births) {
      birthRecord.encode(to, next, birth);
      next += birthRecord.size;
    }
    if (name.length > 0) pending.write(name, next, "latin1");
    next += name.length;
    if (intoName.length > 0) pending.write(intoName, next, "latin1");
    next += intoName.length;
    pending.set(value, next);
    used = next + value.length;
    changeCount += 1;
    writtenAt = -1;
    return at;
  }

  function touch({ ino }: Inode, offset: number, length: number): void {
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    if (touched.add(ino, first, last)) return;
    log.interrupt();
    clear();
  }

  function describeAllocation(
    inode: Inode,
    mode: number,
    offset: number,
    length: number,
    killPriv: boolean,
  ): number | undefined {
    const at = describe(changeKind.allocate, inode, "", "", NO_BYTES);
    if (at === undefined) return undefined;
    const { set } = changeRecord;
    const to = view as DataView;
    set.mode(to, at, mode);
    set.offset(to, at, offset);
    set.length(to, at, length);
    if (killPriv) set.present(to, at, presentBit.killPriv);
    return at;
  }

  /** A write is to the log what makes the file as long as it reaches, and stamps it. True: it is described. */
  function describeWrite(inode: Inode, end: number, killPriv: boolean): boolean {
    if (writtenAt >= 0 && writtenIno === inode.ino && !killPriv && log.dropCount === dropCount) {
      if (!log.change()) return false;
      const { get, set } = changeRecord;
      const to = view as DataView;
      set.offset(to, writtenAt, Math.max(get.offset(to, writtenAt), end - 1));
      set.at(to, writtenAt, clock.last ?? EPOCH);
      return true;
    }
    const at = describeAllocation(inode, 0, end - 1, 1, killPriv);
    if (at === undefined) return false;
    writtenAt = at;
    writtenIno = inode.ino;
    return true;
  }

  return {
    begin(inodes): void {
      births = inodes.births.made;
      births.length = 0;
      clock.begin();
    },

    made(dir, name, { mode, rdev = 0, target = NO_BYTES, caller }): void {
      const at = describe(changeKind.make, dir, name, "", target);
      if (at === undefined) return;
      const { set } = changeRecord;
      const to = view as DataView;
      set.mode(to, at, mode);
      set.rdev(to, at, rdev);
      set.uid(to, at, caller.uid);
      set.gid(to, at, caller.gid);
      set.umask(to, at, caller.umask ?? 0);
    },

    linked(inode, dir, name): void {
      const at = describe(changeKind.link, dir, name, "", NO_BYTES);
      if (at !== undefined) changeRecord.set.intoIno(view as DataView, at, inode.ino);
    },

    removed(dir, name, { isDirectory }): void {
      describe(isDirectory ? changeKind.removeDirectory : changeKind.unlink, dir, name, "", NO_BYTES);
    },

    renamed(from, fromName, into, intoName, flags): void {
      const at = describe(changeKind.rename, from, fromName, intoName, NO_BYTES);
      if (at === undefined) return;
      changeRecord.set.intoIno(view as DataView, at, into.ino);
      changeRecord.set.flags(view as DataView, at, flags);
    },

    attributesSet(inode, { mode, uid, gid, sizeBytes, atime, mtime, ctime, killPriv }): void {
      if (inode.linkCount === 0) return;
      const at = describe(changeKind.setAttributes, inode, "", "", NO_BYTES);
      if (at === undefined) return;
      const { set } = changeRecord;
      const to = view as DataView;
      set.mode(to, at, mode ?? 0);
      set.uid(to, at, uid ?? 0);
      set.gid(to, at, gid ?? 0);
      set.offset(to, at, sizeBytes ?? 0);
      set.atime(to, at, atime ?? EPOCH);
      set.mtime(to, at, mtime ?? EPOCH);
      set.ctime(to, at, ctime ?? EPOCH);
      set.present(
        to,
        at,
        (mode === undefined ? 0 : presentBit.mode) |
          (uid === undefined ? 0 : presentBit.uid) |
          (gid === undefined ? 0 : presentBit.gid) |
          (sizeBytes === undefined ? 0 : presentBit.size) |
          (atime === undefined ? 0 : presentBit.atime) |
          (mtime === undefined ? 0 : presentBit.mtime) |
          (ctime === undefined ? 0 : presentBit.ctime) |
          (killPriv === true ? presentBit.killPriv : 0),
      );
    },

    allocated(inode, mode, offset, length, killPriv): void {
      if (inode.linkCount > 0) describeAllocation(inode, mode, offset, length, killPriv);
    },

    wrote(inode, offset, length, killPriv): void {
      if (inode.linkCount === 0) return;
      if (describeWrite(inode, offset + length, killPriv)) touch(inode, offset, length);
    },

    xattrSet(inode, name, value, flags): void {
      if (inode.linkCount === 0) return;
      const at = describe(changeKind.setXattr, inode, name, "", value);
      if (at !== undefined) changeRecord.set.flags(view as DataView, at, flags);
    },

    xattrRemoved(inode, name): void {
      if (inode.linkCount > 0) describe(changeKind.removeXattr, inode, name, "", NO_BYTES);
    },

    undescribed(): void {
      if (log.isUnreplayed) return;
      log.change();
      log.interrupt();
    },

    frame(inodes): LogFrame | undefined {
      if (!log.isOpen || log.framedSeq === log.seq) return undefined;
      assert.equal(dropCount, log.dropCount, "what is described is what the log wants");
      const firstSeq = log.framedSeq + 1;
      const extents = collect(volume, inodes, touched.sorted());
      let payloadBytes = used;
      for (const { dataBytes } of extents) payloadBytes += extentRecord.size + dataBytes;
      const blocks = frameBlocks(payloadBytes);
      const vbn = blocks * BLOCK_BYTES > LOG_FRAME_BYTES_MAX ? undefined : log.place(blocks);
      if (vbn === undefined) {
        log.interrupt();
        clear();
        return undefined;
      }
      const bytes = new Uint8Array(blocks * BLOCK_BYTES);
      bytes.set((pending as Buffer).subarray(0, used), logFrameHeader.size);
      let at = logFrameHeader.size + used;
      const to = new DataView(bytes.buffer);
      let needsFlush = false;
      for (const extent of extents) {
        extentRecord.encode(to, at, extent);
        bytes.set(extent.data, at + extentRecord.size);
        at += extentRecord.size + extent.dataBytes;
        if (extent.vbn === 0) continue;
        needsFlush = true;
        volume.logBlocks.pin(extent.vbn, extent.blockCount);
      }
      logFrameHeader.encode(to, 0, {
        magic: LOG_FRAME_MAGIC,
        checksum: 0, // of the sealed frame
        nonce: log.nonce,
        firstSeq,
        lastSeq: log.seq,
        payloadBytes,
        changeCount,
        extentCount: extents.length,
        durableSeq: 0, // known when it is sealed
        reserved: new Uint8Array(12),
      });
      clear();
      return { vbn, bytes, lastSeq: log.seq, needsFlush };
    },
  };
}

/** What stands in the blocks that were touched, file by file. Places what is too much to be logged as it is. */
function collect(volume: Volume, inodes: InodeFile, touched: readonly TouchedRange[]): readonly ChangeExtent[] {
  const extents: ChangeExtent[] = [];
  let inlineLeft = INLINE_BLOCKS_MAX;
  for (let from = 0; from < touched.length; ) {
    const { ino } = touched[from] as TouchedRange;
    let end = from + 1;
    while (touched[end]?.ino === ino) end += 1;
    const ranges = touched.slice(from, end);
    from = end;
    const inode = inodes.get(ino);
    if (inode === undefined || inode.linkCount === 0 || !isRegular(inode.mode)) continue;
    const inlineCount = Math.min(inode.tree.dirtyData?.size ?? 0, blocksIn(ranges));
    if (inlineCount > Math.min(FILE_INLINE_BLOCKS_MAX, inlineLeft)) volume.relieve({ only: inode });
    else inlineLeft -= inlineCount;
    fileExtents(inodes.store, inode, ranges, extents);
  }
  return extents;
}

/** At most: what was touched twice counts twice. */
function blocksIn(ranges: readonly TouchedRange[]): number {
  let count = 0;
  for (const { first, last } of ranges) count += last - first + 1;
  return count;
}
