import assert from "node:assert/strict";
import { test } from "node:test";
import { checksum } from "../../src/core/checksum.ts";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError, UserError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import { fsinfoVbns } from "../../src/format/constants.ts";
import { decodeFsinfo, encodeFsinfo, fsinfoRecord } from "../../src/format/fsinfo.ts";
import { createVolume } from "../../src/volume/create.ts";
import { looksLikeVolume, readFsinfo, readFsinfoCopies } from "../../src/volume/fsinfo-copies.ts";
import { openVolume } from "../../src/volume/open.ts";
import { crashDevice, type MemoryDevice, memoryDevice, PowerCut } from "../support/devices.ts";

const clock = manualClock();

function formatted(blocks = 3000): MemoryDevice {
  const device = memoryDevice(blocks);
  createVolume({ device, clock, random: prng(1), label: "test" });
  return device;
}

test("fsinfo comes back as it was written, from both places", () => {
  const device = formatted();
  const [first, second] = readFsinfoCopies(device);
  assert.deepEqual(first.fsinfo, second.fsinfo);
  assert.deepEqual([first.vbn, second.vbn], fsinfoVbns(readFsinfo(device).reservedBlocks));
  assert.equal(readFsinfo(device).label, "test");
  const { fsinfo } = first;
  assert(fsinfo !== undefined);
  assert.deepEqual({ ...decodeFsinfo(encodeFsinfo(fsinfo)), checksum: 0 }, { ...fsinfo, checksum: 0 });
});

test("any flipped byte of one copy is noticed, and the other copy is used, whatever the size of the volume", () => {
  for (const blocks of [64, 3000, 500_000]) {
    const device = formatted(blocks);
    const { reservedBlocks, uuid } = readFsinfo(device);
    for (const at of [0, 8, 12, 100, 2000, 4095]) {
      for (const vbn of fsinfoVbns(reservedBlocks)) {
        const damaged = device.clone();
        damaged.corrupt(vbn * 4096 + at, 0x41);
        assert.equal(readFsinfoCopies(damaged).filter((copy) => copy.fsinfo === undefined).length, 1);
        assert.deepEqual(readFsinfo(damaged).uuid, uuid);
        assert.equal(
          openVolume({ device: damaged, clock, random: prng(1), writable: true }).status().blockCount,
          blocks,
        );
      }
    }
  }
});

test("the newer of two whole copies counts", () => {
  const device = formatted();
  const { reservedBlocks, ...rest } = readFsinfo(device);
  const newer = encodeFsinfo({ ...rest, reservedBlocks, cpCount: 77 });
  device.writeDurable(fsinfoVbns(reservedBlocks)[1], newer);
  assert.equal(readFsinfo(device).cpCount, 77);
});

test("a device without a volume, or with both copies damaged, is refused with what was found", () => {
  for (const blocks of [0, 1, 1000]) {
    const other = { ...memoryDevice(blocks), path: "/srv/other" };
    assert.throws(
      () => readFsinfo(other),
      isRefused(/^\/srv\/other is not a Tidemark volume: neither block 0 nor block/),
    );
  }
  const device = formatted();
  for (const vbn of fsinfoVbns(readFsinfo(device).reservedBlocks)) device.corrupt(vbn * 4096 + 200);
  assert.throws(() => readFsinfo(device), isRefused(/^neither copy of the root of the device .* checksum/));
  assert.equal(looksLikeVolume(device), true, "it was one: formatting it needs force");
  assert.equal(looksLikeVolume(memoryDevice(1000)), false);
});

test("a version and features from the future are refused by name, impossible sizes too", () => {
  const device = formatted();
  const fsinfo = readFsinfo(device);
  const changed = (edit: (view: DataView) => void): Uint8Array => {
    const block = encodeFsinfo(fsinfo);
    const view = new DataView(block.buffer);
    edit(view);
    fsinfoRecord.set.checksum(view, 0, checksum(block.subarray(0, 4092)));
    return block;
  };
  assert.throws(() => decodeFsinfo(changed((view) => fsinfoRecord.set.version(view, 0, 9))), /format version 9/);
  assert.throws(() => decodeFsinfo(changed((view) => fsinfoRecord.set.features(view, 0, 0x20))), /features 0x00000020/);
  assert.throws(() => decodeFsinfo(changed((view) => fsinfoRecord.set.reservedBlocks(view, 0, 5000))), CorruptionError);
  assert.throws(() => decodeFsinfo(changed((view) => fsinfoRecord.set.blockCount(view, 0, 3))), CorruptionError);
});

test("a block file that was cut short is refused", () => {
  const device = formatted(3000);
  const short = { ...device, blockCount: 2000 };
  assert.throws(() => readFsinfo(short), /has 3000 blocks, but its file only 2000/);
});

test("opening for writing makes both copies the newest again, opening for reading changes nothing", () => {
  for (const [index, damage] of [
    [0, (device: MemoryDevice) => device.corrupt(100)],
    [1, (device: MemoryDevice) => device.corrupt((readFsinfo(device).reservedBlocks - 1) * 4096 + 100)],
    [1, (device: MemoryDevice, old: Uint8Array) => device.writeDurable(readFsinfo(device).reservedBlocks - 1, old)],
    [0, (device: MemoryDevice, old: Uint8Array) => device.writeDurable(0, old)],
  ] as const) {
    const device = formatted();
    const old = encodeFsinfo(readFsinfo(device));
    const volume = openVolume({ device, clock, random: prng(1), writable: true });
    volume.createSnapshot("one");
    volume.takeCp("snapshot");
    const { cpCount } = readFsinfo(device);
    damage(device, old);
    openVolume({ device, clock, random: prng(1), writable: false });
    assert.notEqual(readFsinfoCopies(device)[index].fsinfo?.cpCount, cpCount);
    openVolume({ device, clock, random: prng(1), writable: true });
    assert.deepEqual(
      readFsinfoCopies(device).map(({ fsinfo }) => fsinfo?.cpCount),
      [cpCount, cpCount],
    );
  }
});

test("opening for writing makes both copies durable, the newest first, even if both read well: the host may have lost them", () => {
  const base = formatted();
  const older = base.clone();
  const volume = openVolume({ device: base, clock, random: prng(1), writable: true });
  volume.createSnapshot("one");
  volume.takeCp("snapshot");
  const { cpCount, reservedBlocks } = readFsinfo(base);
  const vbns = fsinfoVbns(reservedBlocks);
  // The process died in both writes of fsinfo: all of it can be read, and none is on the disk.
  const disk = crashDevice({ random: prng(1), base: older });
  for (let vbn = 0; vbn < base.blockCount; vbn++) {
    const block = base.peek(vbn);
    if (block === undefined) continue;
    if (vbns.includes(vbn)) continue;
    disk.write(vbn, 1, block, 0);
  }
  disk.flush();
  for (const vbn of vbns) disk.write(vbn, 1, base.peek(vbn) as Uint8Array, 0);
  const found = new Set<number>();
  for (let operations = 0; operations <= 2; operations++) {
    disk.cutAfter(operations);
    try {
      openVolume({ device: disk, clock, random: prng(1), writable: true });
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
    }
    for (let seed = 0; seed < 40; seed++) found.add(readFsinfo(disk.crash(prng(seed))).cpCount);
    disk.cutAfter(Number.POSITIVE_INFINITY);
  }
  openVolume({ device: disk, clock, random: prng(1), writable: true });
  for (let seed = 0; seed < 40; seed++) assert.equal(readFsinfo(disk.crash(prng(seed))).cpCount, cpCount);
  assert.deepEqual(
    [...found].toSorted((a, b) => a - b),
    [cpCount - 1, cpCount],
  );
});

test("a copy that is caught half written is read again, so that nobody goes back to the older one", () => {
  const device = formatted();
  const { reservedBlocks, ...rest } = readFsinfo(device);
  const [first] = fsinfoVbns(reservedBlocks);
  device.writeDurable(first, encodeFsinfo({ ...rest, reservedBlocks, cpCount: 77 }));
  let torn = 2;
  const beside = {
    ...device,
    read(vbn: number, count: number, into: Uint8Array, offset: number): void {
      device.read(vbn, count, into, offset);
      if (vbn === first && torn-- > 0) into.fill(0, offset + 100, offset + 200);
    },
  };
  assert.equal(readFsinfo(beside).cpCount, 77);
});

test("a read-only volume follows to newer consistency points only", () => {
  const device = formatted();
  const before = device.clone();
  const reader = openVolume({ device, clock, random: prng(1), writable: false });
  const writer = openVolume({ device, clock, random: prng(2), writable: true });
  writer.createSnapshot("a");
  writer.takeCp("snapshot");
  assert.equal(reader.follow(), true);
  assert.equal(reader.snapshots().length, 1);
  for (const vbn of fsinfoVbns(reader.committed.reservedBlocks)) {
    const block = new Uint8Array(4096);
    before.read(vbn, 1, block, 0);
    device.writeDurable(vbn, block);
  }
  assert.equal(reader.follow(), false);
  assert.equal(reader.snapshots().length, 1);
});

function isRefused(message: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof UserError && error.failure === "corrupt" && message.test(error.message);
}
