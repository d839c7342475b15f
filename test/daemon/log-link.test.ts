import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { logLine } from "../../src/daemon/log-line.ts";
import { startLog } from "../../src/daemon/log-link.ts";
import type { LogFrame } from "../../src/volume/change-log/frames.ts";
import { temporaryDirectory } from "../support/temp.ts";

const PATIENCE_MS = 20_000;

test("a log that cannot be written is told once, and everything can be closed", { timeout: PATIENCE_MS }, async (t) => {
  const nowhere = join(temporaryDirectory(t), "nowhere");
  const failures: string[] = [];
  const told: number[] = [];
  const link = startLog(
    { blockFile: nowhere, logFile: nowhere },
    { onDurable: (seq) => told.push(seq), onFailure: (message) => failures.push(message) },
  );
  const line = logLine(link.line.port, link.line.words);
  const frame: LogFrame = { vbn: 1, bytes: new Uint8Array(4096), lastSeq: 1, needsFlush: false };
  line.write(frame);
  line.answer({ kind: "tell", seq: 1 });
  while (failures.length === 0) await delay(5);
  line.write({ ...frame, bytes: new Uint8Array(4096) });
  line.answer({ kind: "tell", seq: 1 });
  await link.close();
  // Nobody takes what is posted now: more than fits must not wait for that.
  for (let i = 0; i < 3000; i++) line.answer({ kind: "tell", seq: 1 });
  assert.deepEqual(told, [], "nothing was durable");
  assert.equal(failures.length, 1);
  assert.match(failures[0] ?? "", /cannot write the change log/);
});
