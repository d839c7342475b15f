// What a command reads before it does anything: that, and not its work, is the time which a short command takes.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { type TestContext, test } from "node:test";
import { run, tidemarkPath } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

/** Half as much again as there was when this was written; the volume has four times as much. */
const ASKING_BYTES_MAX = 80 * 1024;

interface LoadedFile {
  readonly name: string;
  readonly bytes: number;
}

/** The files that a command line has loaded when it ends. */
async function loadedBy(t: TestContext, args: readonly string[]): Promise<readonly LoadedFile[]> {
  const folder = temporaryDirectory(t);
  const probe = join(folder, "probe.cjs");
  writeFileSync(
    probe,
    `const { statSync } = require("node:fs");
    process.on("exit", () => {
      const files = Object.keys(require.cache).filter((name) => name !== __filename);
      process.stderr.write(JSON.stringify(files.map((name) => ({ name, bytes: statSync(name).size }))) + "\\n");
    });`,
  );
  const { stderr } = await run(process.execPath, ["--require", probe, tidemarkPath, ...args]);
  const lines = stderr.trimEnd().split("\n");
  const files = JSON.parse(lines.at(-1) ?? "") as readonly LoadedFile[];
  return files.map(({ name, bytes }) => ({ name: basename(name), bytes }));
}

function named(files: readonly LoadedFile[], name: string): boolean {
  return files.some((file) => file.name.startsWith(`${name}-`));
}

test("a command that asks a daemon loads neither the parser nor the volume", async (t) => {
  const files = await loadedBy(t, ["status"]);
  assert(named(files, "status"), "what was loaded is seen");
  assert(!named(files, "parser"));
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  assert(bytes <= ASKING_BYTES_MAX, `${bytes} bytes in ${files.map(({ name }) => name).join(" ")}`);
});

test("a plain line loads its own command and no other, nor the parser", async (t) => {
  const files = await loadedBy(t, ["image", "receive", join(temporaryDirectory(t), "copy.tm"), "/dev/null/none"]);
  assert(named(files, "image-receive"));
  for (const other of ["parser", "image-send", "mount", "run"]) assert(!named(files, other), other);
});

test("help is given by the parser, which knows all commands", async (t) => {
  const files = await loadedBy(t, ["--help"]);
  for (const one of ["parser", "image-send", "mount"]) assert(named(files, one), one);
});
