/**
 * One way to a volume, mounted or not: through the daemon that has it, or opened here, under the lock. Commands and the
 * mirror's sidecar use it alike.
 */
import { UserError } from "../core/errors.ts";
import { type FileDevice, openFileDevice } from "../device/file-device.ts";
import { lockVolume } from "../device/volume-lock.ts";
import type { ArgumentsOf } from "../format/control-message.ts";
import { openVolume } from "../volume/open.ts";
import type { Volume } from "../volume/volume.ts";
import { type ControlClient, connectWriter } from "./control-client.ts";
import { systemClock, systemRandom } from "./system.ts";
import { causeOf, performVerb, type VerbResults, type VolumeVerb } from "./volume-verbs.ts";

export interface VolumeAccess {
  /** Path of the block file. Snapshot blocks can be read straight from it. */
  readonly path: string;
  /** Through a daemon. */
  readonly mounted: boolean;
  /** Performs a verb; what it changes is committed when it returns. Throws UserError, CorruptionError. */
  call<V extends VolumeVerb>(verb: V, given: ArgumentsOf<V>): Promise<VerbResults[V]>;
}

export interface AccessOptions {
  /** Changes are intended: without a daemon the volume is locked. */
  readonly writable: boolean;
}

/** Gives access to the volume for as long as `use` runs. UserError "no-volume", "in-use"; CorruptionError. */
export async function withVolume<T>(
  path: string,
  options: AccessOptions,
  use: (access: VolumeAccess) => Promise<T>,
): Promise<T> {
  const client = await connectWriter(path);
  if (client !== undefined) return useDaemon(path, client, use);
  const device = openFileDevice(path, options);
  try {
    const late = options.writable ? await lockOrConnect(device) : undefined;
    return await (late === undefined ? useOpened(path, device, options, use) : useDaemon(path, late, use));
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

async function useDaemon<T>(
  path: string,
  client: ControlClient,
  use: (access: VolumeAccess) => Promise<T>,
): Promise<T> {
  try {
    return await use({ path, mounted: true, call: (verb, given) => client.call(verb, given) });
  } finally {
    client.close();
  }
}

async function useOpened<T>(
  path: string,
  device: FileDevice,
  { writable }: AccessOptions,
  use: (access: VolumeAccess) => Promise<T>,
): Promise<T> {
  const volume = openVolume({ device, clock: systemClock(), random: systemRandom, writable });
  return use({
    path,
    mounted: false,
    call: (verb, given) => Promise.resolve(performHere(volume, verb, given)),
  });
}

/** The verb, and the consistency point that it needs. */
function performHere<V extends VolumeVerb>(volume: Volume, verb: V, given: ArgumentsOf<V>): VerbResults[V] {
  const cause = causeOf(verb);
  if (verb === "sync" && !volume.dirty) return { cpCount: volume.committed.cpCount } as VerbResults[V];
  const result = performVerb(volume, verb, given);
  if (cause !== undefined) volume.takeCp(cause);
  return result();
}
