/** The place that a stream is received into: a block file or a host's block device, which may hold a volume. */
import { existsSync, readSync, rmSync } from "node:fs";
import { BLOCK_BYTES } from "../../core/block.ts";
import { UserError } from "../../core/errors.ts";
import { createFileDevice, type FileDevice, openFileDevice, resizeFileDevice } from "../../device/file-device.ts";
import { lockVolume } from "../../device/volume-lock.ts";
import { writeBehind } from "../../device/write-behind.ts";
import { looksLikeVolume } from "../../volume/fsinfo-copies.ts";
import type { ReceiveTarget } from "../receive.ts";
import type { WriteBack } from "./file.ts";

export interface VolumeFile extends ReceiveTarget {
  readonly device: FileDevice | undefined;
  /** The stream has been received: what was prepared holds a volume now. */
  accept(): void;
  /** The stream was refused: a file made for it goes away again. */
  abandon(): void;
  close(): void;
}

export interface VolumeFileOptions {
  /** Use a file that is neither empty nor a volume. Default: refuse. */
  readonly force?: boolean | undefined;
  /** Default: the host begins to write to the disk when it likes. */
  readonly writeBack?: WriteBack | undefined;
}

/** Opens and locks what is at `path`. Throws UserError "in-use", and "failed" when something else is there. */
export function openVolumeFile(path: string, { force = false, writeBack }: VolumeFileOptions = {}): VolumeFile {
  let device: FileDevice | undefined; // the one in use
  let isVolume = false;
  let made: "nothing" | "file" | "contents" = "nothing";

  /** A stream comes in the order of its blocks: runs may be as short as they like. */
  function behind(file: FileDevice): FileDevice {
    if (writeBack === undefined) return file;
    const begin = (vbn: number, count: number): void =>
      writeBack.begin(file.descriptor, vbn * BLOCK_BYTES, count * BLOCK_BYTES);
    return writeBehind(file, { runBlocksMin: 1, begin });
  }

  if (existsSync(path)) {
    device = openFileDevice(path, { writable: true });
    try {
      lockVolume(device);
      isVolume = looksLikeVolume(device);
      if (!isVolume && !force && !isEmpty(device)) {
        throw new UserError(
          "failed",
          `${path} exists, and is not a Tidemark volume`,
          "give another path, or --force to overwrite it",
        );
      }
    } catch (error) {
      device.close();
      throw error;
    }
  }

  return {
    name: path,
    get device(): FileDevice | undefined {
      return isVolume ? device : undefined;
    },
    prepare(blockCount): FileDevice {
      const before = device;
      if (!isVolume) made = before === undefined ? "file" : "contents";
      if (before !== undefined && before.blockCount >= blockCount) return behind(before);
      if (before?.isFile === false) {
        throw new UserError(
          "failed",
          `${path} has ${before.blockCount} blocks, the image needs ${blockCount}`,
          "give a larger device",
        );
      }
      if (before === undefined) {
        device = createFileDevice(path, blockCount);
        lockVolume(device);
      } else device = resizeFileDevice(before, blockCount);
      return behind(device);
    },
    accept(): void {
      isVolume = true;
      made = "nothing";
    },
    abandon(): void {
      if (made === "file") rmSync(path, { force: true });
      if (made === "contents" && device?.isFile === true) device = resizeFileDevice(device, 0);
      made = "nothing";
    },
    close(): void {
      device?.close();
    },
  };
}

/** An empty file, or one or a device that begins with zeros: nothing was ever there, or it was wiped. */
function isEmpty(device: FileDevice): boolean {
  const head = new Uint8Array(BLOCK_BYTES);
  return readSync(device.descriptor, head, 0, BLOCK_BYTES, 0) === 0 || head.every((byte) => byte === 0);
}
