/**
 * The virtual directories .snapshot: each directory has one, with an entry for every snapshot of the user in which the
 * directory existed, and that entry is the directory as it was then. It is the same directory if its inode has the same
 * number and generation, whatever its name was and wherever it was; so a directory that was moved keeps its history.
 *
 * Snapshots come and go by commands, or by mkdir, rmdir and rename in the .snapshot of the root, which the front door turns into
 * the same (dispatch.ts); so the kernel must ask each time. What is inside of one never changes. A file or
 * directory of the user that has the name .snapshot, made while there were none of ours, goes first.
 */

import { CorruptionError, FsError } from "../core/errors.ts";
import { TWO_32 } from "../core/numbers.ts";
import { ROOT_INO } from "../format/constants.ts";
import { KEY_END } from "../format/directory-node.ts";
import { SNAPSHOT_MIRROR, type SnapshotRecord } from "../format/snapshot-record.ts";
import { COOKIE_DOT, COOKIE_DOT_DOT, cookieOf } from "../tree/directory.ts";
import type { Inode } from "../tree/inode-file.ts";
import { attributesOf, type Context, entryOf, VALID_MS_FOREVER } from "./context.ts";
import type { Attributes, EmitEntry, Entry, Name, NodeId } from "./file-system.ts";
import { isDirectory, S_IFDIR } from "./modes.ts";
import { directoryOf, inoHighOf, inoOf, SNAPSHOTS_NODE, type State, snapshotsNodeOf } from "./nodes.ts";

export const SNAPSHOTS_NAME = ".snapshot" as Name;

/** Of the entry .snapshot in its directory: behind all others. */
export const COOKIE_SNAPSHOTS: number = cookieOf(KEY_END);

/** The names "." and "..". */
export const DOTS: Uint8Array = Uint8Array.of(46, 46);

const DT_DIR = 4;
const TWO_52 = 2 ** 52;
/** "Not counted", as btrfs has it for directories: nobody infers the number of subdirectories from it. */
const LINKS_NOT_COUNTED = 1;

/** Do directories of this state have a .snapshot? */
export function snapshotsShown(context: Context, state: State): boolean {
  return context.snapshotDirectories !== "none" && state.snapshotId === 0;
}

/** Is .snapshot among the entries of this directory? */
export function snapshotsListed(context: Context, state: State, ino: number): boolean {
  if (!snapshotsShown(context, state)) return false;
  const { snapshotDirectories: where } = context;
  return where === "visible" || (where === "root" && ino === ROOT_INO);
}

/**
 * May snapshots be made and deleted in the .snapshot of the root? Not where it is listed: what removes all that it finds, and goes
 * on after errors, would delete them.
 */
export function snapshotsChange({ snapshotDirectories }: Context, state: State): boolean {
  return snapshotDirectories === "hidden" && state.writable;
}

/** What stat shows for the .snapshot of a directory: a number that no file and no file in a snapshot has. */
export function snapshotsIno(directoryIno: number): number {
  return directoryIno === ROOT_INO ? inoOf(SNAPSHOTS_NODE) : TWO_52 + directoryIno;
}

/** Attributes of a .snapshot. Throws FsError ESTALE when its directory is gone. */
export function snapshotsAttributes(context: Context, node: NodeId): Attributes {
  const { states } = context;
  const directory = directoryOf(node);
  const state = states.of(directory);
  return attributesFor(context, state, states.directory(state, inoOf(directory)));
}

function attributesFor(context: Context, state: State, directory: Inode): Attributes {
  const snapshots = userSnapshots(context);
  const changedAt = snapshots.at(-1)?.createdAt ?? directory.btime;
  return {
    ...attributesOf(state, directory),
    ino: snapshotsIno(directory.ino),
    mode: S_IFDIR | (directory.ino === ROOT_INO && snapshotsChange(context, state) ? 0o755 : 0o555),
    linkCount: directory.ino === ROOT_INO ? 2 + snapshots.length : LINKS_NOT_COUNTED,
    sizeBytes: 0,
    sectorCount: 0,
    atime: changedAt,
    mtime: changedAt,
    ctime: changedAt,
  };
}

/** The entry .snapshot of the directory `ino`, looked up. */
export function snapshotsEntry(context: Context, state: State, ino: number): Entry {
  const { states } = context;
  const attributes = attributesFor(context, state, states.directory(state, ino));
  const home = states.homeOf(state, states.directory(state, ino));
  const nodeId = snapshotsNodeOf(states.nodeOf(home, ino));
  states.lookedUp(home, ino);
  return { nodeId, generation: 0, attributes, entryValidMs: VALID_MS_FOREVER, attributesValidMs: 0 };
}

/** Looks up a name in a .snapshot, other than "..". Throws FsError ENOENT, ESTALE. */
export function lookupSnapshot(context: Context, node: NodeId, name: Name): Entry {
  const { states } = context;
  const directoryNode = directoryOf(node);
  const state = states.of(directoryNode);
  const directory = states.directory(state, inoOf(directoryNode));
  if (name === ".") return snapshotsEntry(context, state, directory.ino);
  const record = context.volume.findSnapshot(Buffer.from(name, "latin1").toString("utf8"));
  if (record === undefined || (record.flags & SNAPSHOT_MIRROR) !== 0)
    throw new FsError("ENOENT", "no snapshot of this name");
  const past = pastOf(context, directory, record);
  if (past === undefined) throw new FsError("ENOENT", "the directory did not exist in this snapshot");
  return viewEntry(context, record, past);
}

/** Emits the entries of a .snapshot after `cookie`: "." and "..", then snapshots by their numbers. */
export function readSnapshots(context: Context, node: NodeId, cookie: number, plus: boolean, emit: EmitEntry): void {
  const { states } = context;
  const directoryNode = directoryOf(node);
  const state = states.of(directoryNode);
  const directory = states.directory(state, inoOf(directoryNode));
  const { ino } = directory;
  if (cookie < COOKIE_DOT && !emit(DOTS, 0, 1, snapshotsIno(ino), DT_DIR, COOKIE_DOT, undefined)) return;
  if (cookie < COOKIE_DOT_DOT && !emit(DOTS, 0, 2, ino, DT_DIR, COOKIE_DOT_DOT, undefined)) return;
  for (const record of userSnapshots(context)) {
    if (record.id + COOKIE_DOT_DOT <= cookie || !existedIn(context, directory, record)) continue;
    const name = Buffer.from(record.name, "utf8");
    const past = plus ? pastOrDamaged(context, directory, record) : undefined;
    const entry = past === undefined ? undefined : viewEntry(context, record, past);
    const pastIno = inoHighOf(record) * TWO_32 + ino;
    if (emit(name, 0, name.length, pastIno, DT_DIR, record.id + COOKIE_DOT_DOT, entry)) continue;
    if (entry !== undefined) states.forget(entry.nodeId, 1); // not taken, so not looked up
    return;
  }
}

function viewEntry(context: Context, record: SnapshotRecord, past: Inode): Entry {
  const { states } = context;
  const view = states.viewOf(record, past.ino);
  const entry = entryOf(context, view, past);
  states.lookedUp(view, past.ino);
  return { ...entry, entryValidMs: 0 };
}

/** The directory as it was in a snapshot; undefined: it was not there. Throws CorruptionError. */
function pastOf(context: Context, directory: Inode, record: SnapshotRecord): Inode | undefined {
  const { states } = context;
  const past = states.inodesOf(states.ofSnapshot(record)).get(directory.ino);
  const isSame = past !== undefined && past.generation === directory.generation && isDirectory(past.mode);
  return isSame ? past : undefined;
}

/** Damage in one snapshot hides neither it nor the others: who looks it up hears of it. */
function existedIn(context: Context, directory: Inode, record: SnapshotRecord): boolean {
  if (directory.ino === ROOT_INO) return true; // no need to open any
  try {
    return pastOf(context, directory, record) !== undefined;
  } catch (error) {
    if (error instanceof CorruptionError) return true;
    throw error;
  }
}

function pastOrDamaged(context: Context, directory: Inode, record: SnapshotRecord): Inode | undefined {
  try {
    return pastOf(context, directory, record);
  } catch (error) {
    if (error instanceof CorruptionError) return undefined;
    throw error;
  }
}

function userSnapshots(context: Context): readonly SnapshotRecord[] {
  return context.volume.snapshots().filter((record) => (record.flags & SNAPSHOT_MIRROR) === 0);
}
