import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { bytes, i64, nested, putLong, struct, text, u8, u16, u32, u64, wordsOf } from "../../src/format/struct.ts";

const inner = struct(3, { a: u8, b: u16 });
const outer = struct(56, {
  small: u8,
  half: u16,
  word: u32,
  long: u64,
  signed: i64,
  raw: bytes(6),
  name: text(24),
  pair: nested(inner, "inner"),
});

test("offsets follow from the order of the fields", () => {
  assert.deepEqual(outer.offset, { small: 0, half: 1, word: 3, long: 7, signed: 15, raw: 23, name: 29, pair: 53 });
  assert.deepEqual(outer.layout[4], { offset: 15, sizeBytes: 8, field: "signed", kind: "i64" });
});

test("a record whose fields do not add up to its size is refused when it is declared", () => {
  assert.throws(() => struct(4, { a: u8, b: u16 }), /record of 3 bytes declared as 4/);
});

test("every record comes back as it was encoded, at any offset", () => {
  fc.assert(
    fc.property(
      fc.record({
        small: fc.integer({ min: 0, max: 255 }),
        half: fc.integer({ min: 0, max: 65535 }),
        word: fc.integer({ min: 0, max: 0xffffffff }),
        long: fc.maxSafeNat(),
        signed: fc.maxSafeInteger(),
        raw: fc.uint8Array({ minLength: 6, maxLength: 6 }),
        name: fc.string({ unit: "grapheme-ascii", maxLength: 24 }),
        pair: fc.record({ a: fc.integer({ min: 0, max: 255 }), b: fc.integer({ min: 0, max: 65535 }) }),
      }),
      fc.nat({ max: 9 }),
      (value, at) => {
        const view = new DataView(new ArrayBuffer(outer.size + 10));
        outer.encode(view, at, value);
        const back = outer.decode(view, at);
        assert.deepEqual({ ...back, pair: { ...back.pair } }, { ...value, pair: { ...value.pair } });
        assert.equal(outer.get.signed(view, at), value.signed);
      },
    ),
  );
});

test("numbers are little-endian, and a negative time is two's complement", () => {
  const view = new DataView(new ArrayBuffer(outer.size));
  outer.set.word(view, 0, 0x01020304);
  outer.set.signed(view, 0, -1);
  assert.deepEqual([...new Uint8Array(view.buffer, 3, 4)], [4, 3, 2, 1]);
  assert.deepEqual([...new Uint8Array(view.buffer, 15, 8)], Array<number>(8).fill(255));
});

test("a record of whole words is the same written word by word", () => {
  const record = struct(28, { word: u32, long: u64, pair: nested(struct(8, { a: u32, b: u32 }), "pair"), signed: i64 });
  const at = wordsOf(record);
  assert.deepEqual(at, { word: 0, long: 1, pair: 3, signed: 5 });
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.maxSafeInteger(), (long, signed) => {
      const view = new DataView(new ArrayBuffer(record.size));
      record.set.long(view, 0, long);
      record.set.signed(view, 0, signed);
      const words = new Uint32Array(record.size / 4).fill(7, at.long, at.pair).fill(7, at.signed);
      putLong(words, at.long, long);
      putLong(words, at.signed, signed);
      assert.deepEqual(words, new Uint32Array(view.buffer));
    }),
  );
  assert.throws(() => wordsOf(inner), /a is no whole number of words/);
});

test("text that is too long is cut, bytes of another length are refused", () => {
  const view = new DataView(new ArrayBuffer(outer.size));
  outer.set.name(view, 0, "x".repeat(100));
  assert.equal(outer.get.name(view, 0), "x".repeat(24));
  assert.throws(() => outer.set.raw(view, 0, new Uint8Array(5)));
});
