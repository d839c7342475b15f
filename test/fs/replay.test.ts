// What the change log brings back: each kind of change, one by one and many together, with the numbers and times of then.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError, FsError, UserError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { changeRecord, extentRecord, logFrameHeader } from "../../src/format/change-record.ts";
import { encodeLogFileHead } from "../../src/format/log-file.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
import { vbnAt } from "../../src/tree/block-tree.ts";
import { type LogFrame, sealFrame } from "../../src/volume/change-log/frames.ts";
import { type CheckReport, checkVolume } from "../../src/volume/check.ts";
import { createVolume } from "../../src/volume/create.ts";
import { writeFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { FrozenCp, Volume, VolumeOptions } from "../../src/volume/volume.ts";
import { unreadable } from "../sim/faults.ts";
import { pathsOf, randomOperation } from "../sim/operations.ts";
import { crashDevice, type MemoryDevice, memoryDevice, PowerCut } from "../support/devices.ts";
import {
  applyToReal,
  asName,
  assertEqual,
  type Bench,
  entryAt,
  forgetful,
  makeBench,
  makeDir,
  nodeAt,
  placeAt,
  putFile,
  readAll,
  type Slots,
  tick,
  withOpen,
  writeAt,
} from "../support/fs-paths.ts";
import { makeDurable } from "../support/log-frames.ts";
import { applyToModel, emptyModel, type Model, type Operation } from "../support/model-fs.ts";

const ROOT = { uid: 0, gid: 0 };

/** A filesystem whose log is open. */
function openBench(blocks = 16384): Bench & { readonly device: MemoryDevice } {
  const device = memoryDevice(blocks);
  const bench = makeBench(blocks, device);
  bench.volume.takeCp("sync");
  assert(bench.volume.log.isOpen);
  return Object.assign(bench, { device });
}

/** As fsync does it. Undefined: there was nothing to write, or the log cannot. */
function sync({ fs, device }: Bench): LogFrame | undefined {
  const frame = fs.logFrame();
  if (frame !== undefined) makeDurable(device, [frame]);
  return frame;
}

/** What a crash now leaves, opened again. Nothing but frames has been made durable since the last consistency point. */
function recovered(bench: Bench & { readonly device: MemoryDevice }): Bench & { readonly device: MemoryDevice } {
  const device = bench.device.clone();
  const clock = manualClock({ seconds: 2_000_000_000, nanoseconds: 5 });
  const volume = openVolume({ device, clock, random: prng(9), writable: true });
  assert(volume.log.isUnreplayed, "there are changes in the log");
  const fs = forgetful(openFileSystem({ volume, clock }));
  assert.deepEqual(checkVolume(device).findings, []);
  return { ...bench, device, clock, volume, fs };
}

const changes: readonly Operation[] = [
  { kind: "create", path: "/file", mode: 0o640, uid: 3 },
  { kind: "write", path: "/file", offset: 0, data: new Uint8Array(100).fill(1) },
  { kind: "write", path: "/file", offset: 3000, data: new Uint8Array(3000).fill(2) },
  { kind: "write", path: "/file", offset: 100_000, data: new Uint8Array(200_000).fill(3) },
  { kind: "fallocate", path: "/file", mode: 3, offset: 2000, length: 9000 },
  { kind: "truncate", path: "/file", sizeBytes: 150_001 },
  { kind: "fallocate", path: "/file", mode: 16, offset: 149_000, length: 9000 },
  { kind: "fallocate", path: "/file", mode: 0, offset: 200_000, length: 5 },
  { kind: "mkdir", path: "/dir", mode: 0o2775, uid: 1 },
  { kind: "mkdir", path: "/dir/below", mode: 0o700, uid: 2 },
  { kind: "mknod", path: "/dir/pipe", mode: 0o010600, rdev: 0 },
  { kind: "mknod", path: "/dir/device", mode: 0o060600, rdev: 0x803 },
  { kind: "symlink", path: "/dir/short", target: "below" },
  { kind: "symlink", path: "/dir/long", target: "t".repeat(4000) },
  { kind: "link", path: "/file", into: "/dir/other name" },
  { kind: "rename", path: "/dir/below", into: "/above", flags: 0 },
  { kind: "create", path: "/second", mode: 0o644, uid: 0 },
  { kind: "rename", path: "/second", into: "/dir/other name", flags: 0 },
  { kind: "rename", path: "/dir", into: "/above", flags: 2 },
  { kind: "chmod", path: "/file", mode: 0o4711 },
  { kind: "chown", path: "/file", uid: 7, gid: 8 },
  { kind: "utimes", path: "/above", mtime: { seconds: -5, nanoseconds: 123 } },
  { kind: "setxattr", path: "/file", name: "user.a", value: "v".repeat(10), flags: 1 },
  { kind: "setxattr", path: "/file", name: "user.b", value: "v".repeat(20_000), flags: 0 },
  { kind: "removexattr", path: "/file", name: "user.a" },
  { kind: "unlink", path: "/above/other name" },
  { kind: "rmdir", path: "/dir" },
  { kind: "truncate", path: "/file", sizeBytes: 0 },
  { kind: "unlink", path: "/file" },
];

test("each change alone is there after a crash, and all of them together", () => {
  for (const everyOne of [true, false]) {
    const bench = openBench();
    const model = emptyModel(bench.clock.now());
    for (const change of changes) {
      tick(bench.clock);
      assert.equal(applyToReal(bench.fs, new Map(), change), "");
      assert.equal(applyToModel(model, change, bench.clock.now()), "");
      if (!everyOne) continue;
      assert.notEqual(sync(bench), undefined, `${change.kind} is described`);
      assertEqual(recovered(bench).fs, model);
    }
    sync(bench);
    assertEqual(recovered(bench).fs, model);
  }
});

test("a large cut and a large hole are done again, and what they took is freed", () => {
  const bench = openBench();
  putFile(bench.fs, "/f");
  for (let i = 0; i < 30; i++) writeAt(bench.fs, "/f", i * 400 * BLOCK_BYTES, Uint8Array.of(i + 1));
  bench.volume.takeCp("sync");
  bench.fs.setAttributes(nodeAt(bench.fs, "/f"), { sizeBytes: 8000 * BLOCK_BYTES + 1 }, ROOT);
  sync(bench);
  withOpen(bench.fs, "/f", 2, (handle) => bench.fs.allocate(handle, 3, 1200 * BLOCK_BYTES - 5, 5000 * BLOCK_BYTES));
  writeAt(bench.fs, "/f", 3000 * BLOCK_BYTES, Uint8Array.of(99));
  assert.equal(bench.fs.doomedCount, 2);
  putFile(bench.fs, "/late");
  sync(bench);
  const after = recovered(bench);
  const contents = readAll(after.fs, "/f");
  assert.equal(Buffer.compare(contents, readAll(bench.fs, "/f")), 0);
  assert.equal(contents[800 * BLOCK_BYTES], 3);
  assert.equal(contents[1200 * BLOCK_BYTES], 0);
  assert.equal(contents[3000 * BLOCK_BYTES], 99);
  while (after.fs.reclaimSlice());
  after.volume.takeCp("sync");
  assert.deepEqual(checkVolume(after.device).findings, []);
});

test("so do random changes, with a frame now and then, as they were at the last frame", () => {
  for (let seed = 1; seed <= 12; seed++) {
    const bench = openBench(4096);
    const random = prng(seed);
    const model = emptyModel(bench.clock.now());
    const slots: Slots = new Map();
    for (let step = 0; step < 120; step++) {
      tick(bench.clock);
      const operation = randomOperation(random, model, { sizeMax: 60_000, isFar: seed % 2 === 0 });
      const answer = applyToReal(bench.fs, slots, operation);
      if (answer === "ENOSPC") break;
      assert.equal(answer, applyToModel(model, operation, bench.clock.now()));
      if (step % 10 !== 9) continue;
      if (!bench.volume.log.isOpen) bench.volume.takeCp("sync");
      if (sync(bench) !== undefined) assertEqual(recovered(bench).fs, model);
    }
  }
});

test("and so they do where files have much in memory, or too much for a frame, while consistency points, snapshots and slices come between", () => {
  for (let seed = 1; seed <= 8; seed++) largeHistory(seed);
});

function largeHistory(seed: number): void {
  const bench = openBench();
  const { fs, volume, device } = bench;
  const random = prng(seed);
  const model = emptyModel(bench.clock.now());
  const slots: Slots = new Map();
  let frozen: FrozenCp | undefined;
  const commit = (): void => {
    if (frozen === undefined) return;
    writeFsinfo(device, frozen.fsinfo, frozen.fsinfoVbns);
    volume.commitCp(frozen);
    frozen = undefined;
  };
  const freeze = (): void => {
    if (below(random, 2) === 0 && volume.log.isOpen) sync(bench); // then it stays open
    frozen = volume.freezeCp("timer");
  };
  for (let step = 0; step < 120; step++) {
    tick(bench.clock);
    const sizes = { sizeMax: 300_000, isFar: seed % 2 === 0 };
    const next = below(random, 4) === 0 ? scattered(random, model) : [randomOperation(random, model, sizes)];
    for (const operation of next) {
      const answer = applyToReal(fs, slots, operation);
      if (answer === "ENOSPC") return;
      assert.equal(answer, applyToModel(model, operation, bench.clock.now()));
    }
    const event = below(random, 12);
    if (event === 0) volume.relieve({ blocksMax: 1 + below(random, 100) });
    else if (event === 1) fs.reclaimSlice();
    else if (event < 5) commit();
    else if (event === 5 && frozen === undefined) freeze();
    else if (event === 6 && frozen === undefined) {
      volume.createSnapshot(`at step ${step}`);
      freeze();
    } else if (event < 10 && volume.log.isOpen && sync(bench) !== undefined) assertEqual(recovered(bench).fs, model);
  }
}

/** Writes to a file that there is, small and apart, so that they stay in memory: now and then more than go into a frame. */
function scattered(random: Random, model: Model): readonly Operation[] {
  const files = pathsOf(model).filter(({ node }) => node.kind === "file");
  const path = files[below(random, files.length)]?.path;
  if (path === undefined) return [];
  const count = below(random, 3) === 0 ? 60 + below(random, 20) : 1 + below(random, 5);
  const from = below(random, 1_000_000);
  const data = new Uint8Array(1 + below(random, 5000)).fill(1 + below(random, 255));
  return Array.from({ length: count }, (_, i) => ({ kind: "write", path, offset: from + i * 9000, data }));
}

test("inodes have the numbers and generations that they had, although free ones were found elsewhere", () => {
  const bench = openBench();
  for (let i = 0; i < 40; i++) putFile(bench.fs, `/old ${i}`);
  bench.volume.takeCp("sync");
  for (let i = 0; i < 40; i += 2) bench.fs.unlink(ROOT_NODE, asName(`old ${i}`));
  for (let i = 0; i < 30; i++) putFile(bench.fs, `/new ${i}`, "contents");
  bench.fs.setXattr(nodeAt(bench.fs, "/new 3"), asName("user.a"), new Uint8Array(10), 0); // an inode of its own
  putFile(bench.fs, "/last");
  sync(bench);
  const after = recovered(bench);
  for (const path of [...Array.from({ length: 30 }, (_, i) => `/new ${i}`), "/last"]) {
    const [then, now] = [entryAt(bench.fs, path), entryAt(after.fs, path)];
    assert.equal(now.attributes.ino, then.attributes.ino, path);
    assert.equal(now.generation, then.generation, path);
  }
});

test("a number that a large deleted file had is given to the same new file", () => {
  const bench = openBench(65_536);
  putFile(bench.fs, "/large");
  const chunk = new Uint8Array(1 << 20).fill(5);
  for (let at = 0; at < 100; at++) writeAt(bench.fs, "/large", at << 20, chunk);
  bench.volume.takeCp("sync");
  const { ino } = entryAt(bench.fs, "/large").attributes;
  bench.fs.unlink(ROOT_NODE, asName("large"));
  while (bench.fs.reclaimSlice());
  putFile(bench.fs, "/small", "x");
  assert.equal(entryAt(bench.fs, "/small").attributes.ino, ino, "the case that is tested");
  sync(bench);
  assert.equal(entryAt(recovered(bench).fs, "/small").attributes.ino, ino);
});

test("large data is referred to where it lies, small data is in the frame", () => {
  const bench = openBench();
  putFile(bench.fs, "/small");
  writeAt(bench.fs, "/small", 0, new Uint8Array(3 * BLOCK_BYTES).fill(1));
  const small = sync(bench);
  assert(small !== undefined && !small.needsFlush);
  assert.equal(small.bytes.length, 4 * BLOCK_BYTES);
  putFile(bench.fs, "/large");
  writeAt(bench.fs, "/large", 0, new Uint8Array(1 << 20).fill(2)); // whole blocks, on the disk at once
  putFile(bench.fs, "/scattered");
  for (let i = 0; i < 100; i++)
    writeAt(bench.fs, "/scattered", i * 3 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(3));
  const large = sync(bench);
  assert(large?.needsFlush === true);
  assert(large.bytes.length <= 2 * BLOCK_BYTES, `${large.bytes.length} bytes`);
  const after = recovered(bench);
  assert(readAll(after.fs, "/large").every((byte) => byte === 2));
  assert.deepEqual(readAll(after.fs, "/scattered"), readAll(bench.fs, "/scattered"));
});

test("blocks that a frame refers to are not used again before a consistency point has its changes", () => {
  const bench = openBench(1024);
  putFile(bench.fs, "/file");
  writeAt(bench.fs, "/file", 0, new Uint8Array(100 * BLOCK_BYTES).fill(1));
  sync(bench);
  // Freed, and all free space written over.
  bench.fs.unlink(ROOT_NODE, asName("file"));
  putFile(bench.fs, "/other");
  let at = 0;
  for (let full = false; !full; at += 20) {
    try {
      writeAt(bench.fs, "/other", at * BLOCK_BYTES, new Uint8Array(20 * BLOCK_BYTES).fill(2));
    } catch {
      full = true;
    }
  }
  assert(at > 300);
  const after = recovered(bench); // no frame since: the file is there
  assert(readAll(after.fs, "/file").every((byte) => byte === 1));
});

test("a file that gets its first name needs a consistency point, and so does all after it", () => {
  const bench = openBench();
  const made = bench.fs.createUnnamed(ROOT_NODE, 0o600, 2, ROOT);
  bench.fs.write(made.handle, 0, new Uint8Array(10).fill(4), 0, 10, { fromCache: false, killPriv: false });
  assert.equal(sync(bench), undefined, "nobody can name it: nothing is to be kept");
  assert(bench.volume.log.isOpen);
  bench.fs.link(made.nodeId, ...placeAt(bench.fs, "/named"));
  putFile(bench.fs, "/later");
  assert.equal(sync(bench), undefined);
  assert.equal(bench.volume.log.isOpen, false);
  bench.volume.takeCp("fsync");
  assert(bench.volume.log.isOpen);
  writeAt(bench.fs, "/named", 5, new Uint8Array(1));
  sync(bench);
  assert.deepEqual([...readAll(recovered(bench).fs, "/named")], [4, 4, 4, 4, 4, 0, 4, 4, 4, 4]);
});

test("what was set back to a snapshot does not come out of the log again", () => {
  const bench = openBench();
  bench.volume.createSnapshot("before");
  bench.volume.takeCp("snapshot");
  putFile(bench.fs, "/file");
  sync(bench);
  bench.volume.restoreSnapshot("before");
  makeDir(bench.fs, "/dir");
  assert.equal(sync(bench), undefined, "it would follow a state that is gone");
  assert.equal(entryAt(recovered(bench).fs, "/file").attributes.sizeBytes, 0, "the restore is not durable yet");
  bench.volume.takeCp("snapshot");
  putFile(bench.fs, "/after");
  sync(bench);
  const after = recovered(bench);
  entryAt(after.fs, "/dir");
  entryAt(after.fs, "/after");
  assert.throws(() => entryAt(after.fs, "/file"), { code: "ENOENT" });
});

test("writes of one file that follow each other are one description, however many", () => {
  const bench = openBench();
  putFile(bench.fs, "/file");
  for (let i = 0; i < 30_000; i++) writeAt(bench.fs, "/file", i % 4000, new Uint8Array(1).fill(i));
  const frame = sync(bench);
  assert(frame !== undefined && frame.bytes.length <= 2 * BLOCK_BYTES);
  assert.deepEqual(readAll(recovered(bench).fs, "/file"), readAll(bench.fs, "/file"));
});

test("too much to describe interrupts the log until the next consistency point, and loses nothing", () => {
  const bench = openBench(65_536);
  for (let i = 0; i < 12_000; i++) putFile(bench.fs, `/file ${i}`);
  assert.equal(sync(bench), undefined);
  assert.equal(bench.volume.log.isOpen, false);
  bench.volume.takeCp("fsync");
  putFile(bench.fs, "/one more");
  assert.notEqual(sync(bench), undefined);
  const after = recovered(bench);
  entryAt(after.fs, "/file 11999");
  entryAt(after.fs, "/one more");
});

test("a replay that a crash interrupts is done again", () => {
  const bench = openBench();
  const model = emptyModel(bench.clock.now());
  for (const change of changes.slice(0, 20)) {
    tick(bench.clock);
    assert.equal(applyToReal(bench.fs, new Map(), change), "");
    assert.equal(applyToModel(model, change, bench.clock.now()), "");
    sync(bench);
  }
  let isDone = false;
  for (let operations = 0; !isDone; operations++) {
    const disk = crashDevice({ random: prng(operations), base: bench.device.clone() });
    disk.cutAfter(operations);
    const clock = manualClock();
    try {
      openFileSystem({ volume: openVolume({ device: disk, clock, random: prng(1), writable: true }), clock });
      isDone = true;
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
    }
    const volume = openVolume({ device: disk.crash(), clock, random: prng(2), writable: true });
    assertEqual(forgetful(openFileSystem({ volume, clock })), model);
  }
});

test("without the log, a reader sees the last consistency point", () => {
  const bench = openBench();
  putFile(bench.fs, "/file");
  sync(bench);
  const clock = manualClock();
  const volume = openVolume({ device: bench.device.clone(), clock, random: prng(1), writable: false });
  assert.equal(volume.log.isUnreplayed, false);
  assert.match(checkVolume(bench.device).notes.join(), /the change log has 1 changes since consistency point/);
  assert.throws(() => entryAt(openFileSystem({ volume, clock }), "/file"), { code: "ENOENT" });
});

test("nothing else can be changed before the log is replayed", () => {
  const bench = openBench();
  putFile(bench.fs, "/file");
  sync(bench);
  const volume = openVolume({ device: bench.device, clock: bench.clock, random: prng(1), writable: true });
  assert.throws(() => volume.takeCp("sync"), /has not been replayed/);
});

test("a frame that asks for what cannot be is refused, and nothing is written", () => {
  const bench = openBench();
  putFile(bench.fs, "/file", "contents");
  writeAt(bench.fs, "/file", 0, new Uint8Array(100_000).fill(1));
  const frame = sync(bench);
  assert(frame !== undefined);
  const header = logFrameHeader.decode(new DataView(frame.bytes.buffer), 0);
  const random = prng(4);
  let refused = 0;
  for (let round = 0; round < 600; round++) {
    const bytes = frame.bytes.slice();
    const at = logFrameHeader.size + (random.u32() % header.payloadBytes);
    bytes[at] = random.u32() & 0xff;
    sealFrame(bytes, 0);
    const device = bench.device.clone();
    device.write(frame.vbn, bytes.length / BLOCK_BYTES, bytes, 0);
    const clock = manualClock();
    const volume = openVolume({ device, clock, random: prng(1), writable: true });
    const before = volume.committed.cpCount;
    try {
      openFileSystem({ volume, clock });
    } catch (error) {
      assert(error instanceof CorruptionError, String(error));
      refused += 1;
      assert.equal(openVolume({ device, clock, random: prng(1), writable: false }).committed.cpCount, before);
    }
  }
  assert(refused > 10, `${refused} refused`);
});

test("a log on a device of its own is replayed from there, and the volume does not open without it after a crash", () => {
  const device = memoryDevice(4096);
  const logDevice = { device: memoryDevice(65), uuid: new Uint8Array(16).fill(9) };
  const clock = manualClock();
  createVolume({ device, clock, random: prng(1) });
  const open = (more: Partial<VolumeOptions>): Volume =>
    openVolume({ device, clock, random: prng(2), writable: true, ...more });
  const volume = open({ logDevice });
  const fs = forgetful(openFileSystem({ volume, clock }));
  putFile(fs, "/first");
  volume.takeCp("sync");
  putFile(fs, "/second", "in the log only");
  const frame = fs.logFrame();
  assert(frame !== undefined);
  makeDurable(volume.logDevice, [frame]);

  assert.throws(() => open({}), /its change log is in a file of its own/);
  assert.throws(() => open({ logDevice: { ...logDevice, uuid: new Uint8Array(16).fill(8) } }), UserError);
  entryAt(openFileSystem({ volume: openVolume({ device, clock, random: prng(3), writable: false }), clock }), "/first");
  assert.match(checkVolume(device).notes.join(), /the change log was not looked at: it is in a file of its own/);

  const forgetting = openVolume({ device: device.clone(), clock, random: prng(3), writable: true, forgetLog: true });
  const without = forgetful(openFileSystem({ volume: forgetting, clock }));
  assert.throws(() => entryAt(without, "/second"), { code: "ENOENT" });

  const again = open({ logDevice });
  const replayed = forgetful(openFileSystem({ volume: again, clock }));
  entryAt(replayed, "/second");
  assert(again.log.isOpen, "the consistency point of the replay opens it");
  putFile(replayed, "/third");
  again.takeCp("unmount");
  const inside = open({});
  entryAt(openFileSystem({ volume: inside, clock }), "/third");
  assert.equal(inside.log.isUnreplayed, false, "a volume that was unmounted needs no log");
});

test("the check looks at a log apart, when it is told where it is, as at one in the volume", () => {
  const device = memoryDevice(4096);
  const uuid = new Uint8Array(16).fill(9);
  const log = memoryDevice(65);
  const clock = manualClock();
  createVolume({ device, clock, random: prng(1) });
  const volume = openVolume({ device, clock, random: prng(2), writable: true, logDevice: { device: log, uuid } });
  const head = { blockCount: 65, uuid, volumeUuid: volume.committed.uuid };
  const putHead = (how: Partial<typeof head>): void => log.write(0, 1, encodeLogFileHead({ ...head, ...how }), 0);
  const check = (logFile: BlockDevice, activeAs?: string): CheckReport => checkVolume(device, { logFile, activeAs });
  putHead({});
  assert.deepEqual(check(log).notes, ["the change log is not in the file that was named"]);
  const fs = forgetful(openFileSystem({ volume, clock }));
  volume.takeCp("sync");
  let durableSeq = 0;
  for (const name of ["/one", "/two"]) {
    putFile(fs, name);
    durableSeq = makeDurable(log, [fs.logFrame() as LogFrame], durableSeq);
  }

  const { findings, notes } = check(log);
  assert.deepEqual(findings, []);
  assert.match(notes.join(), /the change log has 2 changes since consistency point 2/);

  const problem = (file: BlockDevice): string => {
    const [finding, ...more] = check(file).findings;
    assert.deepEqual(more, []);
    assert.equal(finding?.kind, "change-log");
    assert.equal(finding.vbn, undefined, "a block of another file is none of the volume");
    return finding.message;
  };
  const rotten = log.clone();
  rotten.corrupt(BLOCK_BYTES + 200);
  assert.match(problem(rotten), /damaged in block 1 of its file: changes 1 to 1 had been made durable/);
  assert.match(
    problem(unreadable(log, new Set([1]))),
    /damaged in block 1 of its file: changes from 1 on cannot be read/,
  );
  assert.match(problem(unreadable(log, new Set([0]))), /block 0 .* does not verify/);
  assert.match(problem(memoryDevice(65)), /block 0 .* does not verify/);
  assert.match(problem({ ...log, blockCount: 60 }), /has been cut to 60 of its 65 blocks/);
  assert.deepEqual(check(rotten, "one").findings, [], "that of a mounted volume is being written");
  assert.match(check(rotten, "one").notes.join(), /it is being written/);
  for (const other of [{ volumeUuid: new Uint8Array(16) }, { uuid: new Uint8Array(16) }]) {
    putHead(other);
    assert.throws(() => check(log), { name: "UserError", failure: "mismatch" });
  }
});

test("the check of a volume that is mounted does not take frames that are being written for damage", () => {
  const bench = openBench();
  let durableSeq = 0;
  for (const name of ["/one", "/two"]) {
    putFile(bench.fs, name);
    durableSeq = makeDurable(bench.device, [bench.fs.logFrame() as LogFrame], durableSeq);
  }
  bench.device.corrupt(bench.volume.committed.logFirst * BLOCK_BYTES + 200); // not there yet, for who reads it first
  assert.equal(checkVolume(bench.device).findings.length, 1);
  assert.deepEqual(checkVolume(bench.device, { activeAs: "one" }).findings, []);
});

test("a log on a device of its own may be longer than the one that the volume has", () => {
  const device = memoryDevice(512);
  const logDevice = { device: memoryDevice(65), uuid: new Uint8Array(16).fill(9) };
  const clock = manualClock();
  createVolume({ device, clock, random: prng(1) });
  const volume = openVolume({ device, clock, random: prng(2), writable: true, logDevice });
  const fs = forgetful(openFileSystem({ volume, clock }));
  volume.takeCp("sync");
  for (let i = 0; i < 40; i++) {
    putFile(fs, `/file ${i}`);
    makeDurable(logDevice.device, [fs.logFrame() as LogFrame]);
    if (i === 30) volume.takeCp("sync");
  }
  assert(volume.committed.logHead > volume.committed.logBlocks);
  assert.deepEqual(checkVolume(device).findings, []);
  const again = openVolume({ device, clock, random: prng(3), writable: true, logDevice });
  entryAt(openFileSystem({ volume: again, clock }), "/file 39");
});

const MIB = 1 << 20;
const NO_BLOCK = new Uint8Array(BLOCK_BYTES);

test("space that was asked for, and then written, is not asked for again", () => {
  const bench = openBench();
  putFile(bench.fs, "/database");
  withOpen(bench.fs, "/database", 2, (handle) => {
    bench.fs.allocate(handle, 0, 0, 34 * MIB); // more than half of the volume
    bench.fs.allocate(handle, 16, 0, 20 * MIB);
  });
  for (let at = 0; at < 34; at++) writeAt(bench.fs, "/database", at * MIB, new Uint8Array(MIB).fill(at));
  sync(bench);
  assert.deepEqual(readAll(recovered(bench).fs, "/database"), readAll(bench.fs, "/database"));
});

test("an operation that has failed after it took privileges away is durable by a consistency point only", () => {
  const beyond = 2 ** 60;
  const failing: readonly ((bench: Bench) => unknown)[] = [
    ({ fs }) => fs.setAttributes(nodeAt(fs, "/program"), { sizeBytes: beyond }, ROOT),
    ({ fs }) => writeAt(fs, "/program", beyond, new Uint8Array(1)),
    ({ fs }) => writeAt(fs, "/program", 0, new Uint8Array(40 * MIB)),
    ({ fs }) =>
      withOpen(fs, "/program", 2, (handle) =>
        fs.write(handle, beyond, new Uint8Array(1), 0, 1, { fromCache: false, killPriv: true }),
      ),
  ];
  for (const fails of failing) {
    const bench = openBench(4096);
    putFile(bench.fs, "/program", "#!", 0o4755);
    bench.fs.setXattr(nodeAt(bench.fs, "/program"), asName("security.capability"), new Uint8Array(20), 0);
    bench.volume.takeCp("sync");
    assert.throws(() => fails(bench), FsError);
    putFile(bench.fs, "/new", "may have the number of what is gone");
    assert.equal(sync(bench), undefined);
    bench.volume.takeCp("fsync");
    putFile(bench.fs, "/more");
    sync(bench);
    const after = recovered(bench);
    entryAt(after.fs, "/new");
    assert.equal(entryAt(after.fs, "/program").attributes.mode, entryAt(bench.fs, "/program").attributes.mode);
  }
});

test("what an earlier mount allowed is done again, whatever the present one would say", () => {
  const bench = openBench(4096);
  const { volume, clock } = bench;
  const fs = forgetful(openFileSystem({ volume, clock, snapshotDirectories: "none" }));
  makeDir(fs, "/.snapshot");
  makeDir(fs, "/.snapshot/below");
  sync({ ...bench, fs });
  entryAt(recovered(bench).fs, "/.snapshot/below");
});

/** A file of ten blocks that a consistency point has; where the one lies that `cutWithinBlock` divides. */
function vbnOfSecondBlock({ fs, volume }: Bench): number {
  putFile(fs, "/file", new Uint8Array(40_000).fill(1));
  volume.takeCp("sync");
  const inode = volume.active.get(entryAt(fs, "/file").attributes.ino);
  assert(inode !== undefined);
  return vbnAt(volume.active.store, inode.tree, 1);
}

function cutWithinBlock({ fs }: Bench, how: "truncate" | "punch"): void {
  if (how === "truncate") fs.setAttributes(nodeAt(fs, "/file"), { sizeBytes: 5000 }, ROOT);
  else withOpen(fs, "/file", 2, (handle) => fs.allocate(handle, 3, 5000, 100));
}

test("a block that had rotted and was replaced is not read by a replay", () => {
  for (const how of ["truncate", "punch"] as const) {
    const bench = openBench(4096);
    const { fs, device } = bench;
    const rotting = vbnOfSecondBlock(bench);
    device.corrupt(rotting * BLOCK_BYTES);
    writeAt(fs, "/file", BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(2));
    cutWithinBlock(bench, how);
    sync(bench);
    assert.deepEqual(readAll(recovered(bench).fs, "/file"), readAll(fs, "/file"));
  }
});

test("a block that has rotted since is not read as zeros after a replay that cut it or punched a hole in it", () => {
  for (const how of ["truncate", "punch"] as const) {
    const bench = openBench(4096);
    const { device } = bench;
    const rotting = vbnOfSecondBlock(bench);
    cutWithinBlock(bench, how);
    sync(bench);
    device.corrupt(rotting * BLOCK_BYTES);
    const image = device.clone();
    const again = openVolume({ device: image, clock: bench.clock, random: prng(9), writable: true });
    const replayed = forgetful(openFileSystem({ volume: again, clock: bench.clock }));
    assert.throws(() => readAll(replayed, "/file"), CorruptionError);
    assert.deepEqual(
      checkVolume(image).findings.map((finding) => [finding.kind, finding.vbn]),
      [["checksum", rotting]],
    );
  }
});

test("an extent of what is no file of the user is refused", () => {
  for (const ino of [1, 2, 3, 4]) {
    const bench = openBench(4096);
    putFile(bench.fs, "/file", new Uint8Array(3000).fill(1));
    const frame = sync(bench);
    assert(frame !== undefined);
    const view = new DataView(frame.bytes.buffer);
    const header = logFrameHeader.decode(view, 0);
    const at = logFrameHeader.size + header.payloadBytes - 3000 - extentRecord.size;
    extentRecord.set.ino(view, at, ino);
    extentRecord.set.generation(view, at, 0);
    sealFrame(frame.bytes, 0);
    bench.device.write(frame.vbn, frame.bytes.length / BLOCK_BYTES, frame.bytes, 0);
    const volume = openVolume({ device: bench.device, clock: bench.clock, random: prng(1), writable: true });
    assert.throws(() => openFileSystem({ volume, clock: bench.clock }), CorruptionError);
  }
});

test("what cannot be replayed can be given up, and then only", () => {
  const bench = openBench(4096);
  const { device, clock } = bench;
  putFile(bench.fs, "/kept");
  bench.volume.takeCp("sync");
  putFile(bench.fs, "/lost");
  const frame = sync(bench);
  assert(frame !== undefined);
  changeRecord.set.kind(new DataView(frame.bytes.buffer), logFrameHeader.size, 99);
  sealFrame(frame.bytes, 0);
  device.write(frame.vbn, frame.bytes.length / BLOCK_BYTES, frame.bytes, 0);
  const open = (forgetLog: boolean): Bench["fs"] => {
    const volume = openVolume({ device, clock, random: prng(1), writable: true, forgetLog });
    return forgetful(openFileSystem({ volume, clock }));
  };
  assert.throws(() => open(false), /-o log=discard/);
  const fs = open(true);
  entryAt(fs, "/kept");
  assert.throws(() => entryAt(fs, "/lost"), { code: "ENOENT" });
});

test("a frame that has rotted before another one is not the end of the log: nobody goes on from there unasked", () => {
  const bench = openBench(4096);
  const { device, clock, fs } = bench;
  const frames: LogFrame[] = [];
  let durableSeq = 0;
  for (const name of ["/first", "/second", "/third"]) {
    putFile(fs, name, "in the log only");
    const frame = fs.logFrame();
    assert(frame !== undefined);
    durableSeq = makeDurable(device, [frame], durableSeq);
    frames.push(frame);
  }
  const open = (image: MemoryDevice, how: Partial<VolumeOptions> = {}): Bench["fs"] => {
    const volume = openVolume({ device: image, clock, random: prng(1), writable: true, ...how });
    return forgetful(openFileSystem({ volume, clock }));
  };
  for (const [index, { vbn }] of frames.entries()) {
    const image = device.clone();
    image.corrupt(vbn * BLOCK_BYTES + 200, 1);
    const { findings, notes } = checkVolume(image);
    if (index === 2) {
      assert.deepEqual(findings, [], "nobody speaks for the newest frame");
      const rest = open(image);
      entryAt(rest, "/second");
      assert.throws(() => entryAt(rest, "/third"), { code: "ENOENT" });
      continue;
    }
    assert.deepEqual(
      findings.map(({ kind, vbn: at }) => [kind, at]),
      [["change-log", vbn]],
    );
    assert.deepEqual(notes, []);
    const before = device.clone();
    assert.throws(
      () => open(image),
      (error) =>
        error instanceof UserError &&
        error.failure === "corrupt" &&
        error.message.includes(`block ${vbn}: changes`) &&
        /-o log=discard/.test(error.hint),
    );
    before.corrupt(vbn * BLOCK_BYTES + 200, 1);
    assert(isSame(image, before), "a refusal changes nothing");
    open(image, { writable: false });
    assert.throws(() => entryAt(open(image.clone(), { forgetLog: true }), "/first"), { code: "ENOENT" });
  }
});

function isSame(a: MemoryDevice, b: MemoryDevice): boolean {
  for (let vbn = 0; vbn < a.blockCount; vbn++) {
    if (Buffer.compare(a.peek(vbn) ?? NO_BLOCK, b.peek(vbn) ?? NO_BLOCK) !== 0) return false;
  }
  return true;
}

test("an append is one frame and no flush, however much of its file is in memory only; too much at once gets its places", () => {
  const bench = openBench();
  putFile(bench.fs, "/log");
  bench.volume.takeCp("sync");
  const appended: number[] = [];
  for (let block = 0; block < 200; block++) {
    writeAt(bench.fs, "/log", block * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(block + 1));
    const frame = sync(bench);
    assert(frame !== undefined);
    assert.equal(frame.needsFlush, false, `append ${block}`);
    appended.push(frame.bytes.length);
  }
  assert.equal(Math.max(...appended), 2 * BLOCK_BYTES);
  const { fs } = recovered(bench);
  assert.deepEqual(
    Array.from({ length: 200 }, (_, block) => block + 1),
    Array.from(readAll(fs, "/log")).filter((_, at) => at % BLOCK_BYTES === 0),
  );

  writeAt(bench.fs, "/log", 200 * BLOCK_BYTES, new Uint8Array(100 * BLOCK_BYTES).fill(7));
  const frame = sync(bench);
  assert(frame !== undefined);
  assert.equal(frame.needsFlush, true, "these are referred to");
  assert.equal(frame.bytes.length, BLOCK_BYTES);
});
