/** The arrays in which fuse-native takes stat and statvfs: 32 bits a field, 64 where it says two. */

import { type Time, timeToMs } from "../../core/clock.ts";
import { TWO_32 } from "../../core/numbers.ts";
import type { Attributes, FileSystemStatus } from "../../fs/file-system.ts";

const BLOCK_BYTES = 4096;
export const STAT_NUMBERS = 18;

/** struct stat. Times are in milliseconds, and none is before 1970: libfuse's binding has no sign. */
export function statNumbers(attributes: Attributes): Uint32Array {
  const { mode, uid, gid, sizeBytes, linkCount, ino, rdev, sectorCount, atime, mtime, ctime } = attributes;
  const times = [...words(msOf(atime)), ...words(msOf(mtime)), ...words(msOf(ctime))];
  const head = [mode, uid, gid, ...words(sizeBytes), 0, linkCount, inoOf(ino), rdev, BLOCK_BYTES];
  return Uint32Array.from([...head, ...words(sectorCount), ...times]);
}

/** struct stat for an entry of a directory, of which inode and type are used; `type` as in readdir(3). */
export function putEntryNumbers(into: Uint32Array, ino: number, type: number): void {
  into[0] = type << 12;
  into[7] = ino;
}

/**
 * 32 bits of an inode number. In a snapshot its number is mixed in: programs that find two files with one number take
 * them for one file, and the file of a snapshot is not that of the active filesystem.
 */
export function inoOf(ino: number): number {
  const snapshot = Math.floor(ino / TWO_32);
  return ((ino % TWO_32) ^ Math.imul(snapshot, 0x9e37_79b1)) >>> 0;
}

/** struct statvfs: block sizes, counts of blocks and inodes, the length of names. */
export function statusNumbers(status: FileSystemStatus): Uint32Array {
  const { blockCount, freeBlocks, availableBlocks, inodeCount, freeInodes, nameBytesMax } = status;
  const counts = [blockCount, freeBlocks, availableBlocks, inodeCount, freeInodes, freeInodes];
  const bounded = counts.map((count) => Math.min(count, TWO_32 - 1));
  return Uint32Array.from([BLOCK_BYTES, BLOCK_BYTES, ...bounded, 0, 0, nameBytesMax]);
}

/** Floor of milliseconds, also before 1970. */
export function timeOf(ms: number): Time {
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanoseconds: Math.round(ms - seconds * 1000) * 1e6 };
}

function msOf(time: Time): number {
  return Math.max(0, Math.floor(timeToMs(time)));
}

function words(value: number): readonly [low: number, high: number] {
  return [value % TWO_32, Math.floor(value / TWO_32)];
}
