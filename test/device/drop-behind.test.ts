// What was read in long runs is dropped from the host's memory some way behind, in whole folios, and nothing else is.
import assert from "node:assert/strict";
import { test } from "node:test";
import { below, prng } from "../../src/core/prng.ts";
import { dropBehind } from "../../src/device/drop-behind.ts";

const MIB_BLOCKS = 256;
const FOLIO_BLOCKS = 2 * MIB_BLOCKS;
const UNDER_WAY = 12;
const FILE_MIB = 100;
/** Kept, and dropped together. */
const KEPT_MIB_MAX = 24;

/** The host drops a folio that lies in a range as a whole. */
function pages() {
  const resident = new Set<number>();
  return {
    resident,
    read(vbn: number, count: number): void {
      for (let at = vbn - (vbn % FOLIO_BLOCKS); at < vbn + count; at += FOLIO_BLOCKS) resident.add(at);
    },
    drop(vbn: number, count: number): void {
      for (const folio of resident) if (folio >= vbn && folio + FOLIO_BLOCKS <= vbn + count) resident.delete(folio);
    },
  };
}

test("a file that is read from end to end, in an order as requests under way have it, takes little memory at the host", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = prng(seed);
    const host = pages();
    const read = new Set<number>();
    const wasRead = dropBehind((vbn, count) => {
      for (let at = vbn; at < vbn + count; at += MIB_BLOCKS) assert(read.has(at), `seed ${seed}: it was not read`);
      host.drop(vbn, count);
    });
    const start = MIB_BLOCKS * below(random, 1000);
    for (let first = 0; first < FILE_MIB; first += UNDER_WAY) {
      const underWay = Array.from({ length: UNDER_WAY }, (_, i) => first + i);
      while (underWay.length > 0) {
        const [mib] = underWay.splice(below(random, underWay.length), 1) as [number];
        const vbn = start + mib * MIB_BLOCKS;
        host.read(vbn, MIB_BLOCKS);
        read.add(vbn);
        wasRead(vbn, MIB_BLOCKS);
      }
      assert(host.resident.size * FOLIO_BLOCKS <= KEPT_MIB_MAX * MIB_BLOCKS, `seed ${seed}: ${host.resident.size}`);
    }
  }
});

test("files that are read side by side are each dropped behind their own reader, but for what was read last", () => {
  const dropped: (readonly [vbn: number, count: number])[] = [];
  const wasRead = dropBehind((...range) => dropped.push(range));
  const starts = Array.from({ length: 8 }, (_, i) => 100_000 * i);
  for (let mib = 0; mib < 21; mib++) for (const start of starts) wasRead(start + mib * MIB_BLOCKS, MIB_BLOCKS);
  assert.deepEqual(dropped, []);
  for (const start of starts) wasRead(start + 21 * MIB_BLOCKS, MIB_BLOCKS);
  assert.deepEqual(
    dropped,
    starts.map((start) => [start, 6 * MIB_BLOCKS]),
  );
});

test("short reads drop nothing, wherever they are", () => {
  const wasRead = dropBehind(() => assert.fail("it was dropped"));
  const random = prng(1);
  for (let i = 0; i < 1000; i++) wasRead(below(random, 100_000), 1 + below(random, 63));
  for (let vbn = 0; vbn < 100_000; vbn += 32) wasRead(vbn, 32);
});
