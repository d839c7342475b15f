/**
 * Image streams through standard output and input, and through FIFOs that have names.
 *
 * A pipe or a socket is never opened, read or written by another thread: one that waits for the other end would keep the
 * process from ending. Who waits here is told when the work is interrupted. What lets both ends work at once is how much a pipe holds, so a sender of much widens it. A file to which the
 * shell has redirected is read and written beside the work, like one that is named.
 */
import { constants, fstatSync, openSync, read, write } from "node:fs";
import { stat } from "node:fs/promises";
import { Socket } from "node:net";
import type { Writable } from "node:stream";
import { isatty } from "node:tty";
import { promisify } from "node:util";
import { UserError } from "../../core/errors.ts";
import { type ByteSink, readPieces, readStreamFile, writeAll } from "./file.ts";

/** Bytes that are taken at once out of a pipe that has so many. */
const READ_BYTES = 1 << 20;

/** Time between looks for who reads a FIFO: opening it says only that nobody does. */
const LOOK_MS = 50;

/** Refused on a terminal. Throws UserError "failed" when the reader has gone away, and what the signal is aborted with. */
export function openPipeSink(
  output: Writable & { readonly isTTY?: boolean; readonly fd?: number } = process.stdout,
  signal?: AbortSignal,
): ByteSink {
  const { isTTY, fd } = output;
  if (isTTY === true) {
    throw new UserError(
      "usage",
      "an image stream is not for a terminal",
      "redirect it: ... > FILE, or give --output FILE",
    );
  }
  let failure: Error | undefined;
  const remember = (error: Error): void => {
    failure = error;
  };
  output.on("error", remember); // else a reader that goes away ends the process
  const writeFile = fd === undefined || isPipe(fd) ? undefined : fileWriter(fd);

  return {
    async write(bytes): Promise<void> {
      try {
        if (failure !== undefined) throw failure;
        await (writeFile ?? writeStream)(bytes);
      } catch (error) {
        signal?.throwIfAborted();
        throw broken(error as Error);
      }
    },
    async finish(): Promise<void> {
      if (failure !== undefined) throw broken(failure);
    },
    async abandon(): Promise<void> {
      // What has gone out has gone out: it has no trailer, and no receiver takes it.
    },
  };

  /** Waiting for the callback is the backpressure, and lets the caller use its buffer again. */
  async function writeStream(bytes: Uint8Array): Promise<void> {
    await waitFor<void>(signal, (done, fail) => {
      output.write(bytes, (error) => {
        if (error === null || error === undefined) done();
        else fail(error);
      });
    });
  }
}

/** Into a FIFO that has a name, as soon as somebody reads it; undefined when it is none. */
export async function openFifoSink(path: string, signal?: AbortSignal): Promise<ByteSink | undefined> {
  if (!(await isFifo(path))) return undefined;
  const output = new Socket({ fd: await openToWrite(path, signal), readable: false, writable: true });
  const sink = openPipeSink(output, signal);
  return {
    ...sink,
    async finish(): Promise<void> {
      await sink.finish();
      output.destroy();
    },
    async abandon(): Promise<void> {
      output.destroy();
    },
  };
}

async function openToWrite(path: string, signal: AbortSignal | undefined): Promise<number> {
  for (;;) {
    try {
      return openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ENXIO") throw cannotOpen(path, cause as Error);
    }
    await waitFor<void>(signal, (done) => void setTimeout(done, LOOK_MS));
  }
}

function openToRead(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw cannotOpen(path, cause as Error);
  }
}

function cannotOpen(path: string, cause: Error): UserError {
  return new UserError("failed", `image file ${path}: ${cause.message}`, "", { cause });
}

async function isFifo(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFIFO() === true;
}

/** Waits for what `begin` begins, until the signal is aborted: then it throws the reason. */
async function waitFor<T>(
  signal: AbortSignal | undefined,
  begin: (done: (value: T) => void, fail: (error: Error) => void) => void,
): Promise<T> {
  signal?.throwIfAborted();
  let abort: (() => void) | undefined;
  try {
    return await new Promise<T>((done, fail) => {
      abort = () => fail(signal?.reason as Error);
      signal?.addEventListener("abort", abort, { once: true });
      begin(done, fail);
    });
  } finally {
    if (abort !== undefined) signal?.removeEventListener("abort", abort);
  }
}

function fileWriter(descriptor: number): (bytes: Uint8Array) => Promise<void> {
  const writeSome = promisify(write);
  return (bytes) => writeAll((at) => writeSome(descriptor, bytes, at, bytes.length - at, null), bytes.length);
}

function broken(cause: Error): UserError {
  const { code } = cause as NodeJS.ErrnoException;
  const why = code === "EPIPE" ? "the reader of the pipe has gone away" : cause.message;
  return new UserError("failed", `cannot write the image stream: ${why}`, "", { cause });
}

/** The bytes that come in; each piece is valid until the next is asked for. Refused on a terminal. */
export function readPipe(
  { fd, isTTY } = { fd: 0, isTTY: isatty(0) },
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  if (isTTY) {
    throw new UserError(
      "usage",
      "an image stream does not come from a terminal",
      "redirect it: ... < FILE, or name files",
    );
  }
  if (isPipe(fd)) return readSocket(fd, signal);
  const readSome = promisify(read);
  return readPieces((into) => readSome(fd, into, 0, into.length, null));
}

/** The same of what has a name: a file, or a FIFO into which somebody writes sooner or later. */
export async function* readNamed(path: string, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  if (await isFifo(path)) yield* readSocket(openToRead(path), signal);
  else yield* readStreamFile(path);
}

/** Into one buffer: a stream of Node's makes one for every 64 KiB. */
async function* readSocket(fd: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(READ_BYTES);
  let waiting: { readonly take: (bytes: number) => void; readonly fail: (error: Error) => void } | undefined;
  const onread = {
    buffer,
    callback(bytes: number): boolean {
      waiting?.take(bytes);
      return false; // nothing more comes until it is asked for
    },
  };
  const options = { fd, readable: true, writable: false, onread };
  const socket = new Socket(options);
  socket.on("end", () => waiting?.take(0));
  socket.on("error", (error) => waiting?.fail(error));
  try {
    for (;;) {
      const bytes = await waitFor<number>(signal, (take, fail) => {
        waiting = { take, fail };
        socket.resume();
      });
      if (bytes === 0) return;
      yield buffer.subarray(0, bytes);
    }
  } finally {
    socket.destroy();
  }
}

function isPipe(descriptor: number): boolean {
  const found = fstatSync(descriptor);
  return found.isFIFO() || found.isSocket();
}
