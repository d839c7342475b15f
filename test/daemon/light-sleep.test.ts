// Processors are kept from deep sleep while requests follow one another closely, and no longer.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mock, test } from "node:test";
import type { DaemonStatus } from "../../src/daemon/daemon-status.ts";
import { beats, openLightSleep } from "../../src/daemon/light-sleep.ts";
import { mountVolume, shell, skipWithoutMounts, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const LOOK_MS = 10;
const ANY_US = -1;

function sharedWords(): SharedArrayBuffer {
  return new SharedArrayBuffer(8);
}

test("eight requests less than a millisecond apart are a streak, told once until it is over", () => {
  const shared = sharedWords();
  let nowMs = 0;
  let told = 0;
  const beat = beats(
    shared,
    () => nowMs,
    () => (told += 1),
  );
  const requests = (count: number, gapMs: number): void => {
    for (let i = 0; i < count; i++) {
      nowMs += gapMs;
      beat();
    }
  };
  requests(100, 1);
  assert.equal(told, 0, "a millisecond between each");
  requests(6, 0.1);
  requests(1, 5);
  requests(6, 0.1);
  assert.equal(told, 0, "a pause begins it anew");
  requests(1, 0.1);
  assert.equal(told, 1);
  requests(1000, 0.1);
  assert.equal(told, 1, "it is held already");
  Atomics.store(new Int32Array(shared), 1, 0); // the main thread lets go
  requests(8, 0.1);
  assert.equal(told, 2);
});

test("the latency is held until hardly any requests come, and held again", (t) => {
  const device = join(temporaryDirectory(t), "latency");
  writeFileSync(device, "");
  const written = (): readonly number[] => [...new Int32Array(new Uint8Array(readFileSync(device)).buffer)];
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const sleep = openLightSleep(device);
  assert(sleep !== undefined);
  t.after(() => sleep.close());
  const words = new Int32Array(sleep.shared);
  const beat = beats(
    sleep.shared,
    () => 0,
    () => sleep.hold(),
  );
  const requests = (count: number): void => {
    for (let i = 0; i < count; i++) beat();
  };
  assert.deepEqual(written(), []);
  requests(8);
  const [light] = written();
  assert(light === 0 || light === 10, `${light} us`);
  for (let look = 0; look < 5; look++) {
    requests(8);
    mock.timers.tick(LOOK_MS);
  }
  assert.deepEqual(written(), [light], "requests go on");
  requests(7);
  mock.timers.tick(LOOK_MS);
  assert.deepEqual(written(), [light, ANY_US]);
  assert.equal(words[1], 0, "the server may ask again");
  mock.timers.tick(10 * LOOK_MS);
  assert.deepEqual(written(), [light, ANY_US], "nothing is left running");
  words[0] = 0x7fff_fffc; // the count goes round
  requests(8);
  requests(8);
  mock.timers.tick(LOOK_MS);
  assert.deepEqual(written(), [light, ANY_US, light]);
});

test("where there is no such device, nothing is held", (t) => {
  assert.equal(openLightSleep(join(temporaryDirectory(t), "none")), undefined);
});

const LATENCY = "/dev/cpu_dma_latency";

test("a busy mount holds the latency, sleep=deep leaves it alone", { skip: skipWithoutMounts() }, async (t) => {
  if (!existsSync(LATENCY)) {
    t.skip(`${LATENCY} is not there`);
    return;
  }
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "64M"]);
  const mountedWith = async (sleep: string): Promise<readonly string[]> => {
    await mountVolume(t, volume, dir, ["-o", `sleep=${sleep}`]);
    const { mounts } = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as {
      mounts: readonly DaemonStatus[];
    };
    const descriptors = `/proc/${mounts[0]?.pid}/fd`;
    return readdirSync(descriptors).map((each) => readlinkSync(join(descriptors, each)));
  };
  assert((await mountedWith("light")).includes(LATENCY));
  await shell(
    `(while :; do : > f; rm f; done) & busy=$!
    trap 'kill $busy' EXIT
    for i in $(seq 2000); do [ $(od -An -td4 ${LATENCY}) -gt 10 ] || exit 0; sleep 0.01; done
    exit 1`,
    { cwd: dir },
  );
  await unmountVolume(dir);
  assert(!(await mountedWith("deep")).includes(LATENCY));
  await unmountVolume(dir);
});
