/**
 * The filesystem behind every front door: inodes, names and open files over a volume.
 *
 * The idea: a front door speaks in nodes and handles; here they become inodes of a state (nodes.ts), and what is done to
 * them becomes changes of trees (../tree), which the volume commits at its next consistency point. Nothing here waits
 * for the disk to flush, and nothing is kept beside the trees but what the kernel holds: lookups, handles, orphans.
 *
 *     namespace.ts rename.ts     names: look up, make, link, remove, rename
 *     attributes.ts              stat, chmod, chown, times, truncate, extended attributes
 *     data.ts                    open files: read, write, holes, durability; reading directories
 *     snapshot-view.ts           .snapshot, the directories of snapshots
 *     reclaim.ts                 files without a name, and freeing large ones slice by slice
 *     changes.ts replay.ts       describing what was done to the change log, and doing it again after a crash
 *     nodes.ts handles.ts        what the kernel may name
 *     context.ts bounds.ts       what they share: entries, times, space
 *     damage.ts                  what they find wrong with the volume, for the log and the status
 *
 * Invariants:
 * - Check, then apply. An operation reads and verifies what it needs, reserves space for all that it may dirty, dirties
 *   it, and only then changes it. So an error leaves everything as it was, and ENOSPC comes before, never after.
 * - No inode object outlives its operation: what is kept between operations is numbers.
 * - The link count of an inode is the number of its names (for a directory 2 and its subdirectories); 0 exactly when it
 *   is in the orphan file. After a crash at any point the volume is at a consistency point, where this holds; files that
 *   were orphans are freed when it is opened.
 *
 * - What can be made durable by the change log alone is described to it, as the last step of the operation.
 *
 * Each operation passes through `guarded`, the one place that begins an operation (blocks that earlier ones had in hands
 * may be reused; a volume that shows a new state is noticed) and translates what a following mount may run into.
 */
import type { Clock } from "../core/clock.ts";
import { FsError } from "../core/errors.ts";
import { shaped } from "../core/shaped.ts";
import { NAME_BYTES_MAX } from "../format/constants.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import type { LogFrame } from "../volume/change-log/frames.ts";
import type { Volume } from "../volume/volume.ts";
import { attributeOperations } from "./attributes.ts";
import { changeRecorder } from "./changes.ts";
import type { AccessTimes, Context, SnapshotDirectories } from "./context.ts";
import { type DamageWatch, watchDamage } from "./damage.ts";
import { dataOperations } from "./data.ts";
import type { FileSystem, FileSystemStatus, NodeId } from "./file-system.ts";
import { openHandles } from "./handles.ts";
import { nameOperations } from "./namespace.ts";
import { inoOf, openStates, SNAPSHOTS_NODE, type States } from "./nodes.ts";
import { operationClock } from "./operation-clock.ts";
import { type Orphans, openOrphans } from "./reclaim.ts";
import { renameOperation } from "./rename.ts";
import { replayLog } from "./replay.ts";
import { snapshotsChange } from "./snapshot-view.ts";

export interface FileSystemOptions {
  readonly volume: Volume;
  readonly clock: Clock;
  /** Nothing can be changed, whatever the volume allows. Default: false. */
  readonly readOnly?: boolean;
  /** Show this snapshot as the root, instead of the active filesystem. */
  readonly snapshot?: SnapshotRecord | undefined;
  /** The volume is a mirror that moves on by itself (volume.follow). Default: false. */
  readonly following?: boolean;
  /** When reading sets access times. Default: "relatime". */
  readonly accessTimes?: AccessTimes;
  /** Where the directories .snapshot are. None in a snapshot. Default: "hidden". */
  readonly snapshotDirectories?: SnapshotDirectories;
  /** Told of what operations find damaged: see damage.ts. */
  readonly onDamage?: DamageWatch["onDamage"] | undefined;
}

/** What the daemon does with a filesystem beside serving it. */
export interface OpenFileSystem extends FileSystem {
  /**
   * Frees a slice of the large files that have been deleted. False: nothing is left to do. To be called when there is
   * time, and after consistency points. Throws FsError ENOSPC, EIO; CorruptionError once for each file that is damaged.
   */
  reclaimSlice(): boolean;
  /**
   * A frame of the change log with all changes that are in none yet; whoever asks makes it durable before any later one.
   * Undefined: there are none, or the log is not open, so that only a consistency point can make them durable. Throws
   * FsError EIO; the volume has then failed.
   */
  logFrame(): LogFrame | undefined;
  /** Whether the file has no name and will get none: no snapshot has it, nor a volume that is opened again. As getAttributes throws. */
  isDeleted(node: NodeId): boolean;
  /** Deleted files that wait to be freed by `reclaimSlice`. */
  readonly doomedCount: number;
  /** A file without a name is in use, as far as anyone has told: its blocks are not free. */
  readonly hasUnnamedInUse: boolean;
  /** Handles that are open. */
  readonly openCount: number;
}

/** Inode numbers are u32. */
const INODES_MAX = 0xffff_ffff;

/**
 * Opens the filesystem of a volume. One that may be written replays the change log, and takes a consistency point of that.
 * Throws CorruptionError, FsError ESTALE (the snapshot is gone), EIO.
 */
export function openFileSystem(options: FileSystemOptions): OpenFileSystem {
  const { volume, snapshot, readOnly = false, following = false } = options;
  const { accessTimes = "relatime", snapshotDirectories = "hidden" } = options;
  const clock = operationClock(options.clock);
  const changes = changeRecorder(volume, clock);
  let orphans: Orphans | undefined;
  const states = openStates({
    volume,
    readOnly,
    following,
    snapshot,
    becameCurrent: () => {
      orphans = undefined; // first: those of the state before are not to be used, whatever becomes of the new ones
      orphansNow();
    },
    becameUnused: (ino) => orphans?.unused(ino),
  });
  const handles = openHandles(states);
  if (states.current.writable) orphansNow();

  /** Those of the current state. Where they could not be read, it is tried again. */
  function orphansNow(): Orphans {
    if (!states.current.writable) throw new FsError("EROFS", "a read-only filesystem has no orphans");
    orphans ??= openOrphans(states.inodesOf(states.current));
    return orphans;
  }

  const context: Context = {
    volume,
    clock,
    openedAt: options.clock.now(),
    changes,
    states,
    handles,
    accessTimes,
    following,
    snapshotDirectories: snapshot === undefined ? snapshotDirectories : "none",
    orphans: orphansNow,
  };

  const operations: FileSystem = {
    ...nameOperations(context),
    ...attributeOperations(context),
    ...dataOperations(context),
    rename: renameOperation(context),
    isSnapshotDirectory: (node) => node === SNAPSHOTS_NODE && snapshotsChange(context, states.current),
    forget: (node, count) => states.forget(node, count),
    status: () => statusOf(volume),
  };

  const begin = (): void => {
    states.begin();
    if (states.current.writable) changes.begin(states.inodesOf(states.current));
  };
  const functions = {
    ...guardedAll(operations, states, begin),
    isDeleted: guarded((node: NodeId) => isDeleted(context, node), states, begin),
    reclaimSlice: guarded(() => orphans?.reclaimSlice() ?? false, states, begin),
    logFrame: guarded(() => changes.frame(states.inodesOf(states.current)), states, begin),
  };
  if (states.current.writable && volume.log.isUnreplayed) {
    replayLog({ volume, states, clock, fileSystem: functions, reclaimSlice: functions.reclaimSlice });
  }

  const { onDamage } = options;
  return shaped({
    ...(onDamage === undefined ? functions : watchDamage(functions, { volume, states, handles, onDamage })),
    get doomedCount(): number {
      return orphans?.doomedCount ?? 0;
    },
    get hasUnnamedInUse(): boolean {
      return orphans?.hasUsed ?? false;
    },
    get openCount(): number {
      return handles.count;
    },
  });
}

/** Arguments of any operation. A fixed number of them: nothing is allocated to pass them on. */
type Operation = (a: unknown, b: unknown, c: unknown, d: unknown, e: unknown, f: unknown) => unknown;

function guarded<Guarded extends (...args: never[]) => unknown>(
  operation: Guarded,
  states: States,
  begin: () => void,
): Guarded {
  const run = operation as unknown as Operation;
  const guard: Operation = (a, b, c, d, e, f) => {
    begin();
    try {
      return run(a, b, c, d, e, f);
    } catch (error) {
      if (!states.movedUnder(error)) throw states.answerTo(error);
    }
    begin();
    try {
      return run(a, b, c, d, e, f);
    } catch (error) {
      throw states.answerTo(error);
    }
  };
  return guard as unknown as Guarded;
}

function guardedAll(operations: FileSystem, states: States, begin: () => void): FileSystem {
  const all: Record<string, unknown> = {};
  for (const [name, operation] of Object.entries(operations)) all[name] = guarded(operation, states, begin);
  return all as unknown as FileSystem;
}

function isDeleted(context: Context, node: NodeId): boolean {
  const { states } = context;
  const state = states.of(node);
  const { ino, linkCount } = states.inode(state, inoOf(node));
  return state.writable && linkCount === 0 && !context.orphans().isLinkable(ino);
}

function statusOf(volume: Volume): FileSystemStatus {
  const { blockCount, reservedBlocks, freeBlocks, availableBlocks, usedInodes } = volume.status();
  return {
    blockCount: blockCount - reservedBlocks,
    freeBlocks: Math.max(0, freeBlocks),
    availableBlocks: Math.max(0, availableBlocks),
    inodeCount: INODES_MAX,
    freeInodes: INODES_MAX - usedInodes,
    nameBytesMax: NAME_BYTES_MAX,
  };
}
