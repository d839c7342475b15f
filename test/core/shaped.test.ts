import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInThisContext } from "node:vm";
import { shaped } from "../../src/core/shaped.ts";

interface Counter {
  readonly count: number;
  add(): void;
}

function counter(): Counter {
  let count = 0;
  return {
    get count() {
      return count;
    },
    add(): void {
      count += 1;
    },
  };
}

test("a literal with accessors is a dictionary to V8; what is made of it has a shape and does the same", () => {
  setFlagsFromString("--allow-natives-syntax");
  const isFast = runInThisContext("(object) => %HasFastProperties(object)") as (object: Counter) => boolean;
  const literal = counter();
  assert.equal(isFast(literal), false, "else nothing has to be done about it");
  const made = shaped(literal);
  assert.equal(isFast(made), true);
  assert.deepEqual(Object.keys(made), Object.keys(literal));
  made.add();
  assert.deepEqual([made.count, literal.count], [1, 1]);
});
