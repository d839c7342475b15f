/**
 * The key that both ends of a mirror share: 32 random bytes, as 64 hexadecimal digits in a file that only its owner
 * can read. Whoever has it may read the whole volume and replace the mirror: it is treated like a private key of ssh.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from "node:fs";
import { UserError } from "../core/errors.ts";

export const KEY_BYTES = 32;
/** More than a key file ever has: 64 digits, a newline, and what an editor may add. */
const FILE_BYTES_MAX = 1024;

/** Writes a new key. Throws UserError "failed" when the file exists, unless `force`, which replaces a key and nothing else. */
export function createKey(path: string, { force }: { readonly force: boolean }): void {
  let descriptor: number;
  try {
    descriptor = openFile(path, constants.O_RDWR | constants.O_CREAT | (force ? 0 : constants.O_EXCL));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST") {
      throw new UserError(
        "failed",
        `key file ${path} exists already`,
        "to replace it (both ends then need the new one): --force",
        { cause },
      );
    }
    throw new UserError("failed", `cannot write key file ${path}: ${message}`, "", { cause });
  }
  try {
    const { text } = readStart(descriptor);
    if (text !== "" && keyIn(text) === undefined) {
      throw new UserError("failed", `${path} is not a key file, and is not replaced`, "name another file");
    }
    ftruncateSync(descriptor);
    fchmodSync(descriptor, 0o600); // the file may have been there with other permissions
    writeSync(descriptor, `${randomBytes(KEY_BYTES).toString("hex")}\n`, 0);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Reads a key: 32 bytes. Throws UserError when there is none, when others can read it, or when it is no key. */
export function readKey(path: string): Uint8Array {
  const { mode, text } = readFile(path);
  if ((mode & 0o077) !== 0) {
    throw new UserError(
      "failed",
      `key file ${path} can be read by others (mode ${(mode & 0o777).toString(8).padStart(4, "0")})`,
      `chmod 600 ${path}`,
    );
  }
  const key = keyIn(text);
  if (key === undefined) {
    throw new UserError(
      "failed",
      `${path} is not a key file: ${KEY_BYTES * 2} hexadecimal digits expected`,
      "tidemark mirror key FILE makes one, to be copied to the other host",
    );
  }
  return key;
}

function keyIn(text: string): Uint8Array | undefined {
  const digits = text.trim();
  return /^[0-9a-f]{64}$/i.test(digits) ? new Uint8Array(Buffer.from(digits, "hex")) : undefined;
}

interface Start {
  readonly mode: number;
  /** More of it than a key has. */
  readonly text: string;
}

function readStart(descriptor: number): Start {
  const buffer = Buffer.alloc(FILE_BYTES_MAX);
  const bytes = readSync(descriptor, buffer, 0, buffer.length, 0);
  return { mode: fstatSync(descriptor).mode, text: buffer.toString("latin1", 0, bytes) };
}

function readFile(path: string): Start {
  let descriptor: number | undefined;
  try {
    descriptor = openFile(path, constants.O_RDONLY);
    return readStart(descriptor);
  } catch (cause) {
    throw new UserError(
      "failed",
      `cannot read key file ${path}: ${(cause as Error).message}`,
      "tidemark mirror key FILE makes one, to be copied to the other host",
      { cause },
    );
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** A file and nothing else: a FIFO would be waited for, and the mode of a device is everybody's. */
function openFile(path: string, flags: number): number {
  const descriptor = openSync(path, flags | constants.O_NONBLOCK, 0o600);
  if (fstatSync(descriptor).isFile()) return descriptor;
  closeSync(descriptor);
  throw new Error("it is not a file");
}
