/**
 * The change log, in its ring and on a device of its own. What has rotted in a frame that others were written after is told
 * from a torn end: nothing is replayed that would have a gap, and the consistency point before can be read.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { UserError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import { birthRecord, changeRecord, extentRecord, logFrameHeader } from "../../src/format/change-record.ts";
import { decodeLogFileHead, encodeLogFileHead, logFileHead } from "../../src/format/log-file.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { LogDevice, VolumeOptions } from "../../src/volume/volume.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { applyToReal, forgetful } from "../support/fs-paths.ts";
import { makeDurable } from "../support/log-frames.ts";
import type { Operation } from "../support/model-fs.ts";
import { blockOf, fieldsOf, flipped, type Harm, harmed, type Kind, type Place, wholeBlocks } from "./kinds.ts";
import { type Contents, contentsOf, lostOf } from "./sample-volume.ts";

const BLOCKS = 4096;
const LOG_UUID = new Uint8Array(16).fill(9);
const MADE = new Uint8Array(10_000).fill(5);
const REFERRED = new Uint8Array(64 * BLOCK_BYTES).map((_, i) => i % 253);

interface LogSample {
  readonly device: MemoryDevice;
  /** The device that the log is on: the same, or another. */
  readonly log: MemoryDevice;
  /** Frames that others were written after. */
  readonly frames: readonly { readonly vbn: number; readonly bytes: Uint8Array }[];
  /** Of the consistency point before them. */
  readonly contents: Contents;
}

const samples = new Map<boolean, LogSample>();

/** A volume that crashed with three frames in its log: every kind of record is in the first. */
function sample(isApart: boolean): LogSample {
  const known = samples.get(isApart);
  if (known !== undefined) return known;
  const device = memoryDevice(BLOCKS);
  const log = isApart ? memoryDevice(129) : device;
  const clock = manualClock();
  createVolume({ device, clock, random: prng(1) });
  const volume = openVolume({ device, clock, random: prng(2), writable: true, ...where({ device, log }) });
  const fs = forgetful(openFileSystem({ volume, clock }));
  const does = (op: Operation): void => assert.equal(applyToReal(fs, new Map(), op), "");
  does({ kind: "create", path: "/before", mode: 0o644, uid: 0 });
  does({ kind: "write", path: "/before", offset: 0, data: MADE });
  volume.takeCp("sync");
  const contents = contentsOf(device);
  const steps: readonly (readonly Operation[])[] = [
    [
      { kind: "create", path: "/made", mode: 0o644, uid: 0 },
      { kind: "write", path: "/made", offset: 0, data: MADE },
      { kind: "rename", path: "/made", into: "/renamed", flags: 0 },
      { kind: "setxattr", path: "/renamed", name: "user.note", value: "a value", flags: 0 },
      { kind: "create", path: "/referred", mode: 0o644, uid: 0 },
      { kind: "write", path: "/referred", offset: 0, data: REFERRED },
    ],
    [{ kind: "chmod", path: "/renamed", mode: 0o600 }],
    [{ kind: "unlink", path: "/before" }],
  ];
  let durableSeq = 0;
  const frames = steps.map((operations) => {
    for (const operation of operations) does(operation);
    const frame = fs.logFrame() ?? assert.fail("the log is not open");
    durableSeq = makeDurable(volume.logDevice, [frame], durableSeq);
    return { vbn: frame.vbn, bytes: frame.bytes };
  });
  const made = { device, log, frames: frames.slice(0, -1), contents };
  samples.set(isApart, made);
  return made;
}

function where({ device, log }: Crashed): { readonly logDevice?: LogDevice } {
  return log === device ? {} : { logDevice: { device: log, uuid: LOG_UUID } };
}

/** Every record of every frame, where it lies on the log's device. */
function framePlaces({ frames }: LogSample): readonly Place[] {
  return frames.flatMap(({ vbn, bytes }) => {
    const first = vbn * BLOCK_BYTES;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const places: Place[] = [{ at: first, bytes: bytes.length, of: [] }, ...fieldsOf(logFrameHeader, first)];
    let at = logFrameHeader.size;
    for (let left = logFrameHeader.get.changeCount(view, 0); left > 0; left--) {
      const { birthCount, nameBytes, intoNameBytes, valueBytes } = changeRecord.decode(view, at);
      places.push(...fieldsOf(changeRecord, first + at));
      at += changeRecord.size;
      if (birthCount > 0) places.push(...fieldsOf(birthRecord, first + at));
      at += birthCount * birthRecord.size + nameBytes + intoNameBytes + valueBytes;
    }
    for (let left = logFrameHeader.get.extentCount(view, 0); left > 0; left--) {
      places.push(...fieldsOf(extentRecord, first + at));
      at += extentRecord.size + extentRecord.get.dataBytes(view, at);
    }
    assert.equal(at, logFrameHeader.size + logFrameHeader.get.payloadBytes(view, 0));
    return places;
  });
}

interface Crashed {
  readonly device: MemoryDevice;
  readonly log: MemoryDevice;
}

/** The crash, with harm to the device that has the log. */
function crashed({ device, log }: LogSample, harm: Harm): Crashed {
  const bad = harmed(log, harm);
  return log === device ? { device: bad, log: bad } : { device: device.clone(), log: bad };
}

function recover(place: Crashed, more: Partial<VolumeOptions> = {}): void {
  const clock = manualClock();
  const { device } = place;
  const volume = openVolume({ device, clock, random: prng(3), writable: true, ...where(place), ...more });
  openFileSystem({ volume, clock });
  volume.takeCp("recovery");
}

function frameKind(isApart: boolean): Kind {
  return {
    what: `a frame of the change log ${isApart ? "on a device of its own" : "in its ring"}`,
    promise: "are found and named, nothing is replayed, and the consistency point before is read",
    device: () => sample(isApart).log,
    places: () => framePlaces(sample(isApart)),
    judge(harm): void {
      const { frames, contents } = sample(isApart);
      const damaged = crashed(sample(isApart), harm);
      assert.throws(
        () => recover(damaged),
        (error) =>
          error instanceof UserError && error.failure === "corrupt" && /changes \d+ to \d+/.test(error.message),
      );
      assert.deepEqual(lostOf(damaged.device, contents, `byte ${harm.at}`), []);
      const { findings, notes } = checkVolume(damaged.device);
      if (isApart) assert.match(notes.join(), /in a file of its own/);
      else {
        const hit = frames.findLast(({ vbn }) => vbn <= blockOf(harm));
        assert.deepEqual(
          findings.map(({ kind, vbn }) => [kind, vbn]),
          [["change-log", hit?.vbn]],
        );
      }
      recover(damaged, { forgetLog: true });
      assert.deepEqual(checkVolume(damaged.device).findings, []);
    },
  };
}

/** Blocks that a frame refers to lie beside the log, and only the frame has their checksums. */
const referredKind: Kind = {
  what: "a block that a frame of the change log refers to",
  promise: "are found and named when the frame has been replayed, and that block alone is an error",
  device: () => sample(false).device,
  places: () => wholeBlocks(referredVbns(sample(false))),
  judge(harm): void {
    const vbn = blockOf(harm);
    const [damaged, good] = [crashed(sample(false), harm), crashed(sample(false), { ...harm, xor: 0, isHole: false })];
    recover(damaged);
    recover(good);
    assert.deepEqual(
      checkVolume(damaged.device).findings.map(({ kind, vbn: found, path }) => [kind, found, path]),
      [["checksum", vbn, "/referred"]],
    );
    const index = referredVbns(sample(false)).indexOf(vbn);
    assert.deepEqual(lostOf(damaged.device, contentsOf(good.device), `block ${vbn}`), [`block ${index} of /referred`]);
  },
};

function referredVbns({ device }: LogSample): readonly number[] {
  const first = REFERRED.subarray(0, BLOCK_BYTES);
  for (let vbn = 0; vbn < BLOCKS; vbn++) {
    const block = device.peek(vbn);
    if (block !== undefined && Buffer.compare(block, first) === 0)
      return Array.from({ length: REFERRED.length / BLOCK_BYTES }, (_, i) => vbn + i);
  }
  return assert.fail("the block that is referred to is not there");
}

const headOf = (): Uint8Array =>
  encodeLogFileHead({ blockCount: 129, uuid: LOG_UUID, volumeUuid: new Uint8Array(16).fill(8) });

const headKind: Kind = {
  what: "the head of a change log's file",
  promise: "make it the log of nobody",
  places: () => fieldsOf(logFileHead, 0),
  judge(harm): void {
    assert.notEqual(decodeLogFileHead(headOf()), undefined);
    assert.equal(decodeLogFileHead(flipped(headOf(), harm)), undefined);
  },
};

export const logKinds: readonly Kind[] = [frameKind(false), frameKind(true), referredKind, headKind];
