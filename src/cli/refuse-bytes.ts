/** Arguments that are no texts: Node has U+FFFD in place of their bytes, and it would be another file that is read, or made. */
import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";
import { UserError } from "../core/errors.ts";

/** Of all arguments of this process. UserError "usage". */
export function refuseBytes(args: readonly string[]): void {
  const wrong = args.find((arg) => arg.includes("\ufffd"));
  if (wrong === undefined || isUtf8(readFileSync("/proc/self/cmdline"))) return;
  throw new UserError(
    "usage",
    `not UTF-8: ${wrong}`,
    "a file of such a name can be given by a link to it, or be renamed",
  );
}
