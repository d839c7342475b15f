// A short run of the simulation with fixed seeds, and one with a new seed each time. `make fuzz` goes on longer.

import assert from "node:assert/strict";
import { test } from "node:test";
import { filledVolume, simulate } from "./simulation.ts";

const FIXED_RUNS = 80;
const FRESH_RUNS = 20;
const FILLED_RUNS = 10;

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
    if (seed % 8 === 0) continue; // these are for the border of two regions
    const result = run(seed);
    crashes += result.crashes;
    fullAnswers += result.fullAnswers;
    consistencyPoints += result.consistencyPoints;
  }
  // The histories are worth something only when all this has happened in them.
  assert(crashes > FIXED_RUNS, `${crashes} crashes`);
  assert(fullAnswers > FIXED_RUNS / 2, `${fullAnswers} answers that the volume is full`);
  assert(consistencyPoints > 5 * FIXED_RUNS, `${consistencyPoints} consistency points`);
});

test("so do histories that were never tried before", () => {
  const first = Date.now() % 0x1_0000_0000;
  // Multiples of 8 mean something else to `make fuzz`.
  for (let i = 0; i < FRESH_RUNS; i++) run((first - (first % 8) + 1 + (i % 7) + 8 * Math.floor(i / 7)) % 0x1_0000_0000);
});

test("histories at the border of two regions, with hardly a free block in the first, agree with the model too", () => {
  const filled = filledVolume();
  for (let seed = 8; seed <= 8 * FILLED_RUNS; seed += 8) {
    try {
      simulate({ seed, filled });
    } catch (error) {
      throw new Error(`to repeat it: make fuzz SEED=${seed} RUNS=1`, { cause: error });
    }
  }
});

test("the same seed gives the same history", () => {
  const histories = [0, 1].map(() => {
    const lines: string[] = [];
    simulate({ seed: 7, trace: (line) => lines.push(line) });
    return lines.join("\n");
  });
  assert.equal(histories[0], histories[1]);
});
