/**
 * One way to a volume, mounted or not: through the daemon that has it, or opened here, under the lock. Commands and the
 * mirror's sidecar use it alike.
 */
import type { ArgumentsOf } from "../format/control-message.ts";
import { type ControlClient, connectWriter } from "./control-client.ts";
import type { VerbResults, VolumeVerb } from "./volume-verbs.ts";

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
  // The volume itself is loaded only now: asking a daemon takes half as long without it.
  const { withUnmounted } = await import("./unmounted-volume.ts");
  return withUnmounted(path, options, { use, useDaemon: (late) => useDaemon(path, late, use) });
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
