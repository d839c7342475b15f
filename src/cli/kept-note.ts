/** What to tell of a mount that is gone from its directory and is served still, to copies of it. */
import type { Unmounted } from "../daemon/daemon-status.ts";
import type { Output } from "./output.ts";

export function noteOfKept({ volume, mountPoint, keptBy }: Unmounted, output: Output): void {
  if (keptBy.length === 0) return;
  output.note(
    `${mountPoint} is unmounted, and all of it is durable; ${volume} stays in use by copies of the mount: ${keptBy.join(", ")}`,
  );
  output.note(`  it ends with the last of them; to cut them off: tidemark umount --force ${volume}`);
}
