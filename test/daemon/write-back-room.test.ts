import assert from "node:assert/strict";
import { totalmem } from "node:os";
import { test } from "node:test";
import { keptBlocksOf, type WriteBackRoom, writeBackRoom } from "../../src/daemon/write-back-room.ts";
import type { Volume } from "../../src/volume/volume.ts";

const MIB = 256; // in blocks
const LEAST = 8 * MIB;
const KEPT = 32 * MIB;
const BLOCK_COUNT = 1024 * MIB;

interface Bench {
  readonly volume: { availableNowBlocks: number; frozenBlocks: number; aside: number };
  readonly room: WriteBackRoom;
  /** What it has asked for. */
  readonly asked: string[];
  readonly drained: (keptBlocks: number) => readonly Uint8Array[];
  readonly kernel: { cachedCount: number; nowMs: number };
}

/** A consistency point frees all that is frozen but what snapshots hold. */
function bench(availableNowBlocks: number, { keptBlocks = KEPT, heldBlocks = 0 } = {}): Bench {
  const asked: string[] = [];
  const volume = {
    committed: { blockCount: BLOCK_COUNT },
    availableNowBlocks,
    frozenBlocks: 0,
    aside: -1,
    setAside(blocks: number): void {
      volume.aside = blocks;
    },
  };
  const kernel = { cachedCount: 0, nowMs: 0 };
  const room = writeBackRoom(volume as unknown as Volume, {
    dirtyPagesBytesMax: keptBlocks * 4096 - 1,
    makeSpace(): boolean {
      asked.push("makeSpace");
      volume.availableNowBlocks += Math.max(0, volume.frozenBlocks - heldBlocks);
      volume.frozenBlocks = 0;
      return true;
    },
    isFreeing: () => false,
    cachedCount: () => kernel.cachedCount,
    nowMs: () => kernel.nowMs,
    drain: (bytes, delayMs) => asked.push(`drain to ${bytes / MIB / 4096}${delayMs > 0 ? " later" : ""}`),
    allow: (bytes) => asked.push(`allow ${bytes / MIB / 4096}`),
  });
  return { volume, room, asked, kernel, drained: (blocks) => room.drained(blocks * 4096) };
}

test("the kernel keeps a quarter of what is available, no more than it wants, and no less than a share of the volume", () => {
  const blocks = (availableMib: number, volumeMib = 1024): number =>
    keptBlocksOf({ blockCount: volumeMib * MIB, availableBlocks: availableMib * MIB }) / MIB;
  assert.deepEqual([blocks(100), blocks(40), blocks(8), blocks(0)], [25, 10, 8, 8]);
  assert.deepEqual([blocks(0, 256), blocks(0, 16), blocks(0, 1 << 24)], [2, 1, 8]);
  assert.equal(blocks(1 << 20), Math.min(256, Math.ceil(totalmem() / 16 / 4096) / MIB));
});

test("below twice what is kept the kernel is told to keep less, and then there is room again", () => {
  const { volume, room, asked, drained } = bench(200 * MIB);
  assert.deepEqual([room.isShort, room.isShut, room.isOwed, volume.aside], [false, false, true, 2 * KEPT]);
  volume.availableNowBlocks = 90 * MIB;
  room.look();
  assert.deepEqual([room.isShort, room.isShut], [true, false]);
  volume.availableNowBlocks = 60 * MIB;
  room.look();
  assert.deepEqual([room.isShort, room.isShut, room.isOwed, volume.aside], [true, true, true, 2 * KEPT]);
  assert.equal(room.admits(), false, "until that is done");
  assert.deepEqual(asked, ["drain to 15"]);
  assert.deepEqual(drained(15 * MIB), []);
  assert.equal(room.admits(), true);
  assert.deepEqual([room.isShort, room.isShut, volume.aside], [false, false, 30 * MIB]);
});

test("what comes while it drains takes space, and then the kernel is to keep less still", () => {
  const { volume, room, asked, drained } = bench(200 * MIB);
  volume.availableNowBlocks = 60 * MIB;
  room.look();
  room.defer(Uint8Array.of(1));
  volume.availableNowBlocks = 40 * MIB;
  assert.deepEqual(drained(15 * MIB), []);
  assert.deepEqual([room.isShut, room.isOwed, asked], [true, true, ["drain to 15", "drain to 10"]]);
  assert.deepEqual(drained(10 * MIB), [Uint8Array.of(1)]);
  assert.equal(room.admits(), true);
});

test("with less than twice the least there is none, until something is freed; then more may be kept", () => {
  const { volume, room, asked, drained } = bench(30 * MIB, { keptBlocks: LEAST });
  volume.availableNowBlocks = 15 * MIB;
  room.look();
  drained(LEAST);
  assert.equal(room.admits(), false);
  assert.deepEqual([room.isShort, room.isShut, room.isOwed, volume.aside], [true, true, false, 0]);
  assert.deepEqual(asked.splice(0), ["drain to 8"]);
  volume.availableNowBlocks = 23 * MIB;
  room.look();
  assert.equal(room.isShut, true, "not back and forth");
  volume.availableNowBlocks = 24 * MIB;
  assert.equal(room.admits(), true);
  volume.availableNowBlocks = 63 * MIB;
  room.look();
  assert.deepEqual(asked, []);
  volume.availableNowBlocks = 64 * MIB;
  room.look();
  assert.deepEqual([asked, volume.aside], [["allow 16"], 32 * MIB]);
});

test("where the kernel cannot be told to keep less, twice of what it keeps is all that is refused", () => {
  const { volume, room, drained } = bench(60 * MIB);
  assert.equal(room.isShut, true, "from the start");
  volume.availableNowBlocks = 96 * MIB;
  room.look();
  assert.equal(room.isShut, false);
  volume.availableNowBlocks = 50 * MIB;
  room.look();
  drained(KEPT);
  assert.equal(room.admits(), false);
  assert.equal(volume.aside, 0, "for all others");
});

test("for each handle with a cache a little more is set aside, which its write(2) may be in the middle of", () => {
  const { volume, room, asked, kernel } = bench(200 * MIB);
  kernel.cachedCount = 5;
  room.look();
  assert.equal(volume.aside, 2 * KEPT + 5 * MIB);
  volume.availableNowBlocks = 2 * KEPT + 5 * MIB - 4;
  room.look();
  assert.deepEqual([room.isShut, asked], [true, [`drain to ${(2 * KEPT - 4) / 4 / MIB}`]]);
});

test("it is not dry while pages come: who the kernel has held up in the middle of a write(2) goes on", () => {
  const { volume, room, asked, kernel, drained } = bench(30 * MIB, { keptBlocks: LEAST });
  room.defer(Uint8Array.of(1));
  volume.availableNowBlocks = 15 * MIB;
  room.took();
  kernel.nowMs += 200;
  assert.deepEqual(drained(LEAST), []);
  assert.deepEqual([asked.splice(0), room.isOwed, volume.aside], [["drain to 8", "drain to 8 later"], true, 2 * LEAST]);
  room.took();
  kernel.nowMs += 249;
  assert.deepEqual(drained(LEAST), []);
  kernel.nowMs += 1;
  assert.deepEqual(drained(LEAST), [Uint8Array.of(1)]);
  assert.deepEqual([room.isOwed, volume.aside], [false, 0]);
});

test("the kernel is never told to keep more while it drains, and less as long as pages take what there is", () => {
  const { volume, room, asked, drained } = bench(60 * MIB, { keptBlocks: 10 * MIB });
  room.took();
  room.defer(Uint8Array.of(1));
  volume.availableNowBlocks = 40 * MIB;
  assert.deepEqual(drained(15 * MIB), []);
  assert.deepEqual(asked, ["drain to 10", "drain to 10 later"]);
  volume.availableNowBlocks = 36 * MIB;
  assert.deepEqual(drained(15 * MIB), []);
  assert.equal(asked.at(-1), "drain to 9 later");
});

test("pages that never cease to come, as those of a mapping, are waited for so long and no longer", () => {
  const { volume, room, kernel, drained } = bench(30 * MIB, { keptBlocks: LEAST });
  room.defer(Uint8Array.of(1));
  volume.availableNowBlocks = 15 * MIB;
  let rounds = 1;
  for (; ; rounds++) {
    assert(rounds < 100);
    room.took();
    kernel.nowMs += 100;
    if (drained(LEAST).length > 0) break;
  }
  assert(rounds > 10, `${rounds} rounds`);
});

test("who finds no space waits until the kernel's cache is empty, and is asked again", () => {
  const { volume, room, asked, drained } = bench(120 * MIB);
  const [one, other] = [Uint8Array.of(1), Uint8Array.of(2)];
  room.defer(one);
  assert.equal(room.admits(), false, "and so do writers with a cache");
  room.defer(other);
  room.look();
  assert.equal(room.isShut, true, "although there is space for them");
  assert.deepEqual(asked, ["drain to 30"]);
  assert.deepEqual(drained(30 * MIB), [one, other]);
  assert.equal(volume.aside, 0);
  room.look();
  assert.deepEqual([room.isShut, volume.aside], [false, 60 * MIB]);
});

test("before it is shut a consistency point is taken, if it can bring enough", () => {
  const { volume, room, asked, drained } = bench(200 * MIB);
  Object.assign(volume, { availableNowBlocks: 50 * MIB, frozenBlocks: 60 * MIB });
  room.look();
  assert.deepEqual([room.isShut, asked.splice(0)], [false, ["makeSpace"]]);
  Object.assign(volume, { availableNowBlocks: 50 * MIB, frozenBlocks: 40 * MIB });
  room.look();
  assert.deepEqual([room.isShut, asked], [true, ["drain to 12.5"]], "not for less: each write would take one");
  Object.assign(volume, { availableNowBlocks: 10 * MIB, frozenBlocks: 40 * MIB });
  drained(LEAST);
  assert.equal(room.admits(), true, "what was deleted since lets writers in again");
});

test("what snapshots hold is no room, whatever is frozen of it", () => {
  const { volume, room, asked } = bench(200 * MIB, { heldBlocks: 200 * MIB });
  Object.assign(volume, { availableNowBlocks: 50 * MIB, frozenBlocks: 200 * MIB });
  room.look();
  assert.deepEqual([room.isShut, asked], [true, ["makeSpace", "drain to 12.5"]]);
});
