/**
 * Making a consistency point durable, off the server thread: flush the block file, then write fsinfo to its two places,
 * each durable before the next. A crash before the first leaves the old state, after it the new one.
 */

import assert from "node:assert/strict";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { BLOCK_BYTES } from "../core/block.ts";
import { type FileIdentity, refuseOtherFile } from "../device/file-device.ts";
import type { FrozenCp } from "../volume/volume.ts";

export interface Committer {
  /** Resolves when the consistency point is committed. A rejection is the end of the volume. */
  commit(cp: FrozenCp): Promise<void>;
  close(): Promise<void>;
}

/** Opens the block file twice: to flush it, and to write single blocks durably. Throws UserError where it is another file. */
export async function openCommitter(blockFile: string, identity: FileIdentity): Promise<Committer> {
  const whole = await openSame(blockFile, constants.O_RDWR, identity);
  const durable = await openSame(blockFile, constants.O_RDWR | constants.O_DSYNC, identity);
  return {
    async commit({ fsinfo, fsinfoVbns }): Promise<void> {
      assert.equal(fsinfo.length, BLOCK_BYTES);
      await whole.datasync();
      for (const vbn of fsinfoVbns) await writeBlock(durable, fsinfo, vbn);
    },
    async close(): Promise<void> {
      await durable.close();
      await whole.close();
    },
  };
}

async function openSame(blockFile: string, flags: number, identity: FileIdentity): Promise<FileHandle> {
  const file = await open(blockFile, flags);
  try {
    refuseOtherFile(blockFile, await file.stat(), identity);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function writeBlock(file: FileHandle, block: Uint8Array, vbn: number): Promise<void> {
  for (let at = 0; at < BLOCK_BYTES; ) {
    const { bytesWritten } = await file.write(block, at, BLOCK_BYTES - at, vbn * BLOCK_BYTES + at);
    at += bytesWritten;
  }
}
