/**
 * Notices that another process has committed a consistency point: the block file changes, and its fsinfo has a higher
 * count. Changes are seen through inotify, and by a look every second where that says nothing.
 */
import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { watch } from "chokidar";
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError } from "../core/errors.ts";
import { decodeFsinfo } from "../format/fsinfo.ts";

const POLL_MS = 1000;
/** Pause after a look: a transfer changes the file thousands of times a second. */
const PAUSE_MS = 5;

export interface FollowWatch {
  close(): Promise<void>;
}

/** Calls `onNewer` with each higher count that is seen; in a burst, with the last. */
export async function watchForCps(
  blockFile: string,
  startCp: number,
  onNewer: (cpCount: number) => void,
): Promise<FollowWatch> {
  const file = await open(blockFile, "r");
  let seen = startCp;
  let looking = false;
  let again = false;

  async function look(): Promise<void> {
    if (looking) {
      again = true;
      return;
    }
    looking = true;
    do {
      again = false;
      const cpCount = await readCpCount(file);
      if (cpCount !== undefined && cpCount > seen) {
        seen = cpCount;
        onNewer(cpCount);
      }
      await delay(PAUSE_MS, undefined, { ref: false });
    } while (again);
    looking = false;
  }

  const watcher = watch(blockFile, { ignoreInitial: true });
  // Not "change", which leaves out what follows within a few milliseconds: fsinfo is written last.
  watcher.on("raw", () => void look());
  watcher.on("error", () => {}); // the poll goes on
  const timer = setInterval(() => void look(), POLL_MS);
  return {
    async close(): Promise<void> {
      clearInterval(timer);
      await watcher.close();
      await file.close();
    },
  };
}

/** Count of the first copy, which is written first; undefined while it cannot be read or does not verify. */
async function readCpCount(file: FileHandle): Promise<number | undefined> {
  const block = new Uint8Array(BLOCK_BYTES);
  try {
    const { bytesRead } = await file.read(block, 0, BLOCK_BYTES, 0);
    return bytesRead === BLOCK_BYTES ? decodeFsinfo(block).cpCount : undefined;
  } catch (error) {
    if (error instanceof CorruptionError || (error as NodeJS.ErrnoException).code !== undefined) return undefined;
    throw error;
  }
}
