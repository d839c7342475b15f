import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../src/core/errors.ts";
import {
  CONTROL_LINE_BYTES_MAX,
  CONTROL_REPLY_BYTES_MAX,
  type ControlReply,
  type ControlRequest,
  decodeReply,
  decodeRequest,
  encodeMessage,
  lineReader,
} from "../../src/format/control-message.ts";

const usage = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && error.failure === "usage" && pattern.test(error.message);

test("a request comes out as it went in, with flags that were left out set to false", () => {
  const request: ControlRequest = { verb: "snapshot-create", arguments: { name: "monday", mirror: true } };
  assert.deepEqual(decodeRequest(encodeMessage(request)), request);
  assert.deepEqual(decodeRequest('{"verb":"snapshot-create","arguments":{"name":"x"}}'), {
    verb: "snapshot-create",
    arguments: { name: "x", mirror: false },
  });
  assert.deepEqual(decodeRequest('{"verb":"sync"}'), { verb: "sync", arguments: {} });
});

const refused: readonly (readonly [line: string, pattern: RegExp])[] = [
  ["", /not JSON/],
  ["{", /not JSON/],
  ["null", /not an object/],
  ["[]", /not an object/],
  ['{"verb":"explode"}', /unknown verb "explode"/],
  ['{"verb":"toString"}', /unknown verb "toString"/],
  ['{"verb":"__proto__"}', /unknown verb "__proto__"/],
  ['{"verb":7}', /unknown verb 7/],
  ["{}", /unknown verb/],
  ['{"verb":"sync","arguments":[]}', /are no object/],
  ['{"verb":"sync","arguments":null}', /are no object/],
  ['{"verb":"sync","uid":0}', /unknown field "uid"/],
  ['{"verb":"sync","arguments":{"force":true}}', /sync has no argument "force"/],
  ['{"verb":"snapshot-create"}', /argument name of snapshot-create must be a text/],
  ['{"verb":"snapshot-create","arguments":{"name":1}}', /must be a text/],
  ['{"verb":"snapshot-create","arguments":{"name":"a\\u0000b"}}', /must be a text/],
  [`{"verb":"snapshot-create","arguments":{"name":"${"x".repeat(5000)}"}}`, /must be a text/],
  ['{"verb":"snapshot-create","arguments":{"name":"a","mirror":"yes"}}', /must be true or false/],
  ['{"verb":"snapshot-reclaimable","arguments":{"names":["a",1]}}', /must be a list of texts/],
];

for (const [line, pattern] of refused) {
  test(`refused, with what is wrong: ${line.slice(0, 70)}`, () => {
    assert.throws(() => decodeRequest(line), usage(pattern));
  });
}

test("no text whatever makes the reader of requests or replies fail otherwise than by a refusal", () => {
  const anything = fc.oneof(
    fc.string(),
    fc.json(),
    fc.object().map((value) => JSON.stringify(value)),
  );
  fc.assert(
    fc.property(anything, (line) => {
      for (const decode of [decodeRequest, decodeReply]) {
        try {
          decode(line);
        } catch (error) {
          assert(error instanceof UserError);
        }
      }
    }),
  );
});

test("replies come out as they went in", () => {
  const replies: readonly ControlReply[] = [
    { type: "result", value: { a: [1, "2"] } },
    { type: "progress", progress: { step: "check", done: 1, total: 2 } },
    { type: "error", error: { failure: "in-use", message: "busy", hint: "wait" } },
  ];
  for (const reply of replies) assert.deepEqual(decodeReply(encodeMessage(reply)), reply);
  assert.throws(
    () => decodeReply('{"type":"error","error":{"failure":"toString","message":"x"}}'),
    usage(/not a reply/),
  );
});

test("lines come out whole however the bytes are cut", () => {
  const lines = fc.array(fc.string().map((text) => text.replaceAll("\n", "")));
  fc.assert(
    fc.property(lines, fc.integer({ min: 1, max: 7 }), (sent, step) => {
      const got: string[] = [];
      const reader = lineReader((line) => got.push(line));
      const bytes = Buffer.from(sent.map((line) => `${line}\n`).join(""));
      for (let at = 0; at < bytes.length; at += step) reader.push(bytes.subarray(at, at + step));
      assert.deepEqual(
        got,
        sent.map((line) => Buffer.from(line).toString()),
      );
    }),
  );
});

test("a daemon may answer with more than it takes: ten thousand snapshots are one line", () => {
  const value = Array.from({ length: 10_000 }, (_, i) => ({ name: `snapshot-${i}`.padEnd(200, ".") }));
  const line = encodeMessage({ type: "result", value });
  const lines: string[] = [];
  const reader = lineReader((got) => lines.push(got), { bytesMax: CONTROL_REPLY_BYTES_MAX });
  reader.push(Buffer.from(line));
  assert.deepEqual(decodeReply(lines[0] ?? ""), { type: "result", value });
  assert.throws(() => lineReader(() => {}).push(Buffer.from(line)), usage(/longer than/), "a request of that length");
});

test("a line that never ends is refused before it fills the memory", () => {
  const reader = lineReader(() => assert.fail("no line was sent"));
  const chunk = new Uint8Array(64 * 1024).fill(0x61);
  let pushed = 0;
  assert.throws(
    () => {
      for (;;) {
        reader.push(chunk);
        pushed += chunk.length;
      }
    },
    usage(/longer than/),
  );
  assert(pushed <= CONTROL_LINE_BYTES_MAX);
});
