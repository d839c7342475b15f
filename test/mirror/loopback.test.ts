// Source and mirror over real sockets, TLS and files.

import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { manualClock } from "../../src/core/clock.ts";
import { UserError } from "../../src/core/errors.ts";
import { below, prng } from "../../src/core/prng.ts";
import { promoteMirror } from "../../src/daemon/promote.ts";
import { openFileDevice } from "../../src/device/file-device.ts";
import { openReadOnly } from "../../src/image/open-state.ts";
import { createKey, readKey } from "../../src/mirror/key.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import { temporaryDirectory } from "../support/temp.ts";
import {
  assertMirrored,
  destinationStatus,
  follow,
  isCurrent,
  makeKey,
  makeProxy,
  makeSourceFile,
  sourceStatus,
  startProcess,
  startRun,
  startServe,
  until,
} from "./loopback.ts";

test("a hundred updates: after each the mirror equals the source, and the source holds one snapshot for it", async (t) => {
  const directory = temporaryDirectory(t);
  const key = makeKey(directory);
  const source = makeSourceFile(t, join(directory, "source.tm"));
  const mirror = join(directory, "mirror.tm");
  source.write("first", 300_000);
  source.volume.createSnapshot("of the user");
  source.cp();
  const serve = await startServe(t, { volume: mirror, key });
  const run = startRun(t, source, { to: serve.address, key, intervalMs: 1 });
  await follow(source, mirror);
  assertMirrored(source, mirror);

  for (let round = 0; round < 100; round += 1) {
    for (let i = 0; i <= below(source.random, 4); i += 1) {
      source.write(`file-${below(source.random, 10)}`, 1 + below(source.random, 200_000));
    }
    await follow(source, mirror);
    if (round % 10 === 9) assertMirrored(source, mirror);
  }
  await until("the source is at rest", async () => (await sourceStatus(source.path))?.phase === "in step");
  assertMirrored(source, mirror);
  const held = source.volume.snapshots().map(({ name }) => name.replace(/-[0-9a-f]{8}-\d+$/, ""));
  assert.deepEqual(held, ["of the user", "mirror"]);
  const status = await sourceStatus(source.path);
  assert.ok(status !== undefined && status.counts.updates >= 100 && status.lag.seconds === 0, JSON.stringify(status));
  await until("both say so", async () => (await destinationStatus(mirror))?.lag.seconds === 0);

  const { snapshotCount, cpCount } = source.volume.status();
  await run.stop();
  await serve.stop();
  assert.deepEqual(source.volume.status().snapshotCount, snapshotCount, "the common base stays when both are stopped");
  assert.equal(source.volume.status().cpCount, cpCount);
});

test("snapshots of the user arrive with the next update, renamed ones are renamed, deleted ones go", async (t) => {
  const { source, mirror } = await mirroring(t);
  const names = (): readonly string[] => {
    const device = openFileDevice(mirror, { writable: false });
    try {
      return openReadOnly(device)
        .snapshots()
        .map(({ name }) => name)
        .filter((name) => !name.startsWith("mirror-"));
    } catch {
      return ["none yet"];
    } finally {
      device.close();
    }
  };
  await until("the mirror is there", () => existsSync(mirror) && names().length === 0);

  source.write("a", 100_000);
  source.volume.createSnapshot("one");
  source.cp();
  source.write("a", 100_000);
  source.volume.createSnapshot("two");
  source.cp();
  await until("both snapshots are there", () => names().join() === "one,two");
  source.volume.renameSnapshot("one", "uno");
  source.cp();
  await until("a name has changed", () => names().join() === "uno,two");
  source.volume.deleteSnapshot("uno");
  source.cp();
  await until("one is gone", () => names().join() === "two");
  assertMirrored(source, mirror);
});

test("a transfer that is cut goes on where it was acknowledged", async (t) => {
  const directory = temporaryDirectory(t);
  const key = makeKey(directory);
  const source = makeSourceFile(t, join(directory, "source.tm"), { blockCount: 16384 });
  const mirror = join(directory, "mirror.tm");
  source.write("large", 40 << 20);
  source.cp();
  const serve = await startServe(t, { volume: mirror, key });
  const proxy = await makeProxy(t, serve.address);
  proxy.allow(20 << 20);
  startRun(t, source, { to: proxy.address, key });

  let done = 0;
  await until("the transfer has stopped half-way", async () => {
    done = (await sourceStatus(source.path))?.transfer?.framesDone ?? 0;
    return done >= 15;
  });
  done = (await sourceStatus(source.path))?.transfer?.framesDone ?? 0;
  proxy.cut();
  proxy.allow(4 << 20);
  let resumedAt = 0;
  await until("it goes on", async () => {
    resumedAt = (await sourceStatus(source.path))?.transfer?.resumedAt ?? 0;
    return resumedAt > 0;
  });
  assert.ok(resumedAt >= done, `resumed at ${resumedAt}, acknowledged were ${done}`);
  proxy.allow(Number.POSITIVE_INFINITY);
  await until("the mirror follows", () => isCurrent(source, mirror));
  assertMirrored(source, mirror);
  const status = await sourceStatus(source.path);
  const windowFrames = 6;
  assert.ok((status?.counts.framesSent ?? 0) <= 43 + windowFrames, `${status?.counts.framesSent} frames were sent`);
});

test("kill -9 of the mirror in mid-transfer leaves its old state, and the transfer goes on", async (t) => {
  const directory = temporaryDirectory(t);
  const keyFile = join(directory, "key");
  createKey(keyFile, { force: false });
  const key = readKey(keyFile);
  const source = makeSourceFile(t, join(directory, "source.tm"), { blockCount: 16384 });
  const mirror = join(directory, "mirror.tm");
  const port = await freePort();
  const to = { host: "127.0.0.1", port };
  const first = startProcess(t, "serve", mirror, `127.0.0.1:${port}`, { key: keyFile });
  const proxy = await makeProxy(t, to);
  source.write("small", 100_000);
  source.cp();
  startRun(t, source, { to: proxy.address, key });
  await follow(source, mirror);
  const before = openState(mirror);

  proxy.allow(20 << 20);
  source.write("large", 40 << 20);
  source.cp();
  let durable = 0;
  await until("some of it is durable", async () => {
    durable = (await sourceStatus(source.path))?.transfer?.framesDurable ?? 0;
    return durable >= 8;
  });
  first.kill("SIGKILL");
  await once(first, "exit");
  const device = openFileDevice(mirror, { writable: false });
  assert.deepEqual(checkVolume(device).findings, []);
  device.close();
  assert.equal(openState(mirror), before, "the old state");

  startProcess(t, "serve", mirror, `127.0.0.1:${port}`, { key: keyFile });
  proxy.cut();
  proxy.allow(4 << 20);
  let resumedAt = 0;
  await until("it goes on", async () => {
    resumedAt = (await sourceStatus(source.path))?.transfer?.resumedAt ?? 0;
    return resumedAt > 0;
  });
  assert.ok(resumedAt >= durable, `resumed at ${resumedAt}, durable were ${durable}`);
  proxy.allow(Number.POSITIVE_INFINITY);
  await until("the mirror follows", () => isCurrent(source, mirror));
  assertMirrored(source, mirror);
});

test("kill -9 of the source's sidecar: the next one resumes and cleans up", async (t) => {
  const directory = temporaryDirectory(t);
  const keyFile = join(directory, "key");
  createKey(keyFile, { force: false });
  const source = makeSourceFile(t, join(directory, "source.tm"), { blockCount: 16384 });
  const mirror = join(directory, "mirror.tm");
  source.write("large", 40 << 20);
  source.cp();
  const serve = await startServe(t, { volume: mirror, key: readKey(keyFile) });
  const proxy = await makeProxy(t, serve.address);
  proxy.allow(20 << 20);
  const { host, port } = proxy.address;
  const first = startProcess(t, "run", source.path, `${host}:${port}`, { key: keyFile });
  let done = 0;
  await until("the transfer has stopped half-way", async () => {
    done = (await destinationStatus(mirror))?.transfer?.framesDone ?? 0;
    return done >= 15;
  });
  first.kill("SIGKILL");
  await once(first, "exit");
  proxy.allow(4 << 20);
  startProcess(t, "run", source.path, `${host}:${port}`, { key: keyFile });
  await until("it goes on", async () => {
    return ((await destinationStatus(mirror))?.transfer?.resumedAt ?? 0) >= done;
  });
  proxy.allow(Number.POSITIVE_INFINITY);
  await until("the mirror is there", async () => (await destinationStatus(mirror))?.lag.seconds === 0);
  // The volume was changed under the feet of the one that this test has open: look at it anew.
  const device = openFileDevice(source.path, { writable: false });
  const { committed, ...now } = openReadOnly(device);
  assert.equal(now.snapshots().length, 1);
  const copy = openFileDevice(mirror, { writable: false });
  assert.deepEqual(openReadOnly(copy).committed.inodeFile, committed.inodeFile);
  assert.deepEqual(checkVolume(copy).findings, []);
  copy.close();
  device.close();
});

test("a mirror of another volume is refused, with both named", async (t) => {
  const directory = temporaryDirectory(t);
  const key = makeKey(directory);
  const one = makeSourceFile(t, join(directory, "one.tm"), { seed: 1 });
  const two = makeSourceFile(t, join(directory, "two.tm"), { seed: 2 });
  const mirror = join(directory, "mirror.tm");
  const serve = await startServe(t, { volume: mirror, key });
  const run = startRun(t, one, { to: serve.address, key });
  await follow(one, mirror);
  await run.stop();
  const other = startRun(t, two, { to: serve.address, key });
  await assert.rejects(other.ended, (error: unknown) => {
    assert.ok(error instanceof UserError && error.failure === "mismatch");
    assert.match(error.message, new RegExp(one.volume.status().uuid));
    assert.match(error.message, new RegExp(two.volume.status().uuid));
    return true;
  });
  assertMirrored(one, mirror);
});

test("without a common base the source stops, and names what both sides have", async (t) => {
  const { key, source, mirror, serve, run } = await mirroring(t);
  await follow(source, mirror);
  await run.stop();
  for (const { name } of source.volume.snapshots()) source.volume.deleteSnapshot(name);
  source.write("a", 1000);
  source.volume.createSnapshot("mine");
  source.cp();
  const again = startRun(t, source, { to: serve.address, key });
  await assert.rejects(again.ended, (error: unknown) => {
    assert.ok(error instanceof UserError && error.failure === "mismatch");
    assert.match(
      error.message,
      /no common base: the mirror .* is at [0-9a-f]{8} \(cp \d+\).* the source has [0-9a-f]{8}/,
    );
    assert.match(error.hint, /full image/);
    return true;
  });
});

test("an ordinary volume, a foreign file and a volume in use are not served", async (t) => {
  const directory = temporaryDirectory(t);
  const key = makeKey(directory);
  const source = makeSourceFile(t, join(directory, "source.tm"));
  await assert.rejects(startServe(t, { volume: source.path, key }), { name: "UserError", failure: "mismatch" });
  const foreign = join(directory, "foreign");
  writeFileSync(foreign, "precious".repeat(1000));
  await assert.rejects(startServe(t, { volume: foreign, key }), { name: "UserError", failure: "failed" });
  const mirror = join(directory, "mirror.tm");
  await startServe(t, { volume: mirror, key });
  await assert.rejects(startServe(t, { volume: mirror, key }), { name: "UserError", failure: "in-use" });
});

test("a promoted mirror is an ordinary volume, and the states that it got from its source are snapshots that can be deleted", async (t) => {
  const { key, source, mirror, serve, run } = await mirroring(t);
  source.write("file", 300_000);
  await follow(source, mirror);
  assert.throws(() => promoteMirror(mirror), { name: "UserError", failure: "in-use" });
  await run.stop();
  await serve.stop();

  assert(existsSync(`${mirror}.transfer`));
  const { snapshots } = promoteMirror(mirror);
  assert(!existsSync(`${mirror}.transfer`), "there is nothing to resume");
  assert.notDeepEqual(snapshots, []);
  const device = openFileDevice(mirror, { writable: true });
  const volume = openVolume({ device, clock: manualClock(), random: prng(1), writable: true });
  assert.deepEqual(
    volume.snapshots().map(({ name, flags }) => [name, flags]),
    snapshots.map((name) => [name, 0]),
  );
  for (const name of snapshots) volume.deleteSnapshot(name);
  volume.takeCp("snapshot");
  assert.equal(volume.committed.usedBlocks, volume.committed.activeBlocks);
  assert.deepEqual(checkVolume(device).findings, []);
  device.close();
  assert.throws(() => promoteMirror(mirror), { name: "UserError", failure: "mismatch" });
  await assert.rejects(startServe(t, { volume: mirror, key }), { name: "UserError", failure: "mismatch" });
});

test("a sidecar with another key stops with a message; one that finds nobody goes on trying", async (t) => {
  const directory = temporaryDirectory(t);
  const key = makeKey(directory);
  const source = makeSourceFile(t, join(directory, "source.tm"));
  const mirror = join(directory, "mirror.tm");
  const serve = await startServe(t, { volume: mirror, key });
  const wrong = startRun(t, source, { to: serve.address, key: makeKey(directory, "wrong") });
  await assert.rejects(wrong.ended, { name: "UserError", failure: "mismatch" });
  assert.deepEqual(wrong.lines, [], "it does not try again");
  assert.ok(
    serve.lines.some((line) => line.includes("another key")),
    serve.lines.join("\n"),
  );
  await serve.stop();
  assert.equal(existsSync(mirror), false, "nothing came, nothing is left");

  startRun(t, source, { to: serve.address, key });
  await until("it has tried", async () => /cannot connect/.test((await sourceStatus(source.path))?.lastError ?? ""));
  await startServe(t, { volume: mirror, key, listen: serve.address });
  await follow(source, mirror);
});

/** The top of the mirror, as text. */
/** A volume of its own, and the mirror of it that follows. */
async function mirroring(t: TestContext) {
  const directory = temporaryDirectory(t);
  const key = makeKey(directory);
  const source = makeSourceFile(t, join(directory, "source.tm"));
  const mirror = join(directory, "mirror.tm");
  const serve = await startServe(t, { volume: mirror, key });
  return { key, source, mirror, serve, run: startRun(t, source, { to: serve.address, key }) };
}

function openState(mirror: string): string {
  const device = openFileDevice(mirror, { writable: false });
  try {
    return Buffer.from(openReadOnly(device).committed.topUuid).toString("hex");
  } finally {
    device.close();
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  server.close();
  await once(server, "close");
  return address.port;
}
