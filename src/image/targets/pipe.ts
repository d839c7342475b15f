/**
 * Image streams through standard output and input.
 *
 * A pipe or a socket is never read or written by another thread: one that waits for the other end would keep the process
 * from ending. What lets both ends work at once is how much a pipe holds, so a sender of much widens it. A file to which the
 * shell has redirected is read and written beside the work, like one that is named.
 */
import { fstatSync, read, write } from "node:fs";
import { Socket } from "node:net";
import type { Writable } from "node:stream";
import { isatty } from "node:tty";
import { promisify } from "node:util";
import { UserError } from "../../core/errors.ts";
import { type ByteSink, readPieces, writeAll } from "./file.ts";

/** Bytes that are taken at once out of a pipe that has so many. */
const READ_BYTES = 1 << 20;

/** Refused on a terminal. Throws UserError "failed" when the reader has gone away. */
export function openPipeSink(
  output: Writable & { readonly isTTY?: boolean; readonly fd?: number } = process.stdout,
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
    await new Promise<void>((resolve, reject) => {
      output.write(bytes, (error) => {
        if (error === null || error === undefined) resolve();
        else reject(error);
      });
    });
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
export function readPipe({ fd, isTTY } = { fd: 0, isTTY: isatty(0) }): AsyncGenerator<Uint8Array> {
  if (isTTY) {
    throw new UserError(
      "usage",
      "an image stream does not come from a terminal",
      "redirect it: ... < FILE, or name files",
    );
  }
  if (isPipe(fd)) return readSocket(fd);
  const readSome = promisify(read);
  return readPieces((into) => readSome(fd, into, 0, into.length, null));
}

/** Into one buffer: a stream of Node's makes one for every 64 KiB. */
async function* readSocket(fd: number): AsyncGenerator<Uint8Array> {
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
      const bytes = await new Promise<number>((take, fail) => {
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
  const stat = fstatSync(descriptor);
  return stat.isFIFO() || stat.isSocket();
}
