/** Image streams in files. A file appears under its name when it is whole and durable, never before. */
import { constants, fstatSync, type Stats } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { UserError } from "../../core/errors.ts";

/** Takes the bytes of a stream one after the other. */
export interface ByteSink {
  /** Resolves when `bytes` may be used again. */
  write(bytes: Uint8Array): Promise<void>;
  /** The stream is complete. */
  finish(): Promise<void>;
  /** It will not be. */
  abandon(): Promise<void>;
}

/** Length of one read of a stream: some frames. */
const READ_BYTES = 4 << 20;
/** So much is written until the disk is to begin with it. */
const PIECE_BYTES = 4 << 20;

/** Has the host write to the disk beside the work. A hint: the flush tells of what fails. */
export interface WriteBack {
  /** The disk may begin with a part of a file. */
  readonly begin: (descriptor: number, position: number, lengthBytes: number) => void;
  /** Resolves when the host is not being told of anything any more. */
  readonly end: () => Promise<void>;
}

export interface FileSinkOptions {
  /** Replace an existing file. Default: refuse. */
  readonly force?: boolean | undefined;
  /** Descriptor of the volume that the stream is read from: it is not replaced, nor written to. */
  readonly source?: number | undefined;
  /** Default: the host begins to write to the disk when it likes. */
  readonly writeBack?: WriteBack | undefined;
}

/** Writes `path`.part and renames it when it is durable. What is not a file (a disk, /dev/null) is written as it is. */
export async function openFileSink(
  path: string,
  { force = false, source, writeBack }: FileSinkOptions = {},
): Promise<ByteSink> {
  const found = await stat(path).catch(() => undefined);
  if (found !== undefined && source !== undefined) refuseSource(path, found, fstatSync(source));
  const direct = found !== undefined && !found.isFile();
  const isDisk = found?.isBlockDevice() === true;
  if (found?.isFile() === true && !force) {
    throw new UserError("failed", `${path} exists already`, "give another name, or --force to replace it");
  }
  if (isDisk && !force) {
    throw new UserError(
      "failed",
      `${path} is a disk, or part of one`,
      "give another name, or --force to write over it",
    );
  }
  if (found?.isDirectory() === true) throw new UserError("usage", `${path} is a directory`, "give the name of a file");
  const part = direct ? path : `${path}.part`;
  // What an earlier run has left goes, and no link or FIFO of that name is followed.
  if (!direct) await attempt(part, rm(part, { force: true }));
  const flags = constants.O_WRONLY | (direct ? 0 : constants.O_CREAT | constants.O_EXCL);
  const handle = await attempt(part, open(part, flags, 0o600));
  let isOpen = true;
  let [writtenBytes, begunBytes] = [0, 0];

  async function write(bytes: Uint8Array): Promise<void> {
    await writeAll((at) => handle.write(bytes, at, bytes.length - at), bytes.length);
    writtenBytes += bytes.length;
    if (direct || writtenBytes - begunBytes < PIECE_BYTES) return;
    writeBack?.begin(handle.fd, begunBytes, writtenBytes - begunBytes);
    begunBytes = writtenBytes;
  }

  async function close(): Promise<void> {
    if (isOpen) await handle.close();
    isOpen = false;
  }

  return {
    write: (bytes) => attempt(part, write(bytes)),
    async finish(): Promise<void> {
      if (!direct || isDisk) await attempt(part, handle.sync());
      if (!direct) {
        if (!(await isNamed(handle, part)))
          throw new UserError("in-use", `${part} was replaced by another run`, "try again");
        await attempt(path, rename(part, path));
        await syncDirectory(dirname(path));
      }
      await attempt(path, close());
    },
    async abandon(): Promise<void> {
      if (isOpen && !direct && (await isNamed(handle, part))) await rm(part, { force: true });
      await close();
    },
  };
}

function refuseSource(path: string, found: Stats, source: Stats): void {
  if (found.dev !== source.dev || found.ino !== source.ino) return;
  throw new UserError("usage", `${path} is the volume that is to be sent`, "give the name of another file");
}

/** `write` writes what is left from a place on, or a part of that. */
export async function writeAll(
  write: (at: number) => Promise<{ readonly bytesWritten: number }>,
  length: number,
): Promise<void> {
  for (let at = 0; at < length; ) at += (await write(at)).bytesWritten;
}

/** Another run to the same name takes the part away from this one. */
async function isNamed(handle: FileHandle, path: string): Promise<boolean> {
  const [ours, found] = [await handle.stat(), await stat(path).catch(() => undefined)];
  return found !== undefined && found.dev === ours.dev && found.ino === ours.ino;
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await attempt(path, open(path, constants.O_RDONLY));
  try {
    await attempt(path, handle.sync());
  } finally {
    await handle.close();
  }
}

/** What comes by a pipe comes once, and opening it again waits for somebody who writes. Throws UserError "usage". */
export async function refuseToReadTwice(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined); // opening it says why
  if (found === undefined || found.isFile() || found.isBlockDevice() || found.isDirectory()) return;
  const hint = "give the name of an image file, or the stream itself: ... | tidemark image receive VOLUME";
  throw new UserError("usage", `${path} is not a file: images that are named are read twice`, hint);
}

/** The bytes of a file from its start, in large pieces; each is valid until the next is asked for. */
export async function* readStreamFile(path: string): AsyncGenerator<Uint8Array> {
  const handle = await openToRead(path);
  try {
    yield* readPieces((into) => attempt(path, handle.read(into, 0, into.length, null)));
  } finally {
    await handle.close();
  }
}

/** What `read` reads until there is nothing more, each piece beside what is done with the one before it. */
export async function* readPieces(
  read: (into: Uint8Array) => Promise<{ readonly bytesRead: number }>,
): AsyncGenerator<Uint8Array> {
  const begin = (into: Uint8Array): ReturnType<typeof read> => {
    const reading = read(into);
    reading.catch(() => {}); // who waits for it hears of it
    return reading;
  };
  let [current, next] = [new Uint8Array(READ_BYTES), new Uint8Array(READ_BYTES)];
  for (let reading = begin(current); ; [current, next] = [next, current]) {
    const { bytesRead } = await reading;
    if (bytesRead === 0) return;
    reading = begin(next);
    yield current.subarray(0, bytesRead);
  }
}

/** A file of which parts are read. */
export interface PartReader {
  readonly sizeBytes: number;
  /** Fewer bytes only at the end of the file. */
  read(position: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export async function openPartReader(path: string): Promise<PartReader> {
  const handle = await openToRead(path, constants.O_NONBLOCK); // a FIFO is refused, not waited for
  const found = await handle.stat();
  if (!found.isFile()) {
    await handle.close();
    throw new UserError("usage", `${path} is not a file`, "parts of it cannot be read: give an image file");
  }
  const { size } = found;
  return {
    sizeBytes: size,
    async read(position, length): Promise<Uint8Array> {
      const into = new Uint8Array(Math.max(0, Math.min(length, size - position)));
      let filled = 0;
      while (filled < into.length) {
        const { bytesRead } = await attempt(path, handle.read(into, filled, into.length - filled, position + filled));
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return into.subarray(0, filled);
    },
    close: () => handle.close(),
  };
}

async function openToRead(path: string, more = 0): Promise<FileHandle> {
  const handle = await attempt(path, open(path, constants.O_RDONLY | more));
  if ((await handle.stat()).isDirectory()) {
    await handle.close();
    throw new UserError("usage", `${path} is a directory`, "give the name of an image file");
  }
  return handle;
}

async function attempt<T>(path: string, action: Promise<T>): Promise<T> {
  try {
    return await action;
  } catch (cause) {
    throw new UserError("failed", `image file ${path}: ${(cause as Error).message}`, "", { cause });
  }
}
