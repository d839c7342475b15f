/**
 * The volume: the one owner of state. (Interfaces; the theory is in consistency-point.ts and space/.)
 */
import type { Clock, Time } from "../core/clock.ts";
import type { CpCount } from "../core/numbers.ts";
import type { Random } from "../core/prng.ts";
import type { BlockDevice } from "../device/block-device.ts";
import type { Fsinfo } from "../format/fsinfo.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import type { ChangeLog } from "./change-log/change-log.ts";
import type { BadCopy } from "./repair.ts";
import type { Allocator } from "./space/allocator.ts";

export interface VolumeOptions {
  readonly device: BlockDevice;
  readonly clock: Clock;
  readonly random: Random;
  readonly writable: boolean;
  /** Open a mirror for writing: for promoting it. */
  readonly evenMirror?: boolean;
  /** Where the change log is from now on. Default: in the volume's reserved area. */
  readonly logDevice?: LogDevice | undefined;
  /** What only the log has, wherever it is, is given up. Default: false. */
  readonly forgetLog?: boolean;
  /** Bound of the caches of clean blocks and inodes, in bytes. They keep a few in any case. */
  readonly cacheBytesMax?: number | undefined;
}

/** A device that has nothing but a change log, behind one block that says so, and its identity. */
export interface LogDevice {
  readonly device: BlockDevice;
  readonly uuid: Uint8Array;
}

/** Why a consistency point was taken. */
export type CpCause = "timer" | "log" | "dirty" | "snapshot" | "sync" | "fsync" | "space" | "unmount" | "recovery";

/** A consistency point whose blocks are written but not flushed; `fsinfo` commits it. */
export interface FrozenCp {
  readonly cpCount: CpCount;
  readonly cause: CpCause;
  /** The encoded block to write, once all earlier writes are flushed, to each of `fsinfoVbns` in turn. */
  readonly fsinfo: Uint8Array;
  readonly fsinfoVbns: readonly [number, number];
  readonly blocksWritten: number;
  /** Number of the last change that it contains. */
  readonly logSeq: number;
}

/** What is written: all that is dirty in files and directories, or the data of one file; all of it, or so many blocks. */
export interface Relief {
  readonly only?: Inode;
  readonly blocksMax?: number;
}

export interface VolumeStatus {
  readonly uuid: string;
  readonly label: string;
  readonly role: "active" | "mirror";
  readonly blockCount: number;
  readonly reservedBlocks: number;
  /** Not in use, or soon not any more. */
  readonly freeBlocks: number;
  /** What of it ordinary writers can have. */
  readonly availableBlocks: number;
  readonly usedBlocks: number;
  readonly activeBlocks: number;
  readonly usedInodes: number;
  readonly cpCount: number;
  readonly cpAt: Time;
  /** Number of the last change, and of the last one that the consistency point has. */
  readonly changeSeq: number;
  readonly cpChangeSeq: number;
  /** Blocks of the change log that frames take, of how many. */
  readonly logUsedBlocks: number;
  readonly logBlocks: number;
  readonly dirtyBytes: number;
  readonly snapshotCount: number;
}

export type LogBlocks = Pick<Allocator, "pin" | "withhold" | "claim">;

export interface Volume {
  readonly device: BlockDevice;
  readonly writable: boolean;
  /** The active filesystem's inodes: read-only on a read-only volume. Replaced by restore and follow. */
  readonly active: InodeFile;
  /** Grows whenever `active` is replaced, so that what was looked up before is known to be stale. */
  readonly stateCount: number;
  /** The fsinfo of the last committed consistency point. */
  readonly committed: Fsinfo;

  /** Number of the consistency point that changes made now will be in. */
  readonly openCp: CpCount;
  /** What has changed since, one by one: what makes it durable before the next consistency point. */
  readonly log: ChangeLog;
  /** The device that frames are written to. */
  readonly logDevice: BlockDevice;
  /** The blocks that the log refers to: see the allocator. */
  readonly logBlocks: LogBlocks;
  /** True when something has changed since the last consistency point was frozen. */
  readonly dirty: boolean;
  readonly dirtyBytes: number;
  /** A consistency point with cause "unmount" is due before closing: it is dirty, or fsinfo says that its log is elsewhere. */
  readonly needsLastCp: boolean;
  /** True between freezeCp and commitCp. */
  readonly cpInFlight: boolean;
  /** What made the last consistency point fail, so that nothing can be changed any more; undefined: all is well. */
  readonly failure: unknown;
  /** Writes everything changed to free blocks. One at a time: commitCp must have been called for the one before. */
  freezeCp(cause: CpCause): FrozenCp;
  /** To be called when both copies of `fsinfo` are durable: what the CP freed can be used from now on. */
  commitCp(frozen: FrozenCp): void;
  /** Freeze, flush, write fsinfo and commit in one call: for who may wait (commands, tests, simulation). */
  takeCp(cause: CpCause): void;
  /**
   * Writes what is dirty to free blocks without a consistency point. True: some may be left, because it was to be no more.
   * Throws FsError EIO; the volume has then failed.
   */
  relieve(how?: Relief): boolean;
  /** Blocks that the next consistency points give back: what a full volume can hope for. */
  readonly frozenBlocks: number;
  /** Blocks that writers can have now, without a consistency point. */
  readonly availableNowBlocks: number;
  /** Keeps so many of them for pages that the kernel writes back: see Purpose. */
  setAside(blocks: number): void;

  /** All snapshots in the order they were taken. */
  snapshots(): readonly SnapshotRecord[];
  findSnapshot(name: string): SnapshotRecord | undefined;
  /** Inodes of a snapshot, read-only. */
  openSnapshot(record: SnapshotRecord): InodeFile;
  /**
   * Prepares a snapshot of everything changed so far; it exists when the next CP is committed (freezeCp must follow at
   * once: only then is the root in the record of the table). O(1): the copy of a root. Throws FsError EEXIST, EINVAL (name), ENOSPC (table full).
   */
  createSnapshot(name: string, how?: { readonly mirror?: boolean }): SnapshotRecord;
  /** Its blocks become free when the next CP is committed. No walk over the tree. FsError ENOENT. */
  deleteSnapshot(name: string): void;
  renameSnapshot(from: string, into: string): void;
  /**
   * Sets the active filesystem back to the snapshot, durably at the next CP; newer snapshots stay. What has changed since
   * the last CP is dropped with the rest. FsError ENOENT.
   */
  restoreSnapshot(name: string): void;
  /** Blocks that would become free if all the named snapshots were deleted together: exact. */
  reclaimable(names: readonly string[]): number;

  /**
   * Makes a mirror an ordinary volume at the next CP. The hidden snapshots that its source took are listed from then on, for
   * there is nobody else who would delete them: returns their names.
   */
  promote(): readonly string[];

  /** Read-only volumes: looks at fsinfo again and moves `active` to a newer CP. True when it moved. */
  follow(): boolean;
  /** Puts right what has a second copy (repair.ts), with no consistency point in flight. Throws as repairCopies does. */
  repairCopies(): readonly BadCopy[];

  status(): VolumeStatus;
  close(): void;
}
