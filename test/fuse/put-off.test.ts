import assert from "node:assert/strict";
import { test } from "node:test";
import { putOffReads, READ_BYTES } from "../../src/fuse/kernel/put-off.ts";

function requestOf(tag: number): Uint8Array {
  return new Uint8Array(READ_BYTES + 1000).fill(tag); // the buffer of requests is longer than any of them
}

test("what was put off comes back as it came, the first one first", () => {
  const putOff = putOffReads();
  const into = new Uint8Array(READ_BYTES + 1000);
  let next = 1;
  let last = 0;
  for (let round = 0; round < 100; round++) {
    for (let i = 0; i < (round % 7) + 1 && !putOff.isFull; i++) putOff.add(requestOf(next++ % 250));
    for (let i = 0; i < (round % 5) + 1 && putOff.count > 0; i++) {
      putOff.take(into);
      assert.deepEqual(into.subarray(0, READ_BYTES), requestOf(++last % 250).subarray(0, READ_BYTES));
      assert(into.subarray(READ_BYTES).every((byte) => byte === 0));
    }
    assert.equal(putOff.count, next - 1 - last);
  }
  assert(putOff.count > 0);
});

test("one is due when no more can be kept, or when enough others have gone ahead", () => {
  const putOff = putOffReads();
  const into = new Uint8Array(READ_BYTES);
  for (let i = 0; i < 1000; i++) putOff.passed();
  assert(!putOff.isDue, "there is none");
  putOff.add(requestOf(1));
  assert(!putOff.isDue, "those that came before it do not count");
  let passed = 0;
  for (; !putOff.isDue && passed < 100; passed++) putOff.passed();
  assert(passed > 1 && passed < 100, `${passed} went ahead`);
  putOff.take(into);
  assert(!putOff.isDue);
  let kept = 0;
  for (; !putOff.isFull && kept < 1000; kept++) putOff.add(requestOf(kept % 250));
  assert(kept < 1000, "their number is bounded");
  assert(putOff.isDue);
});
