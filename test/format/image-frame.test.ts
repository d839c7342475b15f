import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { CorruptionError } from "../../src/core/errors.ts";
import {
  DATA_BODY_BYTES_MAX,
  decodeFrameHeader,
  decodeImageHeader,
  decodeImageTrailer,
  deflatedHead,
  encodeImageHeader,
  encodeImageTrailer,
  FRAME_BLOCKS,
  FRAME_DATA,
  FRAME_HEADER,
  FRAME_TRAILER,
  frameCountFor,
  frameHeader,
  headerFrameOf,
  heldRecord,
  type ImageHeader,
  identityOf,
  imageHeaderRecord,
  imageTrailer,
  PATCH_BYTES_MAX,
  patchRecord,
  plainHeaderBody,
  resumeRecord,
  runRecord,
  sealFrame,
  segmentRecord,
} from "../../src/format/image-frame.ts";
import { type SnapshotRecord, snapshotRecord } from "../../src/format/snapshot-record.ts";
import type { LayoutRow } from "../../src/format/struct.ts";

const u32 = fc.nat(0xffff_ffff);
const uuid = fc.uint8Array({ minLength: 16, maxLength: 16 });
const plain = { noNullPrototype: true };
const time = fc.record({ seconds: fc.integer({ min: -1e10, max: 1e11 }), nanoseconds: fc.nat(999_999_999) }, plain);
const name = fc.stringMatching(/^[\w -]{1,40}$/).filter((text) => text.trim() === text && text !== "");
const root = fc.record(
  {
    sizeBytes: fc.maxSafeNat(),
    height: fc.nat(4),
    reserved: fc.constant(new Uint8Array(7)),
    pointers: fc.uint8Array({ minLength: 128, maxLength: 128 }),
  },
  plain,
);

const snapshots: fc.Arbitrary<SnapshotRecord[]> = fc
  .uniqueArray(fc.record({ uuid, name, createdAt: time, activeBlocks: u32, usedInodes: u32, root }, plain), {
    minLength: 1,
    maxLength: 6,
    selector: (entry) => entry.name,
  })
  .map((list) =>
    list.map((entry, index) => ({
      ...entry,
      uuid: entry.uuid.with(0, index),
      id: index + 1,
      flags: index % 2,
      cpCount: 10 + index,
      lineage: 1,
      reserved: new Uint8Array(52),
      checksum: 0,
    })),
  );

const headers: fc.Arbitrary<ImageHeader> = fc
  .record({
    all: snapshots,
    split: fc.nat(5),
    incremental: fc.boolean(),
    volumeUuid: uuid,
    label: name,
    volumeBlocks: fc.integer({ min: 5000, max: 0xffff_ffff }),
    reservedBlocks: fc.integer({ min: 16, max: 4096 }),
    volumeCreatedAt: time,
    createdAt: time,
    hashSeed: u32,
    generationNext: u32,
    snapshotIdNext: u32,
    lineage: u32,
    logSeq: fc.maxSafeNat(),
    blockCount: fc.nat(900),
  })
  .map(({ all, split, incremental, ...fields }) => {
    const first = Math.min(split, all.length - 1);
    const base = incremental && first > 0 ? identityOf(all[first - 1] as SnapshotRecord) : undefined;
    return Object.assign(fields, {
      tops: all.slice(first),
      base,
      held: all.map((record) => ({ uuid: record.uuid, name: record.name })),
    });
  });

const bodyOf = (frame: Uint8Array): Uint8Array => frame.subarray(frameHeader.size);

test("headers come back as they went out", () => {
  fc.assert(
    fc.property(headers, (header) => {
      const frame = encodeImageHeader(header);
      const first = decodeFrameHeader(frame.subarray(0, frameHeader.size));
      assert.equal(first.kind, FRAME_HEADER);
      assert.equal(first.bodyBytes, frame.length - frameHeader.size);
      const decoded = decodeImageHeader(bodyOf(frame));
      const tops = decoded.tops.map((top) => ({ ...top, checksum: 0 }));
      assert.deepEqual({ ...decoded, tops }, header);
      assert.deepEqual(encodeImageHeader(decoded), frame);
    }),
    { numRuns: 50 },
  );
});

test("a Buffer is decoded like any other bytes, wherever it lies in its pool", () => {
  const [header] = fc.sample(headers, { numRuns: 1, seed: 1 });
  assert.ok(header);
  const body = Buffer.concat([Buffer.alloc(13), bodyOf(encodeImageHeader(header))]).subarray(13);
  assert.deepEqual(decodeImageHeader(body), decodeImageHeader(new Uint8Array(body)));
  const trailer = encodeImageTrailer({ frameCount: 2, blockCount: 0, digest: new Uint8Array(32) }, 1);
  const last = Buffer.concat([Buffer.alloc(13), bodyOf(trailer)]).subarray(13);
  assert.deepEqual(decodeImageTrailer(last), decodeImageTrailer(new Uint8Array(last)));
});

test("trailers come back as they went out", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), u32, (digest, blockCount) => {
      const trailer = { frameCount: frameCountFor(blockCount), blockCount, digest };
      const frame = encodeImageTrailer(trailer, 77);
      const first = decodeFrameHeader(frame.subarray(0, frameHeader.size));
      assert.deepEqual([first.kind, first.stream, first.frameNumber], [FRAME_TRAILER, 77, trailer.frameCount - 1]);
      const { end, ...decoded } = decodeImageTrailer(bodyOf(frame));
      assert.equal(Buffer.from(end).toString("latin1"), "TIDEEND\0");
      assert.deepEqual(decoded, trailer);
    }),
    { numRuns: 30 },
  );
});

function assertCorrupt(decode: () => unknown): void {
  assert.throws(decode, CorruptionError);
}

/** The header of a frame that claims these sizes. */
function sealed(kind: number, runCount: number, blockCount: number, bodyBytes: number, patchCount = 0): Uint8Array {
  const frame = new Uint8Array(frameHeader.size + bodyBytes);
  sealFrame(frame, { kind, frameNumber: 1, stream: 2, runCount, blockCount, patchCount });
  return frame.subarray(0, frameHeader.size);
}

test("arbitrary bytes are refused with CorruptionError, never with another error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (raw) => {
      if (raw.length >= frameHeader.size) assertCorrupt(() => decodeFrameHeader(raw));
      assertCorrupt(() => decodeImageHeader(raw));
      assertCorrupt(() => decodeImageTrailer(raw));
    }),
  );
});

test("a header whose fields are damaged but whose checksum is right gives CorruptionError or a header that can be believed", () => {
  fc.assert(
    fc.property(headers, fc.nat(), fc.nat(255), (header, place, byte) => {
      const body = plainHeaderBody(bodyOf(encodeImageHeader(header)));
      body[place % body.length] = byte;
      try {
        const decoded = decodeImageHeader(bodyOf(headerFrameOf(body)));
        assert.ok(decoded.tops.length > 0);
        assert.ok(decoded.blockCount < decoded.volumeBlocks);
      } catch (error) {
        assert.ok(error instanceof CorruptionError, String(error));
      }
    }),
    { numRuns: 300 },
  );
});

test("frames that claim impossible sizes are refused before a body is read", () => {
  const good = sealed(FRAME_DATA, 1, 2, runRecord.size + 2 * BLOCK_BYTES);
  assert.equal(decodeFrameHeader(good).blockCount, 2);
  const patched = sealed(FRAME_DATA, 1, 2, runRecord.size + patchRecord.size + 9 + BLOCK_BYTES, 1);
  assert.equal(decodeFrameHeader(patched).patchCount, 1);
  for (const [kind, runs, blocks, bytes, patches = 0] of [
    [FRAME_DATA, 1, 2, runRecord.size + patchRecord.size + BLOCK_BYTES - 1, 1],
    [FRAME_DATA, 1, 2, runRecord.size + patchRecord.size + PATCH_BYTES_MAX + BLOCK_BYTES + 1, 1],
    [FRAME_DATA, 1, 2, runRecord.size + 3 * patchRecord.size, 3],
    [FRAME_TRAILER, 0, 0, imageTrailer.size, 1],
    [FRAME_DATA, 1, 2, 2 * BLOCK_BYTES],
    [FRAME_DATA, 3, 2, 3 * runRecord.size + 2 * BLOCK_BYTES],
    [FRAME_DATA, 0, 0, 0],
    [FRAME_DATA, 1, FRAME_BLOCKS + 1, runRecord.size + (FRAME_BLOCKS + 1) * BLOCK_BYTES],
    [FRAME_TRAILER, 0, 0, imageTrailer.size + 1],
    [FRAME_TRAILER, 1, 1, imageTrailer.size],
    [4, 0, 0, 0],
    [0, 0, 0, 0],
  ] as const) {
    assert.throws(() => decodeFrameHeader(sealed(kind, runs, blocks, bytes, patches)), CorruptionError);
  }
});

test("a header says how long it is when it is inflated, and is refused where that is not so", () => {
  const [header] = fc.sample(headers, { numRuns: 1, seed: 2 });
  assert.ok(header);
  const body = bodyOf(encodeImageHeader(header)).slice();
  const plainBytes = plainHeaderBody(body).length;
  const view = new DataView(body.buffer);
  for (const claimed of [0, 255, plainBytes - 1, plainBytes + 1, 0x0200_0000, 0xffff_ffff]) {
    deflatedHead.set.plainBytes(view, 0, claimed);
    assertCorrupt(() => decodeImageHeader(body));
  }
  deflatedHead.set.plainBytes(view, 0, plainBytes);
  decodeImageHeader(body);
  assertCorrupt(() => decodeImageHeader(body.subarray(0, -1)));
  assertCorrupt(() => decodeImageHeader(Buffer.concat([body, Buffer.of(0)])));
  const bomb = bodyOf(headerFrameOf(new Uint8Array(24 << 20))).slice(); // 24 MiB of zeros in some KiB
  assertCorrupt(() => decodeImageHeader(bomb));
  deflatedHead.set.plainBytes(new DataView(bomb.buffer), 0, 4096);
  assertCorrupt(() => decodeImageHeader(bomb));
});

test("all data frames but the last are full, so a frame number is a place in the stream", () => {
  assert.equal(frameCountFor(0), 2);
  assert.equal(frameCountFor(1), 3);
  assert.equal(frameCountFor(FRAME_BLOCKS), 3);
  assert.equal(frameCountFor(FRAME_BLOCKS + 1), 4);
  assert.equal(DATA_BODY_BYTES_MAX, FRAME_BLOCKS * (8 + BLOCK_BYTES));
});

const notes = readFileSync(new URL("../../../native-notes/stream-format.md", import.meta.url), "utf8");

for (const [title, layout, size] of [
  ["Frame header", frameHeader.layout, frameHeader.size],
  ["Image header", imageHeaderRecord.layout, imageHeaderRecord.size],
  ["Snapshot record", snapshotRecord.layout, snapshotRecord.size],
  ["Held snapshot", heldRecord.layout, heldRecord.size],
  ["Run", runRecord.layout, runRecord.size],
  ["Patch", patchRecord.layout, patchRecord.size],
  ["Segment", segmentRecord.layout, segmentRecord.size],
  ["Deflated body", deflatedHead.layout, deflatedHead.size],
  ["Image trailer", imageTrailer.layout, imageTrailer.size],
  ["Resume point", resumeRecord.layout, resumeRecord.size],
] as const) {
  test(`the notes have the table of the ${title.toLowerCase()} as it is`, () => {
    assert.deepEqual(tableUnder(title, size), layout.map(rowOf));
  });
}

function rowOf({ offset, sizeBytes, field }: LayoutRow): string {
  return `${offset} ${sizeBytes} ${field}`;
}

/** `offset size field` of each row of the table under this title, which names the size of the record. */
function tableUnder(title: string, size: number): string[] {
  const start = notes.indexOf(`### ${title}, ${size} bytes\n`);
  assert.ok(start >= 0, `no section "${title}, ${size} bytes"`);
  const section = notes.slice(start).split(/\n#{2,3} /)[0] as string;
  return [...section.matchAll(/^\| (\d+) \| (\d+) \| `(\w+)` \| \S.* \|$/gm)].map(
    ([, offset, bytes, field]) => `${offset} ${bytes} ${field}`,
  );
}
