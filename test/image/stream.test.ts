import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { CorruptionError, FsError, UserError } from "../../src/core/errors.ts";
import { below, prng } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { ROLE_ACTIVE, ROLE_MIRROR } from "../../src/format/fsinfo.ts";
import { decodeImageHeader, digestFrame, frameHeader, runRecord } from "../../src/format/image-frame.ts";
import type { SnapshotRecord } from "../../src/format/snapshot-record.ts";
import { openReadOnly } from "../../src/image/open-state.ts";
import { openReceiver } from "../../src/image/receive.ts";
import { decodeResumePoint, encodeResumePoint } from "../../src/image/resume-point.ts";
import {
  digestOfHeader,
  expectedOf,
  type ImagePlan,
  openSender,
  planImage,
  type ResumeRequest,
} from "../../src/image/send.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import { countingDevice, guardedDevice, memoryDevice, scatteringDevice } from "../support/devices.ts";
import {
  assertFaithful,
  assertSameState,
  blocksOf,
  clock,
  framesOf,
  makeSource,
  memoryTarget,
  openSource,
  receive,
  streamOf,
} from "./histories.ts";

const isMismatch = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && error.failure === "mismatch" && pattern.test(error.message);

function snapshotNames(device: BlockDevice): string[] {
  return openReadOnly(device)
    .snapshots()
    .map(({ name }) => name);
}

function bulk(fill: number): Uint8Array {
  return new Uint8Array(40 * BLOCK_BYTES).fill(fill);
}

test("a full image makes a volume that is the snapshot, block by block, and can be written", () => {
  const source = makeSource();
  source.change(40);
  const top = source.snapshot("one");
  source.change(10); // not in the image
  const target = memoryTarget();
  const { blocksReceived } = receive(target, streamOf(source.device, ["one"]), { pieceBytes: 1777 });
  assert.ok(target.memory);
  assertFaithful(source.device, target.memory);
  const volume = openReadOnly(target.memory);
  assert.deepEqual(volume.committed.inodeFile, top.root);
  assert.deepEqual(volume.committed.uuid, source.volume.committed.uuid);
  assert.equal(volume.committed.label, "history");
  assert.equal(volume.committed.role, ROLE_ACTIVE);
  assert.equal(volume.committed.usedBlocks, blocksReceived);
  assert.equal(volume.committed.hashSeed, source.volume.committed.hashSeed);
  assert.equal(blocksReceived, blocksOf(source.device, top.root).size);

  const copy = openSource(target.memory);
  copy.change(20);
  copy.snapshot("its own");
  assert.deepEqual(checkVolume(target.memory).findings, []);
});

test("a mirror is marked as one and knows its top", () => {
  const source = makeSource();
  source.change(5);
  const { uuid } = source.snapshot("one");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["one"]), { role: ROLE_MIRROR });
  assert.ok(target.memory);
  const { committed } = openReadOnly(target.memory);
  assert.equal(committed.role, ROLE_MIRROR);
  assert.deepEqual(committed.topUuid, uuid);
  assert.deepEqual(committed.receivedAt, clock.now());
});

for (const seed of [1, 2, 3, 4, 5, 6]) {
  test(`random histories: full and increments follow the source, increments carry exactly top - base (seed ${seed})`, () => {
    const random = prng(1000 + seed);
    const source = makeSource({ seed, blockCount: 8192 });
    source.change(30);
    source.snapshot("s0");
    const target = memoryTarget();
    receive(target, streamOf(source.device, ["s0"]));
    let base = "s0";
    for (let step = 1; step <= 8; step += 1) {
      source.change(below(random, 30));
      const name = `s${step}`;
      source.snapshot(name);
      const others = source.volume.snapshots().filter((record) => record.name !== base && record.name !== name);
      for (const other of others) if (below(random, 3) === 0) source.drop(other.name);
      if (below(random, 4) === 0) continue; // the destination misses this one
      const stream = streamOf(source.device, [name], base);
      const { blockCount } = decodeImageHeader(headerBody(stream));
      const rootOf = (of: string): SnapshotRecord["root"] => (source.volume.findSnapshot(of) as SnapshotRecord).root;
      const before = blocksOf(source.device, rootOf(base));
      const expected = [...blocksOf(source.device, rootOf(name)).keys()].filter((vbn) => !before.has(vbn));
      assert.equal(blockCount, expected.length);
      receive(target, stream, { pieceBytes: 1 + below(random, 100_000) });
      assert.ok(target.memory);
      assertFaithful(source.device, target.memory);
      const volume = openReadOnly(target.memory);
      assert.deepEqual(volume.committed.inodeFile, rootOf(name));
      const held = new Set(source.volume.snapshots().map((record) => record.name));
      assert.ok(volume.snapshots().every((record) => held.has(record.name)));
      base = name;
    }
  });
}

function headerBody(stream: Uint8Array): Uint8Array {
  const length = frameHeader.get.bodyBytes(new DataView(stream.buffer, stream.byteOffset), 0);
  return stream.slice(frameHeader.size, frameHeader.size + length);
}

test("planning reads map blocks only, sending each block of the image, of metadata the older one too, and nothing else", () => {
  const source = makeSource({ blockCount: 8192 });
  source.change(60);
  source.snapshot("base");
  source.write("bulk", new Uint8Array(300 * BLOCK_BYTES).fill(7));
  source.change(10);
  source.snapshot("top");
  const counting = countingDevice(source.device);
  const volume = openReadOnly(counting);
  const [base, top] = ["base", "top"].map((name) => volume.findSnapshot(name) as SnapshotRecord);
  assert.ok(top);
  counting.reset();
  const plan = planImage(volume, { tops: [top], base });
  // Of each of the two states: the path to the active map in the inode file, and its map block (one region).
  assert.ok(counting.reads.length <= 8, `${counting.reads.length} blocks read to plan`);
  const { bases } = expectedOf(source.device, plan, 0);
  counting.reset();
  const sender = openSender(counting, plan);
  while (sender.next() !== undefined);
  const expected = [...blocksOf(source.device, top.root).keys()].filter(
    (vbn) => !blocksOf(source.device, base?.root as SnapshotRecord["root"]).has(vbn),
  );
  const data = counting.reads.filter((vbn) => vbn >= volume.committed.reservedBlocks);
  const older = new Set(bases.values());
  const extra = data.filter((vbn) => !expected.includes(vbn) && !older.has(vbn));
  assert.ok(extra.length <= 4, `${extra.length} blocks read beside the image`); // map blocks again
  const ofImage = data.filter((vbn) => expected.includes(vbn));
  assert.deepEqual(new Set(ofImage), new Set(expected));
  // Metadata once more when the trees are walked, and again where no patch of it was worth while.
  assert.ok(ofImage.length < expected.length + 30, `${ofImage.length} reads of ${expected.length}`);
});

for (const isScattering of [true, false]) {
  const how = isScattering ? "with those around them" : "run by run";
  test(`blocks are read ${how}, and one that is not of the image may be unreadable`, () => {
    const source = makeSource({ blockCount: 8192 });
    source.change(60);
    const { root } = source.snapshot("one");
    source.change(60);
    source.snapshot("two");
    const members = blocksOf(source.device, root);
    let isReadingData = false;
    let failures = 0;
    const failing: BlockDevice = {
      ...source.device,
      read(vbn, count, into, offset): void {
        for (let at = vbn; at < vbn + count; at += 1) {
          if (!isReadingData || members.has(at)) continue;
          failures += 1;
          throw new FsError("EIO", "it is broken");
        }
        source.device.read(vbn, count, into, offset);
      },
    };
    const device = isScattering ? scatteringDevice(failing) : failing;
    const volume = openReadOnly(source.device);
    const plan = planImage(volume, { tops: [volume.findSnapshot("one") as SnapshotRecord] });
    const sender = openSender(device, plan);
    const frames = framesOf(source.device, ["one"]);
    for (const [frame, bytes] of frames.entries()) {
      isReadingData = frame > 0 && frame < frames.length - 1;
      assert.deepEqual(Buffer.from(sender.next() as Uint8Array), Buffer.from(bytes), `frame ${frame}`);
    }
    assert.equal(failures > 0, isScattering, `${failures} reads beside the image`);
  });
}

for (const tops of [["one"], ["one", "two"], ["one", "two", "three"]]) {
  test(`a block that has rotted at the source is not sent as if it were good: image of ${tops.length}`, () => {
    const source = makeSource({ seed: 40 + tops.length, blockCount: 4096 });
    source.change(20);
    source.snapshot("base");
    for (const name of tops) {
      source.change(8);
      source.snapshot(name);
    }
    const volume = openReadOnly(source.device);
    const records = tops.map((name) => volume.findSnapshot(name) as SnapshotRecord);
    const base = volume.findSnapshot("base") as SnapshotRecord;
    for (const from of [base, undefined]) {
      const plan = planImage(volume, { tops: records, base: from });
      const members = new Set<number>();
      for (const { root } of records) for (const vbn of blocksOf(source.device, root).keys()) members.add(vbn);
      if (from !== undefined) for (const vbn of blocksOf(source.device, from.root).keys()) members.delete(vbn);
      assert.equal(members.size, plan.blockCount);
      send(source.device, plan); // nothing has rotted yet
      for (const vbn of members) {
        const rotten = source.device.clone();
        const block = new Uint8Array(BLOCK_BYTES);
        rotten.read(vbn, 1, block, 0);
        block[vbn % BLOCK_BYTES] = (block[vbn % BLOCK_BYTES] as number) ^ 8;
        rotten.write(vbn, 1, block, 0);
        assert.throws(
          () => send(rotten, plan),
          (error: unknown) => error instanceof CorruptionError && error.message.includes(`block ${vbn} `),
          `block ${vbn}`,
        );
      }
    }
  });
}

test("a transfer that is resumed looks at the blocks that are left", () => {
  const source = makeSource({ blockCount: 8192 });
  source.write("bulk", new Uint8Array(1000 * BLOCK_BYTES).fill(3));
  source.snapshot("one");
  const volume = openReadOnly(source.device);
  const plan = planImage(volume, { tops: [volume.findSnapshot("one") as SnapshotRecord] });
  const frames = framesOf(source.device, ["one"]);
  const vbnAt = (frame: number): number => {
    const { buffer, byteOffset } = frames[frame] as Uint8Array;
    return runRecord.get.vbn(new DataView(buffer, byteOffset), frameHeader.size);
  };
  let digest = digestOfHeader(frames[0] as Uint8Array);
  for (let cut = 1; cut < frames.length; cut += 1) {
    const resume = { headerDigest: digestOfHeader(plan.headerFrame), frameNumber: cut, digest };
    for (let rotten = 1; rotten < frames.length - 1; rotten += 1) {
      const device = source.device.clone();
      device.write(vbnAt(rotten), 1, new Uint8Array(BLOCK_BYTES).fill(9), 0);
      if (rotten < cut) send(device, plan, resume);
      else assert.throws(() => send(device, plan, resume), CorruptionError, `resumed at ${cut}, rotten ${rotten}`);
    }
    digest = digestFrame(digest, (frames[cut] as Uint8Array).subarray(0, frameHeader.size));
  }
});

function send(device: BlockDevice, plan: ImagePlan, resume?: ResumeRequest): void {
  const sender = openSender(device, plan, { resume });
  while (sender.next() !== undefined);
}

test("nothing that a destination's state or a kept snapshot refers to is ever written", () => {
  const source = makeSource({ blockCount: 4096 });
  source.change(40);
  source.snapshot("a");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["a"]));
  source.change(40);
  source.snapshot("b");
  source.change(40);
  source.snapshot("c");
  assert.ok(target.memory);
  const memory = target.memory;
  for (const [base, top] of [
    ["a", "b"],
    ["b", "c"],
  ] as const) {
    const taken = new Set<number>();
    const before = openReadOnly(memory);
    for (const { root } of [...before.snapshots(), { root: before.committed.inodeFile }]) {
      for (const vbn of blocksOf(memory, root).keys()) taken.add(vbn);
    }
    const guarded = memoryTarget(memory, (device) => guardedDevice(device, (vbn) => taken.has(vbn)));
    receive(guarded, streamOf(source.device, [top], base));
  }
  assertFaithful(source.device, memory);
  assert.deepEqual(
    openReadOnly(memory)
      .snapshots()
      .map(({ name }) => name),
    ["a", "b", "c"],
  );
});

test("sums carry several snapshots, which all appear in one switch; levels restore as in the examples", () => {
  const source = makeSource({ blockCount: 8192 });
  for (let day = 1; day <= 9; day += 1) {
    source.change(12);
    source.snapshot(`June${day}`);
  }
  const level0 = streamOf(source.device, ["June1", "June2", "June3"]);
  const level1 = streamOf(source.device, ["June4", "June5"], "June3");
  const level2 = streamOf(source.device, ["June6", "June7"], "June5");
  const other1 = streamOf(source.device, ["June8", "June9"], "June3");

  const target = memoryTarget();
  receive(target, level0);
  assert.ok(target.memory);
  const branch = memoryTarget(target.memory.clone());
  receive(target, level1);
  receive(target, level2);
  assertFaithful(source.device, target.memory);
  assert.deepEqual(
    snapshotNames(target.memory),
    [1, 2, 3, 4, 5, 6, 7].map((day) => `June${day}`),
  );

  receive(branch, other1);
  assert.ok(branch.memory);
  assertFaithful(source.device, branch.memory);
  assert.deepEqual(
    snapshotNames(branch.memory),
    [1, 2, 3, 8, 9].map((day) => `June${day}`),
  );

  // The second branch on top of the first: what both have is the same, and is not written again.
  receive(target, other1);
  assertFaithful(source.device, target.memory);
  assert.equal(snapshotNames(target.memory).length, 9);
});

test("older bases need not be subtracted: what top has in common with them, it has in common with the newest", () => {
  const source = makeSource({ blockCount: 8192 });
  for (const name of ["a", "b", "c"]) {
    source.change(25);
    source.snapshot(name);
  }
  const keys = (name: string): number[] => [
    ...blocksOf(source.device, (source.volume.findSnapshot(name) as SnapshotRecord).root).keys(),
  ];
  const [a, b, c] = [new Set(keys("a")), new Set(keys("b")), keys("c")];
  assert.deepEqual(
    c.filter((vbn) => !b.has(vbn)),
    c.filter((vbn) => !b.has(vbn) && !a.has(vbn)),
  );
});

test("a snapshot that the source dropped gives way when its blocks come, and is gone afterwards in any case", () => {
  const source = makeSource({ blockCount: 256 });
  source.write("bulk", bulk(1));
  source.snapshot("old");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["old"]));
  source.write("bulk", bulk(2));
  source.snapshot("base");
  receive(target, streamOf(source.device, ["base"], "old"));
  source.drop("old");
  for (let i = 3; i < 12; i += 1) {
    source.write("bulk", bulk(i));
    source.volume.takeCp("timer"); // goes round: the blocks of "old" are used again
  }
  source.snapshot("top");
  assert.ok(target.memory);
  const counting = countingDevice(target.memory);
  target.device = counting;
  const { dropped } = receive(target, streamOf(source.device, ["top"], "base"));
  assert.deepEqual(
    dropped.map(({ name }) => name),
    ["old"],
  );
  const fsinfoWrites = counting.writes.filter((vbn) => vbn === 0).length;
  assert.equal(
    fsinfoWrites,
    3,
    "the old state is made durable first, dropping it is a commit of its own, then the new one",
  );
  assertFaithful(source.device, target.memory);
  assert.deepEqual(
    openReadOnly(target.memory)
      .snapshots()
      .map(({ name }) => name),
    ["base", "top"],
  );
});

test("renames travel, and a name that is used again moves to the new snapshot", () => {
  const source = makeSource();
  source.snapshot("daily");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["daily"]));
  source.change(3);
  source.volume.renameSnapshot("daily", "yesterday");
  source.volume.takeCp("snapshot");
  source.snapshot("daily");
  receive(target, streamOf(source.device, ["daily"], "yesterday"));
  assert.ok(target.memory);
  assertFaithful(source.device, target.memory);
  assert.deepEqual(
    openReadOnly(target.memory)
      .snapshots()
      .map(({ name }) => name),
    ["yesterday", "daily"],
  );
});

test("a volume that has been changed, has another identity or lacks the base refuses, and says what to do", () => {
  const source = makeSource();
  source.change(10);
  source.snapshot("a");
  source.change(10);
  source.snapshot("b");
  source.change(10);
  source.snapshot("c");
  const full = streamOf(source.device, ["a"]);
  const target = memoryTarget();
  receive(target, full);
  assert.ok(target.memory);
  const pristine = target.memory.clone();

  assert.throws(() => receive(target, full), isMismatch(/is full, but test volume has a volume already/));
  assert.throws(
    () => receive(target, streamOf(source.device, ["c"], "b")),
    isMismatch(/needs snapshot .* as its base, which test volume does not have/),
  );
  assert.throws(
    () => receive(memoryTarget(), streamOf(source.device, ["b"], "a")),
    isMismatch(/is an increment to snapshot .* holds no volume/),
  );
  const stranger = makeSource({ seed: 77 });
  stranger.snapshot("a");
  assert.throws(
    () => receive(memoryTarget(stranger.device), streamOf(source.device, ["b"], "a")),
    isMismatch(/image is of volume .*, but test volume is volume/),
  );

  const changed = openSource(pristine.clone(), prng(5));
  changed.change(5);
  changed.volume.takeCp("sync");
  assert.throws(
    () => receive(memoryTarget(changed.device), streamOf(source.device, ["b"], "a")),
    (error: unknown) =>
      isMismatch(/has been changed since its newest snapshot "a"/)(error) &&
      (error as UserError).hint.includes("tidemark snapshot restore test volume a"),
  );
  changed.volume.restoreSnapshot("a");
  changed.volume.takeCp("snapshot");
  const restored = memoryTarget(changed.device);
  receive(restored, streamOf(source.device, ["b"], "a"));
  assertFaithful(source.device, changed.device);

  receive(target, streamOf(source.device, ["b"], "a"));
  assert.throws(() => receive(target, streamOf(source.device, ["b"], "a")), isMismatch(/has snapshot "b" already/));
});

test("a base with the same name or the same UUID but another root is not the base", () => {
  const source = makeSource();
  source.snapshot("a");
  const target = memoryTarget(source.device.clone());
  assert.ok(target.memory);
  // Both sides live on: each takes its own "b".
  source.change(5);
  source.snapshot("b");
  const twin = openSource(target.memory, prng(99));
  twin.change(5);
  twin.snapshot("b");
  source.change(5);
  source.snapshot("c");
  assert.throws(() => receive(target, streamOf(source.device, ["c"], "b")), isMismatch(/does not have/));
  // Its own state is not given up silently either: the source knows nothing of its "b".
  assert.throws(
    () => receive(target, streamOf(source.device, ["c"], "a")),
    isMismatch(/is at snapshot "b", which the source of the image does not have/),
  );
});

test("a sender begins at any frame, and a receiver goes on from its checkpoint", () => {
  const source = makeSource({ blockCount: 16384 });
  for (let i = 0; i < 4; i += 1) source.write(`bulk${i}`, new Uint8Array(300 * BLOCK_BYTES + i).fill(i + 1));
  source.change(30);
  source.snapshot("one");
  const frames = framesOf(source.device, ["one"]);
  assert.ok(frames.length > 5);
  const plan = (): ReturnType<typeof planImage> => {
    const volume = openReadOnly(source.device);
    return planImage(volume, { tops: [volume.findSnapshot("one") as SnapshotRecord] });
  };
  for (let cut = 1; cut < frames.length; cut += 1) {
    const target = memoryTarget();
    const first = openReceiver(target, { clock });
    for (const frame of frames.slice(0, cut)) first.push(frame);
    first.push((frames[cut] as Uint8Array).subarray(0, 40)); // lost
    const kept = encodeResumePoint(first.checkpoint());
    const resume = decodeResumePoint(kept);
    assert.ok(resume);
    assert.equal(resume.frameNumber, cut);
    const second = openReceiver(target, { clock, resume });
    assert.equal(second.frameNumber, cut);
    const { frameNumber, digest, headerFrame } = resume;
    const sender = openSender(source.device, plan(), {
      resume: { frameNumber, digest, headerDigest: digestOfHeader(headerFrame) },
    });
    let at = cut;
    for (let frame = sender.next(); frame !== undefined; frame = sender.next()) {
      assert.deepEqual(Buffer.from(frame), Buffer.from(frames[at] as Uint8Array), `frame ${at} resumed at ${cut}`);
      at += 1;
      second.push(frame);
    }
    assert.equal(at, frames.length);
    second.finish();
    assert.ok(target.memory);
    assertFaithful(source.device, target.memory);
    for (let i = 0; i < kept.length; i += 397) {
      const bad = kept.slice();
      bad[i] = (bad[i] as number) ^ 0x10;
      assert.equal(decodeResumePoint(bad), undefined, `byte ${i}`);
    }
  }
});

test("a transfer is not resumed onto another stream or a destination that has moved on", () => {
  const source = makeSource();
  source.change(10);
  source.snapshot("a");
  source.change(10);
  source.snapshot("b");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["a"]));
  const frames = framesOf(source.device, ["b"], "a");
  const receiver = openReceiver(target, { clock });
  for (const frame of frames.slice(0, 2)) receiver.push(frame);
  const resume = receiver.checkpoint();
  const other = openReadOnly(source.device);
  const plan = planImage(other, { tops: [other.findSnapshot("b") as SnapshotRecord] });
  const headerDigest = digestOfHeader(resume.headerFrame);
  assert.throws(
    () => openSender(source.device, plan, { resume: { ...resume, headerDigest } }),
    isMismatch(/another image stream/),
  );
  assert.ok(target.memory);
  const moved = openVolume({ device: target.memory, clock, random: prng(1), writable: true });
  moved.renameSnapshot("a", "first");
  moved.takeCp("snapshot");
  assert.throws(() => openReceiver(target, { clock, resume }), isMismatch(/began at CP/));
});

test("a frame stays what it is while the next one is formed: it may still be being written", () => {
  const source = makeSource({ seed: 47, blockCount: 4096 });
  for (let i = 0; i < 4; i += 1) source.write(`bulk${i}`, new Uint8Array(300 * BLOCK_BYTES).fill(i + 1));
  source.snapshot("a");
  const volume = openReadOnly(source.device);
  const sender = openSender(source.device, planImage(volume, { tops: [volume.findSnapshot("a") as SnapshotRecord] }));
  let previous: Uint8Array | undefined;
  let copy = Buffer.alloc(0);
  for (let frame = sender.next(); frame !== undefined; frame = sender.next()) {
    if (previous !== undefined) assert(copy.equals(previous), `the frame before ${sender.frameNumber - 1}`);
    previous = frame;
    copy = Buffer.from(frame);
  }
  assert(sender.frameNumber > 5, "frames of data follow one another");
});

test("a snapshot is sent while its volume goes on changing", () => {
  const source = makeSource({ seed: 31, blockCount: 4096 });
  for (let i = 0; i < 4; i += 1) source.write(`bulk${i}`, new Uint8Array(200 * BLOCK_BYTES + i).fill(i + 1));
  source.snapshot("a");
  const volume = openReadOnly(source.device);
  const target = memoryTarget();
  const receiver = openReceiver(target, { clock });
  const sender = openSender(source.device, planImage(volume, { tops: [volume.findSnapshot("a") as SnapshotRecord] }));
  for (let frame = sender.next(); frame !== undefined; frame = sender.next()) {
    receiver.push(frame);
    source.change(10);
    source.write("bulk1", new Uint8Array(100 * BLOCK_BYTES).fill(sender.frameNumber));
    source.snapshot(`after ${sender.frameNumber}`);
  }
  receiver.finish();
  assert.ok(target.memory);
  assertFaithful(source.device, target.memory);
});

test("hundreds of increments, snapshots coming and going at the source, in a small volume where every block is used again", () => {
  const source = makeSource({ seed: 41, blockCount: 1500 });
  const random = prng(41);
  source.change(20);
  source.snapshot("s0");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["s0"]), { role: ROLE_MIRROR });
  assert.ok(target.memory);
  let base = "s0";
  for (let step = 1; step <= 250; step += 1) {
    source.change(below(random, 6));
    const name = `s${step}`;
    source.snapshot(name);
    receive(target, streamOf(source.device, [name], base));
    base = name;
    for (const record of source.volume.snapshots()) {
      const keep = record.name === base || source.volume.snapshots().length < 4 || below(random, 3) === 0;
      if (!keep) source.drop(record.name);
    }
    if (step % 25 === 0) assert.deepEqual(checkVolume(target.memory).findings, [], `after ${step} increments`);
  }
  receive(target, streamOf(source.device, [source.snapshot("last").name], base));
  assertFaithful(source.device, target.memory);
});

test("a snapshot of one's own, of the very state that was received, is no obstacle; one of another state is", () => {
  const source = makeSource();
  source.change(5);
  source.snapshot("a");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["a"]));
  assert.ok(target.memory);
  const copy = openVolume({ device: target.memory, clock, random: prng(8), writable: true });
  copy.createSnapshot("mine");
  copy.takeCp("snapshot");
  source.change(5);
  source.snapshot("b");
  const { dropped } = receive(target, streamOf(source.device, ["b"], "a"));
  assert.deepEqual(
    dropped.map(({ name }) => name),
    ["mine"],
  );
  assertFaithful(source.device, target.memory);
});

test("nothing changed: a stream without data frames", () => {
  const source = makeSource();
  source.change(5);
  source.snapshot("a");
  source.snapshot("b");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["a"]));
  const frames = framesOf(source.device, ["b"], "a");
  assert.ok(frames.length <= 3);
  receive(target, streamOf(source.device, ["b"], "a"));
  assert.ok(target.memory);
  assertFaithful(source.device, target.memory);
});

test("a plan names only snapshots of the volume, the base before the tops, and a deleted top gets no trailer", () => {
  const source = makeSource();
  const a = source.snapshot("a");
  source.change(5);
  const b = source.snapshot("b");
  const volume = openReadOnly(source.device);
  assert.throws(() => planImage(volume, { tops: [a], base: b }), isMismatch(/"a" is not newer than "b"/));
  assert.throws(() => planImage(volume, { tops: [b], base: b }), isMismatch(/not newer/));
  assert.throws(() => planImage(volume, { tops: [b, a] }), isMismatch(/not newer/));
  assert.throws(
    () => planImage(volume, { tops: [{ ...b, uuid: new Uint8Array(16).fill(9) }] }),
    isMismatch(/is not a snapshot of this volume/),
  );
  const sender = openSender(source.device, planImage(volume, { tops: [a] }));
  sender.next();
  source.drop("a");
  assert.throws(
    () => {
      while (sender.next() !== undefined);
    },
    isMismatch(/was deleted while/),
  );
});

test("an image of a grown volume grows the destination", () => {
  const source = makeSource({ blockCount: 2048 });
  source.change(20);
  source.snapshot("a");
  const target = memoryTarget();
  receive(target, streamOf(source.device, ["a"]));
  source.change(20);
  source.snapshot("b");
  // What growing does: more blocks, the rest as it was. The header alone says so.
  const stream = streamOf(source.device, ["b"], "a");
  const larger = memoryDevice(4096);
  const bytes = new Uint8Array(2048 * BLOCK_BYTES);
  source.device.read(0, 2048, bytes, 0);
  larger.write(0, 2048, bytes, 0);
  const volume = openReadOnly(larger);
  const grown = {
    ...volume,
    committed: { ...volume.committed, blockCount: 4096 },
    snapshots: () => volume.snapshots(),
    active: volume.active,
  };
  const tops = [volume.findSnapshot("b") as SnapshotRecord];
  const plan = planImage(grown, { tops, base: volume.findSnapshot("a") });
  assert.equal(plan.blockCount, decodeImageHeader(headerBody(stream)).blockCount);
  const sender = openSender(larger, plan);
  const receiver = openReceiver(target, { clock });
  for (let frame = sender.next(); frame !== undefined; frame = sender.next()) receiver.push(frame);
  receiver.finish();
  assert.ok(target.memory);
  assert.equal(target.memory.blockCount, 4096);
  const received = openReadOnly(target.memory);
  assert.equal(received.committed.blockCount, 4096);
  for (const record of received.snapshots()) assertSameState(source.device, target.memory, record.root);
});
