// What may hold a volume: files and block devices, and nothing that waits when it is opened or is somebody else's.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { createFileDevice, openFileDevice, resizeFileDevice } from "../../src/device/file-device.ts";
import { lockVolume } from "../../src/device/volume-lock.ts";
import { mountImpossible } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

function failure(call: () => unknown): UserError {
  try {
    call();
  } catch (error) {
    assert(error instanceof UserError, String(error));
    return error;
  }
  return assert.fail("it was accepted");
}

async function otherKinds(t: TestContext): Promise<readonly (readonly [string, string])[]> {
  const folder = temporaryDirectory(t);
  const [directory, fifo, socket] = [join(folder, "d"), join(folder, "p"), join(folder, "s")];
  mkdirSync(directory);
  execFileSync("mkfifo", [fifo]);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.after(() => server.close());
  return [
    [directory, "directory"],
    [fifo, "FIFO"],
    [socket, "socket"],
    ["/dev/null", "character device"],
  ];
}

test("what is no file and no block device is refused by its kind, and not waited for", async (t) => {
  for (const [path, kind] of await otherKinds(t)) {
    for (const writable of [true, false]) {
      const { failure: found, message } = failure(() => openFileDevice(path, { writable }));
      assert.equal(found, "no-volume");
      assert.match(message, new RegExp(`${path}: it is a ${kind}`));
    }
  }
});

test("a file is made where there is none, and nothing is written through a link", (t) => {
  const folder = temporaryDirectory(t);
  const [path, link, target] = [join(folder, "v"), join(folder, "link"), join(folder, "target")];
  createFileDevice(path, 10).close();
  assert.equal(statSync(path).size, 40_960);
  writeFileSync(path, "kept");
  assert.match(failure(() => createFileDevice(path, 20)).message, /made meanwhile/);
  assert.equal(readFileSync(path, "utf8"), "kept");
  symlinkSync(target, link);
  assert.match(failure(() => createFileDevice(link, 20)).message, /link to nothing/);
  assert(!existsSync(target));
});

test("a file that is resized keeps its lock", (t) => {
  const path = join(temporaryDirectory(t), "v");
  const device = createFileDevice(path, 10);
  lockVolume(device);
  const resized = resizeFileDevice(device, 30);
  t.after(() => resized.close());
  assert.equal(resized.blockCount, 30);
  assert.equal(statSync(path).size, 30 * 4096);
  const other = openFileDevice(path, { writable: true });
  t.after(() => other.close());
  assert.equal(failure(() => lockVolume(other)).failure, "in-use");
});

/** Programs of root's. */
const env = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };

function loopDevice(file: string): string | undefined {
  try {
    return execFileSync("losetup", ["--find", "--show", file], {
      env,
      stdio: ["ignore", "pipe", "ignore"],
      encoding: "utf8",
    }).trim();
  } catch {
    return undefined;
  }
}

test("a block device that the kernel has mounted is not locked", (t) => {
  if (mountImpossible() !== undefined) return t.skip("real mounts are tested as root only");
  const folder = temporaryDirectory(t);
  const [image, directory] = [join(folder, "image"), join(folder, "mnt")];
  mkdirSync(directory);
  execFileSync("mkfs.ext4", ["-q", image, "8M"], { env });
  const loop = loopDevice(image);
  if (loop === undefined) return t.skip("there are no loop devices here");
  t.after(() => execFileSync("losetup", ["--detach", loop], { env }));
  execFileSync("mount", [loop, directory]);
  try {
    const device = openFileDevice(loop, { writable: true });
    assert.equal(device.blockCount, 2048);
    const { failure: found, message } = failure(() => lockVolume(device));
    assert.equal(found, "in-use");
    assert.match(message, /in use by the kernel/);
    device.close();
  } finally {
    execFileSync("umount", [directory]);
  }
  const device = openFileDevice(loop, { writable: true });
  lockVolume(device);
  device.close();
});
