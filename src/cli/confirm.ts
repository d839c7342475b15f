/** Asks before something is destroyed, where there is someone to ask. A script is taken at its word. */
import { createInterface } from "node:readline/promises";
import { UserError } from "../core/errors.ts";
import { escaped } from "../core/escaped.ts";

export async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await lines.question(`${escaped(question)} [y/N] `);
    if (!/^y(es)?$/i.test(answer.trim())) throw new UserError("failed", "nothing was changed", "--force does not ask");
  } finally {
    lines.close();
  }
}
