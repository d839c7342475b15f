/**
 * Has the host begin to write parts of a file to the disk: calls that Node does not have, by way of an FFI, in a thread of its pool,
 * which may wait for the disk. Who asks does not, and is told nothing: without an FFI the host begins when it likes.
 *
 * sync_file_range(2) begins, and does no more: it does not look at what has failed. One that waited for the end would, and who opens the
 * file later, as the log thread does for its first frame, would not hear of that any more at its flush.
 *
 * Where a virtual machine gives free memory back to its host, what is on the disk then is dropped, so that the same few pages are used
 * over and over (native-notes/performance.md). What a slow disk has not written by then stays. To drop what is clean looks at no error
 * either.
 */
import type { WriteBack } from "../image/targets/file.ts";
import { givesMemoryBack } from "./host-calls.ts";

/** Parts that wait for the one that is begun. More are left to the flush: the disk has enough to do. */
const WAITING_MAX = 16;
/** Parts, of 4 MiB, that the disk is given time for until they are dropped. */
const BEGUN_MAX = 8;
/** The host drops a folio whole or not at all: what lay across the border to the part before is dropped with the next one. */
const FOLIO_BYTES_MAX = 2 << 20;
const SYNC_FILE_RANGE_WRITE = 2;
const POSIX_FADV_DONTNEED = 4;

type Part = readonly [descriptor: number, position: number, lengthBytes: number];

/** Each resolves when the call has returned. */
export interface WriteBackCalls {
  readonly begin: (...part: Part) => Promise<void>;
  /** Undefined: memory is not that dear. */
  readonly drop: ((...part: Part) => Promise<void>) | undefined;
}

export function hostWriteBack(load: () => Promise<WriteBackCalls | undefined> = loadCalls): WriteBack {
  const waiting: Part[] = [];
  const begun: Part[] = [];
  let loading: Promise<WriteBackCalls | undefined> | undefined;
  let working: Promise<void> | undefined;

  async function work(): Promise<void> {
    loading ??= load();
    const calls = await loading;
    for (let part = waiting.shift(); part !== undefined; part = waiting.shift()) {
      await calls?.begin(...part);
      if (calls?.drop === undefined) continue;
      const old = begun.push(part) > BEGUN_MAX ? begun.shift() : undefined;
      if (old === undefined) continue;
      const [descriptor, position, lengthBytes] = old;
      const from = Math.max(0, position - FOLIO_BYTES_MAX);
      await calls.drop(descriptor, from, position + lengthBytes - from);
    }
    working = undefined;
  }

  return {
    begin(...part): void {
      if (waiting.length === WAITING_MAX) return;
      waiting.push(part);
      working ??= work();
    },
    async end(): Promise<void> {
      waiting.length = 0;
      await working;
    },
  };
}

async function loadCalls(): Promise<WriteBackCalls | undefined> {
  try {
    const { default: koffi } = await import("koffi");
    const library = koffi.load(null);
    const sync = library.func("sync_file_range", "int", ["int", "int64_t", "int64_t", "unsigned int"]);
    const advise = library.func("posix_fadvise", "int", ["int", "int64_t", "int64_t", "int"]);
    const inPool =
      (call: typeof sync, how: number) =>
      (...part: Part): Promise<void> =>
        new Promise((resolve) => {
          call.async(...part, how, () => resolve());
        });
    return {
      begin: inPool(sync, SYNC_FILE_RANGE_WRITE),
      drop: givesMemoryBack() ? inPool(advise, POSIX_FADV_DONTNEED) : undefined,
    };
  } catch {
    return undefined;
  }
}
