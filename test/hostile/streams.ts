/**
 * Hostile image streams: frames left out, repeated, moved, of another stream, with changed fields and bodies, and sealed again,
 * up to the digest of the trailer. A stream that is refused has changed nothing at the destination, and one that is taken leaves a volume
 * that can be opened.
 */
import assert from "node:assert/strict";
import { checksum } from "../../src/core/checksum.ts";
import { manualClock } from "../../src/core/clock.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import {
  DIGEST_START,
  digestFrame,
  frameHeader,
  headerFrameOf,
  heldRecord,
  imageHeaderRecord,
  imageTrailer,
  patchRecord,
  plainHeaderBody,
  runRecord,
} from "../../src/format/image-frame.ts";
import { snapshotRecord } from "../../src/format/snapshot-record.ts";
import type { LayoutRow } from "../../src/format/struct.ts";
import { openReceiver } from "../../src/image/receive.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { openVolume } from "../../src/volume/open.ts";
import { clock, framesOf, makeSource, memoryTarget, receive } from "../image/histories.ts";
import type { MemoryDevice } from "../support/devices.ts";
import { tolerate } from "./judge.ts";
import { mutateBytes, mutateField, mutateNumber } from "./mutate.ts";

export interface StreamSample {
  readonly destination: MemoryDevice;
  /** An increment for it, and a full image, both to the same top. */
  readonly streams: readonly (readonly Uint8Array[])[];
}

export function sampleStreams(): StreamSample {
  const source = makeSource({ seed: 3, blockCount: 2048 });
  source.change(20);
  source.snapshot("a");
  const target = memoryTarget();
  receive(target, new Uint8Array(Buffer.concat(framesOf(source.device, ["a"]))));
  for (let i = 0; i < 3; i += 1) source.write(`bulk${i}`, new Uint8Array(150 * 4096).fill(i + 1));
  source.change(20);
  source.snapshot("b");
  assert.ok(target.memory);
  return {
    destination: target.memory,
    streams: [framesOf(source.device, ["b"], "a"), framesOf(source.device, ["a", "b"])],
  };
}

export function hostileStream(random: Random, { streams }: Pick<StreamSample, "streams">): Uint8Array {
  const base = streams[below(random, streams.length)] ?? [];
  let frames: Uint8Array[] = base.map((frame) => frame.slice());
  for (let n = 1 + below(random, 3); n > 0; n--) {
    const i = below(random, frames.length);
    const frame = frames[i];
    if (frame === undefined) break;
    switch (below(random, 8)) {
      case 0:
        frames = frames.toSpliced(i, 1);
        break;
      case 1:
        frames = frames.toSpliced(below(random, frames.length), 0, frame.slice());
        break;
      case 2: {
        const other = streams[below(random, streams.length)] ?? [];
        frames[i] = (other[below(random, other.length)] ?? frame).slice();
        break;
      }
      case 3:
        mutateFrameHeader(random, frame);
        break;
      default:
        frames[i] = mutateBody(random, frame);
    }
  }
  if (below(random, 8) > 0) sealStream(frames);
  const stream = new Uint8Array(Buffer.concat(frames));
  return below(random, 10) === 0 ? mutateBytes(random, stream) : stream;
}

function mutateFrameHeader(random: Random, frame: Uint8Array): void {
  const rows = frameHeader.layout;
  const row = rows[below(random, rows.length - 1)] as LayoutRow;
  mutateField(random, viewOf(frame), 0, row, [1, 2, 3, frame.length - frameHeader.size]);
}

/** The body as what it is: records of the header, runs, patches, blocks, the trailer. */
function mutateBody(random: Random, frame: Uint8Array): Uint8Array {
  const body = frame.subarray(frameHeader.size);
  const view = viewOf(frame);
  const { kind, runCount, patchCount } = frameHeader.decode(view, 0);
  if (below(random, 6) === 0) return joined(frame.subarray(0, frameHeader.size), mutateBytes(random, body));
  if (kind === 1) return tolerate("header", () => mutateHeaderBody(random, body)) ?? frame;
  if (kind === 3) mutateField(random, view, frameHeader.size, imageTrailer.layout[below(random, 2)] as LayoutRow, []);
  else if (patchCount > 0 && below(random, 2) === 0) {
    const at = frameHeader.size + runCount * runRecord.size + below(random, patchCount) * patchRecord.size;
    if (below(random, 3) === 0) mutateNumber(random, view, below(random, frame.length - 3), 2, []);
    else mutateField(random, view, at, patchRecord.layout[below(random, 4)] as LayoutRow, [0, 1, 16, 100]);
  } else if (runCount > 0 && below(random, 3) > 0) {
    const at = frameHeader.size + below(random, runCount) * runRecord.size;
    mutateField(random, view, at, runRecord.layout[below(random, 2)] as LayoutRow, [0, 1, 31, 32, 2047, 2048]);
  } else mutateNumber(random, view, frameHeader.size + below(random, Math.max(1, body.length - 4)), 4, []);
  return frame;
}

function mutateHeaderBody(random: Random, body: Uint8Array): Uint8Array {
  let plain: Uint8Array = plainHeaderBody(body).slice();
  const view = viewOf(plain);
  const { topCount, heldCount } = imageHeaderRecord.decode(view, 0);
  const place = below(random, 4);
  const topsEnd = imageHeaderRecord.size + topCount * snapshotRecord.size;
  if (place === 0) plain = mutateBytes(random, plain);
  else if (place === 1)
    mutateRow(
      random,
      view,
      imageHeaderRecord.size + snapshotRecord.size * below(random, topCount),
      snapshotRecord.layout,
    );
  else if (place === 2)
    mutateRow(random, view, topsEnd + heldRecord.size * below(random, heldCount), heldRecord.layout);
  else mutateRow(random, view, 0, imageHeaderRecord.layout);
  const there = Math.floor((plain.length - imageHeaderRecord.size) / snapshotRecord.size); // topCount may be mutated too
  const sealed = place === 0 ? 0 : Math.min(topCount, there);
  for (let i = 0; i < sealed; i++) {
    const at = imageHeaderRecord.size + i * snapshotRecord.size;
    snapshotRecord.set.checksum(view, at, checksum(plain.subarray(at, at + snapshotRecord.offset.checksum)));
  }
  return headerFrameOf(plain).slice();
}

function mutateRow(random: Random, view: DataView, at: number, rows: readonly LayoutRow[]): void {
  const row = rows[below(random, rows.length)] as LayoutRow;
  mutateField(random, view, at, row, [1, 2, 2048, 64]);
}

/** Lengths and checksums of all frames, the number of their stream, and the digest. */
export function sealStream(frames: readonly Uint8Array[]): void {
  let digest = DIGEST_START;
  let stream = 0;
  for (const [i, frame] of frames.entries()) {
    const view = viewOf(frame);
    const body = frame.subarray(frameHeader.size);
    if (frameHeader.get.kind(view, 0) === 3 && body.length === imageTrailer.size)
      imageTrailer.set.digest(view, frameHeader.size, digest);
    frameHeader.set.bodyBytes(view, 0, body.length);
    frameHeader.set.bodyChecksum(view, 0, checksum(body));
    frameHeader.set.stream(view, 0, stream);
    if (i === 0) stream = checksum(body);
    frameHeader.set.checksum(view, 0, checksum(frame.subarray(0, frameHeader.offset.checksum)));
    digest = digestFrame(digest, frame.subarray(0, frameHeader.size));
  }
}

export function exerciseStream(random: Random, stream: Uint8Array, { destination }: StreamSample): void {
  const isNew = below(random, 4) === 0;
  const target = memoryTarget(isNew ? undefined : destination.clone(), (memory) => ({
    ...memory,
    write(vbn, count, from, offset): void {
      assert(vbn > 0 && vbn + count <= memory.blockCount, `a write to blocks ${vbn} to ${vbn + count - 1}`);
      memory.write(vbn, count, from, offset);
    },
  }));
  const pieceBytes = 1 + below(random, stream.length + 1);
  const result = tolerate("receive", () => {
    const receiver = openReceiver(target, { clock });
    for (let at = 0; at < stream.length; at += pieceBytes) receiver.push(stream.subarray(at, at + pieceBytes));
    return receiver.finish();
  });
  const { memory } = target;
  if (memory === undefined) return;
  if (result === undefined && !isNew) {
    assert.deepEqual(readFsinfo(memory), readFsinfo(destination), "a refused stream changes nothing");
    assert.deepEqual(checkVolume(memory).findings, []);
  } else if (result !== undefined) {
    openVolume({ device: memory, clock: manualClock(), random: prng(1), writable: false });
    tolerate("check", () => checkVolume(memory));
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
