/** A volume that no daemon has: opened in this process, under the lock. */
import { CorruptionError, FsError, UserError } from "../core/errors.ts";
import { type FileDevice, openFileDevice } from "../device/file-device.ts";
import { lockVolume } from "../device/volume-lock.ts";
import type { ArgumentsOf } from "../format/control-message.ts";
import { type OpenFileSystem, openFileSystem } from "../fs/active.ts";
import { openVolume } from "../volume/open.ts";
import type { Volume } from "../volume/volume.ts";
import { type ControlClient, connectWriter } from "./control-client.ts";
import { RECLAIM_MS_MAX } from "./server-slices.ts";
import { systemClock, systemRandom } from "./system.ts";
import type { AccessOptions, VolumeAccess } from "./volume-access.ts";
import { causeOf, freesFirst, performVerb, type VerbResults, type VolumeVerb } from "./volume-verbs.ts";

interface Uses<T> {
  readonly use: (access: VolumeAccess) => Promise<T>;
  /** Instead, when a daemon has come up since there was none. */
  readonly useDaemon: (late: ControlClient) => Promise<T>;
}

/** Gives access to the volume for as long as `use` runs. UserError "no-volume", "in-use"; CorruptionError. */
export async function withUnmounted<T>(path: string, options: AccessOptions, { use, useDaemon }: Uses<T>): Promise<T> {
  const device = openFileDevice(path, options);
  try {
    const late = options.writable ? await lockOrConnect(device) : undefined;
    return await (late === undefined ? useOpened(path, device, options, use) : useDaemon(late));
  } finally {
    device.close();
  }
}

/** Locks the volume, or connects to a daemon that has come up since there was none. */
async function lockOrConnect(device: FileDevice): Promise<ControlClient | undefined> {
  try {
    lockVolume(device);
    return undefined;
  } catch (error) {
    const late =
      error instanceof UserError && error.failure === "in-use" ? await connectWriter(device.path) : undefined;
    if (late === undefined) throw error;
    return late;
  }
}

async function useOpened<T>(
  path: string,
  device: FileDevice,
  { writable }: AccessOptions,
  use: (access: VolumeAccess) => Promise<T>,
): Promise<T> {
  const clock = systemClock();
  const volume = openVolume({ device, clock, random: systemRandom, writable });
  let opened: OpenFileSystem | undefined;
  const fileSystem = (): OpenFileSystem => {
    opened ??= openFileSystem({ volume, clock });
    return opened;
  };
  if (volume.log.isUnreplayed) fileSystem(); // what a crash has left in the log comes first
  return use({
    path,
    mounted: false,
    call(verb, given) {
      if (writable && freesFirst(verb)) freeDeleted(fileSystem);
      return Promise.resolve(performHere(volume, verb, given));
    },
  });
}

/** What was deleted before it was unmounted. Nobody waits for all of it to be freed: see server-slices.ts. */
function freeDeleted(fileSystem: () => OpenFileSystem): void {
  const endMs = performance.now() + RECLAIM_MS_MAX;
  try {
    while (fileSystem().reclaimSlice() && performance.now() < endMs);
  } catch (error) {
    if (!(error instanceof FsError) && !(error instanceof CorruptionError)) throw error;
  }
}

/** The verb, and the consistency point that it needs. */
function performHere<V extends VolumeVerb>(volume: Volume, verb: V, given: ArgumentsOf<V>): VerbResults[V] {
  const cause = causeOf(verb);
  if (verb === "sync" && !volume.dirty) return { cpCount: volume.committed.cpCount } as VerbResults[V];
  const result = performVerb(volume, verb, given);
  if (cause !== undefined) volume.takeCp(cause);
  return result();
}
