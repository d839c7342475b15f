// The notes on the protocol and its codec cannot part: every table in them is compared with the record it names.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as wire from "../../src/format/mirror-message.ts";
import type { LayoutRow } from "../../src/format/struct.ts";
import { transferStateRecord } from "../../src/format/transfer-state.ts";

interface Layout {
  readonly size: number;
  readonly layout: readonly LayoutRow[];
}

const records: ReadonlyMap<string, Layout> = new Map<string, Layout>([
  ["Message header", wire.messageHeader],
  ["State identity", wire.stateIdentity],
  ["Hello", wire.helloRecord],
  ["Destination", wire.destinationRecord],
  ["Offer", wire.offerRecord],
  ["Accept", wire.acceptRecord],
  ["Refuse", wire.refuseRecord],
  ["Frame", wire.frameRecord],
  ["Ack", wire.ackRecord],
  ["Switched", wire.switchedRecord],
  ["Heartbeat", wire.heartbeatRecord],
  ["Error", wire.errorRecord],
  ["Transfer state", transferStateRecord],
]);

const notes = readFileSync(new URL("../../../native-notes/mirror-protocol.md", import.meta.url), "utf8");

for (const [name, { size, layout }] of records) {
  test(`native-notes/mirror-protocol.md has the record ${name} as the code has it`, () => {
    const at = notes.indexOf(`### ${name}, ${size} bytes\n`);
    assert.ok(at >= 0, `no heading "### ${name}, ${size} bytes"`);
    const table = notes
      .slice(at)
      .split("\n")
      .slice(4, 4 + layout.length + 1);
    for (const [index, { offset, sizeBytes, field, kind }] of layout.entries()) {
      const expected = `| ${offset} | ${sizeBytes} | \`${field}\` | ${kind}: `;
      assert.ok(table[index]?.startsWith(expected) === true, `expected ${expected}, found ${table[index]}`);
    }
    assert.equal(table[layout.length], "", "a row too many");
  });
}

test("the notes have no table of a record that the code does not have", () => {
  const headings = [...notes.matchAll(/^### (.+), \d+ bytes$/gm)].map(([, name = ""]) => name);
  assert.deepEqual(headings, [...records.keys()]); // in the same order
});
