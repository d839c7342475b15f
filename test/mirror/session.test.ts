// The session machines over a simulated network. SEED=n repeats one run.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Pair, simulatedPair } from "./simulated-pair.ts";

const NONE = { cut: 0, sourceDies: 0, destinationDies: 0, goesSilent: 0 };
const only = process.env["SEED"];
const seeds = only === undefined ? Array.from({ length: 25 }, (_, index) => index + 1) : [Number(only)];

function settle(pair: Pair, seed: number): void {
  for (let seconds = 0; seconds < 90 && !pair.isSettled(); seconds += 3) pair.run(3000, NONE, 0);
  assert.ok(pair.isSettled(), `not settled, repeat with SEED=${seed}: ${pair.describe()} ${pair.errors.join("; ")}`);
  assert.deepEqual(pair.errors, [], `repeat with SEED=${seed}`);
}

test("a mirror without faults follows every change, and sends each frame once", () => {
  const pair = simulatedPair(1);
  pair.run(60_000, NONE, 20);
  settle(pair, 1);
  assert.ok(pair.sourceCounts.updates > 5, `${pair.sourceCounts.updates} updates`);
  assert.equal(pair.sourceCounts.resumptions, 0);
});

test("a mirror at rest sends nothing and takes no snapshots", () => {
  const pair = simulatedPair(2);
  settle(pair, 2);
  const { cpCount } = pair;
  const { framesSent } = pair.sourceCounts;
  pair.run(60_000, NONE, 0);
  assert.equal(pair.cpCount, cpCount);
  assert.equal(pair.sourceCounts.framesSent, framesSent);
});

test("consistency points that were missed are skipped and counted", () => {
  const pair = simulatedPair(3);
  pair.run(60_000, NONE, 400);
  settle(pair, 3);
  assert.ok(pair.sourceCounts.skippedCps > 10, `${pair.sourceCounts.skippedCps} skipped`);
});

for (const [name, faults] of Object.entries({
  "cuts of the link": { ...NONE, cut: 8 },
  "a link that goes silent": { ...NONE, goesSilent: 2 },
  "deaths of the source": { ...NONE, sourceDies: 5 },
  "deaths of the destination": { ...NONE, destinationDies: 5 },
  "everything at once": { cut: 4, sourceDies: 2, destinationDies: 2, goesSilent: 1 },
})) {
  test(`with ${name} the mirror is always one of the source's states, and catches up`, () => {
    let resumptions = 0;
    for (const seed of seeds) {
      const pair = simulatedPair(seed);
      try {
        pair.run(60_000, faults, 30);
      } catch (error) {
        throw new Error(`repeat with SEED=${seed}`, { cause: error });
      }
      settle(pair, seed);
      resumptions += pair.sourceCounts.resumptions;
    }
    if (only === undefined) assert.ok(resumptions > 20, `only ${resumptions} transfers were resumed`);
  });
}
