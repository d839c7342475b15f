/** Unmounting and remounting from outside: through the daemon, or what a killed daemon has left. */
import { UserError } from "../core/errors.ts";
import { canonical, MOUNT_TYPE, mountTable, remount, unmount } from "../fuse/mount.ts";
import { askAll, type ControlClient, daemonStatuses, silentError } from "./control-client.ts";
import type { Unmounted } from "./daemon-status.ts";

/**
 * `target`: a volume or a directory. UserError "in-use" when it is busy, "no-volume" when it is not mounted, "unreachable" when its
 * daemon does not answer.
 */
export async function unmountTarget(target: string, { force }: { readonly force: boolean }): Promise<Unmounted> {
  const path = canonical(target);
  const row = mountTable().findLast((each) => each.type === MOUNT_TYPE && each.directory === path);
  if (row === undefined) return unmountVolume(path, force);
  // The source is a path as somebody gave it; from here it may lead nowhere, or elsewhere.
  for (const source of [row.source, undefined]) {
    const client = await daemonOn(row.directory, source);
    if (client === "silent") {
      if (force) break;
      throw silentError(row.source);
    }
    if (client === undefined) continue;
    try {
      return await client.call("umount", { force });
    } finally {
      client.close();
    }
  }
  await unmount(row.directory, { lazy: force, force });
  return { volume: row.source, mountPoint: row.directory, keptBy: [] };
}

/**
 * The daemon that serves a directory, among those of a volume or of this host. To be closed by the caller. "silent": one of the volume
 * does not answer. One of this host that does not is passed over, for it is somebody else's.
 */
async function daemonOn(directory: string, volume: string | undefined): Promise<ControlClient | "silent" | undefined> {
  const { answers, silent } = await askAll(volume);
  const found = answers.find(({ status }) => status.mountPoint === directory)?.client;
  for (const { client } of answers) if (client !== found) client.close();
  return found ?? (volume !== undefined && silent.length > 0 ? "silent" : undefined);
}

/** What can be changed of a mount while it is there: the kernel's part of it. Throws UserError. */
export async function remountTarget(target: string, options: readonly string[]): Promise<void> {
  const directory = canonical(target);
  if (!options.includes("ro")) {
    const { mounts } = await daemonStatuses();
    const mode = mounts.find((mount) => mount.mountPoint === directory)?.mode;
    if (mode !== undefined && mode !== "write") {
      const hint = "unmount it, and mount it for writing";
      throw new UserError("failed", `${directory} is mounted read-only, and cannot be remounted for writing`, hint);
    }
  }
  await remount(directory, options);
}

async function unmountVolume(path: string, force: boolean): Promise<Unmounted> {
  const { answers, silent, lost } = await askAll(path);
  try {
    if (silent.length > 0) throw silentError(path);
    const [only, ...more] = answers;
    if (only === undefined)
      throw lost[0] ?? new UserError("no-volume", `${path} is not mounted`, "see: tidemark status");
    if (more.length > 0) {
      const places = answers.map(({ status }) => status.mountPoint);
      throw new UserError("usage", `${path} is mounted in several places`, `name one of: ${places.join(", ")}`);
    }
    return await only.client.call("umount", { force });
  } finally {
    for (const { client } of answers) client.close();
  }
}
