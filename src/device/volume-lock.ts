/**
 * One writer a volume: an exclusive flock on the block file, which dies with the process. So for a change log apart: a copy of a
 * volume, or a snapshot by the host, has the same identity, and would be taken for the volume that the log belongs to.
 *
 * Node has no flock of its own. A lock belongs to the open file description, which a child shares, so
 * `flock` (util-linux) locks the descriptor that it inherits, and the lock stays when it exits.
 *
 * A block device may be in use by the kernel, which knows nothing of such locks: a filesystem of its own that is mounted, a
 * part of a RAID. Opening it exclusively tells.
 */
import { spawnSync } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { UserError } from "../core/errors.ts";
import type { FileDevice } from "./file-device.ts";

/** Locks the file of the device until it is closed. Throws UserError "in-use" when another process has it. */
export function lockVolume(device: FileDevice, what = "volume"): void {
  if (!device.isFile) refuseClaimed(device.path);
  const { status, error, stderr } = spawnSync("flock", ["--exclusive", "--nonblock", "3"], {
    stdio: ["ignore", "ignore", "pipe", device.descriptor],
    encoding: "utf8",
  });
  if (error !== undefined)
    throw new UserError(
      "failed",
      `cannot lock ${device.path}: ${error.message}`,
      "install util-linux, which has flock",
    );
  if (status === 1)
    throw new UserError(
      "in-use",
      `${what} ${device.path} is in use by another process`,
      what === "volume" ? `see: tidemark status ${device.path}` : "see: tidemark status",
    );
  if (status !== 0) throw new UserError("failed", `cannot lock ${device.path}: ${stderr.trim()}`);
}

function refuseClaimed(path: string): void {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EBUSY") throw cause;
    const hint = `see: findmnt --source ${path}, lsblk ${path}`;
    throw new UserError("in-use", `${path} is in use by the kernel: mounted, or a part of something`, hint, { cause });
  }
}
