/**
 * Reads blocks from the disk itself, past the host's page cache: what lies in memory tells nothing of the disk. Where the host's
 * filesystem has no such reads (O_DIRECT), the page cache has to do.
 */
import { closeSync, constants, openSync, readSync } from "node:fs";
import { alignedMemory } from "../core/aligned-memory.ts";
import { BLOCK_BYTES } from "../core/block.ts";
import { FsError } from "../core/errors.ts";
import { type FileDevice, openFileDevice } from "./file-device.ts";

/** Copied through memory that the disk can write to. */
const CHUNK_BLOCKS = 256;

/** Opens a block file for reading. Throws UserError "no-volume". */
export function openDirectDevice(path: string): FileDevice {
  const plain = openFileDevice(path, { writable: false });
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  } catch {
    return plain;
  }
  const direct = descriptor;
  const chunk = new Uint8Array(alignedMemory(CHUNK_BLOCKS * BLOCK_BYTES));

  function readChunk(vbn: number, count: number): boolean {
    const bytes = count * BLOCK_BYTES;
    try {
      return readSync(direct, chunk, 0, bytes, vbn * BLOCK_BYTES) === bytes;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "EINVAL") return false; // opened so, and not read so
      throw new FsError("EIO", `read of block file ${path} failed: ${(cause as Error).message}`, { cause });
    }
  }

  return {
    ...plain,
    read(vbn, count, into, offset): void {
      for (let done = 0; done < count; done += CHUNK_BLOCKS) {
        const some = Math.min(CHUNK_BLOCKS, count - done);
        const at = offset + done * BLOCK_BYTES;
        if (readChunk(vbn + done, some)) into.set(chunk.subarray(0, some * BLOCK_BYTES), at);
        else plain.read(vbn + done, some, into, at); // the end of a file that is no whole number of blocks
      }
    },
    close(): void {
      closeSync(direct);
      plain.close();
    },
  };
}
