// An object literal with accessors is a dictionary to V8 (core/shaped.ts): every object of the rooms that requests pass
// through is given a shape. Those of streams are asked once a frame, and are left as they are.

import assert from "node:assert/strict";
import { test } from "node:test";
import { scan, sourceFiles } from "./support/source-scan.ts";

/** Rooms that no request passes through. */
const elsewhere = /^(image|mirror|cli)\//;

/** `get name(`, where a member of a literal or a class may begin. */
const accessor = /(?<=[{},;]\s*)(?:get|set)\s+(?:[\w$#]+|"\s*\d+\s*"|\[[^\]]*\])\s*\(/g;
const ofShape = /\bshaped\s*(?:<[^()]*>)?\s*\(\s*$/;
const ofClass = /\bclass\b[^{}();]*$/;

test("an object with accessors has a shape, in the rooms that requests pass through", () => {
  const files = sourceFiles().filter(({ path }) => !elsewhere.test(path));
  assert.deepEqual(
    files.flatMap(({ path, text }) => withoutShape(text).map((name) => `${path}: ${name}`)),
    [],
  );
});

const samples: readonly (readonly [text: string, found: readonly string[]])[] = [
  ["return {\n    get count(): number {\n      return 1;\n    },\n  };", ["get count"]],
  ["const a: A = { b: { c: 1 }, set d(e) { f(e); } };", ["set d"]],
  ["f(shaped({ a: { get b() { return 1; } } }));", ["get b"]],
  ["shaped({ a() { return { get b() { return `${1}}`; } }; } });", ["get b"]],
  ['const a = { get "b"() { return 1; }, get [c]() { return 2; } };', ['get "0"', "get [c]"]],
  ["shaped({ get a() { return 1; }, b: { c: 1 }, set d(e) {} });", []],
  ['shaped<A>({ get a() { return "{"; }, get b() { return 2; } });', []],
  ["class A extends B<C> implements D { private a = 1; get b() { return { c: 1 }; } get d() { return 2; } }", []],
  ["const a = { get(b: string) { return 1; }, set: 1, get: (b) => 2, c() { get(1); return get; } };", []],
  ["// { get a() {} }\nconst b = '{ get a() {} }';", []],
];

for (const [text, found] of samples) {
  test(`${found.length === 0 ? "nothing" : found.join(" and ")} is found in ${JSON.stringify(text)}`, () => {
    assert.deepEqual(withoutShape(text), found);
  });
}

/** The accessors of literals that are not what `shaped` is called with. */
function withoutShape(text: string): string[] {
  const { code } = scan(text);
  return [...code.matchAll(accessor)]
    .filter(({ index }) => {
      const before = code.slice(0, openingBrace(code, index));
      return !ofShape.test(before) && !ofClass.test(before);
    })
    .map(([found]) =>
      found
        .replace(/\s*\($/, "")
        .replaceAll(/\s+/g, " ")
        .replaceAll(/" (\d+) "/g, '"$1"'),
    );
}

/** Where the braces were opened that the place lies in. */
function openingBrace(code: string, place: number): number {
  let closed = 0;
  for (let at = place - 1; at >= 0; at -= 1) {
    if (code[at] === "}") closed += 1;
    else if (code[at] === "{" && closed === 0) return at;
    else if (code[at] === "{") closed -= 1;
  }
  return 0;
}
