/** What the exit code of every command means: scripts rely on it, and it is in every help text. */
import type { FailureClass } from "../core/errors.ts";

export type ExitName = "done" | FailureClass | "interrupted";

export const exitCodes: { readonly [N in ExitName]: { readonly code: number; readonly meaning: string } } = {
  done: { code: 0, meaning: "done" },
  failed: { code: 1, meaning: "failed" },
  usage: { code: 2, meaning: "usage error" },
  findings: { code: 3, meaning: "finished, with findings" },
  "no-volume": { code: 10, meaning: "no such volume" },
  "in-use": { code: 11, meaning: "in use" },
  corrupt: { code: 12, meaning: "corrupt" },
  mismatch: { code: 13, meaning: "stream or mirror does not match" },
  unreachable: { code: 14, meaning: "peer or daemon unreachable" },
  interrupted: { code: 130, meaning: "interrupted" },
};

/** The line of a help text for a command that can end so. Every command can be done, fail or be misused. */
export function exitCodeHelp(more: readonly ExitName[]): string {
  const names = (Object.keys(exitCodes) as ExitName[]).filter(
    (name) => name === "done" || name === "failed" || name === "usage" || more.includes(name),
  );
  return `Exit codes: ${names.map((name) => `${exitCodes[name].code} ${exitCodes[name].meaning}`).join("; ")}`;
}
