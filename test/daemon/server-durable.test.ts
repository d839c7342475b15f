// Changes that must be durable while consistency points are in flight: no thread, and a disk in memory.
import assert from "node:assert/strict";
import { test } from "node:test";
import { changeSeq } from "../../src/core/numbers.ts";
import { cpTurns } from "../../src/daemon/cp-turns.ts";
import type { Posted } from "../../src/daemon/log-line.ts";
import { committed, makeDurable } from "../../src/daemon/server-durable.ts";
import { goOn } from "../../src/daemon/server-slices.ts";
import type { Server } from "../../src/daemon/server-state.ts";
import type { FrozenCp } from "../../src/volume/volume.ts";
import { makeBench, putFile } from "../support/fs-paths.ts";

test("who comes while a consistency point is in flight that opens the log waits for the log, and for no other consistency point", () => {
  const { fs, volume } = makeBench();
  const frozen: FrozenCp[] = [];
  const posted: Posted[] = [];
  const server = {
    volume,
    fileSystem: fs,
    turns: cpTurns(volume, { send: (cp) => void frozen.push(cp), onFailure: assert.fail }),
    line: { post: (frame, answer) => void posted.push({ frame, answer }) },
    easing: undefined,
    reclaiming: [],
    awaitedSeq: 0,
    dirtyBytesMax: 1 << 26,
    relieveAtBytes: 1 << 26,
    nowMs: () => 0,
    send: () => {},
  } as Partial<Server> as Server;
  const change = (name: string): number => {
    putFile(fs, name);
    makeDurable(server, changeSeq(volume.log.seq));
    while (server.easing !== undefined && server.turns.state.phase === "idle") goOn(server);
    return volume.log.seq;
  };

  const first = change("/a");
  assert.deepEqual(
    frozen.map(({ logSeq }) => logSeq),
    [first],
    "the log is not open yet",
  );
  const second = change("/b");
  assert.deepEqual(posted, []);
  committed(server, (frozen[0] as FrozenCp).cpCount);
  assert.equal(frozen.length, 1);
  assert.deepEqual(
    posted.map(({ frame, answer }) => [frame !== undefined, answer]),
    [[true, { kind: "tell", seq: second }]],
  );

  putFile(fs, "/c"); // no one waits for it
  server.turns.want("timer");
  const last = frozen.at(-1) as FrozenCp;
  makeDurable(server, changeSeq(last.logSeq)); // is in it
  committed(server, last.cpCount);
  assert.deepEqual([frozen.length, posted.length], [2, 1]);

  putFile(fs, "/d");
  server.turns.want("timer");
  change("/e");
  volume.log.interrupt();
  committed(server, (frozen.at(-1) as FrozenCp).cpCount);
  while (server.easing !== undefined) goOn(server);
  assert.deepEqual([frozen.length, posted.length], [4, 1], "what the log cannot take needs a consistency point");
});
