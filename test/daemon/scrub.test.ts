// Scrubbing a volume while it is in use.
import assert from "node:assert/strict";
import { closeSync, mkdirSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { manualClock } from "../../src/core/clock.ts";
import { prng } from "../../src/core/prng.ts";
import { openFileDevice } from "../../src/device/file-device.ts";
import { openVolume } from "../../src/volume/open.ts";
import { openSnapshotTable } from "../../src/volume/snapshot-table.ts";
import {
  lineOf,
  mountVolume,
  shell,
  skipWithoutMounts,
  startTidemark,
  tidemark,
  tidemarkOk,
  unmountVolume,
} from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();
const BLOCK_BYTES = 4096;
const MARK = "a block that will rot";
const LATER = "another one that will rot";

interface Summary {
  readonly findings: readonly {
    readonly kind: string;
    readonly state?: string;
    readonly path?: string;
    readonly vbn?: number;
  }[];
  readonly repaired: readonly { readonly what: string; readonly vbn: number }[];
}

async function sample(t: TestContext): Promise<{ readonly volume: string; readonly dir: string }> {
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "256M"]);
  await mountVolume(t, volume, dir);
  await shell(
    `mkdir ${dir}/d; head -c 20000000 /dev/urandom > ${dir}/d/other; (printf '${MARK}'; head -c 90000 /dev/urandom) > ${dir}/d/file`,
  );
  await tidemarkOk(["snapshot", "create", volume, "one"]);
  return { volume, dir };
}

function flip(volume: string, at: number): void {
  const descriptor = openSync(volume, "r+");
  const byte = new Uint8Array(1);
  readSync(descriptor, byte, 0, 1, at);
  writeSync(descriptor, Uint8Array.of((byte[0] as number) ^ 4), 0, 1, at);
  closeSync(descriptor);
}

function tableCopies(path: string): readonly number[] {
  const device = openFileDevice(path, { writable: false });
  const { committed } = openVolume({ device, clock: manualClock(), random: prng(1), writable: false });
  const vbns = openSnapshotTable(device, committed)
    .copies()
    .map(({ vbn }) => vbn);
  device.close();
  return vbns;
}

/** Hidden ones too. */
async function snapshotCount(volume: string): Promise<number> {
  const status = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { volume: { snapshotCount: number } };
  return status.volume.snapshotCount;
}

async function scrub(volume: string): Promise<{ readonly code: number } & Summary> {
  const { code, stdout, stderr } = await tidemark(["scrub", volume, "--rate", "1G", "--json"]);
  assert(code === 0 || code === 3, stderr);
  const summary = JSON.parse(stdout.slice(stdout.indexOf("{\n"))) as Summary;
  return { code, ...summary };
}

test("a scrub of a mounted volume names what is bad, repairs what has a copy, and leaves nothing behind", {
  skip,
}, async (t) => {
  const { volume, dir } = await sample(t);
  await shell(`(printf '${LATER}'; head -c 90000 /dev/urandom) > ${dir}/d/later`);
  assert.deepEqual((await scrub(volume)).findings, []);
  const at = readFileSync(volume).indexOf(MARK);
  const [copy] = tableCopies(volume);
  assert(at > 0 && copy !== undefined);
  flip(volume, at + 50);
  flip(volume, 700);
  flip(volume, copy * BLOCK_BYTES + 9);
  const found = await scrub(volume);
  assert.equal(found.code, 3);
  assert.deepEqual(
    new Set(found.repaired.map(({ what, vbn }) => `${what} ${vbn}`)),
    new Set(["fsinfo 0", `snapshot-table ${copy}`]),
  );
  assert(
    found.findings.every(
      ({ kind, vbn, path }) => kind === "checksum" && vbn === at / BLOCK_BYTES && path === "/d/file",
    ),
    JSON.stringify(found),
  );
  assert.deepEqual(
    found.findings.map(({ state }) => state),
    ["one"],
  );
  flip(volume, readFileSync(volume).indexOf(LATER) + 50);
  const later = await scrub(volume);
  assert.deepEqual(
    later.findings.map(({ state, path }) => `${state}: ${path}`),
    ["one: /d/file", "active: /d/later"],
  );
  await shell(`rm ${dir}/d/file ${dir}/d/later`);
  await tidemarkOk(["snapshot", "delete", volume, "one"]);
  const again = await scrub(volume);
  assert.deepEqual([again.code, again.findings, again.repaired], [0, [], []]);
  assert.equal(await snapshotCount(volume), 0);
  await unmountVolume(dir);
  assert.equal((await tidemark(["scrub", volume, "--rate", "1G"])).code, 0);
});

test("an interrupted scrub gives its snapshot back", { skip }, async (t) => {
  const { volume, dir } = await sample(t);
  const child = startTidemark(t, ["scrub", volume, "--rate", "2M", "--json"]);
  await lineOf(child.stdout ?? assert.fail("no output"), /"progress"/);
  assert.equal(await snapshotCount(volume), 2);
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  child.kill("SIGINT");
  assert.equal(await ended, 130);
  assert.equal(await snapshotCount(volume), 1);
  await unmountVolume(dir);
});

test("an unmounted volume is repaired under its lock", { skip }, async (t) => {
  const { volume, dir } = await sample(t);
  await unmountVolume(dir);
  const copy = tableCopies(volume).at(-1) ?? assert.fail("no table");
  flip(volume, copy * BLOCK_BYTES + 9);
  assert.equal((await tidemark(["check", volume])).code, 3);
  const found = await scrub(volume);
  assert.deepEqual([found.code, found.findings], [0, []]);
  assert.deepEqual(
    found.repaired.map(({ what, vbn }) => [what, vbn]),
    [["snapshot-table", copy]],
  );
  assert.equal((await tidemark(["check", volume])).code, 0);
});
