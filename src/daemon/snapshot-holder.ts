/** How a mirror's sidecar has snapshots taken and dropped: through the daemon when the volume is mounted, else under the lock. */
import type { SnapshotHolder } from "../mirror/run.ts";
import { withVolume } from "./volume-access.ts";

export function snapshotHolder(volume: string): SnapshotHolder {
  return {
    dirtyBytes: () =>
      withVolume(volume, { writable: false }, async (access) =>
        access.mounted ? (await access.call("volume-status", {})).dirtyBytes : 0,
      ),
    async take(name): Promise<void> {
      await withVolume(volume, { writable: true }, (access) => access.call("snapshot-create", { name, mirror: true }));
    },
    async drop(name): Promise<void> {
      await withVolume(volume, { writable: true }, (access) => access.call("snapshot-delete", { name }));
    },
  };
}
