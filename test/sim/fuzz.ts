/**
 * node dist/test/sim/fuzz.js [--seed=S] [--runs=N]      or: make fuzz SEED=S RUNS=N
 *
 * Runs simulations with the seeds S, S + 1, ... (S: from the clock). With RUNS=1 it says each step, so the command that it
 * prints when one fails shows the whole history.
 */
import { parseArgs } from "node:util";
import { filledVolume, simulate } from "./simulation.ts";

const RUNS = 500;
const SEEDS = 0x1_0000_0000;
const TRACE_LINES_MAX = 10_000;
/** One seed in so many goes on from a volume whose first region is full. */
const FILLED_EVERY = 8;

const { values } = parseArgs({ options: { seed: { type: "string" }, runs: { type: "string" } } });
const first = values.seed === undefined ? Date.now() % SEEDS : Number(values.seed);
const runs = values.runs === undefined ? (values.seed === undefined ? RUNS : 1) : Number(values.runs);
if (!Number.isSafeInteger(first) || first < 0 || !Number.isSafeInteger(runs) || runs < 1) {
  process.stderr.write("usage: fuzz [--seed=NUMBER] [--runs=NUMBER]\n");
  process.exit(2);
}

let filled: ReturnType<typeof filledVolume> | undefined;
let crashes = 0;
let steps = 0;
let frames = 0;
let replays = 0;
for (let run = 0; run < runs; run++) {
  const seed = (first + run) % SEEDS;
  const lines: string[] = [];
  const trace = (line: string): void => {
    if (lines.length < TRACE_LINES_MAX) lines.push(line);
  };
  try {
    if (seed % FILLED_EVERY === 0) filled ??= filledVolume();
    const result = simulate({
      seed,
      filled: seed % FILLED_EVERY === 0 ? filled : undefined,
      ...(runs === 1 ? { trace } : {}),
    });
    crashes += result.crashes;
    steps += result.steps;
    frames += result.frames;
    replays += result.replays;
  } catch (error) {
    if (lines.length > 0) process.stderr.write(`${lines.join("\n")}\n`);
    process.stderr.write(
      `${error instanceof Error ? error.stack : String(error)}\n\nto repeat it: make fuzz SEED=${seed} RUNS=1\n`,
    );
    process.exit(1);
  }
}
process.stdout.write(
  `${runs} histories from seed ${first}: ${steps} steps, ${crashes} power cuts, ${frames} frames of the change log, ${replays} replays, no fault\n`,
);
