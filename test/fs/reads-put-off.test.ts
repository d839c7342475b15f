// READs that must not wait for the disk, over a disk that has blocks in memory or not, as chance has it: they are asked again
// later, and answer with what is there then, whatever has been written, freed and committed in between.
import assert from "node:assert/strict";
import { test } from "node:test";
import { CorruptionError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { NOT_RESIDENT } from "../../src/fs/file-system.ts";
import { checkVolume } from "../../src/volume/check.ts";
import type { FrozenCp } from "../../src/volume/volume.ts";
import { memoryDevice, scatteringDevice } from "../support/devices.ts";
import { makeBench, nodeAt, putFile } from "../support/fs-paths.ts";

const BLOCK_BYTES = 4096;
const FILE_BLOCKS = 96;
const STEPS = 1500;
const KEPT_MAX = 32;
const O_RDWR = 2;
const ROOT_USER = { uid: 0, gid: 0 };
const PLAIN = { fromCache: false, killPriv: false };
const FROM = 16; // where data begins in a reply

interface Read {
  readonly offset: number;
  readonly length: number;
}

for (const seed of seeds()) {
  test(`a read that was put off answers with what is there when it is answered (SEED=${seed})`, () => {
    runSeed(prng(seed));
  });
}

function seeds(): number[] {
  const given = process.env["SEED"];
  return given === undefined ? Array.from({ length: 8 }, (_, i) => i + 1) : [Number(given)];
}

function runSeed(random: Random): void {
  const disk = memoryDevice(4096);
  const { fs, volume } = makeBench(
    4096,
    scatteringDevice(disk, () => below(random, 2) === 0),
  );
  const node = putFile(fs, "/file");
  const { handle } = fs.open(node, O_RDWR);
  const model = new Uint8Array(FILE_BLOCKS * BLOCK_BYTES);
  const into = new Uint8Array(FROM + model.length + BLOCK_BYTES);
  const kept: Read[] = [];
  let size = 0;
  let frozen: FrozenCp | undefined;
  let putOffCount = 0;

  /** False: it is to be asked again. */
  function isAnswered({ offset, length }: Read, how: { readonly waits: boolean }): boolean {
    const count = fs.read(handle, offset, length, into, FROM, how);
    if (count === NOT_RESIDENT) return false;
    assert.equal(count, Math.max(0, Math.min(length, size - offset)));
    const isEqual = Buffer.from(into.buffer, FROM, count).equals(model.subarray(offset, offset + count));
    assert(isEqual, `${length} bytes at ${offset} are not those of the file`);
    return true;
  }

  function write(): void {
    const offset = below(random, model.length - 1);
    const lengthMax = model.length - offset;
    const length = 1 + below(random, Math.min(lengthMax, below(random, 2) === 0 ? 5000 : 200_000));
    const bytes = Uint8Array.from({ length }, () => below(random, 256));
    fs.write(handle, offset, bytes, 0, length, PLAIN);
    model.set(bytes, offset);
    size = Math.max(size, offset + length);
  }

  function truncate(): void {
    size = below(random, model.length);
    fs.setAttributes(node, { sizeBytes: size }, ROOT_USER);
    model.fill(0, size);
  }

  /** One half of a consistency point: requests come between the two. */
  function turn(): void {
    if (frozen !== undefined) {
      volume.commitCp(frozen);
      frozen = undefined;
      return;
    }
    const snapshot = volume.findSnapshot("s");
    if (snapshot === undefined) volume.createSnapshot("s");
    else volume.deleteSnapshot("s");
    frozen = volume.freezeCp("snapshot");
  }

  for (let step = 0; step < STEPS; step++) {
    const what = below(random, 12);
    if (what < 5) {
      const offset = below(random, FILE_BLOCKS) * BLOCK_BYTES;
      const read = { offset, length: (1 + below(random, 40)) * BLOCK_BYTES };
      if (kept.length === KEPT_MAX || isAnswered(read, { waits: false })) continue;
      kept.push(read);
      putOffCount += 1;
    } else if (what < 8) {
      const read = kept.shift();
      const waits = what === 7;
      if (read === undefined || isAnswered(read, { waits })) continue;
      assert(!waits, "who may wait is answered");
      kept.push(read);
    } else if (what < 10) write();
    else if (what === 10) turn();
    else truncate();
  }
  for (const read of kept) assert(isAnswered(read, { waits: true }));
  assert(putOffCount > 50, `${putOffCount} were put off`);
  fs.release(handle);
  if (frozen !== undefined) volume.commitCp(frozen);
  volume.takeCp("sync");
  assert.deepEqual(checkVolume(disk).findings, []);
}

test("a bad block within a run is named, whether its run was in memory or had to be waited for", () => {
  const disk = memoryDevice(4096);
  let isInMemory = true;
  const bench = makeBench(
    4096,
    scatteringDevice(disk, () => isInMemory),
  );
  const data = new Uint8Array(64 * BLOCK_BYTES).fill(5);
  data.fill(77, 20 * BLOCK_BYTES, 21 * BLOCK_BYTES);
  putFile(bench.fs, "/file", data);
  bench.volume.takeCp("sync");
  const bad = Array.from({ length: 4096 }, (_, vbn) => vbn).find((vbn) => disk.peek(vbn)?.[0] === 77) ?? 0;
  disk.corrupt(bad * BLOCK_BYTES + 9);
  const { handle } = bench.fs.open(nodeAt(bench.fs, "/file"), 0);
  const into = new Uint8Array(FROM + data.length);
  const isNamed = (error: unknown): boolean => error instanceof CorruptionError && error.vbn === bad;
  const read = (offset: number, length: number, waits: boolean): number =>
    bench.fs.read(handle, offset * BLOCK_BYTES, length * BLOCK_BYTES, into, FROM, { waits });
  assert.throws(() => read(0, 64, false), isNamed);
  isInMemory = false;
  assert.equal(read(0, 64, false), NOT_RESIDENT);
  assert.throws(() => read(0, 64, true), isNamed);
  assert.equal(read(0, 20, true), 20 * BLOCK_BYTES);
  assert.equal(read(21, 43, true), 43 * BLOCK_BYTES);
});
