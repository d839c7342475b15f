/** Findings of a check or a scrub, for people. */
import type { Finding } from "../volume/check-report.ts";

/** What is wrong, and where. */
export function findingText({ kind, message, state, path }: Finding): string {
  const where = [state, path].filter((part) => part !== undefined).join(": ");
  return `${kind}: ${where === "" ? "" : `${where}: `}${message}`;
}
