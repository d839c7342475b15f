import assert from "node:assert/strict";
import { readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { openCommitter } from "../../src/daemon/commit.ts";
import { logLine } from "../../src/daemon/log-line.ts";
import { startLog } from "../../src/daemon/log-link.ts";
import { createFileDevice, openFileDevice } from "../../src/device/file-device.ts";
import type { LogFrame } from "../../src/volume/change-log/frames.ts";
import { temporaryDirectory } from "../support/temp.ts";

const PATIENCE_MS = 20_000;

test("a log that cannot be written is told once, and everything can be closed", { timeout: PATIENCE_MS }, async (t) => {
  const nowhere = join(temporaryDirectory(t), "nowhere");
  const failures: string[] = [];
  const told: number[] = [];
  const link = startLog(
    { blockFile: nowhere, identity: { dev: 0, ino: 0 }, logFile: nowhere },
    { onDurable: (seq) => told.push(seq), onFailure: (message) => failures.push(message) },
  );
  const line = logLine(link.line);
  const frame: LogFrame = { vbn: 1, bytes: new Uint8Array(4096), lastSeq: 1, needsFlush: false };
  line.post(frame, { kind: "tell", seq: 1 });
  while (failures.length === 0) await delay(5);
  line.post(frame, { kind: "tell", seq: 1 });
  await link.close();
  // Nobody takes what is posted now: more than fits must not wait for that.
  for (let i = 0; i < 3000; i++) line.post(undefined, { kind: "tell", seq: 1 });
  assert.deepEqual(told, [], "nothing was durable");
  assert.equal(failures.length, 1);
  assert.match(failures[0] ?? "", /cannot write the change log/);
});

test("more than there is room for waits for the disk, and all of it is written before its answer", {
  timeout: PATIENCE_MS,
}, async (t) => {
  const path = join(temporaryDirectory(t), "volume");
  createFileDevice(path, 20_000).close();
  const told: number[] = [];
  const link = startLog(
    { blockFile: path, identity: statSync(path), logFile: path },
    {
      onDurable: (seq) => told.push(seq),
      onFailure: (message) => {
        throw new Error(message);
      },
    },
  );
  const line = logLine(link.line);
  const [frames, blocks] = [3000, 6]; // 70 MiB
  for (let i = 0; i < frames; i++) {
    const bytes = new Uint8Array(blocks * BLOCK_BYTES).fill(i % 251);
    line.post({ vbn: i * blocks, bytes, lastSeq: i + 1, needsFlush: false }, { kind: "tell", seq: i + 1 });
  }
  await link.close();
  assert.deepEqual(
    told,
    Array.from({ length: frames }, (_, i) => i + 1),
  );
  const written = readFileSync(path);
  for (let i = 0; i < frames; i++) {
    const frame = written.subarray(i * blocks * BLOCK_BYTES, (i + 1) * blocks * BLOCK_BYTES);
    assert(
      frame.subarray(64).every((byte) => byte === i % 251),
      `frame ${i}`,
    );
  }
});

test("a file that has taken the place of the locked one is written to by nobody", {
  timeout: PATIENCE_MS,
}, async (t) => {
  const folder = temporaryDirectory(t);
  const [path, locked] = [join(folder, "volume"), join(folder, "locked")];
  createFileDevice(locked, 4).close();
  createFileDevice(path, 4).close();
  const identity = statSync(locked);
  const refusal = /volume was replaced by another file while it was opened/;
  assert.throws(() => openFileDevice(path, { writable: true, identity }), refusal);
  await assert.rejects(openCommitter(path, identity), refusal);
  const failures: string[] = [];
  const link = startLog(
    { blockFile: path, identity, logFile: path },
    { onDurable: () => {}, onFailure: (message) => failures.push(message) },
  );
  logLine(link.line).post({ vbn: 1, bytes: new Uint8Array(4096).fill(7), lastSeq: 1, needsFlush: false }, undefined);
  while (failures.length === 0) await delay(5);
  await link.close();
  assert.match(failures.join(), refusal);
  assert(readFileSync(path).every((byte) => byte === 0));
  renameSync(locked, path);
  await (await openCommitter(path, identity)).close();
});
