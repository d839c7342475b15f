// A short run of the simulation with fixed seeds, and one with a new seed each time. `make fuzz` goes on longer.

import { test } from "node:test";
import assert from "node:assert/strict";
import { simulate } from "./simulation.ts";

const FIXED_RUNS = 120;
const FRESH_RUNS = 30;

function run(seed: number): ReturnType<typeof simulate> {
  try {
    return simulate({ seed });
  } catch (error) {
    throw new Error(`to repeat it: make fuzz SEED=${seed} RUNS=1`, { cause: error });
  }
}

test("random histories with power cuts, snapshots and full volumes agree with the model", () => {
  let crashes = 0;
  let fullAnswers = 0;
  let consistencyPoints = 0;
  for (let seed = 1; seed <= FIXED_RUNS; seed++) {
    const result = run(seed);
    crashes += result.crashes;
    fullAnswers += result.fullAnswers;
    consistencyPoints += result.consistencyPoints;
  }
  // The histories are worth something only when all this has happened in them.
  assert(crashes > FIXED_RUNS, `${crashes} crashes`);
  assert(fullAnswers > FIXED_RUNS, `${fullAnswers} answers that the volume is full`);
  assert(consistencyPoints > 5 * FIXED_RUNS, `${consistencyPoints} consistency points`);
});

test("so do histories that were never tried before", () => {
  const first = Date.now() % 0x1_0000_0000;
  for (let i = 0; i < FRESH_RUNS; i++) run((first + i) % 0x1_0000_0000);
});

test("the same seed gives the same history", () => {
  const histories = [0, 1].map(() => {
    const lines: string[] = [];
    simulate({ seed: 7, trace: (line) => lines.push(line) });
    return lines.join("\n");
  });
  assert.equal(histories[0], histories[1]);
});
