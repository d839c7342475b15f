// Consistency points that are written in slices before they are frozen: no thread, and a disk in memory.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { FsError } from "../../src/core/errors.ts";
import { cpTurns } from "../../src/daemon/cp-turns.ts";
import {
  afterEasing,
  afterReclaiming,
  endWaiting,
  goOn,
  offerToGoOn,
  RECLAIM_MS_MAX,
  SLICE_BYTES,
  slicesOf,
  wantEased,
} from "../../src/daemon/server-slices.ts";
import { balance } from "../../src/daemon/server-space.ts";
import type { Server } from "../../src/daemon/server-state.ts";
import type { FromServer } from "../../src/daemon/thread-messages.ts";
import type { FrozenCp } from "../../src/volume/volume.ts";
import { type Bench, makeBench, nodeAt, placeAt, putFile, readAll, writeAt } from "../support/fs-paths.ts";

interface Stage {
  readonly bench: Bench;
  readonly server: Server;
  readonly frozen: FrozenCp[];
  readonly sent: FromServer[];
  nowMs: number;
}

function stage(): Stage {
  const bench = makeBench();
  const frozen: FrozenCp[] = [];
  const sent: FromServer[] = [];
  const turns = cpTurns(bench.volume, { send: (cp) => void frozen.push(cp), onFailure: () => endWaiting(server) });
  const server = {
    volume: bench.volume,
    fileSystem: bench.fs,
    turns,
    easing: undefined,
    reclaiming: [],
    isUnfinished: false,
    isAsked: false,
    dirtyBytesMax: 1 << 26,
    relieveAtBytes: 1 << 26,
    nowMs: () => made.nowMs,
    send: (message) => void sent.push(message),
  } as Partial<Server> as Server;
  const made = { bench, server, frozen, sent, nowMs: 0 };
  return made;
}

function dirty({ fs }: Bench, blocks: number, value: number): void {
  for (let i = 0; i < blocks; i++) writeAt(fs, "/f", i * 3 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(value));
}

/** A file of 10,240 blocks. */
function putLarge({ fs }: Bench): void {
  putFile(fs, "/f");
  for (let i = 0; i < 20; i++) writeAt(fs, "/f", i * 512 * BLOCK_BYTES, new Uint8Array(512 * BLOCK_BYTES));
}

/** Asks for a snapshot, as the server thread does. */
function askForSnapshot({ bench, server }: Stage, name: string): void {
  const change = {
    cause: "snapshot" as const,
    apply: () => bench.volume.createSnapshot(name).name === name,
    committed: () => {},
    failed: assert.fail,
  };
  afterReclaiming(server, () => afterEasing(server, () => server.turns.change(change)));
}

function snapshotBlocks({ bench, server, frozen }: Stage, name: string): number | undefined {
  const cp = frozen.at(-1);
  if (cp !== undefined) server.turns.committed(cp.cpCount);
  return bench.volume.findSnapshot(name)?.activeBlocks;
}

test("who wants a consistency point while one is eased gets it, also where the change that it was eased for is refused", () => {
  for (const isRefused of [false, true]) {
    const { bench, server, frozen } = stage();
    putFile(bench.fs, "/f");
    dirty(bench, 100, 1);
    const { seq } = bench.volume.log;
    afterEasing(server, () =>
      server.turns.change({ cause: "snapshot", apply: () => !isRefused, committed: () => {}, failed: assert.fail }),
    );
    wantEased(server, "fsync");
    while (server.easing !== undefined) goOn(server);
    assert.deepEqual(
      frozen.map(({ logSeq }) => logSeq),
      [seq],
    );
  }
});

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
  const needed = bench.volume.dirtyBytes / SLICE_BYTES;
  let slices = 0;
  for (; server.easing !== undefined; slices++) {
    assert.equal(frozen.length, 0);
    for (let i = 0; i < 5; i++) {
      dirty(bench, 8, 2); // more than a slice in all
      balance(server);
    }
    goOn(server);
  }
  assert(slices > needed / 3 && slices < 1.3 * needed, `${slices} slices where ${needed} were needed`);
  assert.equal(frozen.length, 1);
  const [cp] = frozen as [FrozenCp];
  assert(cp.blocksWritten < 200, `${cp.blocksWritten} blocks were left`);
  assert.equal(cp.cause, "snapshot");
  server.turns.committed(cp.cpCount);
  assert.deepEqual(committed, [cp.cpCount]);
  assert.equal(readAll(bench.fs, "/f")[1999 * 3 * BLOCK_BYTES], 1);
});

test("slice follows slice while nobody asks; who has asked is waited for a little, and when he goes on a slice is due now and then", () => {
  const made = stage();
  const { bench, server } = made;
  const slices = slicesOf(server);
  putFile(bench.fs, "/f");
  assert.equal(slices.isMore(), false);
  dirty(bench, 2000, 1);
  wantEased(server, "timer");
  assert.equal(slices.isMore(), true);
  assert.equal(slices.isDue(), true, "the first one");
  slices.next();
  assert.equal(slices.isDue(), false);
  assert.equal(slices.quietUs(), 0);
  server.isAsked = true;
  const quietUs = slices.quietUs();
  assert(quietUs > 0 && quietUs < 1000, `${quietUs}`);
  made.nowMs += 100;
  assert.equal(slices.isDue(), true);
  slices.next();
  assert.equal(slices.isDue(), false);
  assert.equal(slices.quietUs(), 0);
});

test("nothing is to be done while a consistency point is in flight, and afterwards what it kept waiting", () => {
  const { bench, server, frozen } = stage();
  const slices = slicesOf(server);
  putFile(bench.fs, "/f");
  server.turns.want("timer");
  dirty(bench, 100, 1);
  wantEased(server, "timer");
  assert.equal(slices.isMore(), false);
  server.turns.committed((frozen[0] as FrozenCp).cpCount);
  const needed = bench.volume.dirtyBytes / SLICE_BYTES;
  for (let count = 0; slices.isMore(); count++) {
    assert(count < 1.3 * needed, `${count} slices where ${needed} were needed`);
    slices.next();
  }
  assert.equal(frozen.length, 2);
});

test("a large file that is deleted is freed slice by slice, whether a consistency point is in flight or not", () => {
  const { bench, server } = stage();
  const slices = slicesOf(server);
  putLarge(bench);
  server.turns.want("timer");
  bench.fs.unlink(...placeAt(bench.fs, "/f"));
  for (let count = 1; slices.isMore(); count++) {
    assert(count < 10);
    slices.next();
  }
  assert.equal(bench.fs.doomedCount, 0);
});

for (const how of ["deleted", "cut"]) {
  test(`a snapshot does not hold what was ${how} before it`, () => {
    const made = stage();
    const { bench, server } = made;
    putLarge(bench);
    bench.volume.takeCp("timer");
    if (how === "deleted") bench.fs.unlink(...placeAt(bench.fs, "/f"));
    else bench.fs.setAttributes(nodeAt(bench.fs, "/f"), { sizeBytes: 0 }, { uid: 0, gid: 0 });
    assert.notEqual(bench.fs.doomedCount, 0);
    askForSnapshot(made, "s");
    assert.equal(snapshotBlocks(made, "s"), undefined);
    const slices = slicesOf(server);
    for (let count = 1; slices.isMore(); count++) {
      assert(count < 20);
      slices.next();
    }
    const blocks = snapshotBlocks(made, "s");
    assert(blocks !== undefined && blocks < 100, `${blocks} blocks are held`);
  });
}

test("a snapshot waits no longer than its time for what was deleted, nor when the mount ends or the volume fails", () => {
  const made = stage();
  const { bench, server } = made;
  const slices = slicesOf(server);
  putLarge(bench);
  bench.volume.takeCp("timer");
  bench.fs.unlink(...placeAt(bench.fs, "/f"));
  askForSnapshot(made, "late");
  made.nowMs += RECLAIM_MS_MAX / 2;
  askForSnapshot(made, "later");
  made.nowMs += RECLAIM_MS_MAX / 2;
  slices.next();
  assert.notEqual(bench.fs.doomedCount, 0);
  assert(Number(snapshotBlocks(made, "late")) > 2048);
  assert.equal(snapshotBlocks(made, "later"), undefined);
  endWaiting(server);
  assert(Number(snapshotBlocks(made, "later")) > 2048);

  let told = 0;
  afterReclaiming(server, () => void (told += 1));
  assert.equal(told, 0);
  server.turns.fail("the disk is gone");
  assert.equal(told, 1);
  afterReclaiming(server, () => void (told += 1)); // and who comes later
  assert.equal(told, 2);
  assert.equal(slices.isMore(), false);
});

test("a deleted file that cannot be freed is told of, and tried again after the next consistency point", () => {
  const { bench, server, sent } = stage();
  const { volume, fs } = bench;
  const failing = {
    doomedCount: 1,
    reclaimSlice: (): never => {
      throw new FsError("ENOSPC", "no space");
    },
  };
  const stuck: Server = { ...server, fileSystem: { ...fs, ...failing } };
  const slices = slicesOf(stuck);
  for (let count = 1; slices.isMore(); count++) {
    assert.equal(count, 1);
    slices.next();
  }
  assert.deepEqual(
    sent.map(({ kind }) => kind),
    ["log"],
  );
  volume.takeCp("timer");
  assert(slices.isMore());
});

test("where the loop cannot find the time the main thread is asked, once, as long as there is something to do", () => {
  const { bench, server, frozen, sent } = stage();
  putFile(bench.fs, "/f");
  offerToGoOn(server);
  assert.equal(sent.length, 0);
  dirty(bench, 100, 1);
  wantEased(server, "timer");
  offerToGoOn(server);
  offerToGoOn(server);
  assert.deepEqual(sent, [{ kind: "unfinished" }]);
  while (server.easing !== undefined) goOn(server);
  assert.equal(frozen.length, 1);
  server.isUnfinished = false;
  offerToGoOn(server);
  assert.equal(sent.length, 1);
});

test("it waits for the one that is in flight, and for nothing when the mount ends or the volume fails", () => {
  const { bench, server, frozen } = stage();
  putFile(bench.fs, "/f");
  server.turns.want("timer");
  dirty(bench, 2000, 1);
  wantEased(server, "fsync");
  goOn(server);
  assert.equal(frozen.length, 1, "one at a time");
  server.turns.committed((frozen[0] as FrozenCp).cpCount);
  assert.equal(frozen.length, 1, "in slices");
  endWaiting(server);
  assert.equal(frozen.length, 2);

  const failures: string[] = [];
  const sync = (): void =>
    server.turns.change({
      cause: "sync",
      apply: assert.fail,
      committed: () => assert.fail("it has failed"),
      failed: (text) => void failures.push(text),
    });
  afterEasing(server, sync);
  server.turns.fail("the disk is gone");
  assert.deepEqual(failures, ["the disk is gone"]);
  dirty(bench, 100, 1);
  afterEasing(server, sync); // and who comes later
  assert.deepEqual(failures, ["the disk is gone", "the disk is gone"]);
  assert.equal(server.easing, undefined);
});
