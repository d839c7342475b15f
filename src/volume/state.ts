/**
 * The state of an open volume, shared by the files of this room: what volume.ts shows of it is an interface.
 * One object, one owner; the functions that change it are in consistency-point.ts, snapshots.ts and open.ts.
 */
import type { Clock } from "../core/clock.ts";
import type { Random } from "../core/prng.ts";
import type { BlockDevice } from "../device/block-device.ts";
import type { Fsinfo } from "../format/fsinfo.ts";
import type { BlockStore } from "../tree/block-store.ts";
import type { InodeFile } from "../tree/inode-file.ts";
import type { ChangeLog } from "./change-log/change-log.ts";
import type { SnapshotTable } from "./snapshot-table.ts";
import type { Allocator } from "./space/allocator.ts";
import type { SnapshotPlane } from "./space/summary-map.ts";
import type { FrozenCp } from "./volume.ts";

/** open -> frozen -> open; a consistency point that fails ends in "failed" until the volume is opened again. */
export type CpState =
  | { readonly phase: "open" }
  | { readonly phase: "frozen"; readonly frozen: FrozenCp; readonly fsinfo: Fsinfo }
  | { readonly phase: "failed"; readonly cause: unknown };

export interface VolumeState {
  readonly device: BlockDevice;
  readonly clock: Clock;
  readonly random: Random;
  readonly store: BlockStore;
  /** Undefined: read-only. */
  readonly allocator: Allocator | undefined;
  readonly log: ChangeLog;
  readonly logDevice: BlockDevice;
  active: InodeFile;
  /** Clean inodes kept in memory, of each state. */
  readonly cachedInodesMax: number;
  stateCount: number;
  committed: Fsinfo;
  table: SnapshotTable;
  cp: CpState;
  /** Number of the consistency point that is being filled. */
  openCpCount: number;
  /** Snapshots that get their root when the open CP is frozen. */
  creating: number[];
  /** Snapshots that are out of the table but hold their blocks until the open CP is frozen. */
  deleting: SnapshotPlane[];
  /** The active filesystem was set back, or the table changed: a CP is due even if no inode is dirty. */
  rootChanged: boolean;
  /** Planes of snapshots by id, opened when first needed. */
  readonly planes: Map<number, SnapshotPlane>;
  snapshotIdNext: number;
  lineage: number;
}
