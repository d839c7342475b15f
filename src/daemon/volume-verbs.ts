/**
 * What can be asked of a volume, as one table of functions over it. The server thread of a daemon performs them for a
 * mounted volume, a command in its own process for one that is not: there is no second way of doing a thing.
 *
 * A verb with a cause changes the volume at a consistency point: it runs when none is in flight, the point is frozen
 * right after it, and its answer goes out when that is committed.
 */
import { formatTime } from "../core/clock.ts";
import { UserError } from "../core/errors.ts";
import { formatUuid } from "../core/uuid.ts";
import type { ArgumentsOf, ControlRequest } from "../format/control-message.ts";
import { rootChecksum, SNAPSHOT_MIRROR, type SnapshotRecord } from "../format/snapshot-record.ts";
import type { BadCopy } from "../volume/repair.ts";
import type { CpCause, Volume, VolumeStatus } from "../volume/volume.ts";
import { snapshotError } from "./plain-error.ts";
import { type SpaceHolders, spaceOf } from "./space-holders.ts";

export interface SnapshotSummary {
  readonly name: string;
  readonly id: number;
  readonly uuid: string;
  readonly cpCount: number;
  readonly createdAt: string;
  readonly activeBlocks: number;
  /** Blocks that deleting it would free; undefined when not asked for. */
  readonly uniqueBlocks: number | undefined;
  /** Tells, with the UUID, whether two snapshots are the same state. */
  readonly rootChecksum: number;
  /** Held by a mirror, and deleted by it. */
  readonly mirror: boolean;
}

export interface VolumeSummary extends Omit<VolumeStatus, "cpAt"> {
  readonly cpAt: string;
  readonly space: SpaceHolders;
}

/** What each verb answers. */
export interface VerbResults {
  readonly "volume-status": VolumeSummary;
  readonly sync: { readonly cpCount: number };
  readonly repair: readonly BadCopy[];
  readonly "snapshot-list": readonly SnapshotSummary[];
  readonly "snapshot-create": SnapshotSummary;
  readonly "snapshot-delete": { readonly name: string; readonly freedBlocks: number };
  readonly "snapshot-rename": SnapshotSummary;
  readonly "snapshot-restore": SnapshotSummary;
  readonly "snapshot-reclaimable": { readonly blocks: number };
}

export type VolumeVerb = keyof VerbResults;
export type VolumeRequest = Extract<ControlRequest, { readonly verb: VolumeVerb }>;

interface VerbRow<V extends VolumeVerb> {
  /** Present: the verb changes the volume, and a consistency point with this cause must follow. */
  readonly cause?: CpCause;
  /** True: what applications have written before must be in, so the kernel's caches are flushed first. */
  readonly syncFirst?: true;
  /** True: what was deleted before is not to be kept by it, so it is freed first. */
  readonly freeFirst?: true;
  /** Does it, and returns what tells the result: to be called when the consistency point is committed. */
  run(volume: Volume, given: ArgumentsOf<V>): () => VerbResults[V];
}

const table: { readonly [V in VolumeVerb]: VerbRow<V> } = {
  "volume-status": {
    run: (volume) => () => ({ ...volume.status(), cpAt: formatTime(volume.status().cpAt), space: spaceOf(volume) }),
  },
  sync: {
    cause: "sync",
    syncFirst: true,
    run: (volume) => {
      const cpCount = volume.openCp;
      return () => ({ cpCount });
    },
  },
  repair: {
    cause: "sync",
    run: (volume) => {
      const badCopies = volume.repairCopies();
      return () => badCopies;
    },
  },
  "snapshot-list": {
    run:
      (volume, { unique }) =>
      () =>
        volume.snapshots().map((record) => summarize(volume, record, unique)),
  },
  "snapshot-create": {
    cause: "snapshot",
    syncFirst: true,
    freeFirst: true,
    run: (volume, { name, mirror }) => {
      named(name, () => volume.createSnapshot(name, { mirror }));
      return () => summarize(volume, find(volume, name));
    },
  },
  "snapshot-delete": {
    cause: "snapshot",
    run: (volume, { name }) => {
      find(volume, name);
      const freedBlocks = volume.reclaimable([name]);
      named(name, () => volume.deleteSnapshot(name));
      return () => ({ name, freedBlocks });
    },
  },
  "snapshot-rename": {
    cause: "snapshot",
    run: (volume, { from, into }) => {
      find(volume, from);
      named(into, () => volume.renameSnapshot(from, into));
      return () => summarize(volume, find(volume, into));
    },
  },
  "snapshot-restore": {
    cause: "snapshot",
    syncFirst: true, // or the kernel would write old pages into the restored files
    run: (volume, { name }) => {
      find(volume, name);
      named(name, () => volume.restoreSnapshot(name));
      return () => summarize(volume, find(volume, name));
    },
  },
  "snapshot-reclaimable": {
    run: (volume, { names }) => {
      for (const name of names) find(volume, name);
      return () => ({ blocks: volume.reclaimable(names) });
    },
  },
};

export function isVolumeRequest(request: ControlRequest): request is VolumeRequest {
  return Object.hasOwn(table, request.verb);
}

/** Cause of the consistency point that must follow the verb; undefined: it only reads. */
export function causeOf(verb: VolumeVerb): CpCause | undefined {
  return table[verb].cause;
}

export function syncsFirst(verb: VolumeVerb): boolean {
  return table[verb].syncFirst === true;
}

export function freesFirst(verb: VolumeVerb): boolean {
  return table[verb].freeFirst === true;
}

/**
 * Performs the verb. The caller takes the consistency point that it needs, and then calls what is returned for the
 * result. Throws UserError, CorruptionError, FsError, and has then changed nothing.
 */
export function performVerb<V extends VolumeVerb>(
  volume: Volume,
  verb: V,
  given: ArgumentsOf<V>,
): () => VerbResults[V] {
  const row: VerbRow<V> = table[verb];
  if (row.cause !== undefined && !volume.writable) {
    throw new UserError("failed", `${verb} needs a writable volume, and this one is open read-only`);
  }
  return row.run(volume, given);
}

function find(volume: Volume, name: string): SnapshotRecord {
  const record = volume.findSnapshot(name);
  if (record === undefined) {
    throw new UserError("failed", `there is no snapshot ${name}`, "see: tidemark snapshot list VOLUME");
  }
  return record;
}

function named<T>(name: string, change: () => T): T {
  try {
    return change();
  } catch (error) {
    throw snapshotError(error, name);
  }
}

function summarize(volume: Volume, record: SnapshotRecord, unique = false): SnapshotSummary {
  return {
    name: record.name,
    id: record.id,
    uuid: formatUuid(record.uuid),
    cpCount: record.cpCount,
    createdAt: formatTime(record.createdAt),
    activeBlocks: record.activeBlocks,
    uniqueBlocks: unique ? volume.reclaimable([record.name]) : undefined,
    rootChecksum: rootChecksum(record),
    mirror: (record.flags & SNAPSHOT_MIRROR) !== 0,
  };
}
