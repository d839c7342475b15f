/**
 * Consistency points: the atomic step from one consistent state on disk to the next.
 *
 *     changes in memory        freezeCp                         flush, fsinfo twice      commitCp
 *     open CP n+1   ------------------------> frozen CP n+1 ------------------------> durable
 *                        |                         |
 *                        |                         +-- changes go on, in open CP n+2
 *                        v
 *       1. data and indirect blocks of all changed files go to free blocks      (requirement 5)
 *       2. changed inodes are encoded into the blocks of the inode file         (8, 10)
 *       3. places for the inode file and the active map, to a fixpoint: giving a block its place changes the map,
 *          which may make more of its blocks dirty, which need places           (9, 11)
 *       4. the map is summed and written, its inode encoded, the inode file written (6)
 *       5. fsinfo, in memory, gets the new root                                  (7)
 *
 * `freezeCp` does all this in one synchronous step, so a change is wholly in one consistency point or in the next
 * (requirement 4). Nothing that it writes is referenced by the durable root. Whoever called it flushes, writes both
 * copies of fsinfo and calls `commitCp`; until then nothing that the new CP freed is used again. So after a crash:
 *
 *     before the first copy of fsinfo is whole     CP n     all its blocks are untouched
 *     after                                        CP n+1   all its blocks were flushed before
 *
 * The idea is WAFL's (Hitz, Lau, Malcolm, 1994); the frozen and the open generation are the txg states of ZFS.
 */
import assert from "node:assert/strict";
import { CorruptionError } from "../core/errors.ts";
import { cpCount } from "../core/numbers.ts";
import { ACTIVE_MAP_INO, fsinfoVbns } from "../format/constants.ts";
import { encodeFsinfo, type Fsinfo } from "../format/fsinfo.ts";
import { isDirty, recordOfTree } from "../tree/block-tree.ts";
import type { Inode } from "../tree/inode-file.ts";
import {
  assignPlaces,
  type GatherWriter,
  gatherWriter,
  placeData,
  placeNodes,
  placeTree,
  sealNodes,
} from "../tree/place.ts";
import { writeFsinfo } from "./fsinfo-copies.ts";
import type { Allocator } from "./space/allocator.ts";
import type { VolumeState } from "./state.ts";
import type { CpCause, FrozenCp, Relief } from "./volume.ts";

export function isVolumeDirty(state: VolumeState): boolean {
  return state.active.dirty.size > 0 || state.rootChanged || state.table.changed || state.deleting.length > 0;
}

/** Writes all changes to free blocks. An error leaves the volume failed: only what is durable counts then. */
export function freezeCp(state: VolumeState, cause: CpCause): FrozenCp {
  assert(state.cp.phase === "open", `a consistency point is ${state.cp.phase}`);
  try {
    return freeze(state, cause);
  } catch (error) {
    state.cp = { phase: "failed", cause: error };
    throw error;
  }
}

function freeze(state: VolumeState, cause: CpCause): FrozenCp {
  const { device, store, active } = state;
  const allocator = allocatorOf(state);
  store.beginOperation();
  const writer = gatherWriter(device);
  if (active.dirty.size > 0) {
    for (const inode of active.dirty.values()) {
      if (inode.ino !== ACTIVE_MAP_INO) placeTree(store, inode.tree, writer);
    }
    placeMetadata(state, writer);
  }
  const root = recordOfTree(active.tree);
  const at = state.clock.now();
  for (const id of state.creating) {
    const record = state.table.records.find((found) => found.id === id);
    assert(record !== undefined, "a snapshot that is being created is in the table");
    state.table.replace({
      ...record,
      root,
      cpCount: state.openCpCount,
      createdAt: at,
      activeBlocks: allocator.activeBlocks,
      usedInodes: active.usedInodes,
      lineage: state.lineage,
    });
  }
  const snapshotTable = state.table.freeze();
  writer.flush();
  allocator.freeze({ created: state.creating.length > 0, deleted: state.deleting });
  const fsinfo: Fsinfo = {
    ...state.committed,
    cpCount: state.openCpCount,
    cpAt: at,
    inodeFile: root,
    snapshotTable,
    usedBlocks: allocator.usedBlocks,
    activeBlocks: allocator.activeBlocks,
    usedInodes: active.counters.usedInodes,
    generationNext: active.counters.generationNext,
    snapshotIdNext: state.snapshotIdNext,
    lineage: state.lineage,
    ...state.log.freeze(state.openCpCount, { closing: cause === "unmount" }),
  };
  state.creating = [];
  state.deleting = [];
  state.rootChanged = false;
  const frozen: FrozenCp = {
    cpCount: cpCount(state.openCpCount),
    cause,
    fsinfo: encodeFsinfo(fsinfo),
    fsinfoVbns: fsinfoVbns(fsinfo.reservedBlocks),
    blocksWritten: writer.blocksWritten(),
    logSeq: fsinfo.logSeq,
  };
  state.cp = { phase: "frozen", frozen, fsinfo };
  state.openCpCount += 1;
  return frozen;
}

/** Steps 2 to 4: inodes, and the active map that has to record the places of its own blocks. */
function placeMetadata(state: VolumeState, writer: GatherWriter): void {
  const { store, active } = state;
  const allocator = allocatorOf(state);
  const map = activeMapOf(state);
  active.markDirty(map);
  for (const inode of active.dirty.values()) if (inode !== map) active.encode(inode);
  for (let changes = true; changes; ) {
    allocator.settle();
    changes = assignPlaces(store, active.tree);
    changes = assignPlaces(store, map.tree) || changes;
  }
  sealNodes(store, map.tree, writer);
  active.encode(map);
  sealNodes(store, active.tree, writer);
  for (const inode of active.dirty.values()) assert(!isDirty(inode.tree), "a dirty block is left behind");
  active.clean();
}

/** Both copies of fsinfo are durable: from now on this is the state that a crash leaves. */
export function commitCp(state: VolumeState, frozen: FrozenCp): void {
  assert(state.cp.phase === "frozen" && state.cp.frozen === frozen, "another consistency point is committed");
  allocatorOf(state).commit();
  state.table.commit();
  state.log.commit(frozen.cpCount);
  state.committed = state.cp.fsinfo;
  state.cp = { phase: "open" };
}

/** All of it in one call, for callers that may wait for the disk. */
export function takeCp(state: VolumeState, cause: CpCause): void {
  const frozen = freezeCp(state, cause);
  try {
    state.device.flush();
    writeFsinfo(state.device, frozen.fsinfo, frozen.fsinfoVbns);
  } catch (error) {
    state.cp = { phase: "failed", cause: error };
    throw error;
  }
  commitCp(state, frozen);
}

/**
 * Writes what is dirty to free blocks without a consistency point: so that memory stays bounded while one is in flight, and
 * that the next one has little to do at once. Of each file first its data, whose pointers stay behind in dirty indirect
 * blocks, then these, and the nodes of directories; what stays are inodes and maps. Of `only` one file it is the data, so
 * that the change log can refer to it. Returns whether anything may be left. An error leaves the volume failed.
 */
export function relieve(state: VolumeState, { only, blocksMax = Number.POSITIVE_INFINITY }: Relief): boolean {
  const { store, device, active } = state;
  let left = blocksMax;
  try {
    store.beginOperation();
    const writer = gatherWriter(device);
    for (const inode of only === undefined ? active.unplaced : [only]) {
      left -= placeData(store, inode.tree, writer, left);
      if (only === undefined && inode.ino !== ACTIVE_MAP_INO) left -= placeNodes(store, inode.tree, writer, left);
      if (!isDirty(inode.tree)) active.unplaced.delete(inode); // or each slice would look at all that are dirty
      if (left === 0) break;
    }
    writer.flush();
    return left === 0;
  } catch (error) {
    state.cp = { phase: "failed", cause: error };
    throw error;
  }
}

export function activeMapOf(state: VolumeState): Inode {
  const map = state.active.get(ACTIVE_MAP_INO);
  if (map === undefined) throw new CorruptionError("the active map is missing");
  return map;
}

export function allocatorOf(state: VolumeState): Allocator {
  assert(state.allocator !== undefined, "the volume is open read-only");
  return state.allocator;
}
