/** Folders of tests, removed afterwards whatever happened. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";

/** A new empty folder, removed with all in it when the test has ended. */
export function temporaryDirectory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "tidemark-test-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
