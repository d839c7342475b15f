/** Unmounting and remounting from outside: through the daemon, or what a killed daemon has left. */
import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import { MOUNT_TYPE, mountTable, remount, unmount } from "../fuse/mount.ts";
import { type ControlClient, connectAll } from "./control-client.ts";
import type { Unmounted } from "./daemon-status.ts";

/** `target`: a volume or a directory. UserError "in-use" when it is busy, "no-volume" when it is not mounted. */
export async function unmountTarget(target: string, { force }: { readonly force: boolean }): Promise<Unmounted> {
  const path = realPath(target);
  const row = mountTable().findLast((each) => each.type === MOUNT_TYPE && each.directory === path);
  if (row === undefined) return unmountVolume(path, force);
  // The source is a path as somebody gave it; from here it may lead nowhere, or elsewhere.
  for (const source of [row.source, undefined]) {
    const client = await daemonOn(row.directory, source);
    if (client === undefined) continue;
    try {
      return await client.call("umount", { force });
    } finally {
      client.close();
    }
  }
  await unmount(row.directory, { lazy: force });
  return { volume: row.source, mountPoint: row.directory, keptBy: [] };
}

/** The daemon that serves a directory, among those of a volume or of this host. To be closed by the caller. */
async function daemonOn(directory: string, volume: string | undefined): Promise<ControlClient | undefined> {
  let found: ControlClient | undefined;
  for (const client of await connectAll(volume)) {
    if (found === undefined && (await servesDirectory(client, directory))) found = client;
    else client.close();
  }
  return found;
}

/** One that ends meanwhile serves nothing. */
async function servesDirectory(client: ControlClient, directory: string): Promise<boolean> {
  try {
    return (await client.call("status", {})).mountPoint === directory;
  } catch (error) {
    if (error instanceof UserError && error.failure === "unreachable") return false;
    throw error;
  }
}

/** What can be changed of a mount while it is there: the kernel's part of it. Throws UserError. */
export async function remountTarget(target: string, options: readonly string[]): Promise<void> {
  const directory = realPath(target);
  if (!options.includes("ro")) {
    const client = await daemonOn(directory, undefined);
    const mode = client === undefined ? undefined : (await client.call("status", {})).mode;
    client?.close();
    if (mode !== undefined && mode !== "write") {
      const hint = "unmount it, and mount it for writing";
      throw new UserError("failed", `${directory} is mounted read-only, and cannot be remounted for writing`, hint);
    }
  }
  await remount(directory, options);
}

async function unmountVolume(path: string, force: boolean): Promise<Unmounted> {
  const clients = await connectAll(path);
  try {
    const [client, ...more] = clients;
    if (client === undefined) throw new UserError("no-volume", `${path} is not mounted`, "see: tidemark status");
    if (more.length > 0) {
      const places = await Promise.all(clients.map(async (one) => (await one.call("status", {})).mountPoint));
      throw new UserError("usage", `${path} is mounted in several places`, `name one of: ${places.join(", ")}`);
    }
    return await client.call("umount", { force });
  } finally {
    for (const client of clients) client.close();
  }
}

/** A mount whose daemon is gone answers ENOTCONN: its path is then taken as it is written. */
function realPath(target: string): string {
  try {
    return realpathSync(target);
  } catch {
    return resolve(target);
  }
}
