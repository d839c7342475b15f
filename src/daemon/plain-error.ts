/** Errors cross threads and sockets as plain data: class, message and hint survive, a stack does not. */
import { CorruptionError, type ErrnoName, errnoOf, FsError, UserError } from "../core/errors.ts";
import type { ControlError } from "../format/control-message.ts";

/** What a person gets to read of any error. */
export function plainError(error: unknown): ControlError {
  if (error instanceof UserError) return { failure: error.failure, message: error.message, hint: error.hint };
  if (error instanceof CorruptionError) {
    return {
      failure: "corrupt",
      message: error.message,
      hint: "tidemark check VOLUME tells the extent of the damage",
    };
  }
  return { failure: "failed", message: error instanceof Error ? error.message : String(error), hint: "" };
}

/** The same for a program: what a system call answers. */
export function errnoFor(error: unknown): number {
  const cause = error instanceof UserError ? error.cause : error;
  return cause instanceof FsError || cause instanceof CorruptionError ? cause.errno : errnoOf("EIO");
}

export function userError({ failure, message, hint }: ControlError): UserError {
  return new UserError(failure, message, hint);
}

/** What a verb on a snapshot says when the volume refuses it. */
export function snapshotError(error: unknown, name: string): unknown {
  if (!(error instanceof FsError)) return error;
  const code: ErrnoName = error.code;
  const options = { cause: error };
  if (code === "EEXIST") {
    return new UserError("failed", `snapshot ${name} exists already`, "choose another name, or delete it", options);
  }
  if (code === "ENOENT") {
    return new UserError("failed", `there is no snapshot ${name}`, "see: tidemark snapshot list VOLUME", options);
  }
  if (code === "EINVAL") {
    return new UserError(
      "usage",
      `not a name for a snapshot: ${JSON.stringify(name)}`,
      "1 to 255 bytes of UTF-8, no slash, no control character, not U+FFFD, which stands for what is no UTF-8, not . or ..",
      options,
    );
  }
  return error;
}
