import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { UserError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import { fsinfoVbns } from "../../src/format/constants.ts";
import { openReadOnly } from "../../src/image/open-state.ts";
import { openReceiver } from "../../src/image/receive.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { readFsinfo, readFsinfoCopies } from "../../src/volume/fsinfo-copies.ts";
import { crashDevice, erringDevice, type MemoryDevice, memoryDevice, PowerCut } from "../support/devices.ts";
import { assertFaithful, clock, makeSource, memoryTarget, type Source, streamOf } from "./histories.ts";

/** Cuts the power at every device operation of a receive; `judge` looks at what is left, true: it was the new state. */
function atEveryCrash(
  base: MemoryDevice,
  stream: Uint8Array,
  judge: (left: MemoryDevice, what: string) => boolean,
): void {
  let [before, after] = [0, 0];
  for (let budget = 0, done = false; !done; budget += 1) {
    for (let round = 0; round < 3; round += 1) {
      const device = crashDevice({ random: prng(budget * 7 + round), base: base.clone() });
      device.cutAfter(budget);
      // Two pieces: `base` may hold no volume, and then the target has no device before the header.
      const target = memoryTarget();
      const isVolume = hasVolume(base);
      const receiver = openReceiver(
        { ...target, device: isVolume ? device : undefined, prepare: () => device },
        { clock },
      );
      done = finishes(() => {
        receiver.push(stream);
        receiver.finish();
      });
      const isNew = judge(device.crash(), `crash after ${budget} operations, round ${round}`);
      if (done) assert.ok(isNew);
      if (isNew) after += 1;
      else before += 1;
    }
  }
  assert.ok(before > 3, "no crash left the old state");
  assert.ok(after > 3, "no crash left the new state");
}

function finishes(action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (error instanceof PowerCut) return false;
    throw error;
  }
}

function hasVolume(device: MemoryDevice): boolean {
  try {
    openReadOnly(device);
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

test("a crash at any point of an increment leaves the old or the new state, clean", () => {
  const source = makeSource({ seed: 9, blockCount: 1024 });
  source.change(15);
  source.snapshot("a");
  const base = source.device.clone();
  source.change(15);
  source.snapshot("b");
  const stream = streamOf(source.device, ["b"], "a");
  const [a, b] = [source.volume.findSnapshot("a"), source.volume.findSnapshot("b")];
  assert.ok(a);
  assert.ok(b);
  atEveryCrash(base, stream, (left, what) => {
    assert.deepEqual(checkVolume(left).findings, [], what);
    assertFaithful(source.device, left);
    const volume = openReadOnly(left);
    const isNew = volume.snapshots().length === 2;
    assert.deepEqual(volume.committed.inodeFile, isNew ? b.root : a.root, what);
    return isNew;
  });
});

test("before the first block is written, both copies of fsinfo are the newest: a crash may have left one behind", () => {
  const source = makeSource({ seed: 10, blockCount: 1024 });
  source.change(30);
  source.volume.takeCp("sync");
  const older = source.device.clone();
  source.change(30);
  source.snapshot("b");
  const device = source.device.clone();
  const [, second] = fsinfoVbns(readFsinfo(device).reservedBlocks);
  const behind = new Uint8Array(BLOCK_BYTES);
  older.read(second, 1, behind, 0);
  device.write(second, 1, behind, 0);
  source.change(30);
  source.snapshot("c");
  let blocksWritten = 0;
  const watched: MemoryDevice = {
    ...device,
    write(vbn, count, from, offset): void {
      const [one, other] = readFsinfoCopies(device).map(({ fsinfo }) => fsinfo?.cpCount);
      assert.equal(one, other, "a torn write of the newest copy would bring back a state whose blocks are used again");
      blocksWritten += count;
      device.write(vbn, count, from, offset);
    },
  };
  const receiver = openReceiver({ ...memoryTarget(), device: watched, prepare: () => watched }, { clock });
  receiver.push(streamOf(source.device, ["c"], "b"));
  receiver.finish();
  assert(blocksWritten > 10);
  assert.deepEqual(checkVolume(device).findings, []);
});

test("a crash at any point of a full image leaves no volume or the whole one", () => {
  const source = makeSource({ seed: 10, blockCount: 1024 });
  source.change(15);
  source.snapshot("a");
  atEveryCrash(memoryDevice(1024), streamOf(source.device, ["a"]), (left, what) => {
    if (!hasVolume(left)) return false;
    assert.deepEqual(checkVolume(left).findings, [], what);
    assertFaithful(source.device, left);
    return true;
  });
});

function bulk(fill: number): Uint8Array {
  return new Uint8Array(40 * BLOCK_BYTES).fill(fill);
}

/** A volume at "base" that also has "old", whose blocks the source has used again for "top". */
function reuse(): { readonly source: Source; readonly base: MemoryDevice; readonly stream: Uint8Array } {
  const source = makeSource({ seed: 4, blockCount: 256 });
  source.write("bulk", bulk(1));
  source.snapshot("old");
  source.write("bulk", bulk(2));
  source.snapshot("base");
  const base = source.device.clone();
  source.drop("old");
  for (let i = 3; i < 12; i += 1) {
    source.write("bulk", bulk(i));
    source.volume.takeCp("timer");
  }
  source.snapshot("top");
  return { source, base, stream: streamOf(source.device, ["top"], "base") };
}

test("a crash while a snapshot gives way leaves it whole or gone, never damaged", () => {
  const { source, base, stream } = reuse();
  const seen = new Set<string>();
  atEveryCrash(base, stream, (left, what) => {
    assert.deepEqual(checkVolume(left).findings, [], what);
    const names = openReadOnly(left)
      .snapshots()
      .map(({ name }) => name);
    seen.add(names.join());
    if (!names.includes("old")) assertFaithful(source.device, left);
    return names.includes("top");
  });
  assert.deepEqual([...seen].toSorted(), ["base", "base,top", "old,base"]);
});

test("a disk that refuses writes refuses the stream, and the old state stays", () => {
  const { base, stream } = reuse();
  for (const code of ["EIO", "ENOSPC"] as const) {
    for (const good of [0, 1, 5]) {
      const device = base.clone();
      let left = good;
      const erring = erringDevice(device, () => (left-- <= 0 ? code : undefined));
      const receiver = openReceiver(
        memoryTarget(device, () => erring),
        { clock },
      );
      assert.throws(() => {
        receiver.push(stream);
        receiver.finish();
      }, new RegExp(code));
      assert.deepEqual(checkVolume(device).findings, []);
      assert.ok(
        !openReadOnly(device)
          .snapshots()
          .some(({ name }) => name === "top"),
      );
    }
  }
});
