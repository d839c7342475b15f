/**
 * The block device over a file or a host's block device, through the page cache.
 *
 * fsinfo goes through a second, O_DSYNC descriptor: one call makes one block durable without flushing
 * the other dirty pages of the file.
 */
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
  writevSync,
} from "node:fs";
import { BLOCK_BYTES } from "../core/block.ts";
import { type ErrnoName, FsError, UserError } from "../core/errors.ts";
import { type BlockDevice, type HowRead, WAITING } from "./block-device.ts";
import { dropBehind } from "./drop-behind.ts";

/** Buffers that one writev takes at most (IOV_MAX of Linux). */
const GATHER_MAX = 1024;

export interface FileDevice extends BlockDevice {
  readonly path: string;
  /** Its size can be changed. */
  readonly isFile: boolean;
  /** Descriptor of the file, for who wants to flush it in another thread. */
  readonly descriptor: number;
}

/** What can be asked of the host's page cache, of the file behind a descriptor. */
export interface PageCache {
  /**
   * Reads bytes from `position` on, a block to each of the first `count` places, as in BlockDevice.readScattered. Who does not
   * wait gets as many as lie in memory, up to the first that does not, and that and what follows is started to be read.
   * Returns how many; less than 1: none, or it cannot be done.
   */
  readonly readScattered: (
    descriptor: number,
    position: number,
    places: Int32Array,
    count: number,
    into: Uint8Array,
    offset: number,
    how: HowRead,
  ) => number;
  /** Starts to read what is missing. */
  readonly readAhead: (descriptor: number, lengthBytes: number, position: number) => void;
  /** It need not be kept. */
  readonly drop: (descriptor: number, lengthBytes: number, position: number) => void;
}

/** Which file it is, whatever its name. */
export interface FileIdentity {
  readonly dev: number;
  readonly ino: number;
}

export interface FileDeviceOptions {
  readonly writable: boolean;
  /** The file that it must be. Default: any. */
  readonly identity?: FileIdentity | undefined;
  /** How to read what needs no waiting, and to have it read. Default: not at all. */
  readonly pageCache?: PageCache | undefined;
  /** What was read in long runs does not stay in the page cache, if there is one. */
  readonly dropsBehind?: boolean | undefined;
  /** Every write returns when it is durable. Default: only those of writeDurable do. */
  readonly isDurable?: boolean;
}

/** How to read what is read once, in order. */
export type Reading = Pick<FileDeviceOptions, "pageCache" | "dropsBehind">;

/** Opens an existing file or block device. Throws UserError "no-volume" when there is none or it cannot be opened. */
export function openFileDevice(path: string, options: FileDeviceOptions): FileDevice {
  const { writable, isDurable = false, identity, pageCache, dropsBehind = false } = options;
  let descriptor: number | undefined;
  try {
    refuseOtherKinds(statSync(path)); // opening some of them waits, or does something
    const access = writable ? constants.O_RDWR : constants.O_RDONLY;
    const sync = isDurable ? constants.O_DSYNC : 0;
    descriptor = openSync(path, access | sync | constants.O_NONBLOCK | constants.O_NOCTTY);
    const stat = fstatSync(descriptor);
    refuseOtherKinds(stat); // it may have been replaced
    if (identity !== undefined) refuseOtherFile(path, stat, identity);
    const device = fileDevice(path, descriptor);
    return pageCache === undefined ? device : { ...device, ...throughPageCache(device, pageCache, dropsBehind) };
  } catch (cause) {
    if (descriptor !== undefined) closeSync(descriptor);
    throw cannotOpen(path, cause as Error);
  }
}

/** Makes a file of so many blocks, sparse. Throws UserError "failed" when there is something of that name. */
export function createFileDevice(path: string, blockCount: number): FileDevice {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    ftruncateSync(descriptor, blockCount * BLOCK_BYTES);
    return fileDevice(path, descriptor);
  } catch (cause) {
    if (descriptor !== undefined) {
      closeSync(descriptor);
      unlinkSync(path);
    }
    const isThere = (cause as NodeJS.ErrnoException).code === "EEXIST";
    const why = isThere ? "it was made meanwhile, or is a link to nothing" : (cause as Error).message;
    throw new UserError("failed", `cannot create ${path}: ${why}`, "", { cause });
  }
}

/** The same open file with another size, in place of the device given, which must not be used any more. */
export function resizeFileDevice({ path, descriptor }: FileDevice, blockCount: number): FileDevice {
  try {
    ftruncateSync(descriptor, blockCount * BLOCK_BYTES);
    return fileDevice(path, descriptor);
  } catch (cause) {
    throw new UserError("failed", `cannot change the size of ${path}: ${(cause as Error).message}`, "", { cause });
  }
}

/** Who has locked a file, and opens it again by its path, may find another one there. Throws UserError "failed". */
export function refuseOtherFile(path: string, { dev, ino }: FileIdentity, identity: FileIdentity): void {
  if (dev === identity.dev && ino === identity.ino) return;
  throw new UserError("failed", `${path} was replaced by another file while it was opened`, "try again");
}

function refuseOtherKinds(stat: Stats): void {
  if (stat.isFile() || stat.isBlockDevice()) return;
  const kind = kinds.find(({ is }) => is(stat))?.name ?? "thing of an unknown kind";
  throw new UserError("no-volume", `it is a ${kind}, not a file or a block device`);
}

const kinds = [
  { name: "directory", is: (stat: Stats) => stat.isDirectory() },
  { name: "FIFO", is: (stat: Stats) => stat.isFIFO() },
  { name: "socket", is: (stat: Stats) => stat.isSocket() },
  { name: "character device", is: (stat: Stats) => stat.isCharacterDevice() },
];

function cannotOpen(path: string, cause: Error): UserError {
  if (cause instanceof UserError && cause.failure === "failed") return cause;
  const { code } = cause as NodeJS.ErrnoException;
  const why = code === "ENOENT" ? "there is no such file" : cause.message;
  const hint = code === "ENOENT" ? `to make one: tidemark format ${path} --size 10G` : "";
  return new UserError("no-volume", `cannot open volume ${path}: ${why}`, hint, { cause });
}

function fileDevice(path: string, descriptor: number): FileDevice {
  const stat = fstatSync(descriptor);
  let durable = -1; // the O_DSYNC descriptor, opened when first used
  const blockCount = Math.floor(sizeBytes(descriptor, stat) / BLOCK_BYTES);

  function readAll(vbn: number, count: number, into: Uint8Array, offset: number): void {
    let position = vbn * BLOCK_BYTES;
    let at = offset;
    const end = offset + count * BLOCK_BYTES;
    while (at < end) {
      const got = attempt("read", () => readSync(descriptor, into, at, end - at, position));
      if (got === 0) {
        into.fill(0, at, end); // beyond the end of a file that is to grow
        return;
      }
      at += got;
      position += got;
    }
  }

  function writeAll(target: number, vbn: number, from: Uint8Array, offset: number, end: number): void {
    let position = vbn * BLOCK_BYTES;
    let at = offset;
    while (at < end) {
      const put = attempt("write", () => writeSync(target, from, at, end - at, position));
      at += put;
      position += put;
    }
  }

  function writeGather(vbn: number, buffers: readonly Uint8Array[]): void {
    let next = vbn;
    for (let first = 0; first < buffers.length; first += GATHER_MAX) {
      const some = buffers.length <= GATHER_MAX ? buffers : buffers.slice(first, first + GATHER_MAX);
      let bytes = 0;
      for (const buffer of some) bytes += buffer.length;
      const put = attempt("write", () => writevSync(descriptor, some, next * BLOCK_BYTES));
      if (put !== bytes) {
        // A short write: the rest block by block, so that the error of the host comes out.
        let at = next;
        for (const buffer of some) {
          writeAll(descriptor, at, buffer, 0, buffer.length);
          at += buffer.length / BLOCK_BYTES;
        }
      }
      next += bytes / BLOCK_BYTES;
    }
  }

  return {
    path,
    isFile: stat.isFile(),
    descriptor,
    blockCount,
    read: readAll,
    write: (vbn, count, from, offset) => writeAll(descriptor, vbn, from, offset, offset + count * BLOCK_BYTES),
    writeGather,
    flush: () => attempt("flush", () => fdatasyncSync(descriptor)),
    writeDurable(vbn, blocks): void {
      if (durable < 0) durable = attempt("open", () => openSync(path, constants.O_RDWR | constants.O_DSYNC));
      writeAll(durable, vbn, blocks, 0, blocks.length);
    },
    discard(): void {
      // Punching holes needs fallocate, which Node does not offer; the space stays allocated at the host.
    },
    close(): void {
      if (durable >= 0) closeSync(durable);
      durable = -1;
      closeSync(descriptor);
    },
  };

  function attempt<T>(what: string, call: () => T): T {
    try {
      return call();
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      const answer: ErrnoName = code === "ENOSPC" || code === "EDQUOT" ? "ENOSPC" : "EIO";
      throw new FsError(answer, `${what} of block file ${path} failed: ${(cause as Error).message}`, { cause });
    }
  }
}

function throughPageCache(
  device: FileDevice,
  pageCache: PageCache,
  dropsBehind: boolean,
): Required<Pick<BlockDevice, "read" | "readScattered" | "readAhead">> {
  const { descriptor } = device;
  const drop = (vbn: number, count: number): void => pageCache.drop(descriptor, count * BLOCK_BYTES, vbn * BLOCK_BYTES);
  const wasRead = dropsBehind ? dropBehind(drop) : () => {};
  return {
    read(vbn, count, into, offset): void {
      device.read(vbn, count, into, offset);
      wasRead(vbn, count);
    },
    /** Where it begins in memory, the rest is on its way and not far: to begin again would be to copy it twice. */
    readScattered(vbn, places, count, into, offset, how): boolean {
      let rest = places;
      let asked = how;
      for (let done = 0; done < count; ) {
        const position = (vbn + done) * BLOCK_BYTES;
        const bytes = pageCache.readScattered(descriptor, position, rest, count - done, into, offset, asked);
        const got = Math.max(0, Math.floor(bytes / BLOCK_BYTES));
        if (got === 0 && !asked.waits) return false;
        if (got === 0) throw new FsError("EIO", `block ${vbn + done} of ${device.path} cannot be read in one go`);
        done += got;
        if (done < count) rest = rest.subarray(got);
        asked = WAITING;
      }
      wasRead(vbn, count);
      return true;
    },
    readAhead: (vbn, count) => pageCache.readAhead(descriptor, count * BLOCK_BYTES, vbn * BLOCK_BYTES),
  };
}

/** A block device of the host has no size in stat: its end is found by bisection with reads. */
function sizeBytes(descriptor: number, stat: ReturnType<typeof fstatSync>): number {
  if (!stat.isBlockDevice()) return Number(stat.size);
  const one = new Uint8Array(1);
  let low = 0; // readable
  let high = 2 ** 44; // not
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    let got = 0;
    try {
      got = readSync(descriptor, one, 0, 1, middle);
    } catch {
      got = 0; // beyond the end
    }
    if (got > 0) low = middle;
    else high = middle;
  }
  return high;
}
