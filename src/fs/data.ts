/** Open files: reading, writing, holes, durability; and reading directories. */

import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { changeSeq, TWO_32 } from "../core/numbers.ts";
import { FILE_BYTES_MAX } from "../format/constants.ts";
import { COOKIE_DOT, COOKIE_DOT_DOT, cookieOf, keyAfterCookie, listEntries } from "../tree/directory.ts";
import { DirectoryFile } from "../tree/directory-file.ts";
import {
  NOT_RESIDENT,
  punchBlocksMax,
  punchHole,
  readFile,
  resizeBlocksMax,
  resizeFile,
  seekData,
  writeFile,
} from "../tree/file-data.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import type { Purpose } from "../tree/space.ts";
import { killPrivileges, truncateAtOpen } from "./attributes.ts";
import { inodesBound } from "./bounds.ts";
import { type Context, entryOf, isAccessDue, isMoving, stampAccess, stampChange, writableInodes } from "./context.ts";
import type { Changed, DurableAt, EmitEntry, FileSystem, Opened } from "./file-system.ts";
import type { OpenInode } from "./handles.ts";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  isDirectory,
  isRegular,
  isSymlink,
  O_ACCMODE,
  O_APPEND,
  O_NOATIME,
  O_RDONLY,
  O_TRUNC,
  SEEK_DATA,
  SEEK_HOLE,
} from "./modes.ts";
import { inoOf, isSnapshotsNode, type State } from "./nodes.ts";
import {
  COOKIE_SNAPSHOTS,
  DOTS,
  readSnapshots,
  SNAPSHOTS_NAME,
  snapshotsIno,
  snapshotsListed,
} from "./snapshot-view.ts";

type DataOperations = Pick<
  FileSystem,
  | "open"
  | "read"
  | "write"
  | "release"
  | "fsync"
  | "syncAll"
  | "allocate"
  | "copyRange"
  | "seek"
  | "openDirectory"
  | "readDirectory"
  | "releaseDirectory"
>;

const DT_DIR = 4;
/** Copied in one go, so that others need not wait long; and read before it is written. */
const COPY_BYTES_MAX = 8 << 20;
const COPY_CHUNK_BYTES = 1 << 20;
/** Files that are not worth more than one request. */
const REREAD_BYTES_MAX = 1 << 20;
/**
 * At the beginning of a listing nobody knows whether the attributes will be wanted, so they are told as long as that is cheap:
 * the inodes of a small directory that was made at one time lie together, those of a large one are everywhere. Who does want
 * them looks the names up, and the kernel asks for the attributes of all that follow.
 */
const TRIAL_MISSES_MAX = 16;

const BY_ROOT: Changed = { killPriv: false };

export function dataOperations(context: Context): DataOperations {
  const { states, handles, clock, volume, changes } = context;
  let copyBuffer: Uint8Array | undefined;

  /**
   * What the kernel reads from its own pages is not seen here, and it keeps no access times. So that relatime holds, a small
   * file is read anew by who opens it for reading when its access time is due: one request, once for each change.
   */
  function mustSeeReading(state: State, inode: Inode, flags: number): boolean {
    if ((flags & O_ACCMODE) !== O_RDONLY || (flags & (O_NOATIME | O_TRUNC)) !== 0) return false;
    return inode.tree.sizeBytes <= REREAD_BYTES_MAX && isAccessDue(context, state, inode, clock.now());
  }

  return {
    open(node, flags): Opened {
      if (isSnapshotsNode(node)) throw new FsError("EISDIR", "a directory cannot be opened as a file");
      const state = states.of(node);
      const ino = inoOf(node);
      const inode = states.inode(state, ino);
      checkOpen(state, inode, flags);
      if ((flags & O_TRUNC) !== 0) truncateAtOpen(context, writableInodes(context, state), inode);
      return {
        handle: handles.open({ kind: "file", state, ino, flags }),
        keepCache: !mustSeeReading(state, inode, flags),
      };
    },

    read(handle, offset, length, into, intoOffset, how): number {
      const { state, ino, flags } = handles.file(handle);
      const inode = states.inode(state, ino);
      const count = readFile(states.inodesOf(state), inode, offset, length, into, intoOffset, how);
      if (count !== NOT_RESIDENT && (flags & O_NOATIME) === 0) stampAccess(context, state, inode);
      return count;
    },

    write(handle, offset, from, fromOffset, length, how): void {
      const { state, ino, flags } = handles.file(handle);
      const inodes = writableInodes(context, state);
      const inode = states.inode(state, ino);
      if (length === 0) return;
      const isAppend = (flags & O_APPEND) !== 0 && !how.fromCache;
      const at = isAppend ? inode.tree.sizeBytes : offset;
      const purpose = how.fromCache ? "write-back" : "write";
      const isKilled = killWhatWritingKills(inodes, inode, how.killPriv, purpose);
      try {
        writeFile(inodes, inode, at, from, fromOffset, length, purpose);
      } catch (error) {
        if (isKilled) changes.undescribed();
        throw error;
      }
      stampChange(inode, clock.now());
      changes.wrote(inode, at, length, how.killPriv);
    },

    release: (handle) => handles.close(handle),

    fsync(handle): DurableAt {
      handles.get(handle);
      return durableAt();
    },

    syncAll: () => durableAt(),

    allocate(handle, mode, offset, length, how: Changed = BY_ROOT): void {
      const { state, ino } = handles.file(handle);
      const inodes = writableInodes(context, state);
      const inode = states.inode(state, ino);
      checkAllocation(mode, offset, length);
      reserveAllocation(inodes, inode, mode, length);
      const isKilled = killWhatWritingKills(inodes, inode, how.killPriv);
      try {
        allocate(context, inodes, inode, { mode, offset, length });
      } catch (error) {
        if (isKilled) changes.undescribed();
        throw error;
      }
      stampChange(inode, clock.now());
      changes.allocated(inode, mode, offset, length, how.killPriv);
    },

    copyRange(from, fromOffset, into, intoOffset, length, how: Changed = BY_ROOT): number {
      const source = handles.file(from);
      const target = handles.file(into);
      const sourceInodes = states.inodesOf(source.state);
      const inodes = writableInodes(context, target.state);
      const sourceInode = states.inode(source.state, source.ino);
      const inode = states.inode(target.state, target.ino);
      const count = Math.min(length, COPY_BYTES_MAX, sourceInode.tree.sizeBytes - fromOffset);
      if (count <= 0) return 0;
      copyBuffer ??= new Uint8Array(COPY_CHUNK_BYTES);
      let isKilled = false;
      let done = 0;
      try {
        while (done < count) {
          const some = Math.min(count - done, COPY_CHUNK_BYTES);
          readFile(sourceInodes, sourceInode, fromOffset + done, some, copyBuffer, 0);
          if (done === 0) isKilled = killWhatWritingKills(inodes, inode, how.killPriv);
          writeFile(inodes, inode, intoOffset + done, copyBuffer, 0, some);
          done += some;
        }
      } catch (error) {
        if (done === 0 && isKilled) changes.undescribed();
        if (done === 0) throw error;
        // The rest is asked for again, and fails then.
      }
      stampChange(inode, clock.now());
      changes.wrote(inode, intoOffset, done, how.killPriv);
      stampAccess(context, source.state, sourceInode);
      return done;
    },

    seek(handle, offset, whence): number {
      const { state, ino } = handles.file(handle);
      if (whence !== SEEK_DATA && whence !== SEEK_HOLE)
        throw new FsError("EINVAL", `whence ${whence} is the kernel's business`);
      const inode = states.inode(state, ino);
      const found =
        offset < 0
          ? undefined
          : seekData(states.inodesOf(state), inode, offset, whence === SEEK_DATA ? "data" : "hole");
      if (found === undefined) throw new FsError("ENXIO", `nothing to seek from ${offset} on`);
      return found;
    },

    openDirectory(node): Opened {
      if (isSnapshotsNode(node)) return { handle: handles.open({ kind: "snapshots", node }), keepCache: false };
      const state = states.of(node);
      const ino = inoOf(node);
      const inode = states.directory(state, ino);
      checkNotDoomed(state, inode);
      const isSeen = isMoving(context, state) || isAccessDue(context, state, inode, clock.now());
      return { handle: handles.open({ kind: "directory", state, ino, flags: 0 }), keepCache: !isSeen };
    },

    readDirectory(handle, cookie, { plus }, emit): void {
      const open = handles.get(handle);
      if (open.kind === "snapshots") readSnapshots(context, open.node, cookie, plus, emit);
      else readDirectory(context, open, cookie, plus, emit);
    },

    releaseDirectory: (handle) => handles.close(handle),
  };

  /** The last change made so far, if no consistency point has it. */
  function durableAt(): DurableAt {
    if (!states.current.writable) return 0;
    const { seq } = volume.log;
    return seq > volume.committed.logSeq ? changeSeq(seq) : 0;
  }
}

function checkOpen(state: State, inode: Inode, flags: number): void {
  if (!isRegular(inode.mode)) {
    if (isDirectory(inode.mode)) throw new FsError("EISDIR", "a directory cannot be opened as a file");
    if (isSymlink(inode.mode)) throw new FsError("ELOOP", "a symbolic link cannot be opened");
    throw new FsError("EINVAL", "a special file is opened by the kernel");
  }
  const changes = (flags & O_ACCMODE) !== O_RDONLY || (flags & O_TRUNC) !== 0;
  if (changes && !state.writable) throw new FsError("EROFS", "this state of the filesystem is read-only");
  checkNotDoomed(state, inode);
}

/** What nobody can name and nobody uses is about to be freed. */
function checkNotDoomed(state: State, inode: Inode): void {
  if (state.writable && inode.linkCount === 0 && state.uses.of(inode.ino) === 0) {
    throw new FsError("ESTALE", `inode ${inode.ino} has been deleted`);
  }
}

/** What writing takes away from a file. True: it had some of it. Changes nothing when it throws. */
function killWhatWritingKills(inodes: InodeFile, inode: Inode, setId: boolean, purpose: Purpose = "write"): boolean {
  if (!setId && inode.xattrIno === 0) return false;
  inodes.reserve(inodesBound(inodes, 2), purpose);
  inodes.markDirty(inode);
  return killPrivileges(inodes, inode, { setId });
}

function checkAllocation(mode: number, offset: number, length: number): void {
  if (offset < 0 || length <= 0) throw new FsError("EINVAL", "a range of at least one byte expected");
  if (offset + length > FILE_BYTES_MAX) throw new FsError("EFBIG", `a file has at most ${FILE_BYTES_MAX} bytes`);
  const what = mode & ~FALLOC_FL_KEEP_SIZE;
  if (what === FALLOC_FL_PUNCH_HOLE && what === mode) {
    throw new FsError("EOPNOTSUPP", "a hole is punched without changing the size");
  }
  if (![0, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE].includes(what)) {
    throw new FsError("EOPNOTSUPP", `fallocate mode ${mode}`);
  }
}

/**
 * Blocks get their places when they are written, so all that can be promised is that there is room now. It is looked for
 * once, for all that the operation does: it changes nothing when there is none.
 */
function reserveAllocation(inodes: InodeFile, inode: Inode, mode: number, length: number): void {
  const what = mode & ~FALLOC_FL_KEEP_SIZE;
  if (what === FALLOC_FL_PUNCH_HOLE) return; // frees, and asks as who deletes
  const zeroing = what === FALLOC_FL_ZERO_RANGE ? punchBlocksMax(inode.tree) : 0;
  const blocks = Math.ceil(length / BLOCK_BYTES) + zeroing + resizeBlocksMax(inode.tree) + inodesBound(inodes, 3);
  inodes.reserve(blocks, "write");
}

interface Allocation {
  readonly mode: number;
  readonly offset: number;
  readonly length: number;
}

function allocate(context: Context, inodes: InodeFile, inode: Inode, { mode, offset, length }: Allocation): void {
  const { release } = context.orphans();
  const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
  const what = mode & ~FALLOC_FL_KEEP_SIZE;
  const end = offset + length;
  if (what !== 0) punchHole(inodes, inode, offset, length, release);
  if (what === FALLOC_FL_PUNCH_HOLE) return;
  inodes.markDirty(inode);
  if (!keepSize && end > inode.tree.sizeBytes) resizeFile(inodes, inode, end, release);
}

function readDirectory(context: Context, open: OpenInode, cookie: number, plus: boolean, emit: EmitEntry): void {
  const { states } = context;
  const { state, ino } = open;
  const inodes = states.inodesOf(state);
  const inode = states.directory(state, ino);
  const inoHigh = state.inoHigh * TWO_32;
  if (cookie === 0) stampAccess(context, state, inode);
  if (cookie < COOKIE_DOT && !emit(DOTS, 0, 1, inoHigh + ino, DT_DIR, COOKIE_DOT, undefined)) return;
  if (cookie < COOKIE_DOT_DOT) {
    const isInSnapshots = state.inoHigh !== 0 && ino === state.topIno;
    const above = isInSnapshots ? snapshotsIno(ino) : inoHigh + inode.parent;
    if (!emit(DOTS, 0, 2, above, DT_DIR, COOKIE_DOT_DOT, undefined)) return;
  }
  const isListing = snapshotsListed(context, state, ino);
  const { store } = inodes;
  const missesMax = cookie === 0 ? store.missCount + TRIAL_MISSES_MAX : Number.POSITIVE_INFINITY;
  let isRoom = true;
  const file = new DirectoryFile(inodes, inode);
  listEntries(file, keyAfterCookie(cookie), (leaf, start, end, childIno, type, key) => {
    const child = plus && store.missCount < missesMax ? childOrDamaged(inodes, childIno) : undefined;
    const home = child === undefined ? state : states.homeOf(state, child);
    const entry = child === undefined || isTold(context, home, child) ? undefined : entryOf(context, home, child);
    isRoom = emit(leaf, start, end, inoHigh + childIno, type, cookieOf(key), entry);
    if (isRoom && entry !== undefined) states.lookedUp(home, childIno);
    return isRoom;
  });
  if (!isListing || !isRoom || cookie >= COOKIE_SNAPSHOTS) return;
  const name = Buffer.from(SNAPSHOTS_NAME, "latin1");
  emit(name, 0, name.length, snapshotsIno(ino), DT_DIR, COOKIE_SNAPSHOTS, undefined);
}

/**
 * Does the kernel know it, as it is? Then it is a name like those of a plain readdir: nothing to be told, to be taken in and to be
 * forgotten later. Of what has been changed since, the kernel may have let go of some attributes, and would ask for each file.
 */
function isTold({ openedAt }: Context, { uses }: State, { ino, ctime }: Inode): boolean {
  return uses.of(ino) > 0 && ctime.seconds < openedAt.seconds;
}

/** A damaged inode must not hide the other entries of its directory: the kernel will ask for it, and hear of it. */
function childOrDamaged(inodes: InodeFile, ino: number): Inode | undefined {
  try {
    return inodes.get(ino);
  } catch (error) {
    if (error instanceof CorruptionError) return undefined;
    throw error;
  }
}
