/** Making a volume: in a file or device that is nobody's, and holds nothing that is wanted. */
import { readSync, statSync } from "node:fs";
import { BLOCK_BYTES } from "../core/block.ts";
import { UserError } from "../core/errors.ts";
import { sameBytes } from "../core/uuid.ts";
import { createFileDevice, type FileDevice, openFileDevice, resizeFileDevice } from "../device/file-device.ts";
import { preallocate } from "../device/preallocate.ts";
import { lockVolume } from "../device/volume-lock.ts";
import { VOLUME_BLOCKS_MAX, VOLUME_BLOCKS_MIN, VOLUME_MAGIC } from "../format/constants.ts";
import { createVolume } from "../volume/create.ts";
import { openVolume } from "../volume/open.ts";
import { daemonStatuses } from "./control-client.ts";
import { systemClock, systemRandom } from "./system.ts";

export interface FormatOptions {
  readonly path: string;
  readonly sizeBytes: number;
  readonly label: string;
  /** Overwrite what is there. A volume in use is refused all the same. */
  readonly force: boolean;
}

export interface Formatted {
  readonly path: string;
  readonly uuid: string;
  readonly label: string;
  readonly sizeBytes: number;
  readonly blockCount: number;
}

/** The known filesystems and partition tables have their marks in so many bytes from the start. */
const PROBE_BYTES = 128 * 1024;
const LABEL_BYTES_MAX = 64;
const VOLUME_BYTES_MAX = 16 * 2 ** 40;

/** Formats. UserError "failed" when something is there, "in-use" when it is mounted, "usage" for a bad size or label. */
export async function formatVolume({ path, sizeBytes, label, force }: FormatOptions): Promise<Formatted> {
  // Of 16T a block is lost: 2^32 of them have no number in 32 bits.
  const blockCount = Math.min(Math.floor(sizeBytes / BLOCK_BYTES), VOLUME_BLOCKS_MAX);
  if (blockCount < VOLUME_BLOCKS_MIN || sizeBytes > VOLUME_BYTES_MAX) {
    throw new UserError("usage", "a volume has between 256K and 16T", "give another --size");
  }
  if (Buffer.byteLength(label) > LABEL_BYTES_MAX) {
    throw new UserError("usage", `the label is longer than ${LABEL_BYTES_MAX} bytes`);
  }
  await refuseMounted(path, { evenReadOnly: true });
  const device = openOrCreate(path, blockCount, force);
  try {
    if (device.blockCount < blockCount) {
      const has = device.blockCount * BLOCK_BYTES;
      throw new UserError("usage", `${path} has ${has} bytes, less than the size asked for`, "give a smaller --size");
    }
    const clock = systemClock();
    const owner = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }; // who formats it can use it
    createVolume({ device, clock, random: systemRandom, label, blockCount, owner });
    const volume = openVolume({ device, clock, random: systemRandom, writable: false });
    preallocate(device, volume.committed.logFirst, volume.committed.logBlocks);
    const { uuid } = volume.status();
    return { path, uuid, label, sizeBytes: blockCount * BLOCK_BYTES, blockCount };
  } finally {
    device.close();
  }
}

/** UserError "in-use" that says where the volume is mounted. */
export async function refuseMounted(path: string, { evenReadOnly }: { readonly evenReadOnly: boolean }): Promise<void> {
  const { mounts } = await daemonStatuses(path); // one that is silent holds the lock
  const mount = mounts.find(({ mode }) => evenReadOnly || mode === "write");
  if (mount === undefined) return;
  const hint = `unmount it first: tidemark umount ${mount.mountPoint}`;
  throw new UserError("in-use", `${path} is mounted on ${mount.mountPoint}`, hint);
}

/** Nobody else may be writing it, from before its contents are looked at to the end. */
function openOrCreate(path: string, blockCount: number, force: boolean): FileDevice {
  const isNew = statSync(path, { throwIfNoEntry: false }) === undefined;
  const device = isNew ? createFileDevice(path, blockCount) : openFileDevice(path, { writable: true });
  try {
    lockVolume(device);
    if (isNew) return device;
    if (!force) refuseContents(device);
    return device.isFile ? resizeFileDevice(device, blockCount) : device;
  } catch (error) {
    device.close();
    throw error;
  }
}

/** Refuses a file that has anything but zeros where filesystems have their marks. */
function refuseContents({ path, descriptor }: FileDevice): void {
  const start = new Uint8Array(PROBE_BYTES);
  const length = readSync(descriptor, start, 0, PROBE_BYTES, 0);
  if (start.subarray(0, length).every((byte) => byte === 0)) return;
  const isVolume = sameBytes(start.subarray(0, VOLUME_MAGIC.length), VOLUME_MAGIC);
  const what = isVolume ? "is a volume already" : "is not empty: it may hold another filesystem or file";
  throw new UserError("failed", `${path} ${what}`, "to overwrite it: tidemark format --force");
}
