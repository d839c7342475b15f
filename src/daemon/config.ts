/** What a mount is asked to be. It crosses a process border as JSON: plain data only. */
import type { AccessTimes, SnapshotDirectories } from "../fs/context.ts";
import type { Transport } from "../fuse/transports.ts";

export interface MountConfig {
  /** Absolute path of the block file. */
  readonly volume: string;
  /** The same as the user gave it: the first column of the mount table. */
  readonly source: string;
  /** Absolute path of the directory. */
  readonly mountPoint: string;
  readonly mode: MountMode;
  readonly transport: Transport;
  readonly durability: Durability;
  readonly changeLog: ChangeLogPlace;
  readonly processorSleep: ProcessorSleep;
  readonly cpIntervalMs: number;
  /** Dirty bytes that make a consistency point due. */
  readonly dirtyBytesMax: number;
  /** Bound of the cache of clean blocks. */
  readonly cacheBytesMax: number;
  /** When reading sets access times: the mount options of the same names. */
  readonly accessTimes: AccessTimes;
  /** Which directories show a .snapshot. */
  readonly snapshotDirectories: SnapshotDirectories;
  /** Options for the kernel: nodev, noexec, ... */
  readonly kernelOptions: readonly string[];
  /** Where the daemon writes its log; undefined: to stderr when in the foreground, else nowhere. */
  readonly logFile: string | undefined;
}

/**
 * write: the one writer, which holds the lock. follow: read-only, moves to each new consistency point that another
 * process commits. snapshot: read-only, one snapshot for ever.
 */
export type MountMode =
  | { readonly kind: "write" }
  | { readonly kind: "follow" }
  | { readonly kind: "snapshot"; readonly name: string };

/**
 * fsync: what has been changed is durable when fsync(2) and its like return, else soon. op: each change is durable before
 * the call that makes it returns, as if all files were opened with O_SYNC and all directories mounted with dirsync.
 */
export type Durability = "fsync" | "op";
/**
 * Where the change log is while the volume is mounted: in the volume, or in a file or block device of its own. "forget":
 * in the volume, and what only the log has, here or there, is given up.
 */
export type ChangeLogPlace =
  | { readonly kind: "volume" }
  | { readonly kind: "forget" }
  | { readonly kind: "file"; readonly path: string };

/** How deep processors may sleep while requests follow one another closely: see light-sleep.ts. */
export type ProcessorSleep = "light" | "deep";

export const processorSleeps: readonly ProcessorSleep[] = ["light", "deep"];
export const durabilities: readonly Durability[] = ["fsync", "op"];

/** A consistency point about every 10 seconds (requirement 20). */
export const CP_INTERVAL_MS = 10_000;
/** Unless told otherwise. */
export const MEMORY_BYTES_MAX = 256 << 20;
/** Below, a consistency point would follow each large request. */
export const MEMORY_BYTES_MIN = 16 << 20;

/**
 * Buffers that requests are read into, where each of the most that there can be is a large WRITE (fuse/kernel/kept-writes.ts). Those
 * for who finds no space (short-of-space.ts), 16 MiB, take no memory before a volume is full, and are not counted.
 */
const BUFFER_BYTES = 14 << 20;

/**
 * One bound for buffers, caches and changes together. Of what the buffers leave, and they leave half in any case, half is for what
 * is clean. Changes have the other half, and a consistency point is due when they fill half of that: while it is in
 * flight, as much again may be changed.
 */
export function memoryShares(memoryBytesMax: number): Pick<MountConfig, "cacheBytesMax" | "dirtyBytesMax"> {
  const bytes = memoryBytesMax - Math.min(BUFFER_BYTES, memoryBytesMax / 2);
  return { cacheBytesMax: bytes / 2, dirtyBytesMax: bytes / 4 };
}
