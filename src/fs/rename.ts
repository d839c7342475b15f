/** Renaming: within a directory or from one into another, over what is there, or in exchange for it. */
import { CorruptionError, FsError } from "../core/errors.ts";
import { ROOT_INO } from "../format/constants.ts";
import { insertEntry, removeEntry, replaceEntry } from "../tree/directory.ts";
import type { Inode } from "../tree/inode-file.ts";
import { inodesBound, insertBound, removeBound, replaceBound } from "./bounds.ts";
import { type Context, stampChange } from "./context.ts";
import { type FileSystem, type Name, RENAME_EXCHANGE, RENAME_NOREPLACE } from "./file-system.ts";
import { entryTypeOf, isDirectory } from "./modes.ts";
import { checkSubdirectoryFits, childOf, existing, exists, lookupIn, type Place, placeOf } from "./namespace.ts";
import { isSnapshotsNode } from "./nodes.ts";

interface Move {
  readonly from: Place;
  readonly fromName: Name;
  readonly into: Place;
  readonly intoName: Name;
}

/** Directories above one another: more than any path has, so that a cycle on disk ends. */
const DEPTH_MAX = 1_000_000;

export function renameOperation(context: Context): FileSystem["rename"] {
  const { states } = context;
  return (fromParent, fromName, intoParent, intoName, flags): void => {
    const noReplace = (flags & RENAME_NOREPLACE) !== 0;
    const exchange = (flags & RENAME_EXCHANGE) !== 0;
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0 || (noReplace && exchange)) {
      throw new FsError("EINVAL", `rename flags ${flags}`);
    }
    if (isSnapshotsNode(fromParent) || isSnapshotsNode(intoParent))
      throw new FsError("EROFS", "snapshots are read-only");
    if (states.of(fromParent) !== states.of(intoParent)) {
      throw new FsError("EXDEV", "a file does not move from one state into another");
    }
    const from = placeOf(context, fromParent, fromName);
    const into = fromParent === intoParent ? from : placeOf(context, intoParent, intoName);
    if (into === from) placeOf(context, intoParent, intoName);
    const move = { from, fromName, into, intoName };
    const moved = existing(context, from, fromName);
    const entry = lookupIn(into, intoName);
    const target = entry === undefined ? undefined : childOf(into.inodes, into.inode, entry);
    if (target !== undefined && noReplace) throw exists();
    checkNotBelow(context, move, moved);
    if (exchange) {
      if (target === undefined) throw new FsError("ENOENT", "nothing to exchange with");
      checkNotBelow(context, { from: into, fromName: intoName, into: from, intoName: fromName }, target);
      if (target === moved) return;
      swap(context, move, moved, target);
    } else if (target === undefined) {
      moveName(context, move, moved);
    } else if (target === moved) {
      return;
    } else {
      checkReplaceable(moved, target);
      replace(context, move, moved, target);
    }
    context.changes.renamed(from.inode, fromName, into.inode, intoName, flags);
  };
}

/**
 * A directory does not move into itself, nor below itself. There may be more above one another than memory keeps: on the way up
 * they are told by their numbers.
 */
function checkNotBelow({ states }: Context, { from, into }: Move, moved: Inode): void {
  if (!isDirectory(moved.mode) || from === into) return;
  let above = into.inode;
  for (let depth = 0; above.ino !== ROOT_INO; depth++) {
    if (above.ino === moved.ino) throw new FsError("EINVAL", "a directory does not move below itself");
    if (depth > DEPTH_MAX) throw new CorruptionError(`directory ${into.inode.ino} has no way to the root`);
    above = states.directory(into.state, above.parent);
  }
}

function checkReplaceable(moved: Inode, target: Inode): void {
  if (isDirectory(moved.mode)) {
    if (!isDirectory(target.mode)) throw new FsError("ENOTDIR", "a directory does not replace a file");
    if (target.entryCount > 0) throw new FsError("ENOTEMPTY", "the directory to be replaced is not empty");
  } else if (isDirectory(target.mode)) {
    throw new FsError("EISDIR", "a file does not replace a directory");
  }
}

/** To a name that is not there yet. */
function moveName(context: Context, move: Move, moved: Inode): void {
  const { from, fromName, into, intoName } = move;
  const { inodes } = from;
  const isSubdirectory = isDirectory(moved.mode);
  if (isSubdirectory && from !== into) checkSubdirectoryFits(into.inode);
  inodes.reserve(insertBound(into.file) + removeBound(from.file) + 8 + inodesBound(inodes, 3), "write");
  markDirty(move, moved);
  insertEntry(into.file, inodes.hashSeed, intoName, moved.ino, entryTypeOf(moved.mode));
  try {
    removeEntry(from.file, inodes.hashSeed, fromName);
  } catch (error) {
    removeEntry(into.file, inodes.hashSeed, intoName); // its nodes have just been written
    throw error;
  }
  from.inode.entryCount -= 1;
  into.inode.entryCount += 1;
  if (isSubdirectory) reparent(moved, from.inode, into.inode);
  stampMove(context, move, moved);
}

/** Over a name that is there, whose inode loses it. */
function replace(context: Context, move: Move, moved: Inode, target: Inode): void {
  const { from, fromName, into, intoName } = move;
  const { inodes, state } = from;
  const orphans = context.orphans();
  const isSubdirectory = isDirectory(moved.mode);
  const isLast = isSubdirectory || target.linkCount === 1;
  inodes.reserve(
    removeBound(from.file) + replaceBound(into.file) + inodesBound(inodes, 4) + (isLast ? orphans.bound() : 0),
    "write",
  );
  markDirty(move, moved);
  inodes.markDirty(target);
  const doom = isLast ? orphans.prepare(target, { isUsed: state.uses.of(target.ino) > 0 }) : undefined;
  replaceEntry(into.file, inodes.hashSeed, intoName, moved.ino, entryTypeOf(moved.mode));
  try {
    removeEntry(from.file, inodes.hashSeed, fromName);
  } catch (error) {
    replaceEntry(into.file, inodes.hashSeed, intoName, target.ino, entryTypeOf(target.mode)); // the node is dirty
    throw error;
  }
  from.inode.entryCount -= 1;
  if (isSubdirectory) {
    into.inode.linkCount -= 1; // the ".." of the target
    reparent(moved, from.inode, into.inode);
  }
  stampMove(context, move, moved);
  target.ctime = moved.ctime;
  target.linkCount = isLast ? 0 : target.linkCount - 1;
  if (doom !== undefined) orphans.apply(doom);
}

/** Two names change their inodes. */
function swap(context: Context, move: Move, moved: Inode, target: Inode): void {
  const { from, fromName, into, intoName } = move;
  const { inodes } = from;
  if (from !== into) {
    if (isDirectory(moved.mode)) checkSubdirectoryFits(into.inode);
    if (isDirectory(target.mode)) checkSubdirectoryFits(from.inode);
  }
  inodes.reserve(replaceBound(from.file) + replaceBound(into.file) + inodesBound(inodes, 4), "write");
  markDirty(move, moved);
  inodes.markDirty(target);
  replaceEntry(into.file, inodes.hashSeed, intoName, moved.ino, entryTypeOf(moved.mode));
  try {
    replaceEntry(from.file, inodes.hashSeed, fromName, target.ino, entryTypeOf(target.mode));
  } catch (error) {
    replaceEntry(into.file, inodes.hashSeed, intoName, target.ino, entryTypeOf(target.mode)); // the node is dirty
    throw error;
  }
  if (isDirectory(moved.mode)) reparent(moved, from.inode, into.inode);
  if (isDirectory(target.mode)) reparent(target, into.inode, from.inode);
  stampMove(context, move, moved);
  target.ctime = moved.ctime;
  target.parent = from.inode.ino;
}

function markDirty({ from, into }: Move, moved: Inode): void {
  const { inodes } = from;
  inodes.markDirty(from.inode);
  inodes.markDirty(into.inode);
  inodes.markDirty(moved);
}

/** The ".." of a directory moves with it. */
function reparent(moved: Inode, from: Inode, into: Inode): void {
  moved.parent = into.ino;
  from.linkCount -= 1;
  into.linkCount += 1;
}

function stampMove(context: Context, { from, into }: Move, moved: Inode): void {
  const now = context.clock.now();
  stampChange(from.inode, now);
  stampChange(into.inode, now);
  moved.ctime = now;
  moved.parent = into.inode.ino; // of a directory that is so already
}
