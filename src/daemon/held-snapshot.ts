/** Hidden snapshots that a command holds while it reads a mounted volume: what it reads stays as it is. */
import type { ControlClient } from "./control-client.ts";

/**
 * Takes a hidden snapshot, with all that applications have written, and deletes it when `use` has ended. Those that killed
 * commands have left under the same prefix go first.
 */
export async function withHeldSnapshot<T>(
  client: ControlClient,
  prefix: string,
  use: (name: string) => Promise<T>,
): Promise<T> {
  await dropLeftOver(client, prefix);
  const name = `${prefix}${process.pid}`;
  await client.call("snapshot-create", { name, mirror: true });
  try {
    return await use(name);
  } finally {
    await client.call("snapshot-delete", { name });
  }
}

async function dropLeftOver(client: ControlClient, prefix: string): Promise<void> {
  for (const { name, mirror } of await client.call("snapshot-list", { unique: false })) {
    if (!mirror || !name.startsWith(prefix)) continue;
    if (!isAlive(Number(name.slice(prefix.length)))) await client.call("snapshot-delete", { name });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return pid !== process.pid;
  } catch {
    return false;
  }
}
