/** Folders of tests, removed afterwards whatever happened. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";

/**
 * A new empty folder, removed with all in it when the test has ended. What is still mounted below it then is unmounted
 * first: nothing is ever removed through a mount.
 */
export function temporaryDirectory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "tidemark-test-"));
  t.after(() => {
    for (const point of mountPointsBelow(path)) execFileSync("umount", ["--lazy", point]);
    rmSync(path, { recursive: true, force: true });
  });
  return path;
}

/** By the kernel's own list, the innermost first. */
function mountPointsBelow(path: string): readonly string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((point) => point.startsWith(`${path}/`))
    .toReversed();
}
