/** Space of the host for blocks that will be written durably, again and again. */
import { BLOCK_BYTES } from "../core/block.ts";
import type { BlockDevice } from "./block-device.ts";

const CHUNK_BLOCKS = 256;

/**
 * Writes zeros to `count` blocks and returns when they are durable, so that the host has given them their places: a write
 * into a hole of a sparse file is durable only with the host's own metadata, which takes many times as long.
 */
export function preallocate(device: BlockDevice, first: number, count: number): void {
  const zeros = new Uint8Array(CHUNK_BLOCKS * BLOCK_BYTES);
  for (let done = 0; done < count; done += CHUNK_BLOCKS) {
    device.write(first + done, Math.min(CHUNK_BLOCKS, count - done), zeros, 0);
  }
  device.flush();
}
