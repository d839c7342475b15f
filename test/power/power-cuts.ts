/**
 * node dist/test/power/power-cuts.js [--cuts=N] [--kills=N] [--seed=S]      or: make power-cuts CUTS= KILLS=
 *
 * Cuts the power of a real disk under a real mount: the block file is behind an NBD server with a write-back cache, which is
 * killed, and with it goes all that was not flushed. Or kills the daemon, and the host lives. Several writers work meanwhile
 * and say outside what has been acknowledged; afterwards the volume is mounted again, and all of that must be there.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { isMounted, run, runOk, tidemarkOk, tidemarkPath } from "../support/mounts.ts";
import { openWitness, type Witness } from "./witness.ts";

const WRITERS = 4;
const VOLUME_SIZE = "256M";
/** After all writers have begun. */
const WORK_MS_MAX = 2000;
const READY_MS_MAX = 60_000;
const writerPath = fileURLToPath(new URL("writer.js", import.meta.url));
const readerPath = fileURLToPath(new URL("reader.js", import.meta.url));

/** "lies": the power goes, and the disk has said of every flush that it was done, which it was not. */
export type Way = "power" | "kill" | "lies";

export interface Outcome {
  readonly acknowledged: number;
  readonly compared: number;
}

interface Bench {
  readonly folder: string;
  readonly disk: string;
  readonly mount: string;
  readonly children: ChildProcess[];
}

/** One volume through so many crashes, each one after some time of work. Throws at the first thing that is lost. */
export async function crashes(
  way: Way,
  count: number,
  seed: number,
  onCrash: (outcome: Outcome) => void,
): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/tidemark-power-`);
  const bench: Bench = { folder, disk: `${folder}/disk`, mount: `${folder}/mount`, children: [] };
  mkdirSync(bench.mount);
  try {
    await tidemarkOk(["format", bench.disk, "--size", VOLUME_SIZE]);
    for (let i = 0; i < count; i++) onCrash(await crash(bench, way, prng(seed + i), seed + i));
  } finally {
    await cleanUp(bench);
  }
}

async function crash(bench: Bench, way: Way, random: Random, seed: number): Promise<Outcome> {
  const { folder, disk, mount } = bench;
  const cable = `${folder}/cable`;
  let server: ChildProcess | undefined;
  let volume = disk;
  if (way !== "kill") {
    const socket = `${folder}/socket`;
    rmSync(socket, { force: true });
    server = start(bench, "nbdkit", [
      "--foreground",
      "--exit-with-parent",
      "--unix",
      socket,
      "--filter=cache",
      "file",
      disk,
      way === "lies" ? "cache=unsafe" : "cache=writeback",
    ]);
    await until(() => existsSync(socket), "the NBD server");
    mkdirSync(cable, { recursive: true });
    start(bench, "nbdfuse", [cable, "--unix", socket]);
    await until(() => isMounted(cable), "the disk");
    volume = `${cable}/nbd`;
  }
  const daemon = start(bench, process.execPath, [tidemarkPath, "mount", volume, mount, "--foreground"]);
  await until(() => isMounted(mount), "the volume");
  const witness = openWitness();
  const writers = Array.from({ length: WRITERS }, (_, i) =>
    startWriter(bench, witness, [`${mount}/w${i}`, String(seed * WRITERS + i), volume]),
  );
  await until(() => witness.ready === WRITERS, "the work of all writers");
  await delay(below(random, WORK_MS_MAX));
  (server ?? daemon).kill("SIGKILL");
  await Promise.all(writers.map((writer) => gone(writer.child, 2000)));
  await Promise.all(writers.map(({ heard }) => heard));
  await stopAll(bench);
  await compare(bench, witness);
  return { acknowledged: witness.acknowledged, compared: witness.paths.length };
}

/** Everything that was acknowledged is there, and the check is clean. */
async function compare(bench: Bench, witness: Witness): Promise<void> {
  const { disk, mount } = bench;
  await tidemarkOk(["mount", disk, mount]);
  try {
    const paths = [...witness.paths];
    const found = JSON.parse(await runOk(process.execPath, [readerPath, ...paths])) as string[];
    const wrong = paths.map((path, i) => witness.judge(path, found[i] as string)).filter((what) => what !== undefined);
    assert.deepEqual(wrong, [], "what was acknowledged is lost");
  } finally {
    await tidemarkOk(["umount", mount]);
  }
  await tidemarkOk(["check", disk]);
}

function startWriter(
  bench: Bench,
  witness: Witness,
  args: readonly string[],
): { readonly child: ChildProcess; readonly heard: Promise<void> } {
  const child = start(bench, process.execPath, [writerPath, ...args]);
  assert(child.stdout !== null);
  const lines = createInterface({ input: child.stdout });
  lines.on("line", (line) => witness.hear(line));
  return { child, heard: new Promise((resolve) => lines.once("close", resolve)) };
}

function start(bench: Bench, file: string, args: readonly string[]): ChildProcess {
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "ignore"] });
  if (file !== process.execPath || args[0] !== writerPath) child.stdout?.resume();
  bench.children.push(child);
  return child;
}

/** What is still there of a crashed host goes, the mounts too. */
async function stopAll({ folder, mount, children }: Bench): Promise<void> {
  for (const child of children) child.kill("SIGKILL");
  for (const path of [mount, `${folder}/cable`]) {
    for (let tries = 0; tries < 3 && isMounted(path); tries++) await run("umount", ["-l", path], { timeoutMs: 10_000 });
    assert(!isMounted(path), `${path} is still mounted`);
  }
  await Promise.all(children.map((child) => gone(child, READY_MS_MAX)));
  children.length = 0;
}

async function cleanUp(bench: Bench): Promise<void> {
  await stopAll(bench);
  rmSync(bench.folder, { recursive: true, force: true });
}

/** Resolves when the process has ended; after a while it is killed. */
async function gone(child: ChildProcess, msMax: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const timer = setTimeout(() => child.kill("SIGKILL"), msMax);
  await new Promise((resolve) => child.once("exit", resolve));
  clearTimeout(timer);
}

async function until(isReady: () => boolean, what: string): Promise<void> {
  for (let waited = 0; !isReady(); waited += 20) {
    assert(waited < READY_MS_MAX, `${what} is not there after ${waited} ms`);
    await delay(20);
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Crashes of one volume; then another one, with other seeds. */
const ROUNDS = 10;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { cuts: { type: "string" }, kills: { type: "string" }, seed: { type: "string" } },
  });
  const first = Number(values.seed ?? Date.now() % 0x1000_0000);
  for (const [way, count] of [
    ["power", Number(values.cuts ?? 0)],
    ["kill", Number(values.kills ?? 0)],
  ] as const) {
    let done = 0;
    let acknowledged = 0;
    for (let round = 0; round * ROUNDS < count; round++) {
      const seed = first + round * ROUNDS;
      try {
        await crashes(way, Math.min(ROUNDS, count - round * ROUNDS), seed, (outcome) => {
          done += 1;
          acknowledged += outcome.acknowledged;
          process.stderr.write(`${way} ${done} of ${count}: ${outcome.acknowledged} acknowledged\n`);
        });
      } catch (error) {
        process.stderr.write(
          `seed ${seed} (the moment of the crash is not in it): ${String((error as Error).stack)}\n`,
        );
        process.exitCode = 1;
        return;
      }
    }
    if (count > 0) {
      process.stdout.write(
        `${done} times ${way === "power" ? "the power was cut" : "the daemon was killed"}: ${acknowledged} acknowledged changes, none lost\n`,
      );
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
