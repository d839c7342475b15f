/**
 * The three ways in which an operation ends badly, and who hears of each.
 *
 * - FsError: an answer. The caller of a system call sees it as -errno.
 * - CorruptionError: the disk, a stream or a message holds what we never wrote. An application sees
 *   EIO, an administrator the place and what was found.
 * - UserError: what a command was asked for cannot be done; it names the next step.
 *
 * A failed assertion is none of these: it is a bug, and ends the process.
 */
import { constants } from "node:os";

export type ErrnoName = keyof typeof constants.errno | "ENOATTR" | "ESTALE";

/** Numbers that node:os leaves out on Linux. ENOATTR is what Linux calls ENODATA. */
const more: Readonly<Record<string, number>> = { ENOATTR: 61, ESTALE: 116 };

export function errnoOf(code: ErrnoName): number {
  const known: Readonly<Record<string, number>> = constants.errno;
  return more[code] ?? known[code] ?? constants.errno.EIO;
}

/** Where an error lies on the device, if it is one block that is to blame. */
export interface BlockErrorOptions extends ErrorOptions {
  readonly vbn?: number;
}

/** An expected failure that the caller of a syscall sees as -errno. */
export class FsError extends Error {
  override readonly name: string = "FsError";
  readonly code: ErrnoName; // keyof typeof os.constants.errno
  readonly errno: number;
  /** The block that the device cannot read. */
  readonly vbn: number | undefined;
  constructor(code: ErrnoName, what: string, options?: BlockErrorOptions) {
    super(`${code}: ${what}`, options);
    this.code = code;
    this.errno = errnoOf(code);
    this.vbn = options?.vbn;
  }
}

/** Bytes that fail their check: which structure, where, what was found and what was expected. */
export class CorruptionError extends Error {
  override readonly name: string = "CorruptionError";
  readonly errno: number = constants.errno.EIO;
  /** The block whose checksum is not what its parent expects. */
  readonly vbn: number | undefined;
  constructor(what: string, options?: BlockErrorOptions) {
    super(what, options);
    this.vbn = options?.vbn;
  }
}

/** Why a command failed, in the classes that scripts tell apart; the exit code follows from it. */
export type FailureClass =
  | "failed" // 1
  | "usage" // 2
  | "findings" // 3
  | "no-volume" // 10
  | "in-use" // 11
  | "corrupt" // 12
  | "mismatch" // 13
  | "unreachable"; // 14

/** A refusal that a person reads: what was tried and found, and in `hint` what to do next. */
export class UserError extends Error {
  override readonly name: string = "UserError";
  readonly failure: FailureClass;
  readonly hint: string;
  constructor(failure: FailureClass, message: string, hint = "", options?: ErrorOptions) {
    super(message, options);
    this.failure = failure;
    this.hint = hint;
  }
}
