import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Worker } from "node:worker_threads";
import { prng } from "../../src/core/prng.ts";
import { breakLogLine, endLogLine, type LogAnswer, logLine, logLineEnd, logMemory } from "../../src/daemon/log-line.ts";
import { replyHeader } from "../../src/fuse/kernel/abi.ts";
import type { LogFrame } from "../../src/volume/change-log/frames.ts";
import { temporaryDirectory } from "../support/temp.ts";
import type { Stress } from "./log-line-program.ts";

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

test("two threads that post and take, with pauses anywhere, never wait for each other in vain", {
  timeout: 30_000,
}, async (t) => {
  for (let seed = 1; seed <= 3; seed++) {
    const [shared, looked] = [logMemory(), new SharedArrayBuffer(4)];
    const run = (role: Stress["role"]): Promise<void> => {
      const workerData: Stress = { role, shared, looked, seed, count: 5000 };
      const worker = new Worker(new URL("./log-line-program.js", import.meta.url), { workerData });
      t.after(() => worker.terminate());
      return new Promise((resolve, reject) => {
        worker.on("error", reject);
        worker.on("exit", () => resolve());
      });
    };
    await Promise.all([run("post"), run("take")]);
  }
});

/** What a kernel would get, by its numbers; and a descriptor of it. */
function kernel(t: TestContext): { readonly descriptor: number; readonly told: () => readonly (readonly number[])[] } {
  const path = join(temporaryDirectory(t), "replies");
  const descriptor = openSync(path, "w");
  t.after(() => closeSync(descriptor));
  return {
    descriptor,
    told() {
      const all = readFileSync(path);
      const view = new DataView(all.buffer, all.byteOffset, all.length);
      return Array.from({ length: all.length / replyHeader.size }, (_, i) => [
        replyHeader.get.uniqueLow(view, i * replyHeader.size),
        replyHeader.get.error(view, i * replyHeader.size) | 0,
      ]);
    },
  };
}

function replyTo(unique: number, descriptor: number): LogAnswer {
  const reply = new Uint8Array(replyHeader.size + 8);
  const view = new DataView(reply.buffer);
  replyHeader.set.lengthBytes(view, 0, reply.length);
  replyHeader.set.uniqueLow(view, 0, unique);
  return { kind: "reply", descriptor, reply };
}

test("what a log thread that is gone has not answered is answered with EIO, and so is what comes later", (t) => {
  const shared = logMemory();
  const [line, end] = [logLine(shared), logLineEnd(shared)];
  const { descriptor, told } = kernel(t);
  for (let unique = 1; unique <= 4; unique++) {
    line.post(undefined, replyTo(unique, descriptor));
    if (unique > 2) continue;
    end.take();
    if (unique === 1) end.done();
  }
  breakLogLine(shared, { canSend: true });
  line.post(undefined, replyTo(5, descriptor));
  assert.deepEqual(
    told(),
    [2, 3, 4, 5].map((unique) => [unique, -5]),
  );
});

test("a log thread that goes while something is posted leaves nobody without an answer", (t) => {
  const shared = logMemory();
  const line = logLine(shared);
  const { descriptor, told } = kernel(t);
  const store = Atomics.store.bind(Atomics) as (array: Int32Array, at: number, value: number) => number;
  let isBroken = false;
  t.mock.method(Atomics, "store", (array: Int32Array, at: number, value: number) => {
    if (!isBroken) {
      isBroken = true;
      breakLogLine(shared, { canSend: true });
    }
    return store(array, at, value);
  });
  line.post(undefined, replyTo(1, descriptor));
  assert.deepEqual(told(), [[1, -5]]);
});

test("a log thread that goes right before it is waited for is not waited for", (t) => {
  const shared = logMemory();
  const line = logLine(shared);
  const wait = Atomics.wait.bind(Atomics) as (array: Int32Array, at: number, value: number, ms: number) => string;
  t.mock.method(Atomics, "wait", (array: Int32Array, at: number, value: number) => {
    breakLogLine(shared, { canSend: true });
    const how = wait(array, at, value, 1000);
    assert.equal(how, "not-equal");
    return how;
  });
  const frame: LogFrame = { vbn: 1, bytes: new Uint8Array(4 << 20), lastSeq: 1, needsFlush: false };
  for (let i = 0; i < 5; i++) line.post(frame, undefined);
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
