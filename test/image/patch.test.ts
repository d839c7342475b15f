// Metadata travels as patches: what a patch is, that it is made where it should be, and that no bytes of one do harm.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { checksum } from "../../src/core/checksum.ts";
import { CorruptionError } from "../../src/core/errors.ts";
import { below, prng } from "../../src/core/prng.ts";
import {
  DIGEST_START,
  decodeImageHeader,
  digestFrame,
  encodeImageTrailer,
  FRAME_DATA,
  frameHeader,
  PATCH_BYTES_MAX,
  type Patch,
  patchRecord,
  runRecord,
  sealFrame,
} from "../../src/format/image-frame.ts";
import type { SnapshotRecord } from "../../src/format/snapshot-record.ts";
import { openReadOnly } from "../../src/image/open-state.ts";
import { applyPatch, isPatch, makePatch } from "../../src/image/patch.ts";
import { openReceiver } from "../../src/image/receive.ts";
import { expectedOf, planImage } from "../../src/image/send.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import type { MemoryDevice } from "../support/devices.ts";
import { assertFaithful, blocksOf, clock, framesOf, makeSource, memoryTarget, receive } from "./histories.ts";

const WORDS = BLOCK_BYTES / 4;
const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

const edits = fc.array(fc.tuple(fc.nat(WORDS - 1), fc.array(fc.nat(0xffff_ffff), { minLength: 1, maxLength: 40 })), {
  maxLength: 60,
});

test("a patch makes the block again, or is not made because it would be too long", () => {
  fc.assert(
    fc.property(fc.nat(), edits, fc.nat(30), (seed, changes, at) => {
      const random = prng(seed);
      const base = new Uint32Array(WORDS).map(() => random.u32());
      const block = base.slice();
      for (const [word, values] of changes) block.set(values.slice(0, WORDS - word), word);
      const into = new Uint8Array(at + PATCH_BYTES_MAX);
      const length = makePatch(base, block, viewOf(into), at);
      const different = block.filter((value, word) => value !== base[word]).length;
      if (length < 0) return assert.ok(different * 8 > PATCH_BYTES_MAX, "it would have fitted");
      assert.ok(length >= different * 4 && length <= Math.max(0, different * 8), `${length} for ${different} words`);
      assert.ok(isPatch(viewOf(into), at, length));
      const made = new Uint8Array(base.slice().buffer);
      applyPatch(into.subarray(at, at + length), made, 0);
      assert.deepEqual(made, new Uint8Array(block.buffer));
    }),
  );
});

test("arbitrary bytes that pass for a patch change nothing beyond their block", () => {
  let passed = 0;
  const segment = fc.tuple(fc.nat(5000), fc.nat(60), fc.nat(60)).map(([offset, claimed, real]) => {
    const bytes = new Uint8Array(4 + (real % 3 === 0 ? real : claimed));
    viewOf(bytes).setUint16(0, offset, true);
    viewOf(bytes).setUint16(2, claimed, true);
    return bytes;
  });
  fc.assert(
    fc.property(fc.array(segment, { maxLength: 4 }), (segments) => {
      const bytes = new Uint8Array(
        Buffer.concat(segments.toSorted((a, b) => viewOf(a).getUint16(0, true) - viewOf(b).getUint16(0, true))),
      );
      if (!isPatch(viewOf(bytes), 0, bytes.length)) return;
      passed += 1;
      const around = new Uint8Array(3 * BLOCK_BYTES).fill(7);
      applyPatch(bytes, around, BLOCK_BYTES);
      assert.ok(around.every((byte, at) => byte === 7 || (at >= BLOCK_BYTES && at < 2 * BLOCK_BYTES)));
    }),
    { numRuns: 500 },
  );
  assert.ok(passed > 20, `${passed} passed`);
});

function patchesIn(frames: readonly Uint8Array[]): number {
  return frames.reduce((sum, frame) => sum + frameHeader.get.patchCount(viewOf(frame), 0), 0);
}

for (const seed of [1, 2, 3, 4]) {
  test(`what is patched is in the image, what it is patched to in the base, over several tops too (seed ${seed})`, () => {
    const random = prng(seed);
    const source = makeSource({ seed, blockCount: 8192 });
    source.change(40);
    source.snapshot("base");
    const target = memoryTarget();
    receive(target, join(framesOf(source.device, ["base"])));
    const tops = ["one", "two", "three"].slice(0, 1 + (seed % 3));
    for (const name of tops) {
      source.change(1 + below(random, 25));
      source.snapshot(name);
    }
    const volume = openReadOnly(source.device);
    const record = (name: string): SnapshotRecord => volume.findSnapshot(name) as SnapshotRecord;
    const inBase = blocksOf(source.device, record("base").root);
    const inTops = tops.map((name) => blocksOf(source.device, record(name).root));
    const plan = planImage(volume, { tops: tops.map(record), base: record("base") });
    const { bases } = expectedOf(source.device, plan, 0);
    assert.ok(bases.size > 0);
    for (const [vbn, baseVbn] of bases) {
      assert.ok(inBase.has(baseVbn), `block ${baseVbn} is not in the base`);
      assert.ok(!inBase.has(vbn) && inTops.some((blocks) => blocks.has(vbn)), `block ${vbn} is not in the image`);
    }
    const frames = framesOf(source.device, tops, "base");
    assert.ok(patchesIn(frames) > 0);
    receive(target, join(frames));
    assert.ok(target.memory);
    assertFaithful(source.device, target.memory);
  });
}

/** A large file, of which single blocks are written: its indirect blocks all change, each by a pointer. */
function scattered(): {
  readonly source: MemoryDevice;
  readonly destination: MemoryDevice;
  readonly frames: Uint8Array[];
} {
  const source = makeSource({ seed: 5, blockCount: 16384 });
  source.write("big", new Uint8Array(7000 * BLOCK_BYTES).fill(1));
  source.snapshot("a");
  const target = memoryTarget();
  receive(target, join(framesOf(source.device, ["a"])));
  for (let i = 0; i < 600; i += 1)
    source.write("big", new Uint8Array(BLOCK_BYTES).fill(2 + (i % 50)), i * 11 * BLOCK_BYTES);
  source.snapshot("b");
  assert.ok(target.memory);
  return { source: source.device, destination: target.memory, frames: framesOf(source.device, ["b"], "a") };
}

const join = (frames: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(frames));

test("metadata of single blocks rewritten costs less than the run table's neighbour, not a block each", () => {
  const { source, destination, frames } = scattered();
  const { blockCount } = decodeImageHeader((frames[0] as Uint8Array).subarray(frameHeader.size));
  const metadata = blockCount - 600;
  assert.ok(metadata >= 14, `${metadata} blocks of metadata`);
  const overhead = join(frames).length - 600 * BLOCK_BYTES;
  assert.ok(patchesIn(frames) >= metadata - 3, `${patchesIn(frames)} of ${metadata} patched`);
  assert.ok(overhead < 600 * 24 + 3 * BLOCK_BYTES, `${overhead} bytes beside the data`);
  const target = memoryTarget(destination.clone());
  receive(target, join(frames), { pieceBytes: 997 });
  assert.ok(target.memory);
  assertFaithful(source, target.memory);
});

test("an increment with patches is cut at every frame and resumed there", () => {
  const { source, destination, frames } = scattered();
  assert.ok(frames.length >= 5);
  for (let cut = 1; cut < frames.length; cut += 1) {
    const target = memoryTarget(destination.clone());
    const first = openReceiver(target, { clock });
    first.push(join(frames.slice(0, cut)));
    const resume = first.checkpoint();
    assert.deepEqual(checkVolume(target.memory as MemoryDevice).findings, []);
    const second = openReceiver(target, { clock, resume });
    second.push(join(frames.slice(cut)));
    second.finish();
    assertFaithful(source, target.memory as MemoryDevice);
  }
});

/** The frame that has the most patches. */
function patchedFrame(frames: readonly Uint8Array[]): number {
  const counts = frames.map((frame) => frameHeader.get.patchCount(viewOf(frame), 0));
  return counts.indexOf(Math.max(...counts));
}

/** The frames with another one at `place`, all checksums right. */
function withFrame(frames: readonly Uint8Array[], place: number, data: Uint8Array): Uint8Array[] {
  const stream = checksum((frames[0] as Uint8Array).subarray(frameHeader.size));
  const { runCount, blockCount, patchCount } = frameHeader.decode(viewOf(frames[place] as Uint8Array), 0);
  sealFrame(data, { kind: FRAME_DATA, frameNumber: place, stream, runCount, blockCount, patchCount });
  const forged = frames.slice(0, -1).with(place, data);
  let digest = DIGEST_START;
  for (const frame of forged) digest = digestFrame(digest, frame.subarray(0, frameHeader.size));
  const total = decodeImageHeader((frames[0] as Uint8Array).subarray(frameHeader.size)).blockCount;
  return [...forged, encodeImageTrailer({ frameCount: frames.length, blockCount: total, digest }, stream)];
}

test("patches that lie, with all checksums of the stream right, are refused and change nothing", () => {
  const { destination, frames } = scattered();
  const place = patchedFrame(frames);
  const data = frames[place] as Uint8Array;
  const { runCount, patchCount } = frameHeader.decode(viewOf(data), 0);
  assert.ok(patchCount > 2);
  const tableAt = frameHeader.size + runCount * runRecord.size;
  const patchesAt = tableAt + patchCount * patchRecord.size;
  const lies: Record<string, (patch: Patch) => Partial<Patch>> = {
    "another base": ({ baseVbn }) => ({ baseVbn: baseVbn - 1 }),
    "a base in the reserved area": () => ({ baseVbn: 1 }),
    "a base beyond the volume": () => ({ baseVbn: 0xffff_fff0 }),
    "another checksum": ({ checksum: sum }) => ({ checksum: sum ^ 1 }),
    "beyond the frame": () => ({ index: 256 }),
    "at the place of another": ({ index }) => ({ index: index + 1 }),
    "too long": ({ bytes }) => ({ bytes: bytes + 4 }),
    "too short": ({ bytes }) => ({ bytes: bytes - 4 }),
    "far too long": () => ({ bytes: 0xffff }),
  };
  const before = readFsinfo(destination);
  const taken = memoryTarget(destination.clone());
  receive(taken, join(withFrame(frames, place, data.slice()))); // the forger works
  const assertRefused = (forged: Uint8Array, what: string): void => {
    const device = destination.clone();
    const receiver = openReceiver(memoryTarget(device), { clock });
    assert.throws(() => receiver.push(join(withFrame(frames, place, forged))), CorruptionError, what);
    assert.deepEqual(readFsinfo(device), before, what);
    assert.deepEqual(checkVolume(device).findings, [], what);
  };
  for (const [what, lie] of Object.entries(lies)) {
    for (const row of [0, 1, patchCount - 1]) {
      const forged = data.slice();
      const at = tableAt + row * patchRecord.size;
      const patch = patchRecord.decode(viewOf(forged), at);
      patchRecord.encode(viewOf(forged), at, { ...patch, ...lie(patch) });
      assertRefused(forged, `${what}, patch ${row}`);
    }
  }
  const random = prng(9);
  for (let run = 0; run < 60; run += 1) {
    const forged = data.slice();
    const first = patchRecord.decode(viewOf(forged), tableAt);
    const at = patchesAt + below(random, first.bytes); // in the segments of the first patch
    forged[at] = (forged[at] as number) ^ (1 << below(random, 8));
    assertRefused(forged, `byte ${at}`);
  }
});

test("a base that has rotted at the destination is found, and nothing is made of it", () => {
  const { destination, frames } = scattered();
  const data = frames[patchedFrame(frames)] as Uint8Array;
  const { runCount } = frameHeader.decode(viewOf(data), 0);
  const { baseVbn } = patchRecord.decode(viewOf(data), frameHeader.size + runCount * runRecord.size);
  const device = destination.clone();
  const block = new Uint8Array(BLOCK_BYTES);
  device.read(baseVbn, 1, block, 0);
  block[4000] = (block[4000] as number) ^ 4;
  device.write(baseVbn, 1, block, 0);
  const receiver = openReceiver(memoryTarget(device), { clock });
  assert.throws(() => receiver.push(join(frames)), /block \d+ of the base is not what the image is a difference to/);
  assert.deepEqual(readFsinfo(device), readFsinfo(destination));
});
