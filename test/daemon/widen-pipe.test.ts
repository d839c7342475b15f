// A pipe is made to hold a whole frame of an image stream.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { widenPipe } from "../../src/daemon/widen-pipe.ts";
import { temporaryDirectory } from "../support/temp.ts";

test("a pipe that was widened takes 1 MiB before anybody reads", async (t) => {
  const path = join(temporaryDirectory(t), "pipe");
  execFileSync("mkfifo", [path]);
  const descriptor = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  t.after(() => closeSync(descriptor));
  await widenPipe(descriptor);
  assert.equal(writeSync(descriptor, new Uint8Array(2 << 20)), 1 << 20);
});

test("what is not a pipe stays as it is", async (t) => {
  const descriptor = openSync(join(temporaryDirectory(t), "file"), "w");
  t.after(() => closeSync(descriptor));
  await widenPipe(descriptor);
});
