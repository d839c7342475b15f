/**
 * The source's volume as its sidecar sees it: opened read-only, in its own process, beside whoever has it mounted.
 *
 * Only committed states are looked at, and only blocks that a snapshot holds are relied on. The one thing that can move
 * under the reader's feet is the way from fsinfo to the newest state: a consistency point may replace it between two
 * reads. That shows as a checksum that does not fit, and the look is simply taken again.
 */
import { setTimeout as delay } from "node:timers/promises";
import { checksum } from "../core/checksum.ts";
import { CorruptionError, FsError, UserError } from "../core/errors.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import { type FileDevice, openFileDevice, type Reading } from "../device/file-device.ts";
import { decodeImageHeader, frameHeader, identityOf } from "../format/image-frame.ts";
import { fileRoot } from "../format/inode.ts";
import type { StateIdentity } from "../format/mirror-message.ts";
import { isSameState } from "../format/mirror-message.ts";
import { SNAPSHOT_MIRROR, type SnapshotRecord } from "../format/snapshot-record.ts";
import { openReadOnly } from "../image/open-state.ts";
import { digestOfHeader, type ImagePlan, type ImageSender, openSender, planImage } from "../image/send.ts";
import type { Volume } from "../volume/volume.ts";
import { describeState } from "./session.ts";
import type { Resumption, SourceSnapshot, Survey } from "./source.ts";

const LOOKS_MAX = 10;
const LOOK_AGAIN_MS = 20;

export interface SourceVolume {
  readonly uuid: Uint8Array;
  survey(dirtyBytes: number): Promise<Survey>;
  /**
   * The sender of a transfer, at its first frame or where it goes on; good until the next is planned. Throws UserError
   * "mismatch".
   */
  plan(what: {
    readonly top: StateIdentity;
    readonly base: StateIdentity | undefined;
    readonly resumption: Resumption | undefined;
  }): Promise<{ readonly sender: ImageSender; readonly headerDigest: Uint8Array }>;
  close(): void;
}

/** `findReading`: how the blocks that are sent are read; asked when there is a volume. Throws UserError "no-volume", "corrupt". */
export async function openSourceVolume(
  path: string,
  findReading?: (path: string) => Promise<Reading>,
): Promise<SourceVolume> {
  let device: FileDevice | undefined;
  let volume: Volume | undefined;
  let sending: FileDevice | undefined; // a descriptor of its own: looking may close the other

  /** Runs `use` on the newest committed state. */
  async function look<T>(use: (volume: Volume, device: FileDevice) => T): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        device ??= openFileDevice(path, { writable: false });
        if (volume === undefined) volume = openReadOnly(device);
        else volume.follow();
        return use(volume, device);
      } catch (error) {
        close();
        const passing = error instanceof CorruptionError || error instanceof FsError || isTorn(error);
        if (!passing || attempt === LOOKS_MAX) throw error;
        await delay(LOOK_AGAIN_MS);
      }
    }
  }

  function close(): void {
    device?.close();
    device = undefined;
    volume = undefined;
  }

  const uuid = await look(({ committed }) => committed.uuid);
  const reading = await findReading?.(path);
  return {
    uuid,
    survey: (dirtyBytes) =>
      look((now) => {
        if (!sameBytes(now.committed.uuid, uuid)) throw replaced(path, uuid, now.committed.uuid);
        return surveyOf(now, dirtyBytes);
      }),
    plan: ({ top, base, resumption }) =>
      look((now) => {
        const plan = resumption === undefined ? planBetween(now, { top, base }) : planAgain(now, resumption);
        const headerDigest = digestOfHeader(plan.headerFrame);
        sending?.close();
        sending = openFileDevice(path, { writable: false, ...reading });
        if (resumption === undefined) return { sender: openSender(sending, plan), headerDigest };
        const resume = { headerDigest, frameNumber: resumption.frameFirst, digest: resumption.digest };
        return { sender: openSender(sending, plan, { resume }), headerDigest };
      }),
    close(): void {
      close();
      sending?.close();
      sending = undefined;
    },
  };
}

/** Both copies of fsinfo were being written while they were read. */
function isTorn(error: unknown): boolean {
  return error instanceof UserError && error.failure === "corrupt";
}

function replaced(path: string, was: Uint8Array, is: Uint8Array): UserError {
  const message = `${path} was volume ${formatUuid(was)} and is ${formatUuid(is)} now`;
  return new UserError("no-volume", message, "start `tidemark mirror run` again");
}

function surveyOf(volume: Volume, dirtyBytes: number): Survey {
  const { committed } = volume;
  const root = new Uint8Array(fileRoot.size);
  fileRoot.encode(new DataView(root.buffer), 0, committed.inodeFile);
  return {
    volume: committed.uuid,
    snapshots: volume.snapshots().map(sourceSnapshot),
    newestCp: committed.cpCount,
    newestCpAt: committed.cpAt,
    rootChecksum: checksum(root),
    dirtyBytes,
  };
}

function sourceSnapshot(record: SnapshotRecord): SourceSnapshot {
  const { name, createdAt, flags } = record;
  return { name, state: identityOf(record), takenAt: createdAt, mirror: (flags & SNAPSHOT_MIRROR) !== 0 };
}

function findState(records: readonly SnapshotRecord[], state: StateIdentity): SnapshotRecord {
  const found = records.find((record) => isSameState(identityOf(record), state));
  if (found === undefined) throw new UserError("mismatch", `snapshot ${describeState(state)} is gone from the source`);
  return found;
}

/** Everything since the base: the user's snapshots travel with the top. Those that other mirrors hold do not. */
function planBetween(
  volume: Volume,
  { top, base }: { readonly top: StateIdentity; readonly base: StateIdentity | undefined },
): ImagePlan {
  const records = volume.snapshots();
  const last = findState(records, top);
  const first = base === undefined ? undefined : findState(records, base);
  const isBetween = ({ id }: SnapshotRecord): boolean => id > (first?.id ?? 0) && id < last.id;
  const users = records.filter((record) => isBetween(record) && (record.flags & SNAPSHOT_MIRROR) === 0);
  return planImage(volume, { tops: [...users, last], base: first });
}

/**
 * The stream that was interrupted, byte for byte: its header is the one that the destination kept, its blocks follow from
 * its snapshots, all of which must still be there.
 */
function planAgain(volume: Volume, { header: headerFrame }: Resumption): ImagePlan {
  const header = decodeImageHeader(headerFrame.subarray(frameHeader.size));
  const records = volume.snapshots();
  const tops = header.tops.map((record) => findState(records, identityOf(record)));
  const base = header.base === undefined ? undefined : findState(records, header.base);
  const plan = planImage(volume, { tops, base });
  if (!sameBytes(header.volumeUuid, plan.header.volumeUuid) || header.blockCount !== plan.blockCount) {
    throw new UserError("mismatch", "the interrupted transfer is of another image", "it begins anew");
  }
  return { ...plan, header, headerFrame };
}
