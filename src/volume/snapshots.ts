/**
 * Snapshots: a copy of the root, and nothing else. The bit plane is the active map inside the tree of that root, so
 * creating one is O(1), and deleting one is dropping the root: its plane tells which blocks only it held.
 */
import { FsError } from "../core/errors.ts";
import { randomUuid } from "../core/prng.ts";
import { NAME_BYTES_MAX } from "../format/constants.ts";
import type { FileRootRecord } from "../format/inode.ts";
import { SNAPSHOT_MIRROR, type SnapshotRecord } from "../format/snapshot-record.ts";
import { treeOfRecord } from "../tree/block-tree.ts";
import { type InodeFile, openInodeFile } from "../tree/inode-file.ts";
import { allocatorOf } from "./consistency-point.ts";
import { openPlane } from "./space/plane.ts";
import type { SnapshotPlane } from "./space/summary-map.ts";
import type { VolumeState } from "./state.ts";

/** Kept in memory of one that is looked at: there may be many. */
const SNAPSHOT_INODES_MAX = 1024;

export function createSnapshot(
  state: VolumeState,
  name: string,
  { mirror = false }: { readonly mirror?: boolean } = {},
): SnapshotRecord {
  allocatorOf(state);
  checkName(state, name);
  const record: SnapshotRecord = {
    id: state.snapshotIdNext,
    flags: mirror ? SNAPSHOT_MIRROR : 0,
    uuid: randomUuid(state.random),
    cpCount: state.openCpCount,
    createdAt: state.clock.now(),
    activeBlocks: 0, // this and the root are known when the CP is frozen
    usedInodes: 0,
    lineage: state.lineage,
    root: state.committed.inodeFile,
    name,
    reserved: new Uint8Array(52),
    checksum: 0,
  };
  state.table.add(record);
  state.snapshotIdNext += 1;
  state.creating.push(record.id);
  return record;
}

export function deleteSnapshot(state: VolumeState, name: string): void {
  const record = existing(state, name);
  const creating = state.creating.indexOf(record.id);
  const plane = creating < 0 ? planeOfSnapshot(state, record) : undefined;
  state.table.remove(record.id);
  state.planes.delete(record.id);
  if (plane === undefined) state.creating.splice(creating, 1);
  else state.deleting.push(plane);
}

export function renameSnapshot(state: VolumeState, from: string, into: string): void {
  const record = existing(state, from);
  if (from === into) return;
  checkName(state, into);
  state.table.replace({ ...record, name: into });
}

/** Makes the hidden snapshots like all others. Returns their names. */
export function showSnapshots(state: VolumeState): readonly string[] {
  const hidden = state.table.records.filter(({ flags }) => (flags & SNAPSHOT_MIRROR) !== 0);
  for (const record of hidden) state.table.replace({ ...record, flags: record.flags & ~SNAPSHOT_MIRROR });
  return hidden.map(({ name }) => name);
}

/** The active filesystem becomes that of the snapshot; changes since the last CP are dropped with it. */
export function restoreSnapshot(state: VolumeState, name: string): void {
  const record = existing(state, name);
  if (state.creating.includes(record.id)) throw new FsError("EBUSY", `snapshot ${name} is being created`);
  const { generationNext } = state.active.counters;
  const plane = planeOfSnapshot(state, record);
  allocatorOf(state).revert(plane);
  state.active = openInodeFile({
    store: state.store,
    tree: treeOfRecord(record.root),
    writable: true,
    hashSeed: state.committed.hashSeed,
    counters: { usedInodes: record.usedInodes, generationNext },
    cachedMax: state.cachedInodesMax,
  });
  state.log.change(); // so an fsync of what is shown from now on waits for it
  state.log.interrupt();
  state.stateCount += 1;
  state.lineage += 1;
  state.rootChanged = true;
}

/** Blocks that only these snapshots hold, together. */
export function reclaimable(state: VolumeState, names: readonly string[]): number {
  const gone = new Set(names.map((name) => existing(state, name).id));
  const planes = snapshotPlanes(state);
  return allocatorOf(state).released(
    planes.filter(({ record }) => gone.has(record.id)),
    planes.filter(({ record }) => !gone.has(record.id)),
  );
}

/** A snapshot's inodes, read-only. */
export function openSnapshotInodes(state: VolumeState, root: FileRootRecord, usedInodes: number): InodeFile {
  return openInodeFile({
    store: state.store,
    tree: treeOfRecord(root),
    writable: false,
    hashSeed: state.committed.hashSeed,
    counters: { usedInodes, generationNext: 0 },
    cachedMax: Math.min(SNAPSHOT_INODES_MAX, state.cachedInodesMax),
  });
}

/** Planes that hold blocks: all snapshots whose root is on disk, and those whose deletion is not frozen yet. */
export function snapshotPlanes(state: VolumeState): readonly SnapshotPlane[] {
  const planes = state.table.records
    .filter((record) => !state.creating.includes(record.id))
    .map((record) => planeOfSnapshot(state, record));
  if (state.deleting.length === 0) return planes;
  return [...planes, ...state.deleting].toSorted((a, b) => a.record.id - b.record.id);
}

export function planeOfSnapshot(state: VolumeState, record: SnapshotRecord): SnapshotPlane {
  let found = state.planes.get(record.id);
  if (found === undefined) {
    found = { record, plane: openPlane(state.store, record.root, state.committed.blockCount) };
    state.planes.set(record.id, found);
  }
  return found;
}

function existing(state: VolumeState, name: string): SnapshotRecord {
  const record = state.table.records.find((found) => found.name === name);
  if (record === undefined) throw new FsError("ENOENT", `there is no snapshot ${name}`);
  return record;
}

function checkName(state: VolumeState, name: string): void {
  const bytes = Buffer.byteLength(name, "utf8");
  if (bytes === 0 || bytes > NAME_BYTES_MAX)
    throw new FsError("EINVAL", `a snapshot's name has 1 to ${NAME_BYTES_MAX} bytes`);
  // U+FFFD is what decoding makes of bytes that are no UTF-8: a command never sees those, and two names would be one.
  if (name === "." || name === ".." || /[/\p{Cc}\ufffd]/u.test(name))
    throw new FsError("EINVAL", `${JSON.stringify(name)} cannot name a snapshot`);
  if (state.table.records.some((found) => found.name === name))
    throw new FsError("EEXIST", `there is a snapshot ${name} already`);
}
