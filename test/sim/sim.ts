/**
 * node dist/test/sim/sim.js [--seed=S] [--runs=N] [--minutes=M] [--jobs=J] [--history=FILE]      or: make sim, make soak
 *
 * Runs random histories with the seeds S, S + 1, ... (S: from the clock), on several processors. The first that fails is cut
 * down to the steps that it needs, and printed with the command that repeats it. RUNS=1 prints every step; --history runs
 * the steps that a failure has printed. SIGINT ends it after the batches in hand, and what was counted is told.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { generator } from "./generate.ts";
import { failureOf, minimise } from "./minimise.ts";
import { runAndRecord, runHistory } from "./run.ts";
import { decodeHistory, encodeHistory, type History } from "./steps.ts";
import { type Counts, sumOf } from "./world.ts";

const RUNS = 2000;
const SEEDS = 0x1_0000_0000;
/** Histories that a worker runs before it reports. */
const BATCH = 20;

/** What a worker says of a batch. */
interface Report {
  readonly runs: number;
  readonly counts: Counts;
  readonly failure: Failure | undefined;
}

interface Failure {
  readonly seed: number;
  readonly history: History;
  readonly error: unknown;
}

function runBatch(first: number, runs: number): Report {
  let counts: Counts | undefined;
  for (let run = 0; run < runs; run++) {
    const seed = (first + run) % SEEDS;
    const { setup, next } = generator(seed);
    const result = runAndRecord(setup, next);
    counts = counts === undefined ? result.counts : sumOf(counts, result.counts);
    if (result.failure !== undefined) {
      return { runs: run + 1, counts, failure: { seed, history: result.history, error: result.failure } };
    }
  }
  return { runs, counts: counts as Counts, failure: undefined };
}

function tellFailure({ seed, history, error }: Failure): void {
  const lines: string[] = [];
  const short = minimise(history);
  const found = failureOf(short);
  try {
    runHistory(short, { trace: (line) => lines.push(line) });
  } catch {
    // It is told below.
  }
  process.stderr.write(
    [
      `seed ${seed} fails after ${history.steps.length} steps: ${textOf(error)}`,
      "",
      `cut down to ${short.steps.length} steps: ${textOf(found)}`,
      "",
      ...lines,
      "",
      "the steps, for --history:",
      encodeHistory(short),
      "",
      `to repeat it: make sim SEED=${seed} RUNS=1`,
      "",
    ].join("\n"),
  );
}

function textOf(what: unknown): string {
  return what instanceof Error ? (what.stack ?? what.message) : String(what);
}

function tellResult(runs: number, counts: Counts, first: number, seconds: number): void {
  const {
    operations,
    crashes,
    again,
    peeks,
    alike,
    consistencyPoints,
    refusals,
    logRefusals,
    heirs,
    doomed,
    rotten,
    rottenLogs,
    refusedRecoveries,
    transfers,
    otherCrashes,
    fullAnswers,
  } = counts;
  const all = crashes + peeks + otherCrashes;
  process.stdout.write(
    `${runs} histories from seed ${first} in ${seconds.toFixed(1)} s: ${operations} operations, ${consistencyPoints} consistency points, ` +
      `${all} crashes (${crashes} lived through, ${again} of them in recovery, ${peeks} looked at, ${alike} of them like one before, ${otherCrashes} at the other end, ` +
      `${doomed} with more to free), ${heirs} large cuts, ` +
      `${fullAnswers} times full, ${refusals} refused by the disk (${logRefusals} by that of a log apart), ${rotten} rotten disks, ${rottenLogs} rotten logs, ${refusedRecoveries} refused recoveries, ${transfers} transfers; ` +
      `${Math.round((all / seconds) * 60)} crashes a minute; no fault\n`,
  );
}

interface Options {
  readonly first: number;
  readonly runs: number;
  readonly jobs: number;
  readonly msMax: number;
}

function replyOf(worker: Worker): Promise<Report> {
  return new Promise((resolve, reject) => {
    worker.once("error", reject);
    worker.once("message", (report: Report) => {
      worker.off("error", reject);
      resolve(report);
    });
  });
}

/** Hands batches to workers until all is run, the time is over or one fails. */
async function runOnWorkers({ first, runs, jobs, msMax }: Options): Promise<void> {
  const start = Date.now();
  let given = 0;
  let done = 0;
  let counts: Counts | undefined;
  let failure: Failure | undefined;
  let isInterrupted = false;
  process.once("SIGINT", () => {
    isInterrupted = true;
  });
  const isOver = (): boolean => given >= runs || failure !== undefined || isInterrupted || Date.now() - start > msMax;
  await Promise.all(
    Array.from({ length: jobs }, async () => {
      const worker = new Worker(new URL(import.meta.url), { workerData: "sim" });
      while (!isOver()) {
        const some = Math.min(BATCH, runs - given);
        const seed = (first + given) % SEEDS;
        given += some;
        worker.postMessage([seed, some], []);
        const report = await replyOf(worker);
        done += report.runs;
        counts = counts === undefined ? report.counts : sumOf(counts, report.counts);
        failure ??= report.failure;
      }
      await worker.terminate();
    }),
  );
  if (failure !== undefined) {
    tellFailure(failure);
    process.exitCode = 1;
  } else if (counts !== undefined) tellResult(done, counts, first, (Date.now() - start) / 1000);
}

function runOne(seed: number): void {
  const { setup, next } = generator(seed);
  const start = Date.now();
  process.stdout.write(`${JSON.stringify(setup)}\n`);
  const { history, counts, failure } = runAndRecord(setup, next, {
    trace: (line) => process.stdout.write(`${line}\n`),
  });
  if (failure === undefined) tellResult(1, counts, seed, (Date.now() - start) / 1000);
  else {
    tellFailure({ seed, history, error: failure });
    process.exitCode = 1;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      runs: { type: "string" },
      minutes: { type: "string" },
      jobs: { type: "string" },
      history: { type: "string" },
    },
  });
  if (values.history !== undefined) {
    runHistory(decodeHistory(readFileSync(values.history, "utf8")), {
      trace: (line) => process.stdout.write(`${line}\n`),
    });
    return;
  }
  const isTimed = values.minutes !== undefined;
  const first = Number(values.seed ?? Date.now() % SEEDS);
  const runs = Number(values.runs ?? (isTimed ? Number.MAX_SAFE_INTEGER : values.seed === undefined ? RUNS : 1));
  const jobs = Number(values.jobs ?? 1);
  const minutes = Number(values.minutes ?? Number.POSITIVE_INFINITY);
  if (![first, runs, jobs].every((n) => Number.isSafeInteger(n) && n >= 0) || runs < 1 || jobs < 1 || !(minutes > 0)) {
    process.stderr.write(
      "usage: sim [--seed=NUMBER] [--runs=NUMBER] [--minutes=NUMBER] [--jobs=NUMBER] [--history=FILE]\n",
    );
    process.exitCode = 2;
    return;
  }
  if (runs === 1) runOne(first);
  else await runOnWorkers({ first, runs, jobs, msMax: minutes * 60_000 });
}

if (isMainThread) await main();
else if (workerData === "sim") {
  parentPort?.on("message", ([first, runs]: [number, number]) => {
    const report = runBatch(first, runs);
    const { failure } = report;
    // An error with a cycle in it, as assertions have them, does not travel.
    const told =
      failure === undefined
        ? undefined
        : { ...failure, error: String((failure.error as Error).stack ?? failure.error) };
    parentPort?.postMessage({ ...report, failure: told }, []);
  });
}
