// Data blocks in runs as chance has laid them, near one another or not: read in a few calls they are what they are block by block,
// and the first bad one is named, whatever lies between them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { checksum } from "../../src/core/checksum.ts";
import { CorruptionError, FsError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { blockPointer } from "../../src/format/block-pointer.ts";
import { openBlockStore } from "../../src/tree/block-store.ts";
import { type MemoryDevice, memoryDevice, scatteringDevice } from "../support/devices.ts";

const BLOCK_BYTES = 4096;
const POINTERS = 512;
const POINTER_BYTES = 8;
const FIRST_VBN = 8;
const BLOCKS = 4096;
const FROM = 16; // where data begins in a reply
const WAITING = { waits: true };
const LEFT_ALONE = 0xaa;

interface Laid {
  readonly disk: MemoryDevice;
  readonly parent: DataView;
  readonly vbns: readonly number[];
}

/** A parent of 512 pointers: a long run, out of which blocks were moved, holes, and whatever. */
function lay(random: Random): Laid {
  const disk = memoryDevice(BLOCKS);
  const block = new Uint8Array(BLOCK_BYTES);
  const parent = new DataView(new ArrayBuffer(BLOCK_BYTES));
  const isMoved = 1 + below(random, 100);
  const distance = 1 + below(random, 20);
  let moved = 1000 + below(random, 1000);
  const vbns = Array.from({ length: POINTERS }, (_, i) => {
    const what = below(random, 100);
    if (what >= isMoved) return FIRST_VBN + i;
    if (what % 10 === 0) return 0;
    moved += 1 + below(random, distance);
    return what % 10 < 8 ? FIRST_VBN + (moved % (BLOCKS - FIRST_VBN)) : BLOCKS - 1 - i;
  });
  for (let vbn = FIRST_VBN; vbn < BLOCKS; vbn++) {
    new DataView(block.buffer).setUint32(0, vbn);
    disk.write(vbn, 1, block, 0);
  }
  vbns.forEach((vbn, i) => {
    blockPointer.set.vbn(parent, i * POINTER_BYTES, vbn);
    blockPointer.set.checksum(parent, i * POINTER_BYTES, vbn === 0 ? 0 : checksum(disk.peek(vbn) as Uint8Array));
  });
  return { disk, parent, vbns };
}

/** Cannot read some blocks, alone or with others. */
function failing(device: BlockDevice, unreadable: ReadonlySet<number>): BlockDevice {
  return {
    ...device,
    read(vbn: number, count: number, into: Uint8Array, offset: number): void {
      for (let i = 0; i < count; i++) if (unreadable.has(vbn + i)) throw new FsError("EIO", "it is broken");
      device.read(vbn, count, into, offset);
    },
  };
}

function storeOf(device: BlockDevice) {
  return openBlockStore({ device, firstVbn: FIRST_VBN, endVbn: BLOCKS, cacheBytesMax: 1 << 20 });
}

function vbnBlamed(call: () => void): number | undefined {
  try {
    call();
  } catch (error) {
    assert(error instanceof CorruptionError || error instanceof FsError, String(error));
    assert.notEqual(error.vbn, undefined, String(error));
    return error.vbn;
  }
  return undefined;
}

for (const isScattering of [true, false]) {
  const how = isScattering ? "in a few calls" : "run by run";
  test(`what is read ${how} is what its pointers name, and the first that is bad is blamed`, () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = prng(seed);
      const { disk, parent, vbns } = lay(random);
      const bad = new Set<number>();
      const unreadable = new Set<number>();
      for (let i = below(random, 4) * 3; i > 0; i--) {
        const vbn = FIRST_VBN + below(random, 2 * POINTERS);
        (below(random, 2) === 0 ? bad : unreadable).add(vbn);
      }
      for (const vbn of bad) disk.corrupt(vbn * BLOCK_BYTES + 100);
      const broken = failing(disk, unreadable);
      const store = storeOf(isScattering ? scatteringDevice(broken) : broken);
      const into = new Uint8Array(FROM + POINTERS * BLOCK_BYTES + 9);
      for (let round = 0; round < 20; round++) {
        const slot = below(random, POINTERS);
        const count = 1 + below(random, POINTERS - slot);
        const wanted = vbns.slice(slot, slot + count);
        into.fill(LEFT_ALONE);
        const blamed = vbnBlamed(() => {
          assert.equal(store.readData(parent, slot, count, into, FROM, WAITING), true);
        });
        assert.equal(
          blamed,
          wanted.find((vbn) => bad.has(vbn) || unreadable.has(vbn)),
          `seed ${seed}, round ${round}`,
        );
        if (blamed !== undefined) continue;
        const expected = new Uint8Array(into.length).fill(LEFT_ALONE);
        wanted.forEach((vbn, i) => {
          if (vbn !== 0) disk.read(vbn, 1, expected, FROM + i * BLOCK_BYTES);
        });
        assert(Buffer.from(into.buffer).equals(expected), `seed ${seed}, round ${round}`);
      }
    }
  });
}

test("a long run out of which blocks were moved is read in two calls", () => {
  const disk = memoryDevice(BLOCKS);
  const parent = new DataView(new ArrayBuffer(BLOCK_BYTES));
  const sum = checksum(new Uint8Array(BLOCK_BYTES));
  for (let i = 0; i < 256; i++) {
    blockPointer.set.vbn(parent, i * POINTER_BYTES, i % 9 === 5 ? 3000 - i : 100 + i);
    blockPointer.set.checksum(parent, i * POINTER_BYTES, sum);
  }
  const scattering = scatteringDevice(disk);
  const asked: [vbn: number, count: number][] = [];
  const store = storeOf({
    ...scattering,
    readScattered(vbn, places, count, ...rest): boolean {
      asked.push([vbn, count]);
      return scattering.readScattered?.(vbn, places, count, ...rest) ?? false;
    },
  });
  store.readData(parent, 0, 256, new Uint8Array(256 * BLOCK_BYTES), 0, WAITING);
  assert.deepEqual(asked, [
    [100, 256],
    [3000 - 248, 244],
  ]);
});

test("a pointer out of the volume is corruption, after what is bad before it", () => {
  const { disk, parent, vbns } = lay(prng(1));
  const store = storeOf(scatteringDevice(disk));
  const into = new Uint8Array(POINTERS * BLOCK_BYTES);
  blockPointer.set.vbn(parent, 200 * POINTER_BYTES, BLOCKS);
  const read = () => store.readData(parent, 0, POINTERS, into, 0, WAITING);
  assert.throws(read, { message: /block pointer 4096 is outside of the volume/ });
  const before = vbns.slice(0, 200).find((vbn) => vbn !== 0) as number;
  disk.corrupt(before * BLOCK_BYTES);
  assert.equal(vbnBlamed(read), before);
});
