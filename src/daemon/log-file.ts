/** A change log in a file or block device of its own: made when it is first asked for, opened again by its identity. */
import { BLOCK_BYTES } from "../core/block.ts";
import { UserError } from "../core/errors.ts";
import { randomUuid } from "../core/prng.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import { createFileDevice, type FileDevice, openFileDevice } from "../device/file-device.ts";
import { preallocate } from "../device/preallocate.ts";
import { lockVolume } from "../device/volume-lock.ts";
import { decodeLogFileHead, encodeLogFileHead } from "../format/log-file.ts";
import type { LogDevice } from "../volume/volume.ts";
import { systemRandom } from "./system.ts";

/** A file that is made has 64 MiB; a block device is used as far. */
const LOG_FILE_BLOCKS = 16_384;
const LOG_FILE_BLOCKS_MIN = 64;
const CHUNK_BLOCKS = 256;

/** Opens and locks the log of this volume, or makes it. UserError "mismatch" when the file has something else, "in-use". */
export function openLogFile(path: string, volumeUuid: Uint8Array): LogDevice {
  const device = openOrCreate(path);
  try {
    const block = new Uint8Array(BLOCK_BYTES);
    device.read(0, 1, block, 0);
    if (block.every((byte) => byte === 0)) return makeLog(device, volumeUuid);
    const head = decodeLogFileHead(block);
    if (head === undefined || head.blockCount > device.blockCount) throw notEmpty(path);
    if (!sameBytes(head.volumeUuid, volumeUuid)) {
      throw new UserError(
        "mismatch",
        `${path} is the change log of volume ${formatUuid(head.volumeUuid)}`,
        "name another file",
      );
    }
    lockVolume(device, "change log");
    return logDeviceOf(device, head);
  } catch (error) {
    device.close();
    throw error;
  }
}

function openOrCreate(path: string): FileDevice {
  try {
    return openFileDevice(path, { writable: true });
  } catch (error) {
    if (!isMissing(error)) throw cannotOpen(path, error);
    return createFileDevice(path, LOG_FILE_BLOCKS);
  }
}

/** Opens a file that has a change log for who only looks, at whatever is in it. */
export function openLogToRead(path: string): FileDevice {
  try {
    return openFileDevice(path, { writable: false });
  } catch (cause) {
    if (!isMissing(cause)) throw cannotOpen(path, cause);
    throw new UserError("failed", `there is no file ${path}`, "name the one that the volume was mounted with", {
      cause,
    });
  }
}

/** In the words of a log: a file device speaks of a volume, and says that there is none. */
function cannotOpen(path: string, error: unknown): unknown {
  if (!(error instanceof UserError && error.failure === "no-volume" && error.cause instanceof Error)) return error;
  return new UserError("failed", `cannot open the change log ${path}: ${error.cause.message}`, "name another file", {
    cause: error,
  });
}

function isMissing(error: unknown): boolean {
  return (error as { readonly cause?: NodeJS.ErrnoException }).cause?.code === "ENOENT";
}

function makeLog(device: FileDevice, volumeUuid: Uint8Array): LogDevice {
  const blockCount = Math.min(device.blockCount, LOG_FILE_BLOCKS);
  if (blockCount < LOG_FILE_BLOCKS_MIN) {
    throw new UserError(
      "mismatch",
      `${device.path} is too small for a change log`,
      "256 KiB are the least, 64 MiB are used",
    );
  }
  lockVolume(device, "change log");
  if (!isEmpty(device, blockCount)) throw notEmpty(device.path);
  preallocate(device, 1, blockCount - 1);
  const uuid = randomUuid(systemRandom);
  device.writeDurable(0, encodeLogFileHead({ blockCount, uuid, volumeUuid }));
  return logDeviceOf(device, { blockCount, uuid });
}

/** Zeros, as far as it would be used: there are filesystems that begin behind zeros, on a device that is named by mistake. */
function isEmpty(device: FileDevice, blockCount: number): boolean {
  const zeros = new Uint8Array(CHUNK_BLOCKS * BLOCK_BYTES);
  const bytes = new Uint8Array(zeros.length);
  for (let first = 0; first < blockCount; first += CHUNK_BLOCKS) {
    const count = Math.min(CHUNK_BLOCKS, blockCount - first);
    device.read(first, count, bytes, 0);
    const length = count * BLOCK_BYTES;
    if (!sameBytes(bytes.subarray(0, length), zeros.subarray(0, length))) return false;
  }
  return true;
}

function notEmpty(path: string): UserError {
  return new UserError(
    "mismatch",
    `${path} is not empty, and is no change log`,
    "name another file, or write zeros to it if nothing in it is needed",
  );
}

function logDeviceOf(
  device: FileDevice,
  { blockCount, uuid }: { readonly blockCount: number; readonly uuid: Uint8Array },
): LogDevice {
  return { device: { ...device, blockCount }, uuid };
}
