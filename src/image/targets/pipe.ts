/** Image streams through standard output and input. */
import type { Readable, Writable } from "node:stream";
import { UserError } from "../../core/errors.ts";
import type { ByteSink } from "./file.ts";

/** Refused on a terminal. Throws UserError "failed" when the reader has gone away. */
export function openPipeSink(output: Writable & { readonly isTTY?: boolean } = process.stdout): ByteSink {
  if (output.isTTY === true) {
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

  return {
    async write(bytes): Promise<void> {
      if (failure !== undefined) throw broken(failure);
      // Waiting for the callback is the backpressure, and lets the caller use its buffer again.
      await new Promise<void>((resolve, reject) => {
        output.write(bytes, (error) => {
          if (error === null || error === undefined) resolve();
          else reject(broken(error));
        });
      });
    },
    async finish(): Promise<void> {
      await new Promise<void>((resolve, reject) => {
        if (failure !== undefined) reject(broken(failure));
        else output.write("", (error) => (error === null || error === undefined ? resolve() : reject(broken(error))));
      });
    },
    async abandon(): Promise<void> {
      // What has gone out has gone out: it has no trailer, and no receiver takes it.
    },
  };
}

function broken(cause: Error): UserError {
  const { code } = cause as NodeJS.ErrnoException;
  const why = code === "EPIPE" ? "the reader of the pipe has gone away" : cause.message;
  return new UserError("failed", `cannot write the image stream: ${why}`, "", { cause });
}

/** The bytes that come in. Refused on a terminal. */
export async function* readPipe(
  input: Readable & { readonly isTTY?: boolean } = process.stdin,
): AsyncGenerator<Uint8Array> {
  if (input.isTTY === true) {
    throw new UserError(
      "usage",
      "an image stream does not come from a terminal",
      "redirect it: ... < FILE, or name files",
    );
  }
  for await (const chunk of input) yield chunk as Uint8Array;
}
