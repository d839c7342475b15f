// A daemon that is killed must go, whatever it is waiting for: with it go /dev/fuse and the lock of the volume.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { skipWithoutMounts, unmountAfter } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const program = fileURLToPath(new URL("knock-program.js", import.meta.url));

test("a server that is killed before it answers a knock is gone", { skip: skipWithoutMounts() }, async (t) => {
  const directory = join(temporaryDirectory(t), "mnt");
  mkdirSync(directory);
  unmountAfter(t, directory);
  const server = spawn(process.execPath, [program, directory], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(server, "exit");
  assert.equal(String((await once(server.stdout, "data"))[0]), "read\n");
  server.kill("SIGKILL");
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve("it is still there"), 10_000);
  });
  assert.notEqual(await Promise.race([exited, late]), "it is still there");
  clearTimeout(timer);
});
