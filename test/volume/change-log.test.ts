import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { prng } from "../../src/core/prng.ts";
import { LOG_FRAME_MAGIC, logFrameHeader } from "../../src/format/change-record.ts";
import type { Fsinfo } from "../../src/format/fsinfo.ts";
import { type ChangeLog, type LogRing, OWN_DEVICE, openChangeLog } from "../../src/volume/change-log/change-log.ts";
import { hasFrames, readFrames, sealFrame } from "../../src/volume/change-log/frames.ts";
import { createVolume } from "../../src/volume/create.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";

const NONCE = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8]);

/** A volume with a log of 16 blocks, whose fsinfo has our nonce. */
function volumeWithLog(): { readonly device: MemoryDevice; readonly fsinfo: Fsinfo } {
  const device = memoryDevice(512);
  createVolume({ device, clock: manualClock(), random: prng(1) });
  return { device, fsinfo: { ...readFsinfo(device), logNonce: NONCE } };
}

const GOES_ON = { closing: false };

function ringOf({ logFirst, logBlocks }: Fsinfo): LogRing {
  return { first: logFirst, blocks: logBlocks, uuid: OWN_DEVICE };
}

function openLog(fsinfo: Fsinfo): ChangeLog {
  const log = openChangeLog({ fsinfo, ring: ringOf(fsinfo), isMoved: false, nonce: NONCE, isUnreplayed: false });
  log.freeze(2, GOES_ON);
  log.commit(2);
  assert(log.isOpen);
  return log;
}

function frame(blocks: number, seqs: readonly [number, number], nonce: Uint8Array = NONCE): Uint8Array {
  const bytes = new Uint8Array(blocks * BLOCK_BYTES);
  bytes.fill(7, logFrameHeader.size);
  const [firstSeq, lastSeq] = seqs;
  const payloadBytes = bytes.length - logFrameHeader.size;
  sealFrame(bytes, { nonce, firstSeq, lastSeq, payloadBytes, changeCount: 0, extentCount: 0 });
  return bytes;
}

test("changes are described only when frames can follow a consistency point of this opening", () => {
  const { fsinfo } = volumeWithLog();
  const log = openChangeLog({ fsinfo, ring: ringOf(fsinfo), isMoved: false, nonce: NONCE, isUnreplayed: false });
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
    isUnreplayed: false,
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
    readFrames({ device, place }).map(({ head }) => head),
    [5, 9, 12],
  );
  const root = log.freeze(4, GOES_ON);
  log.commit(4);
  log.change();
  const behind = log.place(6) as number;
  assert.equal(behind, logFirst, "it does not fit before the end");
  device.write(behind, 6, frame(6, [log.seq, log.seq]), 0);
  assert.deepEqual(
    readFrames({ device, place: { ...fsinfo, ...root } }).map(({ header }) => header.lastSeq),
    [log.seq],
  );
  assert.deepEqual(readFrames({ device, place }), [], "the first frame of before is written over");
});

test("a frame that is torn, of another nonce, another number or an impossible size ends the log", () => {
  const { device, fsinfo } = volumeWithLog();
  const { logFirst, logHead, logSeq } = fsinfo;
  const vbn = logFirst + logHead;
  const seq = logSeq + 1;
  device.write(vbn, 2, frame(2, [seq, seq]), 0);
  assert(hasFrames({ device, place: fsinfo }));
  for (const at of [0, 4, 9, 17, 33, 37, 70, 4095, 4096, 8191]) {
    const copy = device.clone();
    copy.corrupt(vbn * BLOCK_BYTES + at, 1);
    assert.deepEqual(readFrames({ device: copy, place: fsinfo }), [], `byte ${at}`);
  }
  const wrong: readonly Uint8Array[] = [
    frame(2, [seq, seq], new Uint8Array(8)),
    frame(2, [seq + 1, seq + 1]),
    frame(2, [seq, seq - 1]),
    frame(2, [seq - 1, seq]),
  ];
  for (const bytes of wrong) {
    device.write(vbn, 2, bytes, 0);
    assert.equal(hasFrames({ device, place: fsinfo }), false);
  }
  const huge = frame(1, [seq, seq]);
  logFrameHeader.set.payloadBytes(new DataView(huge.buffer), 0, 0xffff_ffff);
  device.write(vbn, 1, huge, 0);
  assert.equal(hasFrames({ device, place: fsinfo }), false);
  assert.equal(logFrameHeader.get.magic(new DataView(huge.buffer), 0), LOG_FRAME_MAGIC);
});
