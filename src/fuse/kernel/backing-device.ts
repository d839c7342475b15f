/**
 * What the kernel is asked to do for a mount that no answer to INIT can say: how far it reads ahead, and how much it keeps
 * that is written and not given to us yet. It has both for each mount, under /sys/class/bdi. They are wishes: where /sys
 * is read-only, or the user is not root, the mount is slower and no more.
 */
import { writeFileSync } from "node:fs";
import { totalmem } from "node:os";
import { PAYLOAD_BYTES_MAX } from "./connection.ts";

/** Requests as large as we take need as much; the kernel's own 128 KiB make eight requests of one. */
const READAHEAD_BYTES = PAYLOAD_BYTES_MAX;
/**
 * Dirty pages of one mount. The kernel gives a FUSE mount 1 % of what it allows all of them together, and holds writers
 * back from half of that on: they then wait for us with every few pages, although nothing is short.
 */
const DIRTY_PAGES_BYTES_MAX = 256 << 20;
const MEMORY_SHARE = 16;
/** Of the volume: what may be dirty always fits when files begin to be opened without that cache (dispatch.ts, NEARLY_FULL). */
const VOLUME_SHARE = 16;

/** `device` is the number of the mount, "major:minor"; `volumeBytes` what it is of. */
export function tuneBackingDevice(device: string, volumeBytes: number): void {
  wish(device, "read_ahead_kb", READAHEAD_BYTES / 1024);
  wish(
    device,
    "max_bytes",
    Math.floor(Math.min(DIRTY_PAGES_BYTES_MAX, totalmem() / MEMORY_SHARE, volumeBytes / VOLUME_SHARE)),
  );
}

function wish(device: string, name: string, value: number): void {
  try {
    writeFileSync(`/sys/class/bdi/${device}/${name}`, String(value));
  } catch {
    // An older kernel (max_bytes: 6.2), a container, an ordinary user.
  }
}
