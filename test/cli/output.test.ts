// What people see: tables and fields.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fields, table } from "../../src/cli/output.ts";

test("a row is a line, whatever is in its cells", () => {
  const shown = table([
    ["NAME", "SIZE"],
    ["a\nb", 1],
    ["ü\u001b[2J\u0085", 100],
  ]);
  assert.deepEqual(shown, ["NAME              SIZE", "a\\012b               1", "ü\\033[2J\\302\\205   100"]);
});

test("a field is a line, to be made safe when it is printed, or as many as there are in a list", () => {
  const shown = fields([
    ["one", "a\nb"],
    ["nothing", undefined],
    ["three", ["c", "d\te", "f"]],
    ["four", 4],
  ]);
  assert.deepEqual(shown, ["one    a\nb", "three  c", "  d\te", "  f", "four   4"]);
});
