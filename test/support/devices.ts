/**
 * Devices for tests: memory, and disks that fail, lose power, watch and count. Each wraps another, so a test
 * puts together the disk that it needs: `guardedDevice(crashDevice({ random, base }), isProtected)`.
 *
 * The disk that loses power is the strictest one that a real one may be: until a flush has returned, each block
 * written since the one before may be there or not, in any version that it had, in any order, and each of its
 * 512-byte sectors for itself. What stood there before is one of the versions.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { FsError } from "../../src/core/errors.ts";
import { below, type Random } from "../../src/core/prng.ts";
import { type BlockDevice, NOWHERE } from "../../src/device/block-device.ts";

const SECTOR_BYTES = 512;
const PAGE_BLOCKS = 64;
const SLAB_BLOCKS = 16;

export interface MemoryDevice extends BlockDevice {
  /** An independent device with the same contents. Cheap: the two share all blocks until one of them is written. */
  clone(): MemoryDevice;
  /** The block as it is, to be read only; undefined: never written. */
  peek(vbn: number): Uint8Array | undefined;
  /** Writes a block that nobody will change any more: it is kept, not copied. */
  put(vbn: number, block: Uint8Array): void;
  /** Flips bits of one byte, as rotten storage does: `at` counts bytes from the start of the device. */
  corrupt(at: number, xor?: number): void;
}

/** A device in memory. Sparse: only what is written takes memory. */
export function memoryDevice(blockCount: number): MemoryDevice {
  return memoryOf(blockCount, new Map());
}

/** Blocks are never changed, only replaced, so that devices can share them. */
type Page = (Uint8Array | undefined)[];

function memoryOf(blockCount: number, pages: Map<number, Page>): MemoryDevice {
  /** Pages that no clone shares: only these are changed in place. */
  const owned = new Set<number>();

  function put(vbn: number, block: Uint8Array): void {
    const key = Math.floor(vbn / PAGE_BLOCKS);
    let page = pages.get(key);
    if (page === undefined || !owned.has(key)) {
      page = page === undefined ? Array.from({ length: PAGE_BLOCKS }, () => undefined) : page.slice();
      pages.set(key, page);
      owned.add(key);
    }
    page[vbn % PAGE_BLOCKS] = block;
  }

  function peek(vbn: number): Uint8Array | undefined {
    return pages.get(Math.floor(vbn / PAGE_BLOCKS))?.[vbn % PAGE_BLOCKS];
  }

  function write(vbn: number, count: number, from: Uint8Array, offset: number): void {
    checkRange(blockCount, vbn, count, from, offset);
    copies(from, offset, count).forEach((block, i) => put(vbn + i, block));
  }

  return {
    blockCount,
    read(vbn, count, into, offset): void {
      checkRange(blockCount, vbn, count, into, offset);
      let at = offset;
      for (let next = vbn; next < vbn + count; next++) {
        const block = peek(next);
        if (block === undefined) into.fill(0, at, at + BLOCK_BYTES);
        else into.set(block, at);
        at += BLOCK_BYTES;
      }
    },
    write,
    writeGather: (vbn, buffers) => gather(vbn, buffers, write),
    flush(): void {},
    writeDurable(vbn, bytes): void {
      write(vbn, wholeBlocks(bytes), bytes, 0);
    },
    discard(vbn, count): void {
      assert(vbn >= 0 && vbn + count <= blockCount, `discard of ${count} blocks at ${vbn} of ${blockCount}`);
    },
    close(): void {},
    clone(): MemoryDevice {
      owned.clear();
      return memoryOf(blockCount, new Map(pages));
    },
    peek,
    put,
    corrupt(at, xor = 0xff): void {
      const block = peek(Math.floor(at / BLOCK_BYTES))?.slice() ?? new Uint8Array(BLOCK_BYTES);
      const index = at % BLOCK_BYTES;
      block[index] = (block[index] as number) ^ xor;
      put(Math.floor(at / BLOCK_BYTES), block);
    },
  };
}

/** Copies of the blocks of a write, in pieces of one allocation each: many small ones are slow. */
function copies(from: Uint8Array, offset: number, count: number): Uint8Array[] {
  const blocks: Uint8Array[] = [];
  for (let done = 0; done < count; done += SLAB_BLOCKS) {
    const some = Math.min(SLAB_BLOCKS, count - done);
    const slab = from.slice(offset + done * BLOCK_BYTES, offset + (done + some) * BLOCK_BYTES);
    if (some === 1) blocks.push(slab);
    else for (let i = 0; i < some; i++) blocks.push(slab.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
  }
  return blocks;
}

function gather(
  vbn: number,
  buffers: readonly Uint8Array[],
  write: (vbn: number, count: number, from: Uint8Array, offset: number) => void,
): void {
  let next = vbn;
  for (const buffer of buffers) {
    assert.equal(buffer.length % BLOCK_BYTES, 0, "writeGather takes whole blocks");
    write(next, buffer.length / BLOCK_BYTES, buffer, 0);
    next += buffer.length / BLOCK_BYTES;
  }
}

function wholeBlocks(bytes: Uint8Array): number {
  assert.equal(bytes.length % BLOCK_BYTES, 0, "writeDurable takes whole blocks");
  return bytes.length / BLOCK_BYTES;
}

function checkRange(blockCount: number, vbn: number, count: number, buffer: Uint8Array, offset: number): void {
  assert(Number.isInteger(vbn), `vbn ${vbn} is not an integer`);
  assert(Number.isInteger(count) && count > 0, `count ${count}`);
  assert(vbn >= 0 && vbn + count <= blockCount, `blocks ${vbn} to ${vbn + count} of a device of ${blockCount}`);
  assert(
    offset >= 0 && offset + count * BLOCK_BYTES <= buffer.length,
    `${count} blocks at ${offset} of ${buffer.length} bytes`,
  );
}

/** One that can read to many places at once. What is not in memory is left as anything, for who does not wait. */
export function scatteringDevice(device: BlockDevice, isInMemory: () => boolean = () => true): BlockDevice {
  return {
    ...device,
    readScattered(vbn, places, count, into, offset, { waits }): boolean {
      const isThere = waits || isInMemory();
      const nowhere = new Uint8Array(BLOCK_BYTES);
      for (let i = 0; i < count; i++) {
        const place = places[i] as number;
        const [target, at] = place === NOWHERE ? [nowhere, 0] : [into, offset + place * BLOCK_BYTES];
        if (isThere) device.read(vbn + i, 1, target, at);
        else target.fill(0xee, at, at + BLOCK_BYTES);
      }
      return isThere;
    },
  };
}

/** The power is gone: thrown by the operation that it cut, and by all after it. */
export class PowerCut extends Error {
  override readonly name: string = "PowerCut";
}

/** Passes everything on; the write or flush after `operations` of them throws PowerCut undone, and so do all others, forever. */
export function failAfter(device: BlockDevice, operations: number): BlockDevice & { readonly failed: boolean } {
  let left = operations;
  let failed = false;
  const spend = (): void => {
    if (left === 0) failed = true;
    if (failed) throw new PowerCut(`power cut after ${operations} device operations`);
    left -= 1;
  };
  return watched(
    device,
    { before: spend },
    {
      get failed(): boolean {
        return failed;
      },
    },
  );
}

/** Answers each write and flush, after so many of them, with EIO (or ENOSPC), but goes on working: a disk with bad spots. */
export function erringDevice(device: BlockDevice, fails: () => "EIO" | "ENOSPC" | undefined): BlockDevice {
  return watched(
    device,
    {
      before: (what) => {
        const code = fails();
        if (code !== undefined) throw new FsError(code, `${what} failed by the test`);
      },
    },
    {},
  );
}

/** What feeds the disks of one host: it goes for all of them at once. */
export interface Power {
  /** Writes and flushes done so far: a workload run once tells how many points there are to crash at. */
  operations: number;
  /** Until it goes. */
  left: number;
}

export function powerSupply(): Power {
  return { operations: 0, left: Number.POSITIVE_INFINITY };
}

export interface CrashDevice extends BlockDevice {
  /** Of its power. */
  readonly operations: number;
  /** The operation after `operations` more of them is cut: it throws PowerCut, and what it wrote may be there or not. */
  cutAfter(operations: number): void;
  /** Calls this in the middle of each operation, when what it writes may be there or not. */
  watch(look: (() => void) | undefined): void;
  /** What a power cut now leaves on the disk. Asks randomness each time; this device is not changed. */
  crash(random?: Random): MemoryDevice;
  /** What is read now, flushed or not: what the disk holds when the process dies and the host lives. */
  contents(): MemoryDevice;
  /** What no power cut takes away, but for what has been written over since. */
  durable(): MemoryDevice;
}

export interface CrashOptions {
  readonly random: Random;
  /** Contents at the start, all durable; taken over, not copied. */
  readonly base: MemoryDevice;
  /** Default: its own. */
  readonly power?: Power;
}

/** Remembers what was written since the last flush, and can lose any of it. */
export function crashDevice({ random, base, power = powerSupply() }: CrashOptions): CrashDevice {
  const current = base;
  const durable = base.clone();
  /** Every version that a block got since the last flush, the oldest first. */
  const pending = new Map<number, Uint8Array[]>();
  const { blockCount } = base;
  let look: (() => void) | undefined;

  function begin(): void {
    if (power.left < 0) throw new PowerCut("the power is gone");
    power.operations += 1;
    power.left -= 1;
  }

  /** What the operation writes is under way. This is where it is cut. */
  function pass(): void {
    if (power.left < 0) throw new PowerCut(`power cut at device operation ${power.operations}`);
    look?.();
  }

  function remember(vbn: number, count: number, from: Uint8Array, offset: number): void {
    checkRange(blockCount, vbn, count, from, offset);
    copies(from, offset, count).forEach((bytes, i) => {
      const versions = pending.get(vbn + i);
      if (versions === undefined) pending.set(vbn + i, [bytes]);
      else versions.push(bytes);
      current.put(vbn + i, bytes);
    });
  }

  return {
    blockCount,
    get operations(): number {
      return power.operations;
    },
    read(vbn, count, into, offset): void {
      if (power.left < 0) throw new PowerCut("the power is gone");
      current.read(vbn, count, into, offset);
    },
    write(vbn, count, from, offset): void {
      begin();
      remember(vbn, count, from, offset);
      pass();
    },
    writeGather(vbn, buffers): void {
      begin();
      gather(vbn, buffers, remember);
      pass();
    },
    flush(): void {
      begin();
      pass();
      for (const [vbn, versions] of pending) durable.put(vbn, versions.at(-1) as Uint8Array);
      pending.clear();
    },
    writeDurable(vbn, bytes): void {
      const count = wholeBlocks(bytes);
      begin();
      remember(vbn, count, bytes, 0);
      pass();
      for (let i = 0; i < count; i++) {
        durable.put(vbn + i, current.peek(vbn + i) as Uint8Array);
        pending.delete(vbn + i);
      }
    },
    discard(vbn, count): void {
      current.discard(vbn, count);
    },
    close(): void {},
    cutAfter(count): void {
      power.left = count;
    },
    watch(watcher): void {
      look = watcher;
    },
    crash(luck = random): MemoryDevice {
      const image = durable.clone();
      // Some crashes lose nearly everything, some nearly nothing: both ends find other bugs than the middle does.
      const lossPercent = [0, 5, 50, 95, 100][below(luck, 5)] as number;
      for (const [vbn, versions] of pending) {
        if (below(luck, 100) < lossPercent) continue;
        image.put(vbn, leftover(luck, durable.peek(vbn), versions));
      }
      return image;
    },
    contents: () => current.clone(),
    durable: () => durable.clone(),
  };
}

/** What is left of a block: its last version, mostly; else an older one, or sectors of several. */
function leftover(random: Random, before: Uint8Array | undefined, versions: readonly Uint8Array[]): Uint8Array {
  const luck = below(random, 4);
  if (luck > 1) return versions.at(-1) as Uint8Array;
  if (luck === 1) return versions[below(random, versions.length)] as Uint8Array;
  const torn = before?.slice() ?? new Uint8Array(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
    const pick = below(random, versions.length + 1);
    if (pick > 0) torn.set((versions[pick - 1] as Uint8Array).subarray(at, at + SECTOR_BYTES), at);
  }
  return torn;
}

/** Fails the test when a write hits a block for which `isProtected` says yes: nothing referenced is ever overwritten. */
export function guardedDevice(device: BlockDevice, isProtected: (vbn: number) => boolean): BlockDevice {
  const guard = (what: string, vbn: number, count: number): void => {
    for (let next = vbn; next < vbn + count; next++)
      assert(!isProtected(next), `${what} hits block ${next}, which is referenced`);
  };
  return watched(device, { range: guard }, {});
}

export interface CountingDevice extends BlockDevice {
  /** VBNs read, in order, since the last `reset`. */
  readonly reads: readonly number[];
  readonly writes: readonly number[];
  readonly flushes: number;
  reset(): void;
}

/** Counts and lists the blocks that are read and written. */
export function countingDevice(device: BlockDevice): CountingDevice {
  const reads: number[] = [];
  const writes: number[] = [];
  let flushes = 0;
  const counted = {
    reads,
    writes,
    get flushes(): number {
      return flushes;
    },
    reset(): void {
      reads.length = 0;
      writes.length = 0;
      flushes = 0;
    },
    read(vbn: number, count: number, into: Uint8Array, offset: number): void {
      for (let next = vbn; next < vbn + count; next++) reads.push(next);
      device.read(vbn, count, into, offset);
    },
  };
  return watched(
    device,
    {
      before: (what) => {
        if (what === "flush") flushes += 1;
      },
      range: (what, vbn, count) => {
        if (what !== "discard") for (let next = vbn; next < vbn + count; next++) writes.push(next);
      },
    },
    counted,
  );
}

interface Watch {
  /** Called before every write and flush. */
  readonly before?: (what: string) => void;
  /** Called with the blocks of every write and discard. */
  readonly range?: (what: string, vbn: number, count: number) => void;
}

/** The device itself, with something said before its changes, and more members (which keep their getters). */
function watched<T extends object>(device: BlockDevice, watch: Watch, more: T): BlockDevice & T {
  const before = watch.before ?? ((): void => {});
  const range = watch.range ?? ((): void => {});
  const wrapped: BlockDevice = {
    blockCount: device.blockCount,
    read: (vbn, count, into, offset) => device.read(vbn, count, into, offset),
    write(vbn, count, from, offset): void {
      before("write");
      range("write", vbn, count);
      device.write(vbn, count, from, offset);
    },
    writeGather(vbn, buffers): void {
      before("write");
      let bytes = 0;
      for (const buffer of buffers) bytes += buffer.length;
      range("write", vbn, bytes / BLOCK_BYTES);
      device.writeGather(vbn, buffers);
    },
    flush(): void {
      before("flush");
      device.flush();
    },
    writeDurable(vbn, bytes): void {
      before("write");
      range("write", vbn, wholeBlocks(bytes));
      device.writeDurable(vbn, bytes);
    },
    discard(vbn, count): void {
      range("discard", vbn, count);
      device.discard(vbn, count);
    },
    close: () => device.close(),
  };
  return Object.defineProperties(wrapped, Object.getOwnPropertyDescriptors(more)) as BlockDevice & T;
}
