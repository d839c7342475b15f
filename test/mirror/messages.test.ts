// The codec of the mirror's messages: what is written is read, and what is hostile is refused within bounds.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CorruptionError } from "../../src/core/errors.ts";
import { prng, randomUuid } from "../../src/core/prng.ts";
import { decodeImageHeader, encodeImageHeader, frameHeader } from "../../src/format/image-frame.ts";
import {
  decodeMessageHeader,
  decodeMirrorMessage,
  encodeMirrorMessage,
  type MirrorMessage,
  messageHeader,
  mirrorMessageReader,
} from "../../src/format/mirror-message.ts";
import { decodeTransferState, encodeTransferState } from "../../src/format/transfer-state.ts";

const u32 = fc.nat(0xffff_ffff);
const safe = fc.nat(Number.MAX_SAFE_INTEGER);
const raw = (count: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: count, maxLength: count });
const time = fc.record({ seconds: fc.integer({ min: -1e10, max: 1e10 }), nanoseconds: fc.nat(999_999_999) });
const state = fc.record({
  uuid: raw(16).filter((id) => id.some((byte) => byte !== 0)),
  cpCount: safe,
  rootChecksum: u32,
});
const reason = fc.string({ maxLength: 100, unit: "grapheme-ascii" }).filter((text) => !text.includes("\0"));

const messages: fc.Arbitrary<MirrorMessage> = fc.oneof(
  fc.record({ type: fc.constant("hello" as const), version: u32, role: fc.nat(255), volume: raw(16), sender: raw(16) }),
  fc.record({
    type: fc.constant("state" as const),
    volume: raw(16),
    blockCount: u32,
    top: state,
    transferTop: state,
    transferBase: state,
    transferFrames: u32,
    transferDigest: raw(32),
    snapshots: fc.array(state, { maxLength: 20 }),
    transferHeader: fc.uint8Array({ maxLength: 500 }),
  }),
  fc.record({
    type: fc.constant("offer" as const),
    transfer: u32,
    top: state,
    base: state,
    takenAt: time,
    volumeBlocks: fc.constant(0xffff_ffff),
    headerDigest: raw(32),
    frameFirst: fc.nat(1000),
    frameCount: fc.integer({ min: 1000, max: 0xffff_ffff }),
    blockCount: u32,
  }),
  fc.record({ type: fc.constant("accept" as const), transfer: u32, windowBytes: u32 }),
  fc.record({ type: fc.constant("refuse" as const), transfer: u32, reason }),
  fc.record({
    type: fc.constant("frame" as const),
    transfer: u32,
    frame: u32,
    bytes: fc.uint8Array({ maxLength: 5000 }),
  }),
  fc.record({
    type: fc.constant("ack" as const),
    transfer: u32,
    framesWritten: fc.integer({ min: 500, max: 0xffff_ffff }),
    framesDurable: fc.nat(500),
  }),
  fc.record({ type: fc.constant("switched" as const), transfer: u32, top: state, switchedAt: time }),
  fc.record({
    type: fc.constant("heartbeat" as const),
    sentAt: time,
    newestCp: safe,
    newestCpAt: time,
    pendingBytes: safe,
    inStep: fc.boolean(),
  }),
  fc.record({
    type: fc.constant("error" as const),
    code: fc.constantFrom(
      "protocol" as const,
      "version" as const,
      "mismatch" as const,
      "busy" as const,
      "failed" as const,
    ),
    reason,
  }),
  fc.constant({ type: "bye" as const }),
);

test("messages that are written are read, wherever the stream is cut", () => {
  fc.assert(
    fc.property(fc.array(messages, { maxLength: 6 }), fc.array(fc.nat(4000), { minLength: 1 }), (sent, cuts) => {
      const stream = Buffer.concat(sent.flatMap((message) => [...encodeMirrorMessage(message)]));
      const got: MirrorMessage[] = [];
      const reader = mirrorMessageReader((message) => {
        got.push(message.type === "frame" ? { ...message, bytes: new Uint8Array(message.bytes) } : message);
      });
      for (let at = 0, i = 0; at < stream.length; i += 1) {
        const end = at + 1 + (cuts[i % cuts.length] as number);
        reader.push(stream.subarray(at, end));
        at = end;
      }
      assert.deepEqual(got, structuredClone(sent)); // records of fast-check have no prototype
    }),
  );
});

test("random bytes end in CorruptionError or in waiting for more, never in anything else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      try {
        mirrorMessageReader(() => {}).push(bytes);
      } catch (error) {
        assert.ok(error instanceof CorruptionError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test("random bodies of every type end in CorruptionError or in a message", () => {
  for (let number = 1; number <= 11; number += 1) {
    const header = new Uint8Array(messageHeader.size);
    messageHeader.encode(new DataView(header.buffer), 0, { bodyBytes: 0, type: number, reserved: new Uint8Array(3) });
    const { type } = decodeMessageHeader(header);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (body) => {
        try {
          decodeMirrorMessage(type, body);
        } catch (error) {
          assert.ok(error instanceof CorruptionError, String(error));
        }
      }),
    );
  }
});

test("a body longer than its type may have is refused at the header, before a byte of it is held", () => {
  const header = new Uint8Array(messageHeader.size);
  for (const [type, bodyBytes] of [
    [1, 49],
    [2, 0x7fff_ffff],
    [6, 0xffff_ffff],
    [11, 1],
  ] as const) {
    messageHeader.encode(new DataView(header.buffer), 0, { bodyBytes, type, reserved: new Uint8Array(3) });
    assert.throws(() => mirrorMessageReader(() => {}).push(header), CorruptionError);
  }
});

test("each message with a byte of its reserved fields, an unknown type or code set is refused", () => {
  const hello: MirrorMessage = {
    type: "hello",
    version: 1,
    role: 1,
    volume: new Uint8Array(16).fill(1),
    sender: new Uint8Array(16),
  };
  const valid = Buffer.concat(encodeMirrorMessage(hello));
  for (const at of [4, 5, 7, 8, 21, 23]) {
    const bent = new Uint8Array(valid);
    bent[at] = 0xee;
    assert.throws(() => mirrorMessageReader(() => {}).push(bent), CorruptionError, `byte ${at}`);
  }
});

test("the state of a mirror is read as it was written; any flipped byte that matters makes it unread", () => {
  const mirror = new Uint8Array(16).fill(9);
  const resume = new Uint8Array(100).map((_, index) => index);
  const encoded = encodeTransferState({ mirror, resume });
  assert.deepEqual(decodeTransferState(encoded), { mirror, resume });
  assert.deepEqual(decodeTransferState(Buffer.from(encoded)), { mirror, resume });
  for (let at = 0; at < encoded.length; at += 1) {
    const bent = encoded.slice();
    bent[at] = (bent[at] as number) ^ 1;
    assert.equal(decodeTransferState(bent), undefined, `byte ${at}`);
  }
  assert.equal(decodeTransferState(encoded.subarray(0, 70)), undefined);
  assert.equal(decodeTransferState(new Uint8Array(0)), undefined);
});

test("the header of an image of 10,000 snapshots goes into one message, and is small", () => {
  const random = prng(7);
  const root = { sizeBytes: 1, height: 1, reserved: new Uint8Array(7), pointers: new Uint8Array(128) };
  const tops = Array.from({ length: 10_000 }, (_, index) => ({
    id: index + 1,
    flags: 0,
    uuid: randomUuid(random),
    cpCount: index + 1,
    createdAt: { seconds: index, nanoseconds: 0 },
    activeBlocks: 1000 + index,
    usedInodes: 5,
    lineage: 1,
    root: { ...root, pointers: root.pointers.with(0, index & 255).with(1, index >>> 8) },
    name: `daily-${index}`,
    reserved: new Uint8Array(52),
    checksum: 0,
  }));
  const at = { seconds: 1, nanoseconds: 0 };
  const frame = encodeImageHeader({
    volumeUuid: randomUuid(random),
    label: "",
    volumeBlocks: 100_000,
    reservedBlocks: 64,
    volumeCreatedAt: at,
    createdAt: at,
    hashSeed: 1,
    generationNext: 1,
    snapshotIdNext: 10_001,
    lineage: 1,
    logSeq: 1,
    blockCount: 0,
    tops,
    base: undefined,
    held: tops.map(({ uuid, name }) => ({ uuid, name })),
  });
  assert.ok(frame.length < 1 << 20, `${frame.length} bytes`);
  const got: MirrorMessage[] = [];
  const reader = mirrorMessageReader((message) => {
    got.push(message.type === "frame" ? { ...message, bytes: message.bytes.slice() } : message);
  });
  for (const part of encodeMirrorMessage({ type: "frame", transfer: 1, frame: 0, bytes: frame })) reader.push(part);
  const [message] = got;
  assert.equal(message?.type, "frame");
  const { held } = decodeImageHeader(message.bytes.subarray(frameHeader.size));
  assert.equal(held.length, 10_000);
  assert.equal(held[9999]?.name, "daily-9999");
});
