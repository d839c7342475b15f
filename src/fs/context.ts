/** What the operations share: the states, the open files, the clock, and how inodes are shown and stamped. */

import type { Clock, Time } from "../core/clock.ts";
import { timeToMs } from "../core/clock.ts";
import { FsError } from "../core/errors.ts";
import { TWO_32 } from "../core/numbers.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import type { Volume } from "../volume/volume.ts";
import type { Changes } from "./changes.ts";
import type { Attributes, AttributesReply, Entry } from "./file-system.ts";
import type { Handles } from "./handles.ts";
import { isDirectory } from "./modes.ts";
import type { State, States } from "./nodes.ts";
import type { Orphans } from "./reclaim.ts";

/** When reading a file sets its access time. "relatime": if it was not read since it changed, or for a day. */
export type AccessTimes = "relatime" | "strictatime" | "noatime";

/**
 * Which directories have a .snapshot, and show it when they are read. "hidden": all have one, none shows it; "root": the
 * root shows its own; "visible": all show theirs; "none": there are none.
 */
export type SnapshotDirectories = "hidden" | "root" | "visible" | "none";

export interface Context {
  readonly volume: Volume;
  readonly clock: Clock;
  /** What was changed last before this was not changed through this filesystem. */
  readonly openedAt: Time;
  /** What is done is described to the change log: the last step of every operation that changes something. */
  readonly changes: Changes;
  readonly states: States;
  readonly handles: Handles;
  readonly accessTimes: AccessTimes;
  /** Entries of the root of the current state change without the kernel's doing. */
  readonly following: boolean;
  /** Where the directories .snapshot are. */
  readonly snapshotDirectories: SnapshotDirectories;
  /** Of the current state, which is writable. */
  orphans(): Orphans;
}

/** Where only the kernel itself, or a restore that invalidates all of it, changes what the kernel has been told. */
export const VALID_MS_FOREVER = 86_400_000;
const DAY_MS = 86_400_000;
const TICK_NS_MAX = 10_000_000;
const SECTORS_PER_BLOCK = 8;

export function attributesOf(state: State, inode: Inode): Attributes {
  return {
    ino: state.inoHigh * TWO_32 + inode.ino,
    mode: inode.mode,
    linkCount: inode.linkCount,
    uid: inode.uid,
    gid: inode.gid,
    rdev: inode.rdev,
    sizeBytes: inode.tree.sizeBytes,
    sectorCount: inode.tree.blockCount * SECTORS_PER_BLOCK,
    atime: inode.atime,
    mtime: inode.mtime,
    ctime: inode.ctime,
    btime: inode.btime,
  };
}

export function attributesReply(context: Context, state: State, inode: Inode): AttributesReply {
  return {
    attributes: attributesOf(state, inode),
    attributesValidMs: attributesValidMs(context, state, inode),
  };
}

/** A file that has heirs comes to have fewer blocks without anything being done to it. */
function attributesValidMs(context: Context, state: State, inode: Inode): number {
  if (state.writable && context.orphans().hasHeirs(inode.ino)) return 0;
  return isMoving(context, state) && isDirectory(inode.mode) ? 0 : VALID_MS_FOREVER;
}

/** An entry of a directory as the kernel wants it, of an inode whose home is `state`. The caller counts the lookup. */
export function entryOf(context: Context, state: State, inode: Inode): Entry {
  return {
    nodeId: context.states.nodeOf(state, inode.ino),
    generation: inode.generation,
    attributes: attributesOf(state, inode),
    entryValidMs: isMoving(context, state) ? 0 : VALID_MS_FOREVER,
    attributesValidMs: attributesValidMs(context, state, inode),
  };
}

/**
 * On a following mount a directory is one node in all states, so what is told of it and of its names is never valid for long:
 * neither in the current state nor in one that a directory handle, opened before the move, is still reading.
 */
export function isMoving(context: Context, state: State): boolean {
  return context.following && state.snapshotId === 0;
}

/** The inodes of a state to be changed. Throws FsError EROFS, ESTALE; EIO when a consistency point has failed. */
export function writableInodes(context: Context, state: State): InodeFile {
  const inodes = context.states.inodesOf(state);
  if (!state.writable) throw new FsError("EROFS", "this state of the filesystem is read-only");
  const { failure } = context.volume;
  if (failure !== undefined) throw new FsError("EIO", "a consistency point has failed", { cause: failure });
  return inodes;
}

/** Contents and attributes have changed. The inode has been marked dirty. */
export function stampChange(inode: Inode, now: Time): void {
  inode.mtime = now;
  inode.ctime = now;
}

/** A file or directory has been read. An access time that cannot be stored is no reason for the reading to fail. */
export function stampAccess(context: Context, state: State, inode: Inode): void {
  const now = context.clock.now();
  if (!isAccessDue(context, state, inode, now)) return;
  const inodes = context.states.inodesOf(state);
  try {
    inodes.reserve(inodes.tree.height + 1, "write");
    inodes.markDirty(inode);
  } catch (error) {
    if (error instanceof FsError) return;
    throw error;
  }
  inode.atime = now;
}

/** Would reading it now set its access time? */
export function isAccessDue(context: Context, state: State, inode: Inode, now: Time): boolean {
  if (!state.writable || context.accessTimes === "noatime" || context.volume.failure !== undefined) return false;
  if (context.accessTimes === "strictatime") return true;
  const { atime, mtime, ctime } = inode;
  return !(isWellAfter(atime, mtime) && isWellAfter(atime, ctime) && timeToMs(now) - timeToMs(atime) < DAY_MS);
}

/** Later than what the kernel's clock may have meant, which stamps writes: it moves in ticks. */
function isWellAfter(a: Time, b: Time): boolean {
  const seconds = a.seconds - b.seconds;
  return seconds > 1 || (seconds >= 0 && seconds * 1e9 + a.nanoseconds - b.nanoseconds > TICK_NS_MAX);
}
