// The notes on formats and the code cannot part: each table `offset | size | field | meaning` in them stands under a
// heading `### Name, N bytes`, and is compared row by row with the descriptor of that record. The meaning begins with the
// kind of the field. A record without a table, and a table without a record, are mistakes too.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { blockPointer } from "../src/format/block-pointer.ts";
import { birthRecord, changeRecord, extentRecord, logFrameHeader } from "../src/format/change-record.ts";
import { childRecord, entryHead, leafSlot, nodeHeader } from "../src/format/directory-node.ts";
import { fsinfoRecord } from "../src/format/fsinfo.ts";
import {
  deflatedHead,
  frameHeader,
  heldRecord,
  imageHeaderRecord,
  imageTrailer,
  patchRecord,
  resumeRecord,
  runRecord,
  segmentRecord,
} from "../src/format/image-frame.ts";
import { fileRoot, inodeRecord, timeRecord } from "../src/format/inode.ts";
import { logFileHead } from "../src/format/log-file.ts";
import { snapshotRecord } from "../src/format/snapshot-record.ts";
import type { LayoutRow } from "../src/format/struct.ts";
import { xattrHead } from "../src/tree/xattr.ts";

interface Layout {
  readonly size: number;
  readonly layout: readonly LayoutRow[];
}

const documents: ReadonlyMap<string, ReadonlyMap<string, Layout>> = new Map([
  [
    "on-disk-format.md",
    new Map<string, Layout>([
      ["Fsinfo", fsinfoRecord],
      ["Time", timeRecord],
      ["Block pointer", blockPointer],
      ["File root", fileRoot],
      ["Inode", inodeRecord],
      ["Node header", nodeHeader],
      ["Leaf slot", leafSlot],
      ["Directory entry", entryHead],
      ["Child", childRecord],
      ["Attribute head", xattrHead],
      ["Snapshot record", snapshotRecord],
      ["Log file head", logFileHead],
      ["Log frame", logFrameHeader],
      ["Change", changeRecord],
      ["Birth", birthRecord],
      ["Extent", extentRecord],
    ]),
  ],
  [
    "stream-format.md",
    new Map<string, Layout>([
      ["Frame header", frameHeader],
      ["Image header", imageHeaderRecord],
      ["Snapshot record", snapshotRecord],
      ["Held snapshot", heldRecord],
      ["Deflated body", deflatedHead],
      ["Run", runRecord],
      ["Patch", patchRecord],
      ["Segment", segmentRecord],
      ["Image trailer", imageTrailer],
      ["Resume point", resumeRecord],
    ]),
  ],
]);

interface Table {
  readonly heading: string;
  readonly rows: readonly string[];
}

/** Tables of fields, and the headings that they stand under. */
function tablesOf(text: string): readonly Table[] {
  const tables: { heading: string; rows: string[] }[] = [];
  let heading = "";
  let open: { heading: string; rows: string[] } | undefined;
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) heading = line;
    if (/^\| *offset *\| *size *\| *field *\| *meaning *\|$/.test(line)) {
      open = { heading, rows: [] };
      tables.push(open);
    } else if (!line.startsWith("|")) open = undefined;
    else if (open !== undefined && !/^\|[-| ]+\|$/.test(line)) open.rows.push(line);
  }
  return tables;
}

/** The first cells of a row, as the descriptor has them. */
function cellsOf(row: LayoutRow): string {
  return `| ${row.offset} | ${row.sizeBytes} | \`${row.field}\` | ${row.kind}: `;
}

/** What is wrong with the tables of a text. */
function defectsOf(text: string, records: ReadonlyMap<string, Layout>): string[] {
  const defects: string[] = [];
  const seen = new Set<string>();
  for (const { heading, rows } of tablesOf(text)) {
    const [, name = "", size = ""] = /^### (.+), (\d+) bytes$/.exec(heading) ?? [];
    const record = records.get(name);
    if (record === undefined) {
      defects.push(`a table under ${JSON.stringify(heading)}, which names no record and its size`);
      continue;
    }
    if (seen.has(name)) defects.push(`two tables of ${name}`);
    seen.add(name);
    if (record.size !== Number(size)) defects.push(`${name} has ${record.size} bytes, the heading says ${size}`);
    for (let i = 0; i < Math.max(rows.length, record.layout.length); i++) {
      const expected = record.layout[i];
      const row = rows[i] ?? "";
      if (expected === undefined) defects.push(`${name}: a row too many: ${row}`);
      else if (!row.startsWith(cellsOf(expected)) || !/: \S.* \|$/.test(row)) {
        defects.push(`${name}: expected a row ${cellsOf(expected)}... |, found ${row || "none"}`);
      }
    }
  }
  for (const name of records.keys()) if (!seen.has(name)) defects.push(`no table of ${name}`);
  return defects;
}

for (const [file, records] of documents) {
  test(`native-notes/${file} describes its records as the code has them`, () => {
    const text = readFileSync(fileURLToPath(new URL(`../../native-notes/${file}`, import.meta.url)), "utf8");
    assert.deepEqual(defectsOf(text, records), []);
  });
}

test("a wrong offset, size, name, kind, order, heading, a missing and a surplus row are noticed", () => {
  const records = new Map<string, Layout>([["Time", timeRecord]]);
  const good = ["### Time, 12 bytes", "", "| offset | size | field | meaning |", "| --- | --- | --- | --- |"];
  const rows = ["| 0 | 8 | `seconds` | i64: since 1970 |", "| 8 | 4 | `nanoseconds` | u32: below 10^9 |"];
  assert.deepEqual(defectsOf([...good, ...rows].join("\n"), records), []);
  const [first = "", second = ""] = rows;
  const wrong: readonly (readonly string[])[] = [
    [...good, first.replace("| 0 ", "| 1 "), second],
    [...good, first.replace("| 8 ", "| 4 "), second],
    [...good, first.replace("seconds", "minutes"), second],
    [...good, first.replace("i64", "u64"), second],
    [...good, first.replace("i64: since 1970", "i64: "), second],
    [...good, second, first],
    [...good, first],
    [...good, ...rows, second],
    [...good.map((line) => line.replace("12", "13")), ...rows],
    [...good.map((line) => line.replace("Time", "Tide")), ...rows],
    [...good, ...rows, "", ...good, ...rows],
    [],
  ];
  for (const lines of wrong) assert.notDeepEqual(defectsOf(lines.join("\n"), records), [], lines.join("\n"));
});
