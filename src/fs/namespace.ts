/**
 * Names: looking them up, giving and taking them away.
 *
 * Every operation here checks first, then reserves space, dirties all that it will need, and changes at last. The rules
 * are those of ext4: which errno, which times, which link counts.
 */
import { CorruptionError, FsError } from "../core/errors.ts";
import { LINK_COUNT_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX } from "../format/constants.ts";
import { type DirectoryEntry, insertEntry, lookupEntry, removeEntry } from "../tree/directory.ts";
import { DirectoryFile } from "../tree/directory-file.ts";
import { emptyFile, writeFile } from "../tree/file-data.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import { freeXattrs } from "../tree/xattr.ts";
import { giveLists, inheritedLists, withoutUmask } from "./access-list.ts";
import { inodeMapBound, inodesBound, insertBound, removeBound } from "./bounds.ts";
import type { Made } from "./changes.ts";
import { type Context, entryOf, isMoving, stampChange, writableInodes } from "./context.ts";
import {
  type Caller,
  type Entry,
  type FileSystem,
  type Handle,
  type Name,
  type NodeId,
  type Opened,
} from "./file-system.ts";
import {
  entryTypeOf,
  isDirectory,
  MODE_BITS,
  O_EXCL,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  S_ISGID,
} from "./modes.ts";
import { directoryOf, inoOf, isSnapshotsNode, type State } from "./nodes.ts";
import { lookupSnapshot, SNAPSHOTS_NAME, snapshotsEntry, snapshotsShown } from "./snapshot-view.ts";

type NameOperations = Pick<
  FileSystem,
  | "find"
  | "lookup"
  | "makeNode"
  | "makeDirectory"
  | "symlink"
  | "link"
  | "unlink"
  | "removeDirectory"
  | "create"
  | "createUnnamed"
>;

/** A directory in which a name is to be changed. */
export interface Place {
  readonly state: State;
  readonly inodes: InodeFile;
  readonly inode: Inode;
  readonly file: DirectoryFile;
}

/** Answered often: made once. */
const NO_ENTRY = new FsError("ENOENT", "no such name");
/** The next state of a mirror may have it. */
const NO_ENTRY_NOW = new FsError("ENOENT", "no such name now");
const SYMLINK_BLOCKS = 4;

export function nameOperations(context: Context): NameOperations {
  const { states, handles } = context;

  function found(state: State, inode: Inode): Entry {
    const home = states.homeOf(state, inode);
    const entry = entryOf(context, home, inode);
    states.lookedUp(home, inode.ino);
    return entry;
  }

  function find(parent: NodeId, name: Name): Entry | undefined {
    if (isSnapshotsNode(parent)) {
      return name === ".." ? find(directoryOf(parent), "." as Name) : lookupSnapshot(context, parent, name);
    }
    const state = states.of(parent);
    const ino = inoOf(parent);
    if (name === ".") return found(state, states.inode(state, ino));
    const dir = states.directory(state, ino);
    const inodes = states.inodesOf(state);
    if (name === "..") {
      if (ino === state.topIno && state.inoHigh !== 0) return snapshotsEntry(context, states.current, ino);
      return found(state, states.inode(state, dir.parent));
    }
    if (name.length > NAME_BYTES_MAX) throw tooLong();
    if (name === SNAPSHOTS_NAME && snapshotsShown(context, state) && !hasOwnSnapshots(inodes, dir)) {
      return snapshotsEntry(context, state, ino);
    }
    const entry = lookupEntry(new DirectoryFile(inodes, dir), inodes.hashSeed, name);
    if (entry !== undefined) return found(state, childOf(inodes, dir, entry));
    if (isMoving(context, state)) throw NO_ENTRY_NOW;
    return undefined;
  }

  function add(parent: NodeId, name: Name, what: Made): Entry {
    const place = placeOf(context, parent, name);
    if (lookupIn(place, name) !== undefined) throw exists();
    const inode = addNew(context, place, name, what);
    return found(place.state, inode);
  }

  return {
    find,

    lookup(parent, name): Entry {
      const entry = find(parent, name);
      if (entry === undefined) throw NO_ENTRY;
      return entry;
    },

    makeNode(parent, name, mode, rdev, caller): Entry {
      const type = mode & S_IFMT;
      if (type === S_IFDIR) throw new FsError("EPERM", "a directory is made by mkdir");
      if (type !== 0 && ![S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK].includes(type)) {
        throw new FsError("EINVAL", `mode ${mode.toString(8)} has no type that can be made`);
      }
      const isDevice = type === S_IFCHR || type === S_IFBLK;
      return add(parent, name, {
        mode: (type === 0 ? S_IFREG : type) | (mode & MODE_BITS),
        rdev: isDevice ? rdev : 0,
        caller,
      });
    },

    makeDirectory: (parent, name, mode, caller) => add(parent, name, { mode: S_IFDIR | (mode & MODE_BITS), caller }),

    symlink(parent, name, target, caller): Entry {
      if (target.length === 0) throw new FsError("ENOENT", "a symbolic link to nothing");
      if (target.length > SYMLINK_BYTES_MAX) throw tooLong();
      return add(parent, name, { mode: S_IFLNK | 0o777, target, caller });
    },

    create(parent, name, mode, flags, caller): Entry & Opened {
      const entry = add(parent, name, { mode: S_IFREG | (mode & MODE_BITS), caller });
      const state = states.of(parent);
      const handle = handles.open({ kind: "file", state, ino: inoOf(entry.nodeId), flags });
      return openedEntry(entry, handle);
    },

    createUnnamed(parent, mode, flags, caller): Entry & Opened {
      if (isSnapshotsNode(parent)) throw readOnlySnapshots();
      const state = states.of(parent);
      const inodes = writableInodes(context, state);
      const dir = states.directory(state, inoOf(parent));
      const orphans = context.orphans();
      inodes.reserve(inodeMapBound(inodes) + orphans.bound(), "write");
      const asked = S_IFREG | (mode & MODE_BITS);
      const inherited = inheritedLists(inodes, dir, asked);
      const inode = inodes.allocate();
      inode.mode = inherited?.mode ?? withoutUmask(asked, caller);
      own(inode, dir, caller);
      stampBirth(context, inode);
      try {
        if (inherited !== undefined) giveLists(inodes, inode, inherited);
        orphans.adopt(inode, { linkable: (flags & O_EXCL) === 0 });
      } catch (error) {
        freeXattrs(inodes, inode);
        inodes.free(inode);
        throw error;
      }
      const handle = handles.open({ kind: "file", state, ino: inode.ino, flags });
      return openedEntry(found(state, inode), handle);
    },

    link(node, parent, name): Entry {
      if (isSnapshotsNode(node)) throw new FsError("EPERM", "a directory has one name only");
      const from = states.of(node);
      const place = placeOf(context, parent, name);
      if (from !== place.state) throw new FsError("EXDEV", "a link does not reach from one state into another");
      const inode = states.inode(from, inoOf(node));
      if (isDirectory(inode.mode)) throw new FsError("EPERM", "a directory has one name only");
      if (lookupIn(place, name) !== undefined) throw exists();
      linkIn(context, place, name, inode);
      return found(from, inode);
    },

    unlink(parent, name): void {
      const place = placeOf(context, parent, name);
      const child = existing(context, place, name);
      if (isDirectory(child.mode)) throw new FsError("EISDIR", "a directory is removed by rmdir");
      takeAway(context, place, name, child);
    },

    removeDirectory(parent, name): void {
      if (name === ".") throw new FsError("EINVAL", "a directory is not removed by way of itself");
      if (name === "..") throw new FsError("ENOTEMPTY", "the parent holds this directory");
      const place = placeOf(context, parent, name);
      const child = existing(context, place, name);
      if (!isDirectory(child.mode)) throw new FsError("ENOTDIR", "not a directory");
      if (child.entryCount > 0) throw new FsError("ENOTEMPTY", "the directory is not empty");
      takeAway(context, place, name, child);
    },
  };
}

/** Field by field: a spread is several times slower, and files are made often. */
function openedEntry(entry: Entry, handle: Handle): Entry & Opened {
  return {
    nodeId: entry.nodeId,
    generation: entry.generation,
    attributes: entry.attributes,
    entryValidMs: entry.entryValidMs,
    attributesValidMs: entry.attributesValidMs,
    handle,
    keepCache: true,
  };
}

/**
 * A directory whose names may be changed, and the name checked. Throws FsError EROFS, ENOTDIR, ENOENT (deleted),
 * ENAMETOOLONG, EINVAL, EPERM (.snapshot).
 */
export function placeOf(context: Context, parent: NodeId, name: Name): Place {
  const { states } = context;
  if (isSnapshotsNode(parent)) throw readOnlySnapshots();
  const state = states.of(parent);
  const inodes = writableInodes(context, state);
  const inode = states.directory(state, inoOf(parent));
  if (inode.linkCount === 0) throw new FsError("ENOENT", "the directory has been deleted");
  if (name.length > NAME_BYTES_MAX) throw tooLong();
  if (name === "." || name === "..") throw new FsError("EEXIST", `${name} is in every directory`);
  if (name.length === 0 || name.includes("/") || name.includes("\0")) throw new FsError("EINVAL", "not a name");
  const place = { state, inodes, inode, file: new DirectoryFile(inodes, inode) };
  const isNew = inodes.births.repeating === undefined; // what is done again was allowed by the options of then
  if (isNew && name === SNAPSHOTS_NAME && snapshotsShown(context, state) && lookupIn(place, name) === undefined) {
    throw new FsError("EPERM", `${SNAPSHOTS_NAME} holds the snapshots`);
  }
  return place;
}

export function lookupIn({ inodes, file }: Place, name: Name): DirectoryEntry | undefined {
  return lookupEntry(file, inodes.hashSeed, name);
}

/** The inode that a name leads to. Throws FsError ENOENT. */
export function existing(context: Context, place: Place, name: Name): Inode {
  const entry = lookupIn(place, name);
  if (entry === undefined) throw NO_ENTRY;
  return childOf(context.states.inodesOf(place.state), place.inode, entry);
}

/** The inode of an entry. One that is not there, or of another type, is damage. */
export function childOf(inodes: InodeFile, dir: Inode, entry: DirectoryEntry): Inode {
  const child = inodes.get(entry.ino);
  if (child === undefined || entryTypeOf(child.mode) !== entry.type) {
    throw new CorruptionError(`directory ${dir.ino} names inode ${entry.ino}, which is not of type ${entry.type}`);
  }
  return child;
}

/** Directories count their subdirectories, which name them by "..". Throws FsError EMLINK. */
export function checkSubdirectoryFits(dir: Inode): void {
  if (dir.linkCount >= LINK_COUNT_MAX) throw new FsError("EMLINK", "too many subdirectories");
}

/** Has the user something of the name .snapshot here? In a damaged directory it does not count: snapshots are needed most. */
function hasOwnSnapshots(inodes: InodeFile, dir: Inode): boolean {
  try {
    return lookupEntry(new DirectoryFile(inodes, dir), inodes.hashSeed, SNAPSHOTS_NAME) !== undefined;
  } catch (error) {
    if (error instanceof CorruptionError) return false;
    throw error;
  }
}

export function exists(): FsError {
  return new FsError("EEXIST", "the name exists");
}

function addNew(context: Context, place: Place, name: Name, what: Made): Inode {
  const { inodes, inode: dir, file } = place;
  const isSubdirectory = isDirectory(what.mode);
  if (isSubdirectory) checkSubdirectoryFits(dir);
  inodes.reserve(insertBound(file) + inodeMapBound(inodes) + inodesBound(inodes, 2) + SYMLINK_BLOCKS, "write");
  const inherited = inheritedLists(inodes, dir, what.mode);
  inodes.markDirty(dir);
  const inode = inodes.allocate();
  inode.mode = inherited?.mode ?? withoutUmask(what.mode, what.caller);
  inode.linkCount = isSubdirectory ? 2 : 1;
  inode.rdev = what.rdev ?? 0;
  inode.parent = dir.ino;
  own(inode, dir, what.caller);
  stampBirth(context, inode);
  try {
    if (inherited !== undefined) giveLists(inodes, inode, inherited);
    if (what.target !== undefined) writeFile(inodes, inode, 0, what.target, 0, what.target.length);
    insertEntry(file, inodes.hashSeed, name, inode.ino, entryTypeOf(inode.mode));
  } catch (error) {
    // Nobody has seen the new inode.
    emptyFile(inodes, inode);
    freeXattrs(inodes, inode);
    inodes.free(inode);
    throw error;
  }
  dir.entryCount += 1;
  if (isSubdirectory) dir.linkCount += 1;
  stampChange(dir, inode.btime);
  context.changes.made(dir, name, what);
  return inode;
}

/** In a set-group-id directory all is of its group, and its subdirectories are set-group-id too. */
function own(inode: Inode, dir: Inode, caller: Caller): void {
  const inherits = (dir.mode & S_ISGID) !== 0;
  inode.uid = caller.uid;
  inode.gid = inherits ? dir.gid : caller.gid;
  if (inherits && isDirectory(inode.mode)) inode.mode |= S_ISGID;
}

function stampBirth(context: Context, inode: Inode): void {
  const now = context.clock.now();
  inode.atime = now;
  inode.mtime = now;
  inode.ctime = now;
  inode.btime = now;
}

function linkIn(context: Context, place: Place, name: Name, inode: Inode): void {
  const { inodes, inode: dir, file } = place;
  const orphans = context.orphans();
  const isRescue = inode.linkCount === 0;
  if (isRescue && !orphans.isLinkable(inode.ino)) throw new FsError("ENOENT", "the file has been deleted");
  if (inode.linkCount >= LINK_COUNT_MAX) throw new FsError("EMLINK", "too many links");
  inodes.reserve(insertBound(file) + inodesBound(inodes, 2) + (isRescue ? orphans.bound() : 0), "write");
  inodes.markDirty(dir);
  inodes.markDirty(inode);
  if (isRescue) orphans.prepareRescue(inode);
  insertEntry(file, inodes.hashSeed, name, inode.ino, entryTypeOf(inode.mode));
  if (isRescue) orphans.rescue(inode);
  const now = context.clock.now();
  inode.linkCount += 1;
  inode.parent = dir.ino;
  inode.ctime = now;
  dir.entryCount += 1;
  stampChange(dir, now);
  if (isRescue) context.changes.undescribed();
  else context.changes.linked(inode, dir, name);
}

/** Removes a name, and with the last one the inode. A directory is empty. */
function takeAway(context: Context, place: Place, name: Name, child: Inode): void {
  const { state, inodes, inode: dir, file } = place;
  const orphans = context.orphans();
  const isSubdirectory = isDirectory(child.mode);
  const isLast = isSubdirectory || child.linkCount === 1;
  inodes.reserve(removeBound(file) + inodesBound(inodes, 2) + (isLast ? orphans.bound() : 0), "delete");
  inodes.markDirty(dir);
  inodes.markDirty(child);
  const doom = isLast ? orphans.prepare(child, { isUsed: state.uses.of(child.ino) > 0 }) : undefined;
  removeEntry(file, inodes.hashSeed, name);
  const now = context.clock.now();
  dir.entryCount -= 1;
  if (isSubdirectory) dir.linkCount -= 1;
  stampChange(dir, now);
  child.linkCount = isLast ? 0 : child.linkCount - 1;
  child.ctime = now;
  if (doom !== undefined) orphans.apply(doom);
  context.changes.removed(dir, name, { isDirectory: isSubdirectory });
}

function tooLong(): FsError {
  return new FsError("ENAMETOOLONG", `more than ${NAME_BYTES_MAX} bytes in a name, or ${SYMLINK_BYTES_MAX} in a link`);
}

function readOnlySnapshots(): FsError {
  return new FsError("EROFS", "snapshots are read-only");
}
