/** Opening a volume: fsinfo and the snapshot table are read, nothing else. O(1) in the size of the volume. */

import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../core/block.ts";
import { FsError, UserError } from "../core/errors.ts";
import { type CpCount, cpCount } from "../core/numbers.ts";
import { shaped } from "../core/shaped.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import { type Fsinfo, ROLE_ACTIVE, ROLE_MIRROR } from "../format/fsinfo.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import { openBlockStore } from "../tree/block-store.ts";
import { treeOfRecord } from "../tree/block-tree.ts";
import { type InodeFile, openInodeFile } from "../tree/inode-file.ts";
import { type LogRing, OWN_DEVICE, openChangeLog } from "./change-log/change-log.ts";
import { type FoundFrame, type LogLocation, placeApart, readLog } from "./change-log/frames.ts";
import { activeMapOf, allocatorOf, commitCp, freezeCp, isVolumeDirty, relieve, takeCp } from "./consistency-point.ts";
import { readFsinfo, repairFsinfo } from "./fsinfo-copies.ts";
import { type BadCopy, repairCopies } from "./repair.ts";
import { openSnapshotTable } from "./snapshot-table.ts";
import {
  createSnapshot,
  deleteSnapshot,
  openSnapshotInodes,
  reclaimable,
  renameSnapshot,
  restoreSnapshot,
  showSnapshots,
  snapshotPlanes,
} from "./snapshots.ts";
import { type Allocator, openAllocator } from "./space/allocator.ts";
import type { VolumeState } from "./state.ts";
import type { FrozenCp, Volume, VolumeOptions, VolumeStatus } from "./volume.ts";

const CACHE_BYTES = 64 << 20;
/** More than an operation looks at while it has one in hands that it may change. */
const CACHED_INODES_MIN = 8;
/** Of the cache: blocks have the rest. */
const INODES_SHARE = 1 / 4;
/** What an inode takes in memory, decoded. */
const INODE_OBJECT_BYTES = 1300;

/**
 * Throws UserError "corrupt" when there is no usable fsinfo or, if it is to be written, the change log is damaged; CorruptionError
 * when the snapshot table does not verify.
 */
export function openVolume(options: VolumeOptions): Volume {
  const fsinfo = readFsinfo(options.device);
  if (options.writable) checkLogDevice(options, fsinfo);
  if (options.writable && fsinfo.role === ROLE_MIRROR && options.evenMirror !== true) {
    throw new UserError(
      "mismatch",
      "the volume is a mirror: it is changed by its source only",
      "mount it with --read-only, or make it an ordinary volume with: tidemark mirror promote VOLUME",
    );
  }
  const unreplayed = options.writable ? framesBehind(options, fsinfo) : [];
  if (options.writable) repairFsinfo(options.device);
  return volumeOf(openState(options, fsinfo, unreplayed));
}

/** After a crash the log must be where it was: else what only it has would be lost unnoticed. */
function checkLogDevice({ logDevice, forgetLog = false }: VolumeOptions, { logUuid }: Fsinfo): void {
  const isElsewhere = !sameBytes(logUuid, OWN_DEVICE);
  if (!isElsewhere || forgetLog || (logDevice !== undefined && sameBytes(logDevice.uuid, logUuid))) return;
  throw new UserError(
    "mismatch",
    `the volume was not unmounted, and its change log is in a file of its own, with identity ${formatUuid(logUuid)}`,
    "mount it with that file: -o log=FILE; if that is lost, with -o log=discard, which gives up what only the file had",
  );
}

/** Where the frames are that belong behind this fsinfo. */
function logLocationOf({ device, logDevice, forgetLog = false }: VolumeOptions, fsinfo: Fsinfo): LogLocation {
  if (forgetLog) return { device, place: { ...fsinfo, logBlocks: 0 } };
  if (sameBytes(fsinfo.logUuid, OWN_DEVICE)) return { device, place: fsinfo };
  if (logDevice === undefined) return { device, place: { ...fsinfo, logBlocks: 0 } };
  return { device: logDevice.device, place: placeApart(fsinfo, logDevice.device.blockCount) };
}

/** What is to be replayed. A log that is damaged is not replayed as far as it goes: what came after was acknowledged too. */
function framesBehind(options: VolumeOptions, fsinfo: Fsinfo): readonly FoundFrame[] {
  const { frames, damage } = readLog(logLocationOf(options, fsinfo));
  if (damage === undefined) return frames;
  throw new UserError(
    "corrupt",
    `the change log is damaged in block ${damage.vbn}: ${damage.message}`,
    `mount it with --read-only for the state of consistency point ${fsinfo.cpCount}, or with -o log=discard, which goes on from there and gives up all changes since`,
  );
}

/** The state of a volume as this fsinfo has it. Also for formatting, where the fsinfo is of a volume yet to be written. */
export function openState(options: VolumeOptions, fsinfo: Fsinfo, unreplayed: readonly FoundFrame[]): VolumeState {
  const { device, clock, random, writable, logDevice, cacheBytesMax = CACHE_BYTES } = options;
  const allocator: Allocator | undefined = writable
    ? openAllocator({
        blockCount: fsinfo.blockCount,
        reservedBlocks: fsinfo.reservedBlocks,
        activeBlocks: fsinfo.activeBlocks,
        usedBlocks: fsinfo.usedBlocks,
        activeMap: () => ({ store, tree: activeMapOf(state).tree }),
        changingMap: () => {
          const map = activeMapOf(state);
          state.active.markDirty(map);
          return { store, tree: map.tree };
        },
        snapshots: () => snapshotPlanes(state),
      })
    : undefined;
  const cachedInodesMax = Math.max(CACHED_INODES_MIN, Math.floor((cacheBytesMax * INODES_SHARE) / INODE_OBJECT_BYTES));
  const store = openBlockStore({
    device,
    firstVbn: fsinfo.reservedBlocks,
    endVbn: fsinfo.blockCount,
    cacheBytesMax: cacheBytesMax * (1 - INODES_SHARE),
    space: allocator,
  });
  const nonce = new Uint8Array(8);
  new DataView(nonce.buffer).setUint32(0, random.u32());
  new DataView(nonce.buffer).setUint32(4, random.u32());
  const ring: LogRing =
    logDevice === undefined
      ? { first: fsinfo.logFirst, blocks: fsinfo.logBlocks, uuid: OWN_DEVICE }
      : { first: 1, blocks: logDevice.device.blockCount - 1, uuid: logDevice.uuid };
  const state: VolumeState = {
    device,
    clock,
    random,
    store,
    allocator,
    log: openChangeLog({
      fsinfo,
      ring,
      isMoved: !sameBytes(ring.uuid, fsinfo.logUuid),
      nonce,
      unreplayed,
    }),
    logDevice: logDevice?.device ?? device,
    active: openInodeFile({
      store,
      tree: treeOfRecord(fsinfo.inodeFile),
      writable,
      hashSeed: fsinfo.hashSeed,
      counters: { usedInodes: fsinfo.usedInodes, generationNext: fsinfo.generationNext },
      cachedMax: cachedInodesMax,
    }),
    cachedInodesMax,
    stateCount: 0,
    committed: fsinfo,
    table: openSnapshotTable(device, fsinfo),
    cp: { phase: "open" },
    openCpCount: fsinfo.cpCount + 1,
    creating: [],
    deleting: [],
    rootChanged: false,
    planes: new Map(),
    snapshotIdNext: fsinfo.snapshotIdNext,
    lineage: fsinfo.lineage,
  };
  return state;
}

function volumeOf(state: VolumeState): Volume {
  const { device } = state;
  return shaped({
    device,
    writable: state.allocator !== undefined,
    get active(): InodeFile {
      return state.active;
    },
    get stateCount(): number {
      return state.stateCount;
    },
    get committed(): Fsinfo {
      return state.committed;
    },
    get openCp(): CpCount {
      return cpCount(state.openCpCount);
    },
    log: state.log,
    logDevice: state.logDevice,
    logBlocks: {
      pin: (vbn, count) => allocatorOf(state).pin(vbn, count),
      withhold: (vbn, count) => allocatorOf(state).withhold(vbn, count),
      claim: (vbn) => allocatorOf(state).claim(vbn),
    },
    get dirty(): boolean {
      return isVolumeDirty(state);
    },
    get dirtyBytes(): number {
      return (state.allocator?.dirtyBlocks ?? 0) * BLOCK_BYTES + state.active.dirty.size * INODE_OBJECT_BYTES;
    },
    get needsLastCp(): boolean {
      return isVolumeDirty(state) || !sameBytes(state.committed.logUuid, OWN_DEVICE);
    },
    get cpInFlight(): boolean {
      return state.cp.phase === "frozen";
    },
    get failure(): unknown {
      return state.cp.phase === "failed" ? state.cp.cause : undefined;
    },
    freezeCp: (cause): FrozenCp => freezeCp(state, cause),
    commitCp: (frozen) => commitCp(state, frozen),
    takeCp: (cause) => takeCp(state, cause),
    relieve: (how = {}) => relieve(state, how),
    get frozenBlocks(): number {
      return state.allocator?.frozenBlocks ?? 0;
    },
    get availableNowBlocks(): number {
      return state.allocator?.availableBlocks ?? 0;
    },
    setAside: (blocks) => allocatorOf(state).setAside(blocks),
    snapshots: () => state.table.records,
    findSnapshot: (name) => state.table.records.find((record) => record.name === name),
    openSnapshot(record: SnapshotRecord): InodeFile {
      return openSnapshotInodes(state, record.root, record.usedInodes);
    },
    createSnapshot: (name, how) => createSnapshot(state, name, how),
    deleteSnapshot: (name) => deleteSnapshot(state, name),
    renameSnapshot: (from, into) => renameSnapshot(state, from, into),
    restoreSnapshot: (name) => restoreSnapshot(state, name),
    reclaimable: (names) => reclaimable(state, names),
    promote(): readonly string[] {
      allocatorOf(state);
      state.committed = { ...state.committed, role: ROLE_ACTIVE };
      state.rootChanged = true;
      return showSnapshots(state);
    },
    follow: () => follow(state),
    repairCopies(): readonly BadCopy[] {
      assert(state.allocator !== undefined && state.cp.phase === "open", "who repairs is the only writer");
      return repairCopies(device);
    },
    status: () => statusOf(state),
    close: () => device.close(),
  });
}

/** Moves a read-only volume to the newest consistency point of the device, never back. True when it moved. */
function follow(state: VolumeState): boolean {
  assert(state.allocator === undefined, "only a read-only volume follows");
  const fsinfo = readFsinfo(state.device);
  if (fsinfo.cpCount <= state.committed.cpCount) return false;
  if (!sameBytes(fsinfo.uuid, state.committed.uuid))
    throw new FsError("ESTALE", "the block file holds another volume now");
  state.table = openSnapshotTable(state.device, fsinfo);
  state.planes.clear();
  state.active = openSnapshotInodes(state, fsinfo.inodeFile, fsinfo.usedInodes);
  state.committed = fsinfo;
  state.openCpCount = fsinfo.cpCount + 1;
  state.stateCount += 1;
  return true;
}

function statusOf(state: VolumeState): VolumeStatus {
  const { committed, allocator } = state;
  const total = committed.blockCount - committed.reservedBlocks;
  return {
    uuid: formatUuid(committed.uuid),
    label: committed.label,
    role: committed.role === ROLE_MIRROR ? "mirror" : "active",
    blockCount: committed.blockCount,
    reservedBlocks: committed.reservedBlocks,
    freeBlocks:
      allocator === undefined
        ? total - committed.usedBlocks
        : allocator.freeBlocks + allocator.frozenBlocks - allocator.dirtyBlocks,
    availableBlocks:
      allocator === undefined ? total - committed.usedBlocks : allocator.availableBlocks + allocator.frozenBlocks,
    usedBlocks: allocator?.usedBlocks ?? committed.usedBlocks,
    activeBlocks: allocator?.activeBlocks ?? committed.activeBlocks,
    usedInodes: state.active.usedInodes,
    cpCount: committed.cpCount,
    cpAt: committed.cpAt,
    changeSeq: state.log.seq,
    cpChangeSeq: committed.logSeq,
    logUsedBlocks: state.log.usedBlocks,
    logBlocks: state.log.blockCount,
    dirtyBytes: (allocator?.dirtyBlocks ?? 0) * BLOCK_BYTES,
    snapshotCount: state.table.records.length,
  };
}
