/** File modes and flags, as Linux numbers them on every architecture that we run on. */

export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_IXGRP = 0o0010;
/** What chmod can change. */
export const MODE_BITS = 0o7777;
/** Read, write and execute, of owner, group and others. */
export const PERMISSION_BITS = 0o777;

export const O_ACCMODE = 0o3;
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_NOATIME = 0o1000000;

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 16;

export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

export function isDirectory(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

export function isRegular(mode: number): boolean {
  return (mode & S_IFMT) === S_IFREG;
}

export function isSymlink(mode: number): boolean {
  return (mode & S_IFMT) === S_IFLNK;
}

/** The type that a directory entry carries (DT_*): the type bits of the mode. */
export function entryTypeOf(mode: number): number {
  return (mode & S_IFMT) >>> 12;
}

/** The mode after a write or chown: no set-user-id, and no set-group-id where it is one (and not mandatory locking). */
export function withoutSetId(mode: number): number {
  const kept = mode & ~S_ISUID;
  return (kept & S_IXGRP) === 0 ? kept : kept & ~S_ISGID;
}
