import assert from "node:assert/strict";
import { test } from "node:test";
import { prng } from "../../src/core/prng.ts";
import { endLogLine, type LogAnswer, logLine, logLineEnd, logMemory } from "../../src/daemon/log-line.ts";
import type { LogFrame } from "../../src/volume/change-log/frames.ts";

interface Thing {
  readonly frame: LogFrame | undefined;
  readonly answer: LogAnswer | undefined;
}

test("what is posted comes out in its order and whole, while more is posted into the same memory", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = prng(seed);
    const shared = logMemory();
    const [line, end] = [logLine(shared), logLineEnd(shared)];
    const waiting: Thing[] = [];
    let held = 0; // bytes under way: half of what there is room for, so that nobody waits
    for (let step = 0; step < 300; step++) {
      const thing = makeThing(random, step);
      const bytes = (thing.frame?.bytes.length ?? 0) + 4096;
      if (waiting.length > 0 && (held + bytes > 7 << 20 || random.u32() % 3 === 0)) {
        assert.deepEqual(end.take(), waiting.splice(0));
        end.done();
        held = 0;
      }
      line.post(thing.frame, thing.answer);
      waiting.push(thing);
      held += bytes;
    }
    endLogLine(shared);
    if (waiting.length > 0) assert.deepEqual(end.take(), waiting);
    assert.deepEqual(end.take(), [], "that was the last");
  }
});

test("what was taken and is not done yet is not written over", () => {
  const shared = logMemory();
  const [line, end] = [logLine(shared), logLineEnd(shared)];
  const post = (mib: number, fill: number): void =>
    line.post({ vbn: fill, bytes: new Uint8Array(mib << 20).fill(fill), lastSeq: fill, needsFlush: false }, undefined);
  post(4, 1);
  post(4, 2);
  const first = end.take();
  post(4, 3);
  assert(first.every(isWhole));
  end.done();
  post(4, 4); // around the end of the memory
  const second = end.take();
  post(3, 5);
  assert.deepEqual(
    second.map(({ frame }) => frame?.vbn),
    [3, 4],
  );
  assert(second.every(isWhole));
  end.done();
  assert(end.take().every(isWhole));
});

function isWhole({ frame }: Pick<Thing, "frame">): boolean {
  return frame?.bytes.every((byte) => byte === frame.vbn) === true;
}

function makeThing(random: ReturnType<typeof prng>, step: number): Thing {
  const kind = random.u32() % 4;
  const blocks = random.u32() % 10 === 0 ? 1 + (random.u32() % 1024) : 1 + (random.u32() % 3);
  const frame: LogFrame | undefined =
    kind === 0
      ? undefined
      : {
          vbn: random.u32() * 4,
          bytes: new Uint8Array(blocks * 4096).fill(step),
          lastSeq: random.u32() * 1000,
          needsFlush: random.u32() % 2 === 0,
        };
  if (kind === 1) return { frame, answer: undefined };
  if (kind === 2) return { frame, answer: { kind: "tell", seq: random.u32() * 1000 } };
  const reply = new Uint8Array(random.u32() % 4096).fill(step + 1);
  return { frame, answer: { kind: "reply", descriptor: random.u32() % 100, reply } };
}
