// What the status says of who holds the space.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { FsError } from "../../src/core/errors.ts";
import { fullNotes } from "../../src/daemon/server-space.ts";
import { spaceOf } from "../../src/daemon/space-holders.ts";
import { makeBench, putFile, writeAt } from "../support/fs-paths.ts";

test("what has been freed since the last consistency point is held by no snapshot, unless there is one that has it", () => {
  const { fs, volume } = makeBench();
  const data = new Uint8Array(512 * BLOCK_BYTES).fill(1);
  putFile(fs, "/f");
  writeAt(fs, "/f", 0, data);
  volume.takeCp("sync");
  writeAt(fs, "/f", 0, data);
  assert(volume.frozenBlocks >= 512);
  assert.equal(spaceOf(volume).snapshotBlocks, 0);
  volume.takeCp("sync");
  assert.equal(spaceOf(volume).snapshotBlocks, 0);
  volume.createSnapshot("s");
  volume.takeCp("snapshot");
  writeAt(fs, "/f", 0, data);
  volume.takeCp("sync");
  const { snapshotBlocks } = spaceOf(volume);
  assert(snapshotBlocks >= 512 && snapshotBlocks < 530, `${snapshotBlocks} blocks`);
});

test("a full volume and a full disk of the host are told apart, in the log once a minute each, in the status more often", () => {
  const { volume } = makeBench();
  let now = 0;
  const told: (readonly [ms: number, what: string, again: boolean])[] = [];
  const full = fullNotes({
    volume,
    nowMs: () => now,
    send(message) {
      if (message.kind === "full") told.push([now, message.message.split(":", 1)[0] ?? "", message.again]);
    },
  });
  const hostFull = new FsError("ENOSPC", "write failed", { cause: new Error("ENOSPC") });
  for (; now < 62_000; now += 1000) {
    full(new FsError("ENOSPC", "no space"));
    if (now === 5000 || now === 7000) full(hostFull);
  }
  const volumeTimes = [0, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000];
  const expected = volumeTimes.map((ms) => [ms, "the volume is full", ms % 60_000 !== 0] as const);
  assert.deepEqual(told, [expected[0], [5000, "the disk of the host is full", false], ...expected.slice(1)]);
});
