/** What happened between two snapshots of a volume, or since one. */
import { UserError } from "../core/errors.ts";
import { openFileDevice } from "../device/file-device.ts";
import { SNAPSHOT_MIRROR } from "../format/snapshot-record.ts";
import type { InodeFile } from "../tree/inode-file.ts";
import { type Difference, differencesBetween } from "../tree/state-difference.ts";
import { openVolume } from "../volume/open.ts";
import type { Volume } from "../volume/volume.ts";
import { connectWriter } from "./control-client.ts";
import { withHeldSnapshot } from "./held-snapshot.ts";
import { systemClock, systemRandom } from "./system.ts";

export interface DiffOptions {
  /** Name of a snapshot. */
  readonly before: string;
  /** Name of another; undefined: the filesystem as it is now. */
  readonly after: string | undefined;
}

const HELD_PREFIX = "tidemark-diff-";

/**
 * Reads snapshots straight from the block file. Of a mounted volume "now" is a hidden snapshot, for its blocks stay; of
 * another it is the last consistency point. Throws UserError, CorruptionError.
 */
export async function diffPath(path: string, { before, after }: DiffOptions): Promise<readonly Difference[]> {
  const client = after === undefined ? await connectWriter(path) : undefined;
  if (client === undefined) return diff(path, before, after);
  try {
    return await withHeldSnapshot(client, HELD_PREFIX, (now) => Promise.resolve(diff(path, before, now, now)));
  } finally {
    client.close();
  }
}

function diff(path: string, before: string, after: string | undefined, held?: string): readonly Difference[] {
  const device = openFileDevice(path, { writable: false });
  try {
    const volume = openVolume({ device, clock: systemClock(), random: systemRandom, writable: false });
    const old = snapshotOf(volume, before, held);
    return differencesBetween(old, after === undefined ? volume.active : snapshotOf(volume, after, held));
  } finally {
    device.close();
  }
}

function snapshotOf(volume: Volume, name: string, held: string | undefined): InodeFile {
  const record = volume.findSnapshot(name);
  const isHidden = record !== undefined && (record.flags & SNAPSHOT_MIRROR) !== 0 && name !== held;
  if (record === undefined || isHidden) {
    throw new UserError("failed", `there is no snapshot ${name}`, "see: tidemark snapshot list VOLUME");
  }
  return volume.openSnapshot(record);
}
