/**
 * Has the host write to the disk what has been written to a volume file, beside the work: else all of it would wait for the one
 * flush before the switch, while nothing else is to be done.
 *
 * A hint. Its descriptor is its own, because the host tells of a failed write once to each: that of the volume still hears of it.
 */
import { type FileHandle, open } from "node:fs/promises";

/** Bytes from one flush to the next: more would leave more for the last one, less would be more flushes of metadata. */
const EVERY_BYTES = 128 << 20;

export interface WriteBack {
  /** So many bytes more have been written. */
  wrote(bytes: number): void;
  /** Returns when nothing is under way any more. */
  end(): Promise<void>;
}

/** Of the file at `path`. Never fails. */
export function openWriteBack(path: string, flush = (file: FileHandle): Promise<void> => file.datasync()): WriteBack {
  let file: FileHandle | undefined;
  let waitingBytes = 0; // written since the last flush began
  let flushing: Promise<void> | undefined;

  async function flushOnce(): Promise<void> {
    try {
      file ??= await open(path, "r");
      await flush(file);
      flushing = undefined;
    } catch {
      // The flush of the volume tells, and there is none here any more.
    }
  }

  return {
    wrote(bytes): void {
      waitingBytes += bytes;
      if (waitingBytes < EVERY_BYTES || flushing !== undefined) return;
      waitingBytes = 0;
      flushing = flushOnce();
    },
    async end(): Promise<void> {
      await flushing;
      await file?.close();
    },
  };
}
