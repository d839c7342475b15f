/** What an answer to a hostile input may be: a result, or one of our errors. */
import { CorruptionError, FsError, UserError } from "../../src/core/errors.ts";

/** What it returns; undefined after an error of ours. Any other error is a fault. */
export function tolerate<T>(what: string, run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof FsError || error instanceof CorruptionError || error instanceof UserError) return undefined;
    throw new Error(`${what}: an error that is not ours`, { cause: error });
  }
}
