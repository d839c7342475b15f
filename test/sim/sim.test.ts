// A short run of the simulation: fixed seeds, and some that were never tried before. `make sim` goes on longer.

import assert from "node:assert/strict";
import { test } from "node:test";
import { generator } from "./generate.ts";
import { minimise } from "./minimise.ts";
import { runAndRecord, runHistory } from "./run.ts";
import { decodeHistory, encodeHistory, type History } from "./steps.ts";
import { type Counts, sumOf } from "./world.ts";

const FIXED_RUNS = 60;
const FRESH_RUNS = 20;

function runSeeds(first: number, runs: number): Counts {
  let total: Counts | undefined;
  for (let seed = first; seed < first + runs; seed++) {
    const { setup, next } = generator(seed);
    const { counts, failure } = runAndRecord(setup, next);
    if (failure !== undefined) throw new Error(`to repeat it: make sim SEED=${seed} RUNS=1`, { cause: failure });
    total = total === undefined ? counts : sumOf(total, counts);
  }
  return total as Counts;
}

test("after a crash at any point the volume is a version that is new enough, with its snapshots, and the check is clean", () => {
  const counts = runSeeds(1, FIXED_RUNS);
  // The histories are worth something only when all this has happened in them.
  const least: Counts = {
    operations: 60 * FIXED_RUNS,
    crashes: 3 * FIXED_RUNS,
    again: 20,
    peeks: 10 * FIXED_RUNS,
    alike: 10,
    consistencyPoints: 5 * FIXED_RUNS,
    fullAnswers: 20,
    refusals: 5,
    logRefusals: 1,
    heirs: 20,
    doomed: 50,
    rotten: 5,
    rottenLogs: 5,
    refusedRecoveries: 20,
    transfers: 2,
    otherCrashes: 1,
  };
  for (const [name, n] of Object.entries(least)) {
    const found = counts[name as keyof Counts];
    assert(found >= n, `${name}: ${found}, and at least ${n} were expected`);
  }
});

test("so it is in histories that were never tried before", () => {
  runSeeds(Date.now() % 0x1_0000_0000, FRESH_RUNS);
});

test("the same seed gives the same history, and so do its steps alone, written down and read back", () => {
  const runs = [0, 1].map(() => {
    const { setup, next } = generator(7);
    const lines: string[] = [];
    const { history } = runAndRecord(setup, next, { trace: (line) => lines.push(line) });
    return { history, lines };
  });
  const [first, second] = runs as [(typeof runs)[0], (typeof runs)[0]];
  assert.deepEqual(first.lines, second.lines);
  const again: string[] = [];
  runHistory(decodeHistory(encodeHistory(first.history)), { trace: (line) => again.push(line) });
  assert.deepEqual(again, first.lines);
});

test("a history that fails is cut down to the steps that it needs", () => {
  const { setup, next } = generator(2);
  const { history } = runAndRecord(setup, next);
  const isFailing = ({ steps }: History): boolean =>
    steps.some(({ at }) => at === history.steps[3]?.at) && steps.some(({ at }) => at === history.steps.at(-2)?.at);
  assert.deepEqual(minimise(history, isFailing).steps, [history.steps[3], history.steps.at(-2)]);
});
