// A pipe is made to hold a whole frame of an image stream.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { widenPipe } from "../../src/daemon/widen-pipe.ts";
import { createFileDevice } from "../../src/device/file-device.ts";
import { makeBench, putFile, writeAt } from "../support/fs-paths.ts";
import { runOk, tidemarkPath } from "../support/mounts.ts";
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

/** Runs a command whose output is a pipe that somebody empties, and tells how much the pipe holds when it has ended. */
const PIPE_AFTER = `
import fcntl, os, subprocess, sys, threading
out, into = os.pipe()
def empty():
    while os.read(out, 1 << 20): pass
threading.Thread(target=empty, daemon=True).start()
subprocess.run(sys.argv[1:], stdout=into, check=True)
print(fcntl.fcntl(into, 1032)) # F_GETPIPE_SZ
`;

test("who sends a large image into a pipe widens it, and who sends a small one leaves it", async (t) => {
  const path = join(temporaryDirectory(t), "v.tm");
  const device = createFileDevice(path, 32_768);
  const { volume, fs } = makeBench(32_768, device);
  volume.createSnapshot("small");
  volume.takeCp("snapshot");
  putFile(fs, "/f");
  for (let i = 0; i < 68; i++) writeAt(fs, "/f", i << 20, new Uint8Array(256 * BLOCK_BYTES));
  volume.createSnapshot("large");
  volume.takeCp("snapshot");
  device.close();
  const after = async (snapshot: string): Promise<number> =>
    Number(await runOk("python3", ["-c", PIPE_AFTER, process.execPath, tidemarkPath, "image", "send", path, snapshot]));
  assert.deepEqual([await after("small"), await after("large")], [64 << 10, 1 << 20]);
});
