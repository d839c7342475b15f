/**
 * The virtual directory .snapshot at the root: one entry for each snapshot of the user, which is the root of that
 * snapshot. Snapshots come and go by commands, so the kernel must ask each time; what is inside of one never changes.
 */
import { FsError } from "../core/errors.ts";
import { ROOT_INO } from "../format/constants.ts";
import { SNAPSHOT_MIRROR, type SnapshotRecord } from "../format/snapshot-record.ts";
import { COOKIE_DOT, COOKIE_DOT_DOT } from "../tree/directory.ts";
import { attributesOf, type Context, entryOf, VALID_MS_FOREVER } from "./context.ts";
import type { Attributes, EmitEntry, Entry, Name } from "./file-system.ts";
import { S_IFDIR } from "./modes.ts";
import { inoOf, SNAPSHOTS_NODE } from "./nodes.ts";

export const SNAPSHOTS_NAME = ".snapshot";

const DT_DIR = 4;
const TWO_32 = 0x1_0000_0000;

export function snapshotsAttributes(context: Context): Attributes {
  const { states } = context;
  const root = states.inode(states.current, ROOT_INO);
  const newest = userSnapshots(context).at(-1);
  const changedAt = newest === undefined ? root.btime : newest.createdAt;
  return {
    ...attributesOf(states.current, root),
    ino: inoOf(SNAPSHOTS_NODE),
    mode: S_IFDIR | 0o555,
    linkCount: 2 + userSnapshots(context).length,
    sizeBytes: 0,
    sectorCount: 0,
    atime: changedAt,
    mtime: changedAt,
    ctime: changedAt,
  };
}

/** The entry of .snapshot in the root. */
export function snapshotsEntry(context: Context): Entry {
  return {
    nodeId: SNAPSHOTS_NODE,
    generation: 0,
    attributes: snapshotsAttributes(context),
    entryValidMs: VALID_MS_FOREVER,
    attributesValidMs: 0,
  };
}

/** Looks up a name in .snapshot. Throws FsError ENOENT. */
export function lookupSnapshot(context: Context, name: Name): Entry {
  if (name === ".") return snapshotsEntry(context);
  const { states } = context;
  if (name === "..") return entryOf(context, states.current, ROOT_INO, states.inode(states.current, ROOT_INO));
  const record = context.volume.findSnapshot(Buffer.from(name, "latin1").toString("utf8"));
  if (record === undefined || (record.flags & SNAPSHOT_MIRROR) !== 0)
    throw new FsError("ENOENT", "no snapshot of this name");
  return snapshotEntry(context, record);
}

function snapshotEntry(context: Context, record: SnapshotRecord): Entry {
  const { states } = context;
  const state = states.ofSnapshot(record);
  const entry = entryOf(context, state, ROOT_INO, states.inode(state, ROOT_INO));
  states.lookedUp(state, ROOT_INO);
  return { ...entry, entryValidMs: 0 };
}

/** Emits the entries of .snapshot after `cookie`: "." and "..", then snapshots by their numbers. */
export function readSnapshots(context: Context, cookie: number, plus: boolean, emit: EmitEntry): void {
  const inoOfDirectory = inoOf(SNAPSHOTS_NODE);
  if (cookie < COOKIE_DOT && !emit("." as Name, inoOfDirectory, DT_DIR, COOKIE_DOT, undefined)) return;
  if (cookie < COOKIE_DOT_DOT && !emit(".." as Name, ROOT_INO, DT_DIR, COOKIE_DOT_DOT, undefined)) return;
  for (const record of userSnapshots(context)) {
    if (record.id + COOKIE_DOT_DOT <= cookie) continue;
    const name = Buffer.from(record.name, "utf8").toString("latin1") as Name;
    const entry = plus ? snapshotEntry(context, record) : undefined;
    if (emit(name, record.id * TWO_32 + ROOT_INO, DT_DIR, record.id + COOKIE_DOT_DOT, entry)) continue;
    if (entry !== undefined) context.states.forget(entry.nodeId, 1); // not taken, so not looked up
    return;
  }
}

function userSnapshots(context: Context): readonly SnapshotRecord[] {
  return context.volume.snapshots().filter((record) => (record.flags & SNAPSHOT_MIRROR) === 0);
}
