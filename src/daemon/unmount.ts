/** Unmounting from outside: through the daemon, or what a killed daemon has left. */
import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import { MOUNT_TYPE, mountTable, unmount } from "../fuse/mount.ts";
import { connectAll } from "./control-client.ts";

export interface Unmounted {
  readonly volume: string;
  readonly mountPoint: string;
}

/** `target`: a volume or a directory. UserError "in-use" when it is busy, "no-volume" when it is not mounted. */
export async function unmountTarget(target: string, { force }: { readonly force: boolean }): Promise<Unmounted> {
  const path = realPath(target);
  const row = mountTable().findLast((each) => each.type === MOUNT_TYPE && each.directory === path);
  if (row === undefined) return unmountVolume(path, force);
  const clients = await connectAll(row.source);
  try {
    for (const client of clients) {
      const { mountPoint } = await client.call("status", {});
      if (mountPoint === row.directory) return await client.call("umount", { force });
    }
  } finally {
    for (const client of clients) client.close();
  }
  await unmount(row.directory, { lazy: force });
  return { volume: row.source, mountPoint: row.directory };
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
