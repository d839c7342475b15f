/**
 * What the kernel is asked to do for a mount that no answer to INIT can say: how far it reads ahead, and how much it keeps
 * that is written and not given to us yet. It has both for each mount, under /sys/class/bdi. They are wishes: where /sys
 * is read-only, or the user is not root, the mount is slower and no more. How much it keeps is known in any case, and relied upon
 * (room.ts): it holds writers back where a mount has reached its share of all dirty pages.
 */
import { readFileSync, writeFileSync } from "node:fs";
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
const SHARE_UNKNOWN = 0.01; // what the kernel gives by itself

/** `device` is the number of the mount, "major:minor". */
export function readAhead(device: string): void {
  wish(device, "read_ahead_kb", READAHEAD_BYTES / 1024);
}

/** What is good to be kept, where there is the space for it. */
export function dirtyPagesWanted(): number {
  return Math.floor(Math.min(DIRTY_PAGES_BYTES_MAX, totalmem() / MEMORY_SHARE));
}

/** No more is to be kept of what is written to the mount. Returns what that may be now, at most. */
export function limitDirtyPages(device: string, bytesMax: number): number {
  // As a share of the most that all of them may ever be: `max_bytes` would be one of what they may be now, which grows.
  const share = Math.min(1, bytesMax / allDirtyPagesBytesMax());
  wish(device, "max_ratio_fine", Math.max(1, Math.floor(share * 1e6)));
  return dirtyPagesBytesMax(device);
}

function dirtyPagesBytesMax(device: string): number {
  const share = (numberIn(`/sys/class/bdi/${device}/max_ratio_fine`) ?? Number.NaN) / 1e6;
  const percent = (numberIn(`/sys/class/bdi/${device}/max_ratio`) ?? Number.NaN) / 100; // before Linux 6.2
  return Math.ceil(allDirtyPagesBytesMax() * (share || percent || SHARE_UNKNOWN));
}

/** Of all filesystems together: a share of the memory that is not in use otherwise, unless it was set in bytes. */
function allDirtyPagesBytesMax(): number {
  const bytes = numberIn("/proc/sys/vm/dirty_bytes") ?? 0;
  return bytes > 0 ? bytes : (totalmem() * (numberIn("/proc/sys/vm/dirty_ratio") ?? 100)) / 100;
}

function numberIn(file: string): number | undefined {
  try {
    return Number(readFileSync(file, "utf8"));
  } catch {
    return undefined;
  }
}

function wish(device: string, name: string, value: number): void {
  try {
    writeFileSync(`/sys/class/bdi/${device}/${name}`, String(value));
  } catch {
    // An older kernel (max_ratio_fine: 6.2), a container, an ordinary user.
  }
}
