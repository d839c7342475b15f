/**
 * make fuzz-input [MINUTES=60] [ENTRY=volume] [SEED=S [GENOME=HEX,HEX...]]
 *
 * Looks for hostile inputs that reach code which none before has reached, and changes those further: V8 counts how often each
 * branch of ours ran, and an input with a new branch, or with a new order of magnitude of one, is kept. With SEED one input is
 * tried. Each runs in a thread that is watched: one that does not end is a fault, too.
 */
import { Session } from "node:inspector/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { entryNames, makeEntry, tryInput } from "./entries.ts";

const MINUTES = 60;
/** A single input takes well below a second. */
const STUCK_MS = 60_000;
/** Inputs kept for each entry. */
const CORPUS_MAX = 2000;
/** Inputs between two looks at the counters, which cost some milliseconds. */
const MUTATIONS_MAX = 8;

interface Start {
  readonly entry: string;
  readonly seed: number;
  readonly untilMs: number;
}

interface Progress {
  readonly runs: number;
  readonly corpus: number;
  readonly branches: number;
  /** The input that is being tried. */
  readonly genome: readonly number[];
  readonly seed: number;
}

if (isMainThread) await main();
else await search(workerData as Start);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      minutes: { type: "string" },
      entry: { type: "string" },
      seed: { type: "string" },
      genome: { type: "string" },
    },
  });
  if (values.seed !== undefined && values.entry !== undefined) {
    const genome = (values.genome ?? "").split(",").filter((part) => part !== "");
    tryInput(
      values.entry,
      makeEntry(values.entry),
      genome.map((hex) => Number.parseInt(hex, 16)),
      Number(values.seed),
    );
    process.stdout.write("no fault\n");
    return;
  }
  const entries = values.entry === undefined ? entryNames : [values.entry];
  const msEach = (Number(values.minutes ?? MINUTES) * 60_000) / entries.length;
  const seed = values.seed === undefined ? Date.now() % 2 ** 32 : Number(values.seed);
  for (const entry of entries) {
    const last = await watch({ entry, seed, untilMs: Date.now() + msEach });
    process.stdout.write(
      `${entry}: ${last.runs} inputs from seed ${seed}, ${last.corpus} kept, ${last.branches} branches, no fault\n`,
    );
  }
}

/** Runs a search in a thread, and ends the program when it finds a fault or is stuck. */
function watch(start: Start): Promise<Progress> {
  return new Promise((resolve) => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: start });
    let last: Progress = { runs: 0, corpus: 0, branches: 0, genome: [], seed: start.seed };
    const stuck = (): void => {
      const genome = last.genome.map((n) => n.toString(16)).join(",");
      fail(`no end within ${STUCK_MS} ms: make fuzz-input ENTRY=${start.entry} SEED=${last.seed} GENOME=${genome}`);
    };
    let timer = setTimeout(stuck, STUCK_MS);
    worker.on("message", (progress: Progress) => {
      last = progress;
      clearTimeout(timer);
      timer = setTimeout(stuck, STUCK_MS);
    });
    worker.on("error", (error) => {
      fail(`${error.message}\n${error.cause instanceof Error ? causes(error.cause) : ""}`);
    });
    worker.on("exit", () => {
      clearTimeout(timer);
      resolve(last);
    });
  });
}

function fail(what: string): never {
  process.stderr.write(`${what}\n`);
  process.exit(1);
}

function causes(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by: ${causes(error.cause)}` : "";
  return `${error.stack ?? error.message}${cause}`;
}

async function search({ entry: name, seed, untilMs }: Start): Promise<void> {
  const entry = makeEntry(name);
  const random = prng(seed);
  const session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  const known = new Set<string>();
  const corpus: (readonly number[])[] = [];
  for (let runs = 0; Date.now() < untilMs; runs++) {
    const runSeed = (seed + runs) % 2 ** 32;
    const genome = corpus.length === 0 || below(random, 5) === 0 ? [] : mutateGenome(random, corpus);
    const progress: Progress = {
      runs,
      corpus: corpus.length,
      branches: known.size,
      genome,
      seed: runSeed,
    };
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    parentPort?.postMessage(progress);
    const { drawn } = tryInput(name, entry, genome, runSeed);
    if (!(await reachesNew(session, known))) continue;
    if (corpus.length < CORPUS_MAX) corpus.push(drawn);
    else corpus[below(random, CORPUS_MAX)] = drawn;
  }
  session.disconnect();
}

/** Whether a branch of ours ran that never ran before, or ran as often as never before, in powers of two. */
async function reachesNew(session: Session, known: Set<string>): Promise<boolean> {
  const { result } = await session.post("Profiler.takePreciseCoverage");
  const before = known.size;
  for (const { url, functions } of result) {
    const file = url.lastIndexOf("/dist/src/");
    if (file < 0) continue;
    const place = url.slice(file + 10);
    for (const { ranges } of functions) {
      for (const { startOffset, endOffset, count } of ranges) {
        if (count > 0) known.add(`${place}:${startOffset}-${endOffset}:${31 - Math.clz32(count)}`);
      }
    }
  }
  return known.size > before;
}

/** A change of what was kept: numbers replaced, left out, put in, or the end of another one. */
function mutateGenome(random: Random, corpus: readonly (readonly number[])[]): number[] {
  let genome = [...(corpus[below(random, corpus.length)] ?? [])].slice(0, 200);
  for (let n = 1 + below(random, MUTATIONS_MAX); n > 0; n--) {
    const at = below(random, genome.length + 1);
    switch (below(random, 5)) {
      case 0:
      case 1:
        genome[at] = random.u32();
        break;
      case 2:
        genome = genome.toSpliced(at, 1 + below(random, 3));
        break;
      case 3:
        genome = genome.toSpliced(at, 0, random.u32());
        break;
      default:
        genome = [...genome.slice(0, at), ...(corpus[below(random, corpus.length)] ?? []).slice(at, at + 50)];
    }
  }
  return genome;
}
