// One of the two threads at the ends of a line: see log-line.test.ts. Posts so many things, or takes them and looks at each.
import assert from "node:assert/strict";
import { workerData } from "node:worker_threads";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { endLogLine, logLine, logLineEnd } from "../../src/daemon/log-line.ts";

export interface Stress {
  readonly role: "post" | "take";
  readonly shared: SharedArrayBuffer;
  /** One word: how many were taken and looked at. */
  readonly looked: SharedArrayBuffer;
  readonly seed: number;
  readonly count: number;
}

const { role, shared, looked, seed, count } = workerData as Stress;
const lookedWord = new Int32Array(looked);
const pauses = prng(seed * 2 + (role === "post" ? 0 : 1));
const sizes = prng(seed);
if (role === "post") postAll();
else takeAll();

function postAll(): void {
  const line = logLine(shared);
  for (let seq = 1; seq <= count; seq++) {
    const bytes = nextBytes(sizes, seq);
    line.post({ vbn: seq, bytes, lastSeq: seq, needsFlush: false }, { kind: "tell", seq });
    if (below(pauses, 4) > 0) waitUntilLooked(seq);
    pause(pauses);
  }
  endLogLine(shared);
}

function takeAll(): void {
  const end = logLineEnd(shared);
  let seq = 0;
  for (let things = end.take(); things.length > 0; things = end.take()) {
    pause(pauses);
    for (const { frame, answer } of things) {
      seq += 1;
      assert.deepEqual(answer, { kind: "tell", seq });
      assert(frame !== undefined && Buffer.compare(frame.bytes, nextBytes(sizes, seq)) === 0, `frame ${seq}`);
    }
    end.done();
    Atomics.store(lookedWord, 0, seq);
    Atomics.notify(lookedWord, 0);
  }
  assert.equal(seq, count);
}

/**
 * As who has asked for something to be durable does: if the other thread sleeps on, nobody wakes it any more. Awake at first, to
 * post the next thing while the other one is about to sleep.
 */
function waitUntilLooked(seq: number): void {
  for (let left = 100_000; left > 0; left--) if (Atomics.load(lookedWord, 0) === seq) return;
  for (let at = Atomics.load(lookedWord, 0); at !== seq; at = Atomics.load(lookedWord, 0))
    Atomics.wait(lookedWord, 0, at);
}

/** Mostly small; now and then so large that few of them fit. */
function nextBytes(random: Random, seq: number): Uint8Array {
  const blocks = below(random, 200) === 0 ? 1 + below(random, 1024) : 1;
  return new Uint8Array(blocks * 4096).fill(seq);
}

/** Now and then, about as long as the other one takes to look, and to begin to wait. */
function pause(random: Random): void {
  if (below(random, 3) > 0) return;
  for (let left = below(random, 200); left > 0; left--) Atomics.load(lookedWord, 0);
}
