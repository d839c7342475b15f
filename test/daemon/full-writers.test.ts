// Volumes that are filled through the kernel's cache: every write(2) that has returned is kept, and the first that anybody hears of
// a full volume is ENOSPC from a write, never from fsync or close.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { mountVolume, run, runOk, shell, skipWithoutMounts, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";
import type { Filled } from "./fill-program.ts";

const skip = skipWithoutMounts();
const MIB = 1 << 20;
const program = fileURLToPath(new URL("fill-program.js", import.meta.url));

interface Place {
  readonly volume: string;
  readonly dir: string;
}

async function mounted(t: TestContext, size: string): Promise<Place> {
  const folder = temporaryDirectory(t);
  const place = { volume: join(folder, "v.tm"), dir: join(folder, "mnt") };
  mkdirSync(place.dir);
  await tidemarkOk(["format", place.volume, "--size", size]);
  await mountVolume(t, place.volume, place.dir);
  return place;
}

interface Writer {
  readonly path: string;
  readonly stepBytes: number;
  readonly seed: number;
}

/** All at once, each until it is told that there is no space. */
async function fill(writers: readonly Writer[]): Promise<readonly Filled[]> {
  const all = writers.map(async ({ path, stepBytes, seed }) => {
    const { stdout, stderr } = await run(process.execPath, [program, "write", path, String(stepBytes), String(seed)]);
    assert.equal(stderr, "");
    return JSON.parse(stdout) as Filled;
  });
  const filled = await Promise.all(all);
  for (const { takenBytes, ...told } of filled)
    assert.deepEqual(told, { write: "ENOSPC", fsync: "done", close: "done" }, `after ${takenBytes} bytes`);
  return filled;
}

async function assertHolds(path: string, lengthBytes: number, seed: number): Promise<void> {
  const { stdout } = await run(process.execPath, [program, "verify", path, String(lengthBytes), String(seed)]);
  assert.equal(stdout, "-1", `${path}: the first of ${lengthBytes} bytes that are wrong, in MiB steps`);
}

async function availableBytes({ dir }: Place): Promise<number> {
  return Number(await runOk("stat", ["--file-system", "--format=%a", dir])) * 4096;
}

/** Writers of two generations: who opened a file when there was room, and who comes when there is hardly any. */
async function fillTwice(place: Place, count: number, steps: readonly number[]): Promise<void> {
  const generation = (number: number): readonly Writer[] =>
    Array.from({ length: count }, (_, i) => ({
      path: `${place.dir}/f${number}${i}`,
      stepBytes: steps[i % steps.length] as number,
      seed: number * count + i,
    }));
  const writers = [...generation(0), ...generation(1)];
  await shell(`touch ${writers.map(({ path }) => path).join(" ")}`);
  const filled = [...(await fill(writers.slice(0, count))), ...(await fill(writers.slice(count)))];
  await shell(`sync -f ${place.dir}`);
  assert((await availableBytes(place)) < 2 * MIB, "the second generation has taken what the first was refused");
  await unmountVolume(place.dir);
  await tidemarkOk(["mount", place.volume, place.dir]);
  for (const [i, { path, seed }] of writers.entries()) {
    const { takenBytes } = filled[i] as Filled;
    assert.equal(Number(await runOk("stat", ["--format=%s", path])), takenBytes);
    await assertHolds(path, takenBytes, seed);
  }
  const [first, second] = writers as [Writer, Writer];
  const freedBytes = (filled[0]?.takenBytes ?? 0) + (count > 1 ? (filled[1]?.takenBytes ?? 0) : 0);
  await shell(`truncate -s 0 ${first.path}; rm -f ${count > 1 ? second.path : ""}`);
  const [again] = await fill([{ path: `${place.dir}/again`, stepBytes: MIB, seed: 9 }]);
  assert((again?.takenBytes ?? 0) > (freedBytes * 9) / 10 - MIB, "what was removed is free");
  await shell(`rm ${place.dir}/again`);
  await shell(`echo more > ${place.dir}/more; sync ${place.dir}/more`);
  await unmountVolume(place.dir);
  assert.match(await tidemarkOk(["check", place.volume]), /is consistent/);
}

for (const { size, count, steps } of [
  { size: "64M", count: 1, steps: [4096] },
  { size: "64M", count: 4, steps: [4096, MIB] },
  { size: "1G", count: 2, steps: [4096] },
  { size: "1G", count: 4, steps: [MIB, 70_000] },
]) {
  test(`${count} at once fill ${size} in steps of ${steps.join(" and ")} bytes`, { skip }, async (t) => {
    await fillTwice(await mounted(t, size), count, steps);
  });
}

for (const { size, stepBytes } of [
  { size: "64M", stepBytes: 4096 },
  { size: "1G", stepBytes: MIB },
]) {
  test(`what a snapshot holds is written over on ${size} in steps of ${stepBytes} bytes, until it does not fit`, {
    skip,
  }, async (t) => {
    const place = await mounted(t, size);
    const { volume, dir } = place;
    const [old, other] = [`${dir}/old`, `${dir}/other`];
    const kept = Math.floor((await availableBytes(place)) * 0.6);
    await fill([{ path: old, stepBytes: MIB, seed: 1 }]);
    await shell(`truncate -s ${kept} ${old}`);
    await tidemarkOk(["snapshot", "create", volume, "before"]);
    const [filled] = await fill([{ path: old, stepBytes, seed: 2 }]);
    const { takenBytes } = filled as Filled;
    assert(takenBytes > kept / 2 && takenBytes < kept, `${takenBytes} of ${kept} bytes`);
    await shell(`sync -f ${dir}; cp --sparse=never --no-target-directory ${dir}/.snapshot/before/old /dev/null`);
    await unmountVolume(dir);
    await tidemarkOk(["mount", volume, dir]);
    await assertHolds(old, takenBytes, 2);
    await assertHolds(`${dir}/.snapshot/before/old`, kept, 1);
    assert.equal(Number(await runOk("stat", ["--format=%s", old])), kept);
    await tidemarkOk(["snapshot", "delete", volume, "before"]);
    const [more] = await fill([{ path: other, stepBytes, seed: 3 }]);
    await assertHolds(other, more?.takenBytes ?? 0, 3);
    await unmountVolume(dir);
    assert.match(await tidemarkOk(["check", volume]), /is consistent/);
  });
}
