import assert from "node:assert/strict";
import { test } from "node:test";
import { counts } from "../../src/core/counts.ts";
import { prng } from "../../src/core/prng.ts";

test("numbers that come and go are counted as a Map counts them", () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = prng(seed);
    const spread = [3, 40, 5000][seed % 3] as number;
    const step = [1, 4096, 2 ** 32, 2 ** 40 + 1][seed % 4] as number; // small, of one page, of one state, both halves
    const ours = counts();
    const model = new Map<number, number>();
    for (let i = 0; i < 20_000; i++) {
      const key = (random.u32() % spread) * step;
      const count = 1 + (random.u32() % 3);
      if (random.u32() % (i % 4000 < 2000 ? 3 : 2) === 0) {
        const left = Math.max(0, (model.get(key) ?? 0) - count);
        assert.equal(ours.take(key, count), left);
        if (left === 0) model.delete(key);
        else model.set(key, left);
      } else {
        ours.add(key, count);
        model.set(key, (model.get(key) ?? 0) + count);
      }
      assert.equal(ours.of(key), model.get(key) ?? 0);
      if (i % 1000 === 0) assert.deepEqual(inOrder(ours.keys()), inOrder(model.keys()));
    }
    assert.deepEqual(inOrder(ours.keys()), inOrder(model.keys()));
    for (const [key, count] of model) {
      assert.equal(ours.of(key), count);
      assert.equal(ours.take(key, count), 0);
    }
    assert.deepEqual(ours.keys(), []);
    ours.add(7, 2);
    ours.clear();
    assert.equal(ours.of(7), 0);
  }
});

function inOrder(numbers: Iterable<number>): number[] {
  return [...numbers].toSorted((a, b) => a - b);
}
