import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { prng } from "../../src/core/prng.ts";
import { LOG_FRAME_MAGIC, logFrameHeader } from "../../src/format/change-record.ts";
import { type Fsinfo, NO_FRAMES } from "../../src/format/fsinfo.ts";
import { type ChangeLog, type LogRing, OWN_DEVICE, openChangeLog } from "../../src/volume/change-log/change-log.ts";
import { type LogFrame, readLog, sealFrame } from "../../src/volume/change-log/frames.ts";
import { createVolume } from "../../src/volume/create.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { unreadable } from "../sim/faults.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { makeDurable } from "../support/log-frames.ts";

const NONCE = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8]);

/** A volume with a log of 16 blocks, whose fsinfo has our nonce. */
function volumeWithLog(): { readonly device: MemoryDevice; readonly fsinfo: Fsinfo } {
  const device = memoryDevice(512);
  createVolume({ device, clock: manualClock(), random: prng(1) });
  return { device, fsinfo: { ...readFsinfo(device), logNonce: NONCE } };
}

const GOES_ON = { closing: false };
const NOTHING = { frames: [], damage: undefined };

function ringOf({ logFirst, logBlocks }: Fsinfo): LogRing {
  return { first: logFirst, blocks: logBlocks, uuid: OWN_DEVICE };
}

function openLog(fsinfo: Fsinfo): ChangeLog {
  const log = openChangeLog({ fsinfo, ring: ringOf(fsinfo), isMoved: false, nonce: NONCE, unreplayed: [] });
  log.freeze(2, GOES_ON);
  log.commit(2);
  assert(log.isOpen);
  return log;
}

/** A frame of nothing but its numbers, sealed by who knows of nothing before it. */
function frame(blocks: number, seqs: readonly [number, number], nonce: Uint8Array = NONCE): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(blocks * BLOCK_BYTES);
  bytes.fill(7, logFrameHeader.size);
  const [firstSeq, lastSeq] = seqs;
  logFrameHeader.encode(new DataView(bytes.buffer), 0, {
    magic: LOG_FRAME_MAGIC,
    checksum: 0,
    nonce,
    firstSeq,
    lastSeq,
    payloadBytes: bytes.length - logFrameHeader.size,
    changeCount: 0,
    extentCount: 0,
    durableSeq: 0,
    reserved: new Uint8Array(12),
  });
  sealFrame(bytes, 0);
  return bytes;
}

test("changes are described only when frames can follow a consistency point of this opening", () => {
  const { fsinfo } = volumeWithLog();
  const log = openChangeLog({ fsinfo, ring: ringOf(fsinfo), isMoved: false, nonce: NONCE, unreplayed: [] });
  assert.equal(log.change(), false, "another nonce is on disk");
  log.freeze(2, GOES_ON);
  assert.equal(log.change(), true, "after the freeze: this change follows the consistency point");
  assert.equal(log.isOpen, false, "which is not durable yet");
  log.commit(2);
  assert(log.isOpen);
  log.interrupt();
  assert.equal(log.change(), false);
  log.freeze(3, GOES_ON);
  log.interrupt(); // again, while it is in flight
  log.commit(3);
  assert.equal(log.isOpen, false);
  log.freeze(4, GOES_ON);
  log.commit(4);
  assert(log.isOpen);
});

test("a freeze keeps the log open if all is in frames, else what was described is dropped", () => {
  const { fsinfo } = volumeWithLog();
  const log = openLog(fsinfo);
  log.change();
  assert.notEqual(log.place(1), undefined);
  const { dropCount } = log;
  assert.equal(log.freeze(3, GOES_ON).logSeq, log.seq);
  assert(log.isOpen);
  assert.equal(log.dropCount, dropCount);
  log.commit(3);
  log.change();
  log.freeze(4, GOES_ON);
  assert.equal(log.isOpen, false);
  assert(log.dropCount > dropCount);
  log.commit(4);
  assert(log.isOpen);
});

test("a volume without a log numbers its changes and describes none", () => {
  const { fsinfo } = volumeWithLog();
  const log = openChangeLog({
    fsinfo,
    ring: { ...ringOf(fsinfo), blocks: 0 },
    isMoved: false,
    nonce: NONCE,
    unreplayed: [],
  });
  log.freeze(2, GOES_ON);
  log.commit(2);
  assert.equal(log.change(), false);
  assert.equal(log.isOpen, false);
  assert.equal(log.freeze(3, GOES_ON).logSeq, fsinfo.logSeq + 1);
});

test("frames never lie over one that a crash would need, whatever their sizes and consistency points", () => {
  const { fsinfo } = volumeWithLog();
  const { logFirst, logBlocks } = fsinfo;
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -1, max: 6 }), { maxLength: 60 }), (steps) => {
      const log = openLog(fsinfo);
      let cpCount = 3;
      let needed: { readonly vbn: number; readonly blocks: number; readonly seq: number }[] = [];
      for (const step of steps) {
        if (step <= 0) {
          const { logSeq } = log.freeze(cpCount, GOES_ON);
          log.commit(cpCount);
          cpCount += 1;
          needed = needed.filter(({ seq }) => seq > logSeq);
          continue;
        }
        log.change();
        if (!log.isOpen) continue;
        const vbn = log.place(step);
        if (vbn === undefined) continue;
        assert(vbn >= logFirst && vbn + step <= logFirst + logBlocks, "outside of the ring");
        for (const other of needed) assert(vbn + step <= other.vbn || other.vbn + other.blocks <= vbn, "overlap");
        needed.push({ vbn, blocks: step, seq: log.seq });
      }
    }),
  );
});

test("what is found is what was written, around the end of the ring, up to the first gap", () => {
  const { device, fsinfo } = volumeWithLog();
  const { logFirst, logBlocks } = fsinfo;
  assert.equal(logBlocks, 16);
  const log = openLog(fsinfo);
  const place = { ...fsinfo, ...log.freeze(3, GOES_ON) };
  for (const [i, blocks] of [5, 4, 3].entries()) {
    log.change();
    device.write(log.place(blocks) as number, blocks, frame(blocks, [place.logSeq + i + 1, log.seq]), 0);
  }
  assert.deepEqual(
    readLog({ device, place }).frames.map(({ head }) => head),
    [5, 9, 12],
  );
  const root = log.freeze(4, GOES_ON);
  log.commit(4);
  log.change();
  const behind = log.place(6) as number;
  assert.equal(behind, logFirst, "it does not fit before the end");
  device.write(behind, 6, frame(6, [log.seq, log.seq]), 0);
  assert.deepEqual(
    readLog({ device, place: { ...fsinfo, ...root } }).frames.map(({ header }) => header.lastSeq),
    [log.seq],
  );
  assert.deepEqual(readLog({ device, place }).frames, [], "the first frame of before is written over");
});

test("a frame that is torn, of another nonce, another number or an impossible size ends the log", () => {
  const { device, fsinfo } = volumeWithLog();
  const { logFirst, logHead, logSeq } = fsinfo;
  const vbn = logFirst + logHead;
  const seq = logSeq + 1;
  device.write(vbn, 2, frame(2, [seq, seq]), 0);
  assert.equal(readLog({ device, place: fsinfo }).frames.length, 1);
  for (const at of [0, 4, 9, 17, 33, 37, 70, 4095, 4096, 8191]) {
    const copy = device.clone();
    copy.corrupt(vbn * BLOCK_BYTES + at, 1);
    assert.deepEqual(readLog({ device: copy, place: fsinfo }), NOTHING, `byte ${at}`);
  }
  const wrong: readonly Uint8Array[] = [
    frame(2, [seq, seq], new Uint8Array(8)),
    frame(2, [seq + 1, seq + 1]),
    frame(2, [seq, seq - 1]),
    frame(2, [seq - 1, seq]),
  ];
  for (const bytes of wrong) {
    device.write(vbn, 2, bytes, 0);
    assert.deepEqual(readLog({ device, place: fsinfo }), NOTHING);
  }
  const huge = frame(1, [seq, seq]);
  logFrameHeader.set.payloadBytes(new DataView(huge.buffer), 0, 0xffff_ffff);
  device.write(vbn, 1, huge, 0);
  assert.deepEqual(readLog({ device, place: fsinfo }), NOTHING);
  assert.equal(logFrameHeader.get.magic(new DataView(huge.buffer), 0), LOG_FRAME_MAGIC);
});

/** Frames of these many blocks, one change each, from the present head of the log on. */
function framesOf(log: ChangeLog, sizes: readonly number[]): LogFrame[] {
  return sizes.map((blocks) => {
    log.change();
    const vbn = log.place(blocks) as number;
    return { vbn, bytes: frame(blocks, [log.seq, log.seq]), lastSeq: log.seq, needsFlush: false };
  });
}

test("any byte of a frame that others were written after tells damage from an end; of those written last none does", () => {
  const { device, fsinfo } = volumeWithLog();
  const log = openLog(fsinfo);
  const place = { ...fsinfo, ...log.freeze(3, GOES_ON) };
  log.commit(3);
  const seq = place.logSeq;
  const frames = framesOf(log, [1, 2, 1, 2, 1]);
  let durableSeq = 0;
  for (const some of [frames.slice(0, 1), frames.slice(1, 3), frames.slice(3)]) {
    durableSeq = makeDurable(device, some, durableSeq);
  }
  assert.equal(readLog({ device, place }).frames.length, 5);
  for (const [index, { vbn, bytes }] of frames.entries()) {
    for (let at = 0; at < bytes.length; at += 1 + (at % 97)) {
      const image = device.clone();
      image.corrupt(vbn * BLOCK_BYTES + at, 1 << (at % 8));
      const found = readLog({ device: image, place });
      assert.equal(found.frames.length, index, `byte ${at} of frame ${index}`);
      if (index >= 3) assert.equal(found.damage, undefined, `byte ${at} of frame ${index}, of the last write`);
      else {
        assert.equal(found.damage?.vbn, vbn);
        assert.match(
          found.damage.message,
          new RegExp(`changes ${seq + index + 1} to ${seq + 3} had been made durable`),
        );
      }
    }
  }
});

test("a write of several frames that was torn is an end, whichever of them are there", () => {
  const { device, fsinfo } = volumeWithLog();
  const log = openLog(fsinfo);
  const place = { ...fsinfo, ...log.freeze(3, GOES_ON) };
  log.commit(3);
  const frames = framesOf(log, [2, 1, 1, 3]);
  const durableSeq = makeDurable(device, frames.slice(0, 1));
  makeDurable(device, frames.slice(1), durableSeq);
  for (let lost = 0; lost < 8; lost++) {
    const image = device.clone();
    for (const [i, { vbn }] of frames.slice(1).entries()) if ((lost & (1 << i)) !== 0) image.corrupt(vbn * BLOCK_BYTES);
    const { frames: found, damage } = readLog({ device: image, place });
    assert.equal(damage, undefined);
    assert.equal(found.length, [4, 1, 2, 1, 3, 1, 2, 1][lost]);
  }
});

test("damage is found around the end of the ring, and what the ring held before is none", () => {
  const { device, fsinfo } = volumeWithLog();
  const log = openLog(fsinfo);
  let durableSeq = makeDurable(device, framesOf(log, [5, 5, 2]));
  const place = { ...fsinfo, ...log.freeze(3, GOES_ON) };
  log.commit(3);
  assert.deepEqual(readLog({ device, place }), NOTHING, "all of it is in the consistency point");
  const [first, second] = framesOf(log, [3, 6]) as [LogFrame, LogFrame];
  durableSeq = makeDurable(device, [first], durableSeq);
  makeDurable(device, [second], durableSeq);
  assert.equal(second.vbn, fsinfo.logFirst);
  assert.equal(readLog({ device, place }).frames.length, 2);
  device.corrupt(first.vbn * BLOCK_BYTES);
  assert.equal(readLog({ device, place }).damage?.vbn, first.vbn);
});

test("a block where the next frame would be, and that cannot be read, is damage; elsewhere in the ring it is nothing", () => {
  const { device, fsinfo } = volumeWithLog();
  const log = openLog(fsinfo);
  const place = { ...fsinfo, ...log.freeze(3, GOES_ON) };
  log.commit(3);
  makeDurable(device, framesOf(log, [2, 1]));
  const { logFirst } = fsinfo;
  for (const [vbn, isDamage] of [
    [logFirst + 1, true],
    [logFirst + 2, true],
    [logFirst + 3, true],
    [logFirst + 4, false],
  ] as const) {
    const { damage } = readLog({ device: unreadable(device, new Set([vbn])), place });
    assert.equal(damage !== undefined, isDamage, `block ${vbn}`);
  }
});

test("a volume that was unmounted says that no frames follow, whatever the ring holds", () => {
  const { device, fsinfo } = volumeWithLog();
  const log = openLog(fsinfo);
  makeDurable(device, framesOf(log, [1, 1]));
  const root = log.freeze(3, { closing: true });
  assert.deepEqual(root.logNonce, NO_FRAMES);
  assert.deepEqual(readLog({ device, place: { ...fsinfo, ...root } }), NOTHING);
  device.write(fsinfo.logFirst, 1, frame(1, [log.seq + 1, log.seq + 1], NO_FRAMES), 0);
  assert.deepEqual(readLog({ device, place: { ...fsinfo, ...root } }), NOTHING);
});
