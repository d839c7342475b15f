/**
 * The FUSE kernel interface: numbers and records of linux/fuse.h, version 7.41, as descriptors.
 *
 * The kernel speaks the host's byte order; this code is for little-endian hosts. A u64 that is a number
 * here (node id, handle, offset, size) may come in above 2^53 and is then rounded: who uses it checks. Only
 * `unique`, where all 64 bits are the kernel's, is two words that are copied and never computed with.
 */
import { bytes, type Field, i64, nested, struct, u16, u32, u64 } from "../../format/struct.ts";
import type { Handle, NodeId } from "../../fs/file-system.ts";

export const KERNEL_MAJOR = 7;
/** The oldest minor version served (Linux 5.4) and the newest that this table knows. */
export const KERNEL_MINOR_MIN = 31;
export const KERNEL_MINOR_MAX = 41;

export const opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const;

/** Bits of `flags` in the INIT request and its reply. */
export const initFlag = {
  ASYNC_READ: 1 << 0,
  ATOMIC_O_TRUNC: 1 << 3,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  WRITEBACK_CACHE: 1 << 16,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  HANDLE_KILLPRIV_V2: 1 << 28,
  SETXATTR_EXT: 1 << 29,
  INIT_EXT: 1 << 30,
} as const;

/** Bits of `flags2`. */
export const initFlag2 = {
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
} as const;

/** Bits of `valid` in a SETATTR request. */
export const setattrBit = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const;

/** Bits of `openFlags` in the reply to OPEN, CREATE and OPENDIR. */
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_CACHE_DIR = 1 << 3;

/** A bit of `openFlags` in an OPEN request. */
export const OPEN_KILL_SUIDGID = 1 << 0;

/** Bits of `writeFlags` in a WRITE request. */
export const WRITE_CACHE = 1 << 0;
export const WRITE_KILL_SUIDGID = 1 << 2;

/** Codes of notifications: they stand in the error field of a reply whose `unique` is 0. */
export const NOTIFY_INVALIDATE_INODE = 2;
export const NOTIFY_INVALIDATE_ENTRY = 3;

/** The smallest read that the kernel accepts on its descriptor. */
export const READ_BYTES_MIN = 8192;

const nodeId = u64 as unknown as Field<NodeId>;
const handle = u64 as unknown as Field<Handle>;

export const requestHeader = struct(40, {
  lengthBytes: u32, // of the whole request
  opcode: u32,
  uniqueLow: u32,
  uniqueHigh: u32,
  node: nodeId,
  uid: u32,
  gid: u32,
  pid: u32,
  extensionWords: u16, // in units of 8 bytes, at the end of the request
  padding: u16,
});

export const replyHeader = struct(16, {
  lengthBytes: u32, // of the whole reply
  error: u32, // 0 or -errno
  uniqueLow: u32,
  uniqueHigh: u32,
});

const initFields = { major: u32, minor: u32, readaheadBytesMax: u32, flags: u32 };
export const initRequest = struct(16, initFields);
/** Where the kernel has the flag INIT_EXT. */
export const initRequestLong = struct(20, { ...initFields, flags2: u32 });

export const initReply = struct(64, {
  major: u32,
  minor: u32,
  readaheadBytesMax: u32,
  flags: u32,
  backgroundMax: u16,
  congestionThreshold: u16,
  writeBytesMax: u32,
  timeGranularityNs: u32,
  pagesMax: u16,
  mapAlignment: u16,
  flags2: u32,
  stackDepthMax: u32,
  unused: bytes(24),
});

export const attributes = struct(88, {
  ino: u64,
  sizeBytes: u64,
  sectorCount: u64,
  atimeSeconds: i64,
  mtimeSeconds: i64,
  ctimeSeconds: i64,
  atimeNs: u32,
  mtimeNs: u32,
  ctimeNs: u32,
  mode: u32,
  linkCount: u32,
  uid: u32,
  gid: u32,
  rdev: u32,
  blockBytes: u32,
  flags: u32,
});

export const entryReply = struct(128, {
  node: u64, // 0: there is none, and the kernel may remember that
  generation: u64,
  entryValidSeconds: u64,
  attributesValidSeconds: u64,
  entryValidNs: u32,
  attributesValidNs: u32,
  attributes: nested(attributes, "attributes"),
});

export const attributesReply = struct(104, {
  validSeconds: u64,
  validNs: u32,
  padding: u32,
  attributes: nested(attributes, "attributes"),
});

export const forgetRequest = struct(8, { count: u64 });
export const batchForgetRequest = struct(8, { nodeCount: u32, padding: u32 });
export const forgetOne = struct(16, { node: nodeId, count: u64 });

/** It is asked by way of an open file. */
export const GETATTR_HANDLE: number = 1 << 0;
export const getattrRequest = struct(16, { flags: u32, padding: u32, handle });

export const setattrRequest = struct(88, {
  valid: u32,
  padding: u32,
  handle,
  sizeBytes: u64,
  lockOwner: u64,
  atimeSeconds: i64,
  mtimeSeconds: i64,
  ctimeSeconds: i64,
  atimeNs: u32,
  mtimeNs: u32,
  ctimeNs: u32,
  mode: u32,
  unused1: u32,
  uid: u32,
  gid: u32,
  unused2: u32,
});

export const mknodRequest = struct(16, { mode: u32, rdev: u32, umask: u32, padding: u32 });
export const mkdirRequest = struct(8, { mode: u32, umask: u32 });
export const renameRequest = struct(8, { intoParent: nodeId });
export const rename2Request = struct(16, { intoParent: nodeId, flags: u32, padding: u32 });
export const linkRequest = struct(8, { node: nodeId });

export const openRequest = struct(8, { flags: u32, openFlags: u32 });
export const createRequest = struct(16, { flags: u32, mode: u32, umask: u32, openFlags: u32 });
export const openReply = struct(16, { handle, openFlags: u32, padding: u32 });
export const releaseRequest = struct(24, { handle, flags: u32, releaseFlags: u32, lockOwner: u64 });

/** READ, READDIR and READDIRPLUS; in the latter two `offset` is a cookie. */
export const readRequest = struct(40, {
  handle,
  offset: u64,
  sizeBytes: u32,
  readFlags: u32,
  lockOwner: u64,
  flags: u32,
  padding: u32,
});

export const writeRequest = struct(40, {
  handle,
  offset: u64,
  sizeBytes: u32,
  writeFlags: u32,
  lockOwner: u64,
  flags: u32,
  padding: u32,
});
export const writeReply = struct(8, { sizeBytes: u32, padding: u32 });

export const statfsReply = struct(80, {
  blockCount: u64,
  freeBlocks: u64,
  availableBlocks: u64,
  inodeCount: u64,
  freeInodes: u64,
  blockBytes: u32,
  nameBytesMax: u32,
  fragmentBytes: u32,
  padding: u32,
  spare: bytes(24),
});

export const fsyncRequest = struct(16, { handle, flags: u32, padding: u32 });

/** The kernel sends the first 8 bytes only, unless SETXATTR_EXT was agreed. */
export const setxattrRequest = struct(16, { sizeBytes: u32, flags: u32, setxattrFlags: u32, padding: u32 });
export const SETXATTR_SHORT_BYTES = 8;
/** A bit of `setxattrFlags`. */
export const SETXATTR_ACL_KILL_SGID = 1 << 0;
export const getxattrRequest = struct(8, { sizeBytes: u32, padding: u32 });
export const getxattrReply = struct(8, { sizeBytes: u32, padding: u32 });

export const fallocateRequest = struct(32, { handle, offset: u64, lengthBytes: u64, mode: u32, padding: u32 });
export const lseekRequest = struct(24, { handle, offset: u64, whence: u32, padding: u32 });
export const lseekReply = struct(8, { offset: u64 });

/** COPY_FILE_RANGE and COPY_FILE_RANGE_64: the same question, answered by a writeReply and a copyReply. */
export const copyRequest = struct(56, {
  fromHandle: handle,
  fromOffset: u64,
  intoNode: nodeId,
  intoHandle: handle,
  intoOffset: u64,
  lengthBytes: u64,
  flags: u64,
});
export const copyReply = struct(8, { copiedBytes: u64 });

/** Followed by the name, padded with zeros to a multiple of 8 bytes. */
export const directoryEntry = struct(24, { ino: u64, cookie: u64, nameBytes: u32, type: u32 });

export const statxRequest = struct(24, { getattrFlags: u32, reserved: u32, handle, statxFlags: u32, mask: u32 });
export const statxReply = struct(288, {
  validSeconds: u64,
  validNs: u32,
  flags: u32,
  spare1: bytes(16),
  mask: u32,
  blockBytes: u32,
  attributeBits: u64,
  linkCount: u32,
  uid: u32,
  gid: u32,
  mode: u16,
  spare2: u16,
  ino: u64,
  sizeBytes: u64,
  sectorCount: u64,
  attributeBitsMask: u64,
  atimeSeconds: i64,
  atimeNs: u32,
  spare3: u32,
  btimeSeconds: i64,
  btimeNs: u32,
  spare4: u32,
  ctimeSeconds: i64,
  ctimeNs: u32,
  spare5: u32,
  mtimeSeconds: i64,
  mtimeNs: u32,
  spare6: u32,
  rdevMajor: u32,
  rdevMinor: u32,
  deviceMajor: u32,
  deviceMinor: u32,
  spare7: bytes(112),
});
/** All that stat shows, and the birth time. */
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_BTIME = 0x800;

export const notifyInodeBody = struct(24, { node: u64, offset: i64, lengthBytes: i64 });
/** Followed by the name and a zero byte. */
export const notifyEntryBody = struct(16, { parent: u64, nameBytes: u32, flags: u32 });
