/**
 * One list of what a filesystem like ext4 does, case by case. A case is named by a sentence and runs in an empty folder
 * of its own. The list is run against a mount through each transport; a transport that cannot do something names the
 * case, and why, in its table of exceptions (`Exceptions`).
 *
 * As a program, `node conformance.js FOLDER` runs all of it in a folder of any filesystem and prints one line of JSON a
 * case: `{"name": ..., "error": ...}`. On ext4 there must be no error, or it is the case that is wrong.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ConformanceCases } from "./case-tools.ts";
import { attributeCases } from "./cases-attributes.ts";
import { dataCases } from "./cases-data.ts";
import { lockCases } from "./cases-locks.ts";
import { nameCases } from "./cases-names.ts";

export const conformanceCases: ConformanceCases = { ...nameCases, ...dataCases, ...attributeCases, ...lockCases };

/** Cases that a transport does not pass, by name, each with the reason. One that passes after all is a failure, too. */
export type Exceptions = Readonly<Record<string, string>>;

export interface CaseResult {
  readonly name: string;
  /** What went wrong; null: nothing. */
  readonly error: string | null;
}

/** Runs all cases, each in a new folder, which is removed afterwards. Synchronous: never in a process that serves the mount. */
export function runConformance(folder: string, report: (result: CaseResult) => void): void {
  let number = 0;
  for (const [name, run] of Object.entries(conformanceCases)) {
    const root = join(folder, `case-${++number}`);
    let error: string | null = null;
    try {
      mkdirSync(root);
      run(root);
    } catch (thrown) {
      error = thrown instanceof Error ? thrown.message : String(thrown);
    }
    execFileSync("rm", ["-rf", root]); // also where paths are longer than a system call takes
    report({ name, error });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  runConformance(process.argv[2] ?? ".", (result) => process.stdout.write(`${JSON.stringify(result)}\n`));
}
