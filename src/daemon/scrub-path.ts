/**
 * Scrubbing: everything that a check verifies, read from the disk itself at a bounded rate beside whoever uses the volume, and
 * before it, what has a second copy put right. Of a mounted volume it is the daemon that repairs, for nobody else may write;
 * what is read is held by a hidden snapshot, as for a check.
 */
import { CorruptionError, UserError } from "../core/errors.ts";
import { type FileDevice, openFileDevice } from "../device/file-device.ts";
import { lockVolume } from "../device/volume-lock.ts";
import type { CheckReport } from "../volume/check.ts";
import { type BadCopy, repairCopies } from "../volume/repair.ts";
import { type CheckPathOptions, checkInThread, checkMounted } from "./check-path.ts";
import { connectWriter } from "./control-client.ts";

export interface ScrubOptions extends Omit<CheckPathOptions, "readData"> {
  readonly bytesPerSecond: number;
}

export interface ScrubReport extends CheckReport {
  /** Copies that were bad, and are as good as the others now. */
  readonly repaired: readonly BadCopy[];
}

/** Throws as checkPath does. */
export async function scrubPath(path: string, options: ScrubOptions): Promise<ScrubReport> {
  const client = await connectWriter(path);
  if (client === undefined) return scrubUnmounted(path, options);
  try {
    const repaired = await unlessBothAreBad(() => client.call("repair", {}));
    return { ...(await checkMounted(path, client, options)), repaired };
  } finally {
    client.close();
  }
}

async function scrubUnmounted(path: string, options: ScrubOptions): Promise<ScrubReport> {
  const device = openFileDevice(path, { writable: true });
  try {
    const repaired = isOurs(device) ? await unlessBothAreBad(() => repairCopies(device)) : [];
    return { ...(await checkInThread(path, {}, options)), repaired };
  } finally {
    device.close();
  }
}

/** Locks it. False: it is a mirror that is being served, and is looked at as it is. */
function isOurs(device: FileDevice): boolean {
  try {
    lockVolume(device);
    return true;
  } catch (error) {
    if (error instanceof UserError && error.failure === "in-use") return false;
    throw error;
  }
}

/** What cannot be repaired is found by the check, and told with all else. */
async function unlessBothAreBad(
  repair: () => readonly BadCopy[] | Promise<readonly BadCopy[]>,
): Promise<readonly BadCopy[]> {
  try {
    return await repair();
  } catch (error) {
    const isCorrupt = error instanceof CorruptionError || (error instanceof UserError && error.failure === "corrupt");
    if (!isCorrupt) throw error;
    return [];
  }
}
