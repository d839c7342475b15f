// One power cut and one kill of the daemon under load; `make power-cuts CUTS=200 KILLS=200` goes on.

import assert from "node:assert/strict";
import { test } from "node:test";
import { skipWithoutMounts } from "../support/mounts.ts";
import { skipWithoutNbd } from "../support/nbd.ts";
import { crashes, type Outcome } from "./power-cuts.ts";
import { openWitness } from "./witness.ts";

const withoutDisk = await skipWithoutNbd();

test("what was acknowledged is there after a power cut", { skip: withoutDisk }, async () => {
  const outcomes: Outcome[] = [];
  await crashes("power", 1, Date.now() % 0x1000_0000, (outcome) => outcomes.push(outcome));
  assert(outcomes.length === 1 && (outcomes[0]?.acknowledged ?? 0) > 0);
});

test("and after the daemon was killed", { skip: skipWithoutMounts() }, async () => {
  const outcomes: Outcome[] = [];
  await crashes("kill", 1, Date.now() % 0x1000_0000, (outcome) => outcomes.push(outcome));
  assert(outcomes.length === 1 && (outcomes[0]?.acknowledged ?? 0) > 0);
});

test("a disk that says flushed and has not is found out", { skip: withoutDisk }, async () => {
  await assert.rejects(
    crashes("lies", 3, Date.now() % 0x1000_0000, () => {}),
    /acknowledged is lost|ended with/,
  );
});

test("a witness takes the state that was acknowledged last and all that came after it, and no other", () => {
  const witness = openWitness();
  for (const line of [
    "begin w/a one",
    "begin w/a two",
    "done w/a",
    "begin w/a three",
    "begin w/log log:5",
    "done w/log",
    "begin w/log log:9",
  ]) {
    witness.hear(line);
  }
  assert.deepEqual(
    ["two", "three"].map((state) => witness.judge("w/a", state)),
    [undefined, undefined],
  );
  assert.match(witness.judge("w/a", "one") ?? "", /w\/a is one, and may be two or three/);
  assert.equal(witness.judge("w/log", "log:7"), undefined);
  assert.match(witness.judge("w/log", "log:4") ?? "", /log:4/);
  witness.hear("done-all w");
  assert.match(witness.judge("w/a", "two") ?? "", /may be three/);
});
