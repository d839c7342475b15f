import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { checksum } from "../../src/core/checksum.ts";
import { CorruptionError, UserError } from "../../src/core/errors.ts";
import { below, prng } from "../../src/core/prng.ts";
import {
  DIGEST_START,
  decodeImageHeader,
  digestFrame,
  encodeImageHeader,
  encodeImageTrailer,
  FRAME_BLOCKS,
  FRAME_DATA,
  frameHeader,
  type ImageHeader,
  runRecord,
  sealFrame,
} from "../../src/format/image-frame.ts";
import type { SnapshotRecord } from "../../src/format/snapshot-record.ts";
import { openReceiver } from "../../src/image/receive.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import type { MemoryDevice } from "../support/devices.ts";
import { assertFaithful, blocksOf, clock, framesOf, makeSource, memoryTarget, receive } from "./histories.ts";

/** A destination at "a", and the frames that bring it to "b". */
function setUp(): { readonly source: MemoryDevice; readonly destination: MemoryDevice; readonly frames: Uint8Array[] } {
  const source = makeSource({ seed: 3, blockCount: 4096 });
  source.change(20);
  source.snapshot("a");
  const target = memoryTarget();
  receive(target, join(framesOf(source.device, ["a"])));
  for (let i = 0; i < 3; i += 1) source.write(`bulk${i}`, new Uint8Array(200 * BLOCK_BYTES).fill(i + 1));
  source.snapshot("b");
  assert.ok(target.memory);
  const frames = framesOf(source.device, ["b"], "a");
  assert.ok(frames.length >= 5);
  return { source: source.device, destination: target.memory, frames };
}

const join = (frames: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(frames));

/** The stream is refused in words (that match `pattern`), and the volume is what it was: same roots, clean. */
function assertRefused(destination: MemoryDevice, stream: Uint8Array, what: string, pattern = /.{10}/): void {
  const device = destination.clone();
  const receiver = openReceiver(memoryTarget(device), { clock });
  assert.throws(
    () => {
      receiver.push(stream);
      receiver.finish();
    },
    (error: unknown) => {
      assert.ok(error instanceof CorruptionError || error instanceof UserError, `${what}: ${String(error)}`);
      assert.match(error.message, pattern);
      return true;
    },
    what,
  );
  assert.deepEqual(readFsinfo(device), readFsinfo(destination), what);
  assert.deepEqual(checkVolume(device).findings, [], what);
}

test("a flipped bit anywhere is found", () => {
  const { destination, frames } = setUp();
  const stream = join(frames);
  const random = prng(11);
  const headEnd = (frames[0] as Uint8Array).length + frameHeader.size;
  const tail = stream.length - 300;
  for (let run = 0; run < 400; run += 1) {
    const place = below(random, 3);
    const at =
      place === 0 ? below(random, headEnd) : place === 1 ? tail + below(random, 300) : below(random, stream.length);
    const bad = stream.slice();
    bad[at] = (bad[at] as number) ^ (1 << below(random, 8));
    assertRefused(destination, bad, `byte ${at}`);
  }
});

test("every cut is found, also one between frames", () => {
  const { destination, frames } = setUp();
  const stream = join(frames);
  const cuts = new Set<number>([0, 1, 47, 48, 49, stream.length - 1]);
  let end = 0;
  for (const frame of frames.slice(0, -1)) {
    end += frame.length;
    for (const at of [end - 1, end, end + 1, end + frameHeader.size]) cuts.add(at);
  }
  for (const cut of cuts) assertRefused(destination, stream.subarray(0, cut), `cut at ${cut}`);
});

test("frames in another order, twice, missing or of another stream are found", () => {
  const { source, destination, frames } = setUp();
  for (let i = 0; i < frames.length; i += 1) {
    assertRefused(destination, join(frames.toSpliced(i, 1)), `without frame ${i}`);
    assertRefused(destination, join(frames.toSpliced(i, 0, frames[i] as Uint8Array)), `frame ${i} twice`);
    for (let k = 0; k < i; k += 1) {
      const swapped = [...frames];
      [swapped[i], swapped[k]] = [frames[k] as Uint8Array, frames[i] as Uint8Array];
      assertRefused(destination, join(swapped), `frames ${k} and ${i} swapped`);
    }
  }
  const others = framesOf(source, ["b"]);
  for (let i = 1; i < frames.length; i += 1) {
    assertRefused(
      destination,
      join(frames.with(i, others[i] as Uint8Array)),
      `frame ${i} of another stream`,
      /another image stream|is of kind|has \d+ blocks/,
    );
  }
  assertRefused(destination, join([...frames, new Uint8Array(1)]), "a byte more");
  assertRefused(destination, join([...frames, ...frames]), "another stream behind it");
  const target = memoryTarget(destination.clone());
  receive(target, join(frames));
  assert.ok(target.memory);
  assertFaithful(source, target.memory);
});

test("random bytes are no stream", () => {
  const { destination } = setUp();
  const random = prng(12);
  for (let run = 0; run < 50; run += 1) {
    assertRefused(
      destination,
      new Uint8Array(below(random, 5000)).map(() => random.u32()),
      `run ${run}`,
    );
  }
});

/** Frames with all their checksums right, from parts that are not. */
function forge(frames: readonly Uint8Array[], change: (header: ImageHeader) => ImageHeader): Uint8Array[] {
  const old = decodeImageHeader((frames[0] as Uint8Array).subarray(frameHeader.size));
  const header = change(old);
  const forged = [encodeImageHeader(header)];
  return sealAgain([...forged, ...frames.slice(1)], header);
}

function sealAgain(frames: readonly Uint8Array[], header: ImageHeader): Uint8Array[] {
  const first = frames[0] as Uint8Array;
  const stream = checksum(first.subarray(frameHeader.size));
  let digest = digestFrame(DIGEST_START, first.subarray(0, frameHeader.size));
  const sealed = [first];
  for (const [index, frame] of frames.slice(1, -1).entries()) {
    const again = frame.slice();
    const { runCount, blockCount, patchCount } = frameHeader.decode(new DataView(again.buffer), 0);
    sealFrame(again, { kind: FRAME_DATA, frameNumber: index + 1, stream, runCount, blockCount, patchCount });
    digest = digestFrame(digest, again.subarray(0, frameHeader.size));
    sealed.push(again);
  }
  sealed.push(encodeImageTrailer({ frameCount: frames.length, blockCount: header.blockCount, digest }, stream));
  return sealed;
}

/** The header with something else in its newest top. */
function top(header: ImageHeader, change: Partial<SnapshotRecord>): ImageHeader {
  return {
    ...header,
    tops: [...header.tops.slice(0, -1), { ...(header.tops.at(-1) as SnapshotRecord), ...change }],
  };
}

test("streams whose every checksum is right but which lie are refused too", () => {
  const { source, destination, frames } = setUp();
  const accepted = memoryTarget(destination.clone());
  receive(accepted, join(forge(frames, (header) => header))); // the forger works
  assert.ok(accepted.memory);
  assertFaithful(source, accepted.memory);

  const lies: Record<string, (header: ImageHeader) => ImageHeader> = {
    "another volume": (header) => ({ ...header, volumeUuid: new Uint8Array(16) }),
    "fewer blocks in the volume": (header) => ({ ...header, volumeBlocks: 2048 }),
    "another reserved area": (header) => ({ ...header, reservedBlocks: header.reservedBlocks - 1 }),
    "another root of the base": (header) => ({ ...header, base: header.base && { ...header.base, rootChecksum: 1 } }),
    "another base": (header) => ({
      ...header,
      base: header.base && { ...header.base, uuid: new Uint8Array(16).fill(7) },
    }),
    "no base": (header) => ({ ...header, base: undefined }),
    "blocks that do not come": (header) => ({ ...header, blockCount: header.blockCount + 1 }),
    "blocks too few": (header) => ({ ...header, blockCount: header.blockCount - 1 }),
    "more blocks than the volume has": (header) => ({ ...header, blockCount: 0xffff_ffff }),
    "an older top": (header) => top(header, { cpCount: 1 }),
    "a root of nothing": (header) =>
      top(header, { root: { ...(header.tops[0] as SnapshotRecord).root, pointers: new Uint8Array(128) } }),
    "a root out of the volume": (header) =>
      top(header, { root: { ...(header.tops[0] as SnapshotRecord).root, pointers: new Uint8Array(128).fill(0xff) } }),
    "the root of the base": (header) => top(header, { root: readFsinfo(destination).inodeFile }),
    "a root too high": (header) => top(header, { root: { ...(header.tops[0] as SnapshotRecord).root, height: 5 } }),
    "a name that is a path": (header) => ({
      ...top(header, { name: "../x" }),
      held: header.held.map((held) => (held.name === "b" ? { ...held, name: "../x" } : held)),
    }),
    "a top that is not held": (header) => ({ ...header, held: header.held.slice(0, 1) }),
    "names twice": (header) => ({ ...header, held: [...header.held, ...header.held] }),
    "a top twice": (header) => ({ ...header, tops: [...header.tops, ...header.tops] }),
    "no top": (header) => ({ ...header, tops: [] }),
  };
  for (const [what, lie] of Object.entries(lies)) {
    assertRefused(destination, join(forgeOrSkip(frames, lie)), what);
  }
});

function forgeOrSkip(frames: readonly Uint8Array[], lie: (header: ImageHeader) => ImageHeader): Uint8Array[] {
  const old = decodeImageHeader((frames[0] as Uint8Array).subarray(frameHeader.size));
  const header = lie(old);
  return header.tops.length === 0 ? [encodeImageHeader(header), ...frames.slice(1)] : forge(frames, lie);
}

test("a stream that says it writes where the destination's own blocks lie is stopped before it writes there", () => {
  const { destination, frames } = setUp();
  const header = decodeImageHeader((frames[0] as Uint8Array).subarray(frameHeader.size));
  const own = [...blocksOf(destination, readFsinfo(destination).inodeFile).keys()].slice(0, FRAME_BLOCKS);
  const run = own.length;
  const body = new Uint8Array(frameHeader.size + run * runRecord.size + run * BLOCK_BYTES).fill(0x5a);
  const view = new DataView(body.buffer);
  own.forEach((vbn, index) => {
    runRecord.set.vbn(view, frameHeader.size + index * runRecord.size, vbn);
    runRecord.set.count(view, frameHeader.size + index * runRecord.size, 1);
  });
  sealFrame(body, { kind: FRAME_DATA, frameNumber: 1, stream: 0, runCount: run, blockCount: run, patchCount: 0 });
  const lying = { ...header, blockCount: run };
  const stream = join(sealAgain([encodeImageHeader(lying), body, frames.at(-1) as Uint8Array], lying));
  assertRefused(destination, stream, "own blocks", /has other contents for block \d+/);
});

test("a trailer with the digest of another stream is refused", () => {
  const { destination, frames } = setUp();
  const header = decodeImageHeader((frames[0] as Uint8Array).subarray(frameHeader.size));
  const { blockCount } = header;
  const trailer = { frameCount: frames.length, blockCount, digest: new Uint8Array(32) };
  const stream = checksum((frames[0] as Uint8Array).subarray(frameHeader.size));
  const sealed = encodeImageTrailer(trailer, stream);
  assertRefused(destination, join([...frames.slice(0, -1), sealed]), "digest", /digest/);
});

test("blocks that are moved to other places with all checksums right are found before the switch", () => {
  const { destination, frames } = setUp();
  const header = decodeImageHeader((frames[0] as Uint8Array).subarray(frameHeader.size));
  for (const move of [1, 1000, 0xffff_0000]) {
    const moved = frames.map((frame) => frame.slice());
    for (const frame of moved.slice(1, -1)) {
      const view = new DataView(frame.buffer);
      const runs = frameHeader.get.runCount(view, 0);
      for (let i = 0; i < runs; i += 1) {
        const at = frameHeader.size + i * runRecord.size;
        runRecord.set.vbn(view, at, (runRecord.get.vbn(view, at) + move) >>> 0);
      }
    }
    assertRefused(destination, join(sealAgain(moved, header)), `moved by ${move}`);
  }
});

test("a block that differs is caught by the volume's own checksums after the switch, if it is data", () => {
  const { destination, frames } = setUp();
  const header = decodeImageHeader((frames[0] as Uint8Array).subarray(frameHeader.size));
  const changed = frames.map((frame) => frame.slice());
  const frame = changed[1] as Uint8Array;
  frame[frame.length - 100] = (frame[frame.length - 100] as number) ^ 1;
  const device = destination.clone();
  const target = memoryTarget(device);
  let refused = false;
  try {
    receive(target, join(sealAgain(changed, header)));
  } catch (error) {
    assert.ok(error instanceof CorruptionError);
    refused = true;
  }
  const { findings } = checkVolume(device);
  assert.equal(findings.length > 0, !refused);
});

test("a pipe that delivers bytes one by one is taken, and a refused receiver stays refused", () => {
  const { source, destination, frames } = setUp();
  const target = memoryTarget(destination.clone());
  const receiver = openReceiver(target, { clock });
  for (const byte of frames[0] as Uint8Array) receiver.push(Uint8Array.of(byte));
  receiver.push(join(frames.slice(1)));
  assert.equal(receiver.complete, true);
  receiver.finish();
  assert.ok(target.memory);
  assertFaithful(source, target.memory);
  assert.throws(() => receiver.finish(), UserError);

  const refused = openReceiver(memoryTarget(destination.clone()), { clock });
  assert.throws(() => refused.push(new Uint8Array(48)), CorruptionError);
  assert.throws(() => refused.push(join(frames)), CorruptionError);
  assert.throws(() => refused.finish(), CorruptionError);
});
