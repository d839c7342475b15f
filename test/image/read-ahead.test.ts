// Of what is sent, blocks that lie alone or in short spans are asked for some way ahead, each once, and no others.
import assert from "node:assert/strict";
import { test } from "node:test";
import { REGION_BLOCKS, REGION_WORDS } from "../../src/core/block.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { openReadAhead } from "../../src/image/read-ahead.ts";
import type { Selection } from "../../src/image/select.ts";
import { memoryDevice } from "../support/devices.ts";

const FRAME_BLOCKS = 256;
const LEAD_BLOCKS = 2048;
const GAP_BLOCKS_MAX = 16;
const SPAN_BLOCKS_MAX = 32;

interface Span {
  readonly first: number;
  end: number;
  /** How many members come before it, and before its end. */
  readonly firstIndex: number;
  endIndex: number;
}

/** Runs of any length with gaps of any length. */
function someMembers(random: Random): readonly number[] {
  const members: number[] = [];
  const scale = 1 + below(random, 60);
  for (let vbn = below(random, REGION_BLOCKS); members.length < 10_000; vbn += 1 + below(random, scale)) {
    for (let run = 1 + below(random, below(random, 10) === 0 ? 200 : 4); run > 0; run--) members.push(vbn++);
  }
  return members;
}

function selectionOf(members: readonly number[]): Selection {
  const regionCounts = new Uint32Array(1 + Math.floor((members.at(-1) as number) / REGION_BLOCKS));
  for (const vbn of members) (regionCounts[Math.floor(vbn / REGION_BLOCKS)] as number) += 1;
  return {
    blockCount: members.length,
    regionCounts,
    fill(region, into): void {
      assert.equal(into.length, REGION_WORDS);
      into.fill(0);
      for (const vbn of members) {
        const bit = vbn - region * REGION_BLOCKS;
        if (bit >= 0 && bit < REGION_BLOCKS) (into[bit >>> 5] as number) |= 1 << (bit & 31);
      }
    },
  };
}

function spansOf(members: readonly number[], skipped: number): readonly Span[] {
  const spans: Span[] = [];
  for (const [index, vbn] of members.entries()) {
    if (index < skipped) continue;
    const last = spans.at(-1);
    if (last === undefined || vbn - last.end > GAP_BLOCKS_MAX) {
      spans.push({ first: vbn, end: vbn + 1, firstIndex: index, endIndex: index + 1 });
    } else {
      last.end = vbn + 1;
      last.endIndex = index + 1;
    }
  }
  return spans;
}

test("blocks in short spans are asked for ahead, each once, and never too much", () => {
  const seen = { short: 0, long: 0 };
  for (let seed = 1; seed <= 20; seed++) {
    const random = prng(seed);
    const members = someMembers(random);
    const skipped = FRAME_BLOCKS * below(random, 10);
    const spans = spansOf(members, skipped);
    const asked: string[] = [];
    const device = {
      ...memoryDevice(1),
      readAhead: (vbn: number, count: number) => void asked.push(`${vbn}+${count}`),
    };
    const readAhead = openReadAhead(device, selectionOf(members), skipped);
    for (let done = skipped; done < members.length; done += FRAME_BLOCKS) {
      readAhead(done);
      const lead = Math.min(members.length, done + LEAD_BLOCKS);
      // The last one that was looked at may go on.
      const wanted = spans.filter(({ endIndex }, i) => endIndex <= lead && (spans[i + 1]?.firstIndex ?? lead) < lead);
      const short = wanted.filter(({ first, end }) => end - first <= SPAN_BLOCKS_MAX);
      assert.deepEqual(
        asked,
        short.map(({ first, end }) => `${first}+${end - first}`),
        `seed ${seed}, after ${done}`,
      );
      seen.short += short.length;
      seen.long += wanted.length - short.length;
    }
  }
  assert(seen.short > 1000 && seen.long > 1000, JSON.stringify(seen));
});

test("long runs are left to the host", () => {
  const members = Array.from({ length: 9000 }, (_, i) => 100 + i + (i > 4000 ? 50_000 : 0));
  const device = { ...memoryDevice(1), readAhead: () => assert.fail("it was asked for") };
  const readAhead = openReadAhead(device, selectionOf(members), 0);
  for (let done = 0; done < members.length; done += FRAME_BLOCKS) readAhead(done);
});
