// The server thread's side of consistency points, and the answers that wait for them: no thread, no clock, no disk.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type CpCount, changeSeq, cpCount } from "../../src/core/numbers.ts";
import { type Change, type CpTurns, cpTurns } from "../../src/daemon/cp-turns.ts";
import { waitingRoom } from "../../src/daemon/waiting-room.ts";
import type { CpCause, FrozenCp, Volume } from "../../src/volume/volume.ts";

interface Stage {
  readonly turns: CpTurns;
  readonly log: string[];
  failNext: boolean;
}

/** A volume of which only the consistency points exist. */
function stage(): Stage {
  const log: string[] = [];
  let next = 1;
  let inFlight = false;
  const it = { log, failNext: false };
  const volume = {
    freezeCp(cause: CpCause): FrozenCp {
      assert(!inFlight, "one at a time");
      if (it.failNext) throw new Error("disk full");
      inFlight = true;
      const count = cpCount(next);
      next += 1;
      return { cpCount: count, cause, fsinfo: new Uint8Array(4096), fsinfoVbns: [0, 15], blocksWritten: 0, logSeq: 0 };
    },
    commitCp(): void {
      inFlight = false;
    },
  } as unknown as Volume;
  const turns = cpTurns(volume, {
    send: (cp) => log.push(`send ${cp.cpCount} ${cp.cause}`),
    onFailure: (message) => log.push(`failed: ${message}`),
  });
  return Object.assign(it, { turns });
}

function change(log: string[], name: string, accepted = true): Change {
  return {
    cause: "snapshot",
    apply: () => {
      log.push(`apply ${name}`);
      return accepted;
    },
    committed: (count: CpCount) => log.push(`done ${name} ${count}`),
    failed: () => log.push(`lost ${name}`),
  };
}

test("what is wanted while one is in flight is gathered into the next", () => {
  const { turns, log } = stage();
  turns.want("timer");
  turns.want("fsync");
  turns.want("dirty");
  assert.deepEqual(log, ["send 1 timer"]);
  turns.committed(cpCount(1));
  assert.deepEqual(log, ["send 1 timer", "send 2 fsync"]);
  turns.committed(cpCount(2));
  assert.equal(turns.state.phase, "idle");
  assert.equal(log.length, 2);
});

test("each change has a consistency point of its own, in the order of asking, and is told when it is committed", () => {
  const { turns, log } = stage();
  turns.want("timer");
  turns.change(change(log, "a"));
  turns.change(change(log, "b"));
  assert.deepEqual(log, ["send 1 timer"]);
  turns.committed(cpCount(1));
  assert.deepEqual(log.slice(1), ["apply a", "send 2 snapshot"]);
  turns.committed(cpCount(2));
  assert.deepEqual(log.slice(3), ["done a 2", "apply b", "send 3 snapshot"]);
  turns.committed(cpCount(3));
  assert.deepEqual(log.slice(6), ["done b 3"]);
});

test("a change that is refused takes no consistency point", () => {
  const { turns, log } = stage();
  turns.change(change(log, "a", false));
  assert.deepEqual(log, ["apply a"]);
  assert.equal(turns.state.phase, "idle");
});

test("a consistency point that cannot be written is the end: everything that waits is told, and all that comes later", () => {
  const it = stage();
  const { turns, log } = it;
  turns.want("timer");
  turns.change(change(log, "a"));
  turns.change(change(log, "b"));
  it.failNext = true;
  turns.committed(cpCount(1));
  assert.deepEqual(log.slice(1), [
    "apply a",
    "lost a",
    "lost b",
    "failed: consistency point could not be written: disk full",
  ]);
  turns.change(change(log, "c"));
  turns.want("timer");
  assert.deepEqual(log.slice(5), ["lost c"]);
});

test("a failed flush loses the change that is in flight", () => {
  const { turns, log } = stage();
  turns.change(change(log, "a"));
  turns.fail("flush");
  turns.fail("again");
  assert.deepEqual(log, ["apply a", "send 1 snapshot", "lost a", "failed: flush"]);
  turns.committed(cpCount(1));
  assert.equal(turns.state.phase, "failed");
});

test("answers wait until their change is durable, and for no later one", () => {
  const room = waitingRoom();
  room.durable(5);
  const log: string[] = [];
  const hold = (at: number): void =>
    room.hold(changeSeq(at), { release: () => log.push(`${at}`), fail: () => log.push(`${at} failed`) });
  hold(5);
  assert.deepEqual(log, ["5"]);
  hold(6);
  hold(8);
  hold(6);
  assert.equal(room.count, 3);
  room.durable(7);
  assert.deepEqual(log, ["5", "6", "6"]);
  room.failed("disk");
  assert.deepEqual(log, ["5", "6", "6", "8 failed"]);
  hold(9);
  hold(7);
  assert.deepEqual(log.slice(4), ["9 failed", "7"]);
  assert.equal(room.count, 0);
});
