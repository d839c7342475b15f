import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { blockAppender, checksum } from "../../src/core/checksum.ts";
import { prng } from "../../src/core/prng.ts";

test("the checksum of bytes and blocks after them follows from theirs", () => {
  const append = blockAppender();
  fc.assert(
    fc.property(fc.nat(), fc.uint8Array({ maxLength: 100 }), fc.nat(5), (seed, head, count) => {
      const random = prng(seed);
      const whole = new Uint8Array(head.length + count * BLOCK_BYTES).map(() => random.u32());
      whole.set(head);
      let sum = checksum(head);
      for (let at = head.length; at < whole.length; at += BLOCK_BYTES) {
        sum = append(sum, checksum(whole.subarray(at, at + BLOCK_BYTES)));
      }
      assert.equal(sum, checksum(whole));
    }),
  );
});
