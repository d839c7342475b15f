// Consistency points that are written in slices before they are frozen: no thread, and a disk in memory.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { cpTurns } from "../../src/daemon/cp-turns.ts";
import { afterEasing, ease, endEasing, goOn, goOnInTime, idleMs, wantEased } from "../../src/daemon/server-space.ts";
import type { Server } from "../../src/daemon/server-state.ts";
import type { FromServer } from "../../src/daemon/thread-messages.ts";
import type { FrozenCp } from "../../src/volume/volume.ts";
import { type Bench, makeBench, putFile, readAll, writeAt } from "../support/fs-paths.ts";

interface Stage {
  readonly bench: Bench;
  readonly server: Server;
  readonly frozen: FrozenCp[];
  readonly sent: FromServer[];
}

function stage({ isRequestWaiting = (): boolean => true } = {}): Stage {
  const bench = makeBench();
  const frozen: FrozenCp[] = [];
  const sent: FromServer[] = [];
  const turns = cpTurns(bench.volume, { send: (cp) => void frozen.push(cp), onFailure: () => endEasing(server) });
  const server = {
    volume: bench.volume,
    fileSystem: bench.fs,
    turns,
    easing: undefined,
    isUnfinished: false,
    goOnAtMs: Number.POSITIVE_INFINITY,
    keepsTime: false,
    dirtyBytesMax: Number.POSITIVE_INFINITY,
    answeredCount: 0,
    isBusy: false,
    isRequestWaiting,
    send: (message) => void sent.push(message),
  } as Partial<Server> as Server;
  return { bench, server, frozen, sent };
}

function dirty({ fs }: Bench, blocks: number, value: number): void {
  for (let i = 0; i < blocks; i++) writeAt(fs, "/f", i * 3 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(value));
}

test("who waits for a consistency point gets all that was written before, though others go on writing", () => {
  const { bench, server, frozen } = stage();
  putFile(bench.fs, "/f");
  dirty(bench, 2000, 1);
  const committed: number[] = [];
  afterEasing(server, () =>
    server.turns.change({
      cause: "snapshot",
      apply: () => bench.volume.createSnapshot("s").name === "s",
      committed: (count) => void committed.push(count),
      failed: assert.fail,
    }),
  );
  wantEased(server, "timer"); // is content with that one
  let slices = 0;
  for (; server.easing !== undefined; slices++) {
    assert.equal(frozen.length, 0);
    dirty(bench, 40, 2); // more than a slice
    ease(server);
  }
  assert(slices > 50 && slices < 80, `${slices} slices`);
  assert.equal(frozen.length, 1);
  const [cp] = frozen as [FrozenCp];
  assert.equal(cp.cause, "snapshot");
  server.turns.committed(cp.cpCount);
  assert.deepEqual(committed, [cp.cpCount]);
  assert.equal(readAll(bench.fs, "/f")[1999 * 3 * BLOCK_BYTES], 1);
});

test("while no request waits slice follows slice, some at a time; when one has come it is its turn", () => {
  let isWaiting = false;
  const { bench, server, frozen } = stage({ isRequestWaiting: () => isWaiting });
  putFile(bench.fs, "/f");
  dirty(bench, 2000, 1);
  const slicesOf = (doing: () => void): number => {
    const before = server.easing?.slicesLeft ?? 0;
    doing();
    return before - (server.easing?.slicesLeft ?? 0);
  };
  wantEased(server, "timer");
  const many = slicesOf(() => ease(server));
  assert(many > 4 && many < 100, `${many} slices`);
  isWaiting = true;
  assert.equal(
    slicesOf(() => ease(server)),
    1,
  );
  isWaiting = false;
  assert.equal(
    slicesOf(() => ease(server)),
    many,
  );
  for (let goes = 0; server.easing !== undefined; goes++) {
    assert(goes < 20);
    ease(server);
  }
  assert.equal(frozen.length, 1);
});

test("while somebody makes many requests one slice is written at a time, with pauses between", () => {
  const { bench, server, sent } = stage({ isRequestWaiting: () => false });
  putFile(bench.fs, "/f");
  dirty(bench, 2000, 1);
  wantEased(server, "timer");
  const paused = (answeredCount: number): { readonly slices: number; readonly delayed: boolean } => {
    const before = server.easing?.slicesLeft ?? 0;
    server.answeredCount = answeredCount;
    goOn(server);
    const last = sent.at(-1);
    assert.equal(last?.kind, "unfinished");
    return { slices: before - (server.easing?.slicesLeft ?? 0), delayed: last.delayMs > 0 };
  };
  assert.deepEqual(paused(100), { slices: 1, delayed: true });
  const { slices, delayed } = paused(1); // a knock
  assert(slices > 1 && !delayed, `${slices} slices`);
});

test("a loop that keeps the time itself is told how long it may sleep, and asks nobody to wake it", () => {
  const { bench, server, frozen, sent } = stage({ isRequestWaiting: () => false });
  server.keepsTime = true;
  putFile(bench.fs, "/f");
  assert.equal(idleMs(server), Number.POSITIVE_INFINITY);
  dirty(bench, 2000, 1);
  wantEased(server, "timer");
  for (let turns = 0; frozen.length === 0; turns++) {
    assert(turns < 20);
    assert.equal(idleMs(server), 0);
    goOnInTime(server);
  }
  assert.equal(idleMs(server), Number.POSITIVE_INFINITY);
  goOnInTime(server);
  assert.deepEqual([sent, frozen.length], [[], 1]);
});

test("it waits for the one that is in flight, and for nothing when the mount ends or the volume fails", () => {
  const { bench, server, frozen } = stage();
  putFile(bench.fs, "/f");
  server.turns.want("timer");
  dirty(bench, 2000, 1);
  wantEased(server, "fsync");
  ease(server);
  assert.equal(frozen.length, 1, "one at a time");
  server.turns.committed((frozen[0] as FrozenCp).cpCount);
  assert.equal(frozen.length, 1, "in slices");
  endEasing(server);
  assert.equal(frozen.length, 2);

  let failure = "";
  afterEasing(server, () =>
    server.turns.change({
      cause: "sync",
      apply: assert.fail,
      committed: () => assert.fail("it has failed"),
      failed: (text) => (failure = text),
    }),
  );
  server.turns.fail("the disk is gone");
  assert.equal(failure, "the disk is gone");
  assert.equal(server.easing, undefined);
});
