/**
 * Brings what applications have written out of the kernel's write-back cache into the filesystem.
 *
 * `sync -f` in a child writes the dirty pages of the mount out as requests. Kernels that do not wait for these
 * (fuse is exempt from data integrity in sync(2) where it would let a server block the host) have queued them all by
 * the time it returns, and feed them to the server in that order. So requests of our own are then sent behind them: a
 * request is answered when all that were handed to the server before it are done. A child sends these too (knock.ts).
 */
import { readFile } from "node:fs/promises";
import { UserError } from "../core/errors.ts";
import { run } from "../fuse/mount.ts";
import { placeOf } from "./holders.ts";

/** Write-back requests that the kernel hands over between two of our own, at least. */
const BACKGROUND_MIN = 64;
/** Rounds when the length of the kernel's queue is unknown. */
const ROUNDS_UNKNOWN = 16;
const ROUNDS_MAX = 4096;
/** What one child asks: the paths of a command line have a limit. */
const ROUNDS_AT_ONCE = 64;

/**
 * Resolves when everything written to the mount of this number before the call has reached the filesystem. Its directory may
 * be unmounted, and copies of it be left: then by way of one of these. What can be reached by none is left out.
 */
export async function syncMount(device: string): Promise<void> {
  const place = await placeOf(device);
  if (place === undefined) return;
  const { status, errors } = await run("sync", ["-f", place]);
  if (status !== 0) throw new UserError("failed", `cannot flush the kernel's cache of ${place}: ${errors}`);
  const waiting = await queueLength(device);
  const rounds = waiting === undefined ? ROUNDS_UNKNOWN : Math.min(ROUNDS_MAX, Math.ceil(waiting / BACKGROUND_MIN) + 1);
  for (let done = 0; done < rounds; done += ROUNDS_AT_ONCE) {
    const paths = Array.from({ length: Math.min(ROUNDS_AT_ONCE, rounds - done) }, () => place);
    const asked = await run("stat", ["--file-system", "--format=", "--", ...paths]);
    if (asked.status !== 0) throw new UserError("failed", `cannot flush ${place}: ${asked.errors}`);
  }
}

/** Requests that wait in the kernel or are being handled; undefined where fusectl is not mounted. */
async function queueLength(device: string): Promise<number | undefined> {
  const [, minor = ""] = device.split(":");
  try {
    const text = await readFile(`/sys/fs/fuse/connections/${minor}/waiting`, "utf8");
    const waiting = Number.parseInt(text, 10);
    return Number.isNaN(waiting) ? undefined : waiting;
  } catch {
    return undefined;
  }
}
