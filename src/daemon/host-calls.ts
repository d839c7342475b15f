/**
 * Calls of the host that Node does not have, by way of an FFI: with them the server thread goes on while the disk reads
 * (fuse/kernel/put-off.ts), or has it read what will be wanted. A host that lacks one of them reads when it must.
 */
import { closeSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { alignedMemory } from "../core/aligned-memory.ts";
import { BLOCK_BYTES } from "../core/block.ts";
import { TWO_32 } from "../core/numbers.ts";
import { NOWHERE, SCATTERED_BLOCKS_MAX } from "../device/block-device.ts";
import type { PageCache, Reading } from "../device/file-device.ts";

export interface HostCalls {
  /** Undefined where reads of the block file cannot tell what is in memory. */
  readonly pageCache: PageCache | undefined;
  /** Whether a read of the descriptor would return at once, or would within so many microseconds: less than a second. */
  readonly isReadable: (descriptor: number, withinUs: number) => boolean;
}

interface Native {
  readonly preadv2: (descriptor: number, parts: Uint32Array, partCount: number, at: number, flags: number) => number;
  readonly ppoll: (descriptors: Int32Array, count: number, timeout: Uint32Array, signals: null) => number;
  readonly fadvise: (descriptor: number, at: number, lengthBytes: number, advice: number) => number;
  readonly address: (memory: ArrayBufferLike) => bigint;
}

const RWF_NOWAIT = 8;
const IOVEC_WORDS = 4;
const POLLIN = 1;
const POSIX_FADV_WILLNEED = 3;
const POSIX_FADV_DONTNEED = 4;
const BALLOONS = "/sys/bus/virtio/drivers/virtio_balloon";
const BALLOON_REPORTING = 5; // VIRTIO_BALLOON_F_REPORTING

/** Undefined: no FFI, or no such calls in its C library. */
export async function hostCalls(path: string): Promise<HostCalls | undefined> {
  const native = await loadNative();
  if (native === undefined) return undefined;
  const { preadv2, ppoll, fadvise, address } = native;
  const parts = new Uint32Array(IOVEC_WORDS * SCATTERED_BLOCKS_MAX); // struct iovec: an address, and how many bytes
  const gap = alignedMemory(BLOCK_BYTES);
  const nowhere = { gap, at: Number(address(gap)) }; // together, for the memory must live as long as its address is used
  const asked = new Int32Array([0, POLLIN]); // struct pollfd
  const timeout = new Uint32Array(4); // struct timespec: seconds, and nanoseconds
  let memory: ArrayBufferLike | undefined; // used last: nearly all reads go into one buffer, that of replies
  let start = 0;

  const pageCache: PageCache = {
    readScattered(descriptor, position, places, count, into, offset, { waits }) {
      if (into.buffer !== memory) {
        memory = into.buffer;
        start = Number(address(memory));
      }
      let partCount = 0;
      for (let next = 0; next < count; partCount++) {
        const place = places[next] as number;
        const at = place === NOWHERE ? nowhere.at : start + into.byteOffset + offset + place * BLOCK_BYTES;
        let blocks = 1;
        if (place !== NOWHERE) while (next + blocks < count && places[next + blocks] === place + blocks) blocks += 1;
        parts[IOVEC_WORDS * partCount] = at % TWO_32;
        parts[IOVEC_WORDS * partCount + 1] = Math.floor(at / TWO_32);
        parts[IOVEC_WORDS * partCount + 2] = blocks * BLOCK_BYTES;
        next += blocks;
      }
      return preadv2(descriptor, parts, partCount, position, waits ? 0 : RWF_NOWAIT);
    },
    readAhead: (descriptor, lengthBytes, position) =>
      void fadvise(descriptor, position, lengthBytes, POSIX_FADV_WILLNEED),
    drop: (descriptor, lengthBytes, position) => void fadvise(descriptor, position, lengthBytes, POSIX_FADV_DONTNEED),
  };
  return {
    pageCache: canReadResident(path, pageCache) ? pageCache : undefined,
    isReadable(descriptor, withinUs) {
      asked[0] = descriptor;
      timeout[2] = withinUs * 1000;
      return ppoll(asked, 1, timeout, null) > 0;
    },
  };
}

/** For who sends a volume: the disk reads ahead, and where memory is dear what was sent does not stay in it. */
export async function hostReading(path: string): Promise<Reading> {
  return { pageCache: (await hostCalls(path))?.pageCache, dropsBehind: givesMemoryBack() };
}

async function loadNative(): Promise<Native | undefined> {
  try {
    const { default: koffi } = await import("koffi");
    if (koffi.sizeof("size_t") !== 8) return undefined;
    const library = koffi.load(null);
    const preadv2: unknown = library.func("preadv2", "intptr_t", ["int", "void *", "int", "int64_t", "int"]);
    const ppoll: unknown = library.func("ppoll", "int", ["void *", "unsigned long", "void *", "void *"]);
    const fadvise: unknown = library.func("posix_fadvise", "int", ["int", "int64_t", "int64_t", "int"]);
    return { preadv2, ppoll, fadvise, address: koffi.address } as Native;
  } catch {
    return undefined;
  }
}

/** What has just been read is in the page cache; a filesystem that cannot tell says so of that too. */
function canReadResident(path: string, { readScattered }: PageCache): boolean {
  const block = new Uint8Array(alignedMemory(BLOCK_BYTES));
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, "r");
    const got = readSync(descriptor, block, 0, BLOCK_BYTES, 0);
    return got > 0 && readScattered(descriptor, 0, Int32Array.of(0), 1, block, 0, { waits: false }) === got;
  } catch {
    return false; // whoever opens it in earnest will tell
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** Whether this is a virtual machine that gives free memory back to its host: virtio-balloon, free page reporting. */
export function givesMemoryBack(): boolean {
  try {
    return readdirSync(BALLOONS)
      .filter((name) => /^virtio\d+$/.test(name))
      .some((name) => readFileSync(join(BALLOONS, name, "features"), "latin1")[BALLOON_REPORTING] === "1");
  } catch {
    return false;
  }
}
