/**
 * What a front door needs of a filesystem: operations on inodes, in the terms of the kernel's VFS.
 *
 * Every operation is synchronous and atomic: it is done, or it throws FsError and has changed nothing.
 * None waits for the disk to flush. What must be durable before its reply goes out says so: it returns the
 * number of the last change that must be, and the caller holds the reply until it is.
 *
 * A node id names an inode within a state: the active filesystem, a snapshot, or one of the states that a
 * following mount has shown. So two states never share a cache of the kernel, and what is looked up in one
 * stays in it. ROOT_NODE is the root of whatever state is current.
 */
import type { Time } from "../core/clock.ts";
import type { Brand, ChangeSeq } from "../core/numbers.ts";
import { nameIn } from "../format/directory-node.ts";
import type { HowRead } from "../tree/file-data.ts";

export { NOT_RESIDENT } from "../tree/file-data.ts";

/** state * 2^32 + ino, below 2^53. The kernel's nodeid: its low word is the ino, its high word the state. */
export type NodeId = Brand<number, "NodeId">;
export const ROOT_NODE = 1 as NodeId;

/**
 * The bytes of a file name, one char a byte (latin1): any encoding survives, comparison and hashing are
 * cheap, and nothing is decoded twice.
 */
export type Name = Brand<string, "Name">;

/** Who asks. The kernel has checked permissions (default_permissions); this decides ownership. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  /** To be taken from the mode of a new file, unless a default access list decides. Absent: that has been done. */
  readonly umask?: number;
}

export interface Attributes {
  /** What stat shows: the ino, with the snapshot's number in the high word inside a snapshot. */
  readonly ino: number;
  readonly mode: number;
  readonly linkCount: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly sizeBytes: number;
  /** In units of 512 bytes, as in stat. */
  readonly sectorCount: number;
  readonly atime: Time;
  readonly mtime: Time;
  readonly ctime: Time;
  readonly btime: Time;
}

/** How long the kernel may trust what it was told. Infinite where only the kernel itself can change it. */
export interface Entry {
  readonly nodeId: NodeId;
  readonly generation: number;
  readonly attributes: Attributes;
  readonly entryValidMs: number;
  readonly attributesValidMs: number;
}

export interface AttributesReply {
  readonly attributes: Attributes;
  readonly attributesValidMs: number;
}

/** "now" is the server's clock, as in utimensat's UTIME_NOW. Absent: unchanged. */
export interface AttributeChanges {
  readonly mode?: number | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly sizeBytes?: number | undefined;
  readonly atime?: Time | "now" | undefined;
  readonly mtime?: Time | "now" | undefined;
  readonly ctime?: Time | undefined;
  /** Clear set-user-id and set-group-id as a write by an ordinary user does. */
  readonly killPriv?: boolean | undefined;
}

/** An open file or directory. */
export type Handle = Brand<number, "Handle">;

export interface Opened {
  readonly handle: Handle;
  /** The kernel may keep the pages that it has of this file. */
  readonly keepCache: boolean;
}

export interface FileSystemStatus {
  readonly blockCount: number;
  readonly freeBlocks: number;
  readonly availableBlocks: number;
  readonly inodeCount: number;
  readonly freeInodes: number;
  readonly nameBytesMax: number;
}

/**
 * Receives directory entries one by one; false: no room, and this entry was not taken. Its name is the bytes of `names` from
 * `start` up to `end`, to be copied at once; no string is made of it. `cookie` resumes after this entry. `entry` is there
 * for a readdirplus, where it costs little: a lookup is counted if the emitter takes it.
 */
export type EmitEntry = (
  names: Uint8Array,
  start: number,
  end: number,
  ino: number,
  type: number,
  cookie: number,
  entry: Entry | undefined,
) => boolean;

/** For who does make a string of it. */
export const listedName = nameIn as (names: Uint8Array, start: number, end: number) => Name;

/** Flags of rename2(2). */
export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;

/** Flags of setxattr(2). */
export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;
/** Of ours: who sets an access list is not of the file's group, so set-group-id goes. */
export const XATTR_CLEAR_SETGID = 1 << 16;

/** Who changes contents may not leave set-user-id and set-group-id on (`killPriv`). */
export interface Changed {
  readonly killPriv: boolean;
}

/** The change that must be durable before the reply goes out, and with it all before it; 0: reply at once. */
export type DurableAt = ChangeSeq | 0;

export interface FileSystem {
  /**
   * Counts one lookup of the node. Undefined: there is none, and the kernel may remember that, for nobody else can make one; it is
   * answered at every search of a path, so nothing is thrown. ENOENT: there is none now.
   */
  find(parent: NodeId, name: Name): Entry | undefined;
  /** The same for who wants it to be there: ENOENT when there is none. */
  lookup(parent: NodeId, name: Name): Entry;
  /** The directory of all snapshots that may come and go, as entries of it: see snapshot-view.ts. */
  isSnapshotDirectory(node: NodeId): boolean;
  /** The kernel forgets `count` lookups of the node. */
  forget(node: NodeId, count: number): void;
  getAttributes(node: NodeId): AttributesReply;
  setAttributes(node: NodeId, changes: AttributeChanges, caller: Caller): AttributesReply;
  readLink(node: NodeId): Uint8Array;

  makeNode(parent: NodeId, name: Name, mode: number, rdev: number, caller: Caller): Entry;
  makeDirectory(parent: NodeId, name: Name, mode: number, caller: Caller): Entry;
  symlink(parent: NodeId, name: Name, target: Uint8Array, caller: Caller): Entry;
  link(node: NodeId, parent: NodeId, name: Name): Entry;
  unlink(parent: NodeId, name: Name): void;
  removeDirectory(parent: NodeId, name: Name): void;
  rename(fromParent: NodeId, fromName: Name, intoParent: NodeId, intoName: Name, flags: number): void;

  /** O_CREAT of a name that is not there yet: EEXIST when it is. */
  create(parent: NodeId, name: Name, mode: number, flags: number, caller: Caller): Entry & Opened;
  /** A file without a name (O_TMPFILE), an orphan until it is linked. */
  createUnnamed(parent: NodeId, mode: number, flags: number, caller: Caller): Entry & Opened;
  open(node: NodeId, flags: number): Opened;
  /**
   * Fills `into` from `intoOffset` on; returns the bytes read, fewer only at the end of the file. Who must not wait for the
   * disk may get NOT_RESIDENT instead: to be asked again, when the blocks have come.
   */
  read(handle: Handle, offset: number, length: number, into: Uint8Array, intoOffset: number, how?: HowRead): number;
  /** Writes all of it or throws. `fromCache`: the kernel's write-back, which sets the times itself. */
  write(
    handle: Handle,
    offset: number,
    from: Uint8Array,
    fromOffset: number,
    length: number,
    how: { readonly fromCache: boolean; readonly killPriv: boolean },
  ): void;
  release(handle: Handle): void;
  /** Durable data and metadata of one file or directory. */
  fsync(handle: Handle): DurableAt;
  /** Durable everything. */
  syncAll(): DurableAt;
  /**
   * fallocate(2) with its mode bits; EOPNOTSUPP for those it does not have. Blocks get their places when they are written:
   * ENOSPC says that there is no room for the range now, success that there was.
   */
  allocate(handle: Handle, mode: number, offset: number, length: number, how?: Changed): void;
  /**
   * copy_file_range(2): returns how many bytes were copied, fewer at the end of the source, or when it is much, or when
   * only a part could be. 0: nothing is left.
   */
  copyRange(from: Handle, fromOffset: number, into: Handle, intoOffset: number, length: number, how?: Changed): number;
  /** lseek(2) SEEK_DATA (3) and SEEK_HOLE (4); ENXIO beyond the end. */
  seek(handle: Handle, offset: number, whence: number): number;

  openDirectory(node: NodeId): Opened;
  /** Emits entries after `cookie` (0: from the start), with "." and "..", until `emit` says no or the end. */
  readDirectory(handle: Handle, cookie: number, how: { readonly plus: boolean }, emit: EmitEntry): void;
  releaseDirectory(handle: Handle): void;

  status(): FileSystemStatus;

  /** The value, not copied. Undefined: there is none, as for most files that the kernel asks about. */
  findXattr(node: NodeId, name: Name): Uint8Array | undefined;
  /** The same for who wants it to be there: ENODATA when there is none. */
  getXattr(node: NodeId, name: Name): Uint8Array;
  /** Names, each ended by a zero byte. */
  listXattrs(node: NodeId): Uint8Array;
  setXattr(node: NodeId, name: Name, value: Uint8Array, flags: number): void;
  removeXattr(node: NodeId, name: Name): void;
}
