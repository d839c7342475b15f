/**
 * The destination of a stream as it is before: whether the stream fits it, and which of its blocks must stay.
 *
 * Identity is volume UUID, snapshot UUID and root checksum: never a name or a number. Only blocks to which neither
 * the active filesystem nor a snapshot that stays refers are written; a snapshot that the source no longer has
 * gives way when its blocks are needed, and then goes as a whole, durably, before the first of them is written.
 */

import { has, union } from "../bitset/plane.ts";
import { nextMember } from "../bitset/runs.ts";
import { BLOCK_BYTES, REGION_WORDS } from "../core/block.ts";
import { UserError } from "../core/errors.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { logAreaFor, VOLUME_MAGIC, VOLUME_VERSION } from "../format/constants.ts";
import { type Fsinfo, NO_FRAMES, ROLE_ACTIVE, ROLE_MIRROR } from "../format/fsinfo.ts";
import { type ImageHeader, identityOf } from "../format/image-frame.ts";
import { SNAPSHOT_MIRROR, type SnapshotRecord } from "../format/snapshot-record.ts";
import { readLog } from "../volume/change-log/frames.ts";
import { openPlane, type Plane } from "../volume/space/plane.ts";
import { orPlanes, type SnapshotPlane } from "../volume/space/summary-map.ts";
import type { Volume } from "../volume/volume.ts";
import { regionOf, regionStart } from "./select.ts";
import { rootKey } from "./used-blocks.ts";

/** Fsinfo of a volume that does not exist yet: nothing is on the device, nothing is committed. */
export function unbornFsinfo(header: ImageHeader): Fsinfo {
  const nothing = { sizeBytes: 0, height: 0, reserved: new Uint8Array(7), pointers: new Uint8Array(128) };
  return {
    magic: VOLUME_MAGIC,
    version: VOLUME_VERSION,
    features: 0,
    uuid: header.volumeUuid,
    label: header.label,
    blockCount: header.volumeBlocks,
    reservedBlocks: header.reservedBlocks,
    cpCount: 0,
    logSeq: 0,
    createdAt: header.volumeCreatedAt,
    cpAt: header.volumeCreatedAt,
    inodeFile: nothing,
    snapshotTable: nothing,
    usedBlocks: 0,
    activeBlocks: 0,
    usedInodes: 0,
    generationNext: 0,
    snapshotIdNext: 0,
    lineage: 0,
    role: ROLE_ACTIVE,
    hashSeed: header.hashSeed,
    topUuid: new Uint8Array(16),
    receivedAt: { seconds: 0, nanoseconds: 0 },
    ...logAreaFor(header.volumeBlocks, header.reservedBlocks),
    logHead: 0,
    logNonce: NO_FRAMES,
    logUuid: new Uint8Array(16),
    reserved: new Uint8Array(BLOCK_BYTES - 532),
    checksum: 0,
  };
}

/** Throws UserError "mismatch", which names what was found and expected, unless the stream fits the volume. */
export function checkDestination(name: string, volume: Volume, header: ImageHeader): void {
  const { committed } = volume;
  if (!sameBytes(committed.uuid, header.volumeUuid)) {
    throw mismatch(
      `the image is of volume ${formatUuid(header.volumeUuid)}, but ${name} is volume ${formatUuid(committed.uuid)}`,
      "receive it into a path where no volume is yet",
    );
  }
  if (committed.reservedBlocks !== header.reservedBlocks || committed.blockCount > header.volumeBlocks) {
    throw mismatch(
      `the image is of a volume of ${sizes(header.volumeBlocks, header.reservedBlocks)}, but ${name} has ${sizes(committed.blockCount, committed.reservedBlocks)}`,
      "receive a full image into a new path",
    );
  }
  const isLogElsewhere = committed.logUuid.some((byte) => byte !== 0);
  const { frames, damage } = readLog({ device: volume.device, place: committed });
  if (isLogElsewhere || frames.length > 0 || damage !== undefined) {
    throw mismatch(
      `${name} was not unmounted, and has changes that are in its change log only`,
      `mount and unmount it first, then see whether they are to be kept: tidemark mount ${name} DIR`,
    );
  }
  const snapshots = volume.snapshots();
  checkBase(name, snapshots, header);
  const current = checkUnchanged(name, snapshots, committed, header);
  checkTops(name, snapshots, current, header);
}

function checkBase(name: string, snapshots: readonly SnapshotRecord[], { base, tops }: ImageHeader): void {
  if (base === undefined) {
    throw mismatch(
      `the image is full, but ${name} has a volume already`,
      `receive it into a new path, or send an increment with --base, one of: ${names(snapshots)}`,
    );
  }
  const found = snapshots.find(({ uuid }) => sameBytes(uuid, base.uuid));
  if (found === undefined) {
    throw mismatch(
      `the image needs snapshot ${formatUuid(base.uuid)} of CP ${base.cpCount} as its base, which ${name} does not have`,
      `it has: ${names(snapshots)}`,
    );
  }
  if (identityOf(found).rootChecksum !== base.rootChecksum) {
    throw mismatch(
      `the base ${quote(found.name)} has root ${hex(identityOf(found).rootChecksum)} at ${name}, the image expects ${hex(base.rootChecksum)}`,
      "the two have diverged: receive a full image into a new path",
    );
  }
  const top = tops.at(-1) as SnapshotRecord;
  if (top.cpCount <= found.cpCount) {
    throw mismatch(`the image goes from CP ${found.cpCount} back to CP ${top.cpCount}`);
  }
}

/**
 * The snapshot that the active filesystem equals. What it held beyond that would be lost; and if the source does not know
 * that snapshot, it is of another history, or of one that the source has forgotten: only a person can give it up.
 */
function checkUnchanged(
  name: string,
  snapshots: readonly SnapshotRecord[],
  { inodeFile }: Fsinfo,
  header: ImageHeader,
): SnapshotRecord {
  const key = rootKey(inodeFile);
  const equal = snapshots.filter(({ root }) => rootKey(root) === key);
  const isKnown = knownTo(header);
  const current = equal.findLast(isKnown);
  if (current !== undefined) return current;
  const unknown = equal.at(-1);
  const newest = snapshots.findLast(isKnown) ?? snapshots.at(-1);
  throw mismatch(
    unknown === undefined
      ? `${name} has been changed since its newest snapshot${newest === undefined ? "" : ` ${quote(newest.name)}`}`
      : `${name} is at snapshot ${quote(unknown.name)}, which the source of the image does not have`,
    newest === undefined
      ? "receive a full image into a new path"
      : `to give ${unknown === undefined ? "these changes" : "it"} up: tidemark snapshot restore ${name} ${newest.name}`,
  );
}

/**
 * Throws UserError "mismatch", which names them, when snapshots of the destination would go because the source has not got
 * them. Not for a mirror, which has none but its source's, and not of the hidden ones that mirrors hold.
 */
export function checkNothingLost(name: string, volume: Volume, header: ImageHeader): void {
  if (volume.committed.role === ROLE_MIRROR) return;
  const isHeld = knownTo(header);
  const lost = volume.snapshots().filter((record) => !isHeld(record) && (record.flags & SNAPSHOT_MIRROR) === 0);
  if (lost.length === 0) return;
  throw mismatch(
    `${name} has snapshots that the source of the image has not, and a copy cannot keep them: ${names(lost)}`,
    "to give them up: --drop-snapshots; to keep them, receive a full image into a new path",
  );
}

/** Whether the source has the snapshot too. */
function knownTo({ held, base }: ImageHeader): (record: SnapshotRecord) => boolean {
  const uuids = new Set(held.map(({ uuid }) => formatUuid(uuid)));
  if (base !== undefined) uuids.add(formatUuid(base.uuid));
  return ({ uuid }) => uuids.has(formatUuid(uuid));
}

function checkTops(
  name: string,
  snapshots: readonly SnapshotRecord[],
  current: SnapshotRecord,
  { tops }: ImageHeader,
): void {
  const top = tops.at(-1) as SnapshotRecord;
  if (snapshots.some(({ uuid }) => sameBytes(uuid, top.uuid))) {
    throw mismatch(`${name} has snapshot ${quote(top.name)} already`);
  }
  if (top.cpCount <= current.cpCount) {
    throw mismatch(
      `${name} is at ${quote(current.name)} of CP ${current.cpCount}, the image goes to ${quote(top.name)} of CP ${top.cpCount}, which is not newer`,
    );
  }
  for (const record of tops) {
    const found = snapshots.find(({ uuid }) => sameBytes(uuid, record.uuid));
    if (found !== undefined && rootKey(found.root) !== rootKey(record.root)) {
      throw mismatch(`snapshot ${quote(found.name)} of ${name} is not the ${quote(record.name)} of the image`);
    }
  }
}

/** What of the destination stands where a stream wants to write. */
export interface Guard {
  /** Whether nothing refers to any of these blocks: the usual answer. */
  clear(vbn: number, count: number): boolean;
  /** Whether the active filesystem or a snapshot that stays refers to the block: then it must not be written. */
  isKept(vbn: number): boolean;
  /** The snapshots that refer to the block and give way. */
  givingWay(vbn: number): readonly SnapshotRecord[];
  /** The snapshots that still give way; all others stay. */
  readonly loose: readonly SnapshotRecord[];
  /** These have been dropped. */
  forget(records: readonly SnapshotRecord[]): void;
}

/** Guards an existing volume. Blocks are asked for in ascending order: each region's map blocks are read once. */
export function guardVolume(volume: Volume, header: ImageHeader): Guard {
  const { committed, active } = volume;
  const { store } = active;
  const isHeld = knownTo(header);
  const open = (record: SnapshotRecord): SnapshotPlane => ({
    record,
    plane: openPlane(store, record.root, committed.blockCount),
  });
  const activePlane: Plane = openPlane(store, committed.inodeFile, committed.blockCount);
  const kept = volume
    .snapshots()
    .filter((record) => isHeld(record))
    .map(open);
  let loose = volume
    .snapshots()
    .filter((record) => !isHeld(record))
    .map(open);
  const keptWords = new Uint32Array(REGION_WORDS);
  const looseWords = new Uint32Array(REGION_WORDS);
  let loaded = -1;

  function load(region: number): void {
    if (region === loaded) return;
    loaded = region;
    keptWords.fill(0);
    looseWords.fill(0);
    if (region >= activePlane.regionCount) return; // the volume grows
    store.beginOperation();
    orPlanes(kept, region, keptWords);
    union(keptWords, keptWords, activePlane.words(region));
    orPlanes(loose, region, looseWords);
  }

  /** Whether no bit of the range is set. A range may end in the next region. */
  function clear(vbn: number, count: number): boolean {
    for (let at = vbn; at < vbn + count; ) {
      const region = regionOf(at);
      load(region);
      const end = Math.min(vbn + count, regionStart(region + 1)) - regionStart(region);
      const from = at - regionStart(region);
      if (nextMember(keptWords, from) < end || nextMember(looseWords, from) < end) return false;
      at = regionStart(region) + end;
    }
    return true;
  }

  return {
    clear,
    isKept(vbn): boolean {
      load(regionOf(vbn));
      return has(keptWords, vbn - regionStart(regionOf(vbn)));
    },
    givingWay(vbn): readonly SnapshotRecord[] {
      const region = regionOf(vbn);
      load(region);
      const at = vbn - regionStart(region);
      if (!has(looseWords, at)) return [];
      return loose.filter(({ plane }) => has(plane.words(region), at)).map(({ record }) => record);
    },
    get loose(): readonly SnapshotRecord[] {
      return loose.map(({ record }) => record);
    },
    forget(records): void {
      const gone = new Set(records.map(({ id }) => id));
      loose = loose.filter(({ record }) => !gone.has(record.id));
      loaded = -1;
    },
  };
}

/** Where no volume is yet, nothing stands in the way. */
export const NO_GUARD: Guard = {
  clear: () => true,
  isKept: () => false,
  givingWay: () => [],
  loose: [],
  forget: () => {},
};

/** Whether a block of the device holds these bytes. */
export function holds(device: BlockDevice, vbn: number, bytes: Uint8Array): boolean {
  const block = new Uint8Array(BLOCK_BYTES);
  device.read(vbn, 1, block, 0);
  return sameBytes(block, bytes);
}

function mismatch(message: string, hint = ""): UserError {
  return new UserError("mismatch", message, hint);
}

function names(snapshots: readonly SnapshotRecord[]): string {
  const shown = snapshots.slice(-NAMES_MAX).map(({ name }) => quote(name));
  return `${snapshots.length > NAMES_MAX ? "... " : ""}${shown.join(", ")}`;
}

/** Names that a message lists at most: the newest ones. */
const NAMES_MAX = 8;

function sizes(blockCount: number, reservedBlocks: number): string {
  return `${blockCount} blocks (${reservedBlocks} reserved)`;
}

function quote(name: string): string {
  return JSON.stringify(name);
}

function hex(n: number): string {
  return `0x${n.toString(16).padStart(8, "0")}`;
}
