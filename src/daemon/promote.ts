/** Making a mirror an ordinary volume: it can then be mounted for writing, and takes no more images of its source. */
import { UserError } from "../core/errors.ts";
import { openFileDevice } from "../device/file-device.ts";
import { lockVolume } from "../device/volume-lock.ts";
import { removeTransferFile } from "../mirror/transfer-state.ts";
import { openVolume } from "../volume/open.ts";
import { systemClock, systemRandom } from "./system.ts";

export interface Promoted {
  readonly volume: string;
  readonly cpCount: number;
  /** Snapshots with the last states that it got from its source. */
  readonly snapshots: readonly string[];
}

/** UserError "in-use" while the mirror is served, "mismatch" when it is none. */
export function promoteMirror(path: string): Promoted {
  const device = openFileDevice(path, { writable: true });
  try {
    lockVolume(device);
    const volume = openVolume({
      device,
      clock: systemClock(),
      random: systemRandom,
      writable: true,
      evenMirror: true,
    });
    if (volume.status().role !== "mirror") {
      throw new UserError("mismatch", `${path} is no mirror`, "it can be mounted for writing as it is");
    }
    const snapshots = volume.promote();
    volume.takeCp("sync");
    removeTransferFile(path); // with the lock: who serves a new mirror of this name makes its own
    return { volume: path, cpCount: volume.committed.cpCount, snapshots };
  } finally {
    device.close();
  }
}
