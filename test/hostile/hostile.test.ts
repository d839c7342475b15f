// Hostile inputs at every place where bytes come in: an answer or one of our errors, soon, and nothing written that should not
// be. `make fuzz-input` goes on from here, guided by what is reached.
import assert from "node:assert/strict";
import { test } from "node:test";
import { choicesOf } from "./choices.ts";
import { makeEntry, tryInput } from "./entries.ts";

const RUNS: Readonly<Record<string, number>> = { volume: 80, stream: 300, control: 400, mirror: 3000 };

for (const [name, runs] of Object.entries(RUNS)) {
  test(`${runs} hostile inputs: ${name}`, () => {
    const entry = makeEntry(name);
    for (let seed = 0; seed < runs; seed++) tryInput(name, entry, [], seed);
  });
}

test("an input is what was drawn for it, whatever the seed", () => {
  const first = choicesOf([7, 8], 1);
  for (let i = 0; i < 10; i++) first.u32();
  const again = choicesOf(first.drawn, 2);
  for (let i = 0; i < 10; i++) again.u32();
  assert.deepEqual(again.drawn, first.drawn);
  assert.deepEqual(again.drawn.slice(0, 2), [7, 8]);
});
