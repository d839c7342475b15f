// A mirror is read while it is updated: open files, walks, checksums and git see one state each, never two mixed.
// UPDATES=1000 for a long run.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  lineOf,
  mountVolume,
  run,
  shell,
  skipWithoutMounts,
  startTidemark,
  tidemarkOk,
  unmountVolume,
} from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";
import type { Seen } from "./ordered-set.ts";

const UPDATES = Number(process.env["UPDATES"] ?? 40);
const PORT = 7461;
const orderedSet = fileURLToPath(new URL("ordered-set.js", import.meta.url));

test(`${UPDATES} updates of a mirror while it is read leave no reader with mixed data`, {
  skip: skipWithoutMounts(),
}, async (t) => {
  const at = temporaryDirectory(t);
  const [source, mirror, key] = [join(at, "source.tide"), join(at, "mirror.tide"), join(at, "key")];
  const [live, copy] = [join(at, "live"), join(at, "copy")];
  await shell(`mkdir ${live} ${copy}`);
  await tidemarkOk(["format", source, "--size", "1G"]);
  await mountVolume(t, source, live);
  await shell(`
    cp -a ${fileURLToPath(new URL("../../src", import.meta.url))} ${live}/tree
    git init -q ${live}/repo && cp -r ${live}/tree ${live}/repo/tree && cd ${live}/repo
    git add -A && git -c user.name=t -c user.email=t@localhost commit -qm all`);
  const writer = start(t, "write", join(live, "set"));
  await lineOf(writer.stdout as NodeJS.ReadableStream, /ready/);
  await tidemarkOk(["mirror", "key", key]);
  const serve = startTidemark(t, ["mirror", "serve", mirror, "--listen", `127.0.0.1:${PORT}`, "--key", key]);
  const sidecar = startTidemark(t, [
    "mirror",
    "run",
    source,
    "--to",
    `127.0.0.1:${PORT}`,
    "--key",
    key,
    "--interval",
    "50ms",
  ]);
  for (const { stdout, stderr } of [serve, sidecar]) {
    stdout?.resume(); // a line for each update: in a full pipe they would keep the process from ending
    stderr?.resume();
  }
  await updatesReach(source, 1);
  await mountVolume(t, mirror, copy, ["--read-only"]);

  const reader = start(t, "read", join(copy, "set"));
  const sums = new Set<string>();
  let goesOn = true;
  const walks = [
    repeat(
      () => goesOn,
      async () => assertOnlyStale(await run("find", [copy, "-ls"])),
    ),
    repeat(
      () => goesOn,
      async () =>
        assertOnlyStale(
          await run("sh", ["-c", "for i in 1 2 3 4 5; do /bin/pwd && ls; sleep 0.1; done"], {
            cwd: join(copy, "repo"),
          }),
        ),
    ),
    repeat(
      () => goesOn,
      async () => {
        const { stdout, ...rest } = await run("sh", ["-c", `cd ${copy}/tree && find . -type f | sort | xargs md5sum`]);
        assertOnlyStale(rest);
        if (rest.code === 0) sums.add(stdout);
      },
    ),
    repeat(
      () => goesOn,
      async () =>
        assertOnlyStale(await run("git", ["-C", join(copy, "repo"), "-c", "safe.directory=*", "fsck", "--full"])),
    ),
  ];
  await updatesReach(source, UPDATES);
  goesOn = false;
  const rounds = await Promise.all(walks);
  const seen = await endOf(reader);
  assert.deepEqual(seen.faults, []);
  assert(seen.rounds > UPDATES, `${seen.rounds} rounds of reading`);
  assert(seen.last > 1, "the reader saw the mirror move");
  assert.equal(sums.size, 1, "files that nobody changes have one checksum");
  for (const count of rounds) assert(count > 0);

  writer.kill("SIGKILL");
  await once(writer, "exit");
  await shell(
    `for i in $(seq 100); do diff -r ${live} ${copy} >/dev/null && exit; sleep 0.1; done; diff -r ${live} ${copy}`,
  );
  for (const process of [sidecar, serve]) {
    process.kill("SIGTERM");
    await once(process, "exit");
  }
  await unmountVolume(copy);
  await unmountVolume(live);
  await tidemarkOk(["check", source]);
  await tidemarkOk(["check", mirror]);
});

function start(t: TestContext, what: "write" | "read", folder: string): ChildProcess {
  const child = spawn(process.execPath, [orderedSet, what, folder], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  return child;
}

async function endOf(reader: ChildProcess): Promise<Seen> {
  let printed = "";
  reader.stdout?.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  reader.stdin?.end();
  await once(reader, "close");
  return JSON.parse(printed) as Seen;
}

/** Repeats as long as it is to; returns how often it did. */
async function repeat(goesOn: () => boolean, action: () => Promise<void>): Promise<number> {
  let count = 0;
  for (; goesOn(); count += 1) await action();
  return count;
}

/** A state may end under a reader's feet: that is the one error it may see. */
function assertOnlyStale({ code, stderr }: { readonly code: number; readonly stderr: string }): void {
  if (code === 0) return;
  const lines = stderr.split("\n").filter((line) => line !== "" && !line.includes("Stale file handle"));
  assert.deepEqual(lines, [], `ended with ${code}`);
}

interface Mirrors {
  readonly mirrors: readonly { readonly counts?: { readonly updates: number } }[];
}

async function updatesReach(source: string, count: number): Promise<void> {
  for (let tries = 0; tries < 20 * count + 600; tries += 1) {
    const { stdout } = await run(process.execPath, [
      fileURLToPath(new URL("../../command/main.js", import.meta.url)),
      "mirror",
      "status",
      source,
      "--json",
    ]);
    const known = stdout === "" ? undefined : (JSON.parse(stdout) as Mirrors).mirrors[0]?.counts?.updates;
    if ((known ?? 0) >= count) return;
    await delay(100);
  }
  assert.fail(`the mirror did not reach ${count} updates`);
}
