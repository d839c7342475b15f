import assert from "node:assert/strict";
import { test } from "node:test";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError } from "../../src/core/errors.ts";
import { below, prng } from "../../src/core/prng.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import { memoryDevice } from "../support/devices.ts";

const clock = manualClock();

test("a thousand snapshots keep their records through deletions, renames and reopening", () => {
  const random = prng(3);
  const device = memoryDevice(100_000);
  createVolume({ device, clock, random });
  let volume = openVolume({ device, clock, random, writable: true });
  const names = new Set<string>();
  for (let i = 0; i < 1000; i++) {
    volume.createSnapshot(`snapshot-${i}`);
    names.add(`snapshot-${i}`);
    if (below(random, 4) === 0) {
      const gone = [...names][below(random, names.size)] as string;
      volume.deleteSnapshot(gone);
      names.delete(gone);
    }
    if (below(random, 10) === 0) {
      const old = [...names][below(random, names.size)] as string;
      volume.renameSnapshot(old, `${old}'`);
      names.delete(old);
      names.add(`${old}'`);
    }
    volume.takeCp("snapshot");
    if (i % 200 === 199) {
      volume = openVolume({ device, clock, random, writable: true });
      assert.deepEqual(new Set(volume.snapshots().map((record) => record.name)), names);
      const ids = volume.snapshots().map((record) => record.id);
      assert.deepEqual(
        ids,
        ids.toSorted((a, b) => a - b),
        "in the order of creation",
      );
    }
  }
});

test("a full table says so, changes nothing, and works again after a deletion", () => {
  const random = prng(4);
  const device = memoryDevice(2000); // 31 reserved blocks
  createVolume({ device, clock, random });
  const volume = openVolume({ device, clock, random, writable: true });
  let count = 0;
  assert.throws(
    () => {
      for (;;) {
        volume.createSnapshot(`s${count}`);
        volume.takeCp("snapshot");
        count += 1;
      }
    },
    { code: "ENOSPC" },
  );
  assert(count > 50, `room for ${count}`);
  assert.equal(volume.snapshots().length, count);
  for (let i = 0; i < 8; i++) {
    volume.deleteSnapshot(`s${i}`);
    volume.takeCp("snapshot");
  }
  volume.createSnapshot("again");
  volume.takeCp("snapshot");
  assert(openVolume({ device, clock, random, writable: false }).findSnapshot("again") !== undefined);
});

test("a table that is damaged in both copies is refused, not misread; in one, the other serves", () => {
  const random = prng(5);
  const device = memoryDevice(4000);
  createVolume({ device, clock, random });
  const volume = openVolume({ device, clock, random, writable: true });
  for (let i = 0; i < 20; i++) {
    volume.createSnapshot(`s${i}`);
    volume.takeCp("snapshot");
  }
  const intact = openVolume({ device, clock, random, writable: false }).snapshots();
  const copyDistance = Math.floor((volume.committed.logFirst - 1) / 2);
  let refused = 0;
  for (let vbn = 1; vbn <= copyDistance; vbn++) {
    for (const copy of [vbn, vbn + copyDistance]) {
      const halved = device.clone();
      halved.corrupt(copy * 4096 + 100, 0x10);
      const opened = openVolume({ device: halved, clock, random, writable: false });
      assert.deepEqual(opened.snapshots(), intact);
    }
    const damaged = device.clone();
    damaged.corrupt(vbn * 4096 + 100, 0x10);
    damaged.corrupt((vbn + copyDistance) * 4096 + 100, 0x10);
    try {
      const opened = openVolume({ device: damaged, clock, random, writable: false });
      assert.equal(opened.snapshots().length, 20, "the block was not part of the table");
    } catch (error) {
      assert(error instanceof CorruptionError);
      refused += 1;
    }
  }
  assert(refused >= 3, "the blocks of 20 records are among those");
});
