// The host is told to begin with one part after the other and never waited for; and what fails on the way is told by each flush.
import assert from "node:assert/strict";
import { closeSync, constants, fdatasyncSync, openSync, writeSync } from "node:fs";
import { test } from "node:test";
import { hostWriteBack, type WriteBackCalls } from "../../src/daemon/host-write-back.ts";
import { fullDisk } from "../support/full-disk.ts";
import { skipWithoutMounts } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const MIB = 1 << 20;
const PART_BYTES = 4 * MIB;

/** Calls that return when they are told to. */
function fakeCalls({ drops }: { readonly drops: boolean }) {
  const made: (readonly [what: string, descriptor: number, position: number, lengthBytes: number])[] = [];
  let ends: (() => void)[] = [];
  const step = async (): Promise<boolean> => {
    const [some, any] = [ends, ends.length > 0];
    ends = [];
    for (const end of some) end();
    await new Promise(setImmediate);
    return any;
  };
  const call =
    (what: string): WriteBackCalls["begin"] =>
    (...part) =>
      new Promise((resolve) => {
        made.push([what, ...part]);
        ends.push(resolve);
      });
  return {
    made,
    underWay: () => ends.length,
    calls: { begin: call("begin"), drop: drops ? call("drop") : undefined },
    /** Lets what is under way return. True: something was. */
    step,
  };
}

test("one call at a time, a bounded number of parts waits, and the end waits for the call under way only", async () => {
  const { made, underWay, calls, step } = fakeCalls({ drops: false });
  const writeBack = hostWriteBack(async () => calls);
  writeBack.begin(3, 0, PART_BYTES);
  await step();
  for (let i = 1; i <= 100; i++) writeBack.begin(3, i * PART_BYTES, PART_BYTES);
  for (let some = true; some; some = await step()) assert(underWay() <= 1);
  assert.deepEqual(
    made,
    Array.from({ length: 17 }, (_, i) => ["begin", 3, i * PART_BYTES, PART_BYTES]),
  );

  for (let i = 0; i < 5; i++) writeBack.begin(3, i, PART_BYTES);
  await step();
  let hasEnded = false;
  const end = writeBack.end().then(() => {
    hasEnded = true;
  });
  await new Promise(setImmediate);
  assert.deepEqual([hasEnded, underWay()], [false, 1]);
  await step();
  await end;
  assert.equal(made.length, 18);
});

test("where memory is dear, all but the parts that were begun last is dropped, with the folio across the border before it", async () => {
  const { made, calls, step } = fakeCalls({ drops: true });
  const writeBack = hostWriteBack(async () => calls);
  for (let i = 0; i < 10; i++) {
    writeBack.begin(3, i * PART_BYTES, PART_BYTES);
    for (await step(); await step(); );
  }
  assert.deepEqual(
    made.filter(([what]) => what === "drop"),
    [
      ["drop", 3, 0, PART_BYTES],
      ["drop", 3, PART_BYTES - 2 * MIB, PART_BYTES + 2 * MIB],
    ],
  );
  await writeBack.end();
});

test("a host without these calls is told nothing", async () => {
  const writeBack = hostWriteBack(async () => undefined);
  for (let i = 0; i < 100; i++) writeBack.begin(3, i, PART_BYTES);
  await writeBack.end();
});

test("the disk has begun before any flush, and what it could not write is told by every flush, of whoever opens it later too", {
  skip: skipWithoutMounts(),
}, async (t) => {
  const { disk, wrote } = await fullDisk(t, temporaryDirectory(t), { sizeBytes: PART_BYTES, hostMib: 1 });
  const descriptor = openSync(disk, constants.O_RDWR);
  writeSync(descriptor, new Uint8Array(PART_BYTES).fill(1), 0, PART_BYTES, 0);
  const writeBack = hostWriteBack();
  writeBack.begin(descriptor, 0, PART_BYTES);
  await wrote(PART_BYTES);
  await writeBack.end();

  const later = openSync(disk, constants.O_RDWR);
  for (const each of [later, descriptor]) {
    assert.throws(() => fdatasyncSync(each), /EIO|ENOSPC/);
    closeSync(each);
  }
});
