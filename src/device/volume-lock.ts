/**
 * One writer a volume: an exclusive flock on the block file, which dies with the process.
 *
 * Node has no flock of its own. A lock belongs to the open file description, which a child shares, so
 * `flock` (util-linux) locks the descriptor that it inherits, and the lock stays when it exits.
 */
import { spawnSync } from "node:child_process";
import { UserError } from "../core/errors.ts";
import type { FileDevice } from "./file-device.ts";

/** Locks the file of the device until it is closed. Throws UserError "in-use" when another process has it. */
export function lockVolume(device: FileDevice): void {
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
      `volume ${device.path} is in use by another process`,
      `see: tidemark status ${device.path}`,
    );
  if (status !== 0) throw new UserError("failed", `cannot lock ${device.path}: ${stderr.trim()}`);
}
