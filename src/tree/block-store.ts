/**
 * Verified reads: the one door through which trees see blocks of the device.
 *
 * A parent knows the checksum of a block, so a block is verified when it comes in, and a cached block
 * whose checksum is not the pointer's is stale: that is how a read-only mount follows a moving mirror,
 * and how lost and misdirected writes are found.
 *
 * Only metadata is cached (the kernel's page cache has the data). The cache is bounded; a buffer that is
 * evicted in the middle of an operation may still be in its hands, so it rests in `retired` until the next
 * operation begins. Invariant: a buffer is in exactly one of: the cache, the dirty maps of one tree,
 * `retired`, the pool.
 */
import assert from "node:assert/strict";
import { LRUCache } from "lru-cache";
import { BLOCK_BYTES, type Block, makeBlock } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { shaped } from "../core/shaped.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { dataReader, type ReadData } from "./data-reader.ts";
import type { Space } from "./space.ts";

/** A block of a tree in memory. `vbn` is 0 while it is dirty and has no place yet. */
export interface CachedBlock extends Block {
  vbn: number;
  checksum: number;
}

export interface BlockStore {
  readonly device: BlockDevice;
  /** Where blocks come from and go to; undefined: this store is read-only. */
  readonly space: Space | undefined;
  /** First block of the tree area; a pointer below it, or beyond the end, is corrupt. */
  readonly firstVbn: number;
  readonly endVbn: number;
  /** Metadata blocks that have been asked of the device so far. */
  readonly missCount: number;
  /** The block, verified. Only to be read; valid until the next `beginOperation`. Throws CorruptionError. */
  read(vbn: number, expected: number): CachedBlock;
  /** It will be read soon: the disk may begin, if the block is not here. Never fails, whatever the pointer says. */
  prefetch(vbn: number): void;
  /** Takes the block out of the cache for its new owner to change, reading it first if need be. */
  adopt(vbn: number, expected: number): CachedBlock;
  /** A buffer with arbitrary contents and no place. */
  buffer(): CachedBlock;
  /** A zeroed buffer. */
  zeroed(): CachedBlock;
  /** Puts a clean block, whose `vbn` and `checksum` are right, in the cache. */
  insert(block: CachedBlock): void;
  /** Gives a buffer back that nobody needs beyond this operation. */
  retire(block: CachedBlock): void;
  /** Reads and verifies whole data blocks, straight into the caller's memory. Not cached. */
  readonly readData: ReadData;
  /** Buffers retired so far may be reused from here on. Every operation calls it first. */
  beginOperation(): void;
}

export interface BlockStoreOptions {
  readonly device: BlockDevice;
  readonly firstVbn: number;
  readonly endVbn: number;
  readonly cacheBytesMax: number;
  readonly space?: Space | undefined;
  /** Each block has a second copy, so many blocks further on, for when the first is bad. Default: there is none. */
  readonly copyDistance?: number;
}

/** Free buffers kept for reuse: fresh memory is slow on virtual machines. Of the cache, at most one part in POOL_SHARE. */
const POOL_BLOCKS_MAX = 4096;
const POOL_SHARE = 3;
/** As many as an operation reads before it changes anything: they are still there when it does, and cannot fail to be read. */
const CACHE_BLOCKS_MIN = 16;

/**
 * Metadata that is used together was written together: a block that is missed near the one missed before is read with those
 * around it. One alone, as of a file that is read at random, is read alone.
 */
const NEAR_BLOCKS = 64;
const AROUND_BLOCKS = 32;

export function openBlockStore({
  device,
  firstVbn,
  endVbn,
  cacheBytesMax,
  space,
  copyDistance = 0,
}: BlockStoreOptions): BlockStore {
  const pool: CachedBlock[] = [];
  const retired: CachedBlock[] = [];
  const blocksMax = Math.floor(cacheBytesMax / BLOCK_BYTES);
  const poolBlocksMax = Math.min(POOL_BLOCKS_MAX, Math.floor(blocksMax / POOL_SHARE));
  const areaBlocks = Math.max(1, endVbn - firstVbn);
  const cache = new LRUCache<number, CachedBlock>({
    max: Math.min(areaBlocks, Math.max(CACHE_BLOCKS_MIN, blocksMax - poolBlocksMax)),
    dispose: (block, _vbn, reason) => {
      if (reason !== "delete") retired.push(block); // "delete" is adoption
    },
  });

  function buffer(): CachedBlock {
    const block = pool.pop();
    if (block !== undefined) {
      block.vbn = 0;
      block.checksum = 0;
      return block;
    }
    const { bytes, view, words } = makeBlock();
    return { bytes, view, words, vbn: 0, checksum: 0 };
  }

  let missedVbn = Number.NEGATIVE_INFINITY;
  let missCount = 0;

  function readAround(vbn: number): void {
    const isNear = Math.abs(vbn - missedVbn) < NEAR_BLOCKS;
    missedVbn = vbn;
    if (!isNear) return;
    const start = Math.max(firstVbn, vbn - (vbn % AROUND_BLOCKS));
    device.readAhead?.(start, Math.min(AROUND_BLOCKS, endVbn - start));
  }

  function load(vbn: number, expected: number): CachedBlock {
    checkVbn(vbn);
    readAround(vbn);
    missCount += 1;
    const block = buffer();
    try {
      readVerified(vbn, expected, block.bytes);
    } catch (error) {
      if (copyDistance === 0 || !isGood(vbn + copyDistance, expected, block.bytes)) {
        pool.push(block);
        throw error;
      }
    }
    block.vbn = vbn;
    block.checksum = expected;
    return block;
  }

  function readVerified(vbn: number, expected: number, into: Uint8Array): void {
    readBlock(vbn, into);
    const found = checksum(into);
    if (found !== expected) throw mismatch(vbn, found, expected);
  }

  function isGood(vbn: number, expected: number, into: Uint8Array): boolean {
    try {
      readVerified(vbn, expected, into);
      return true;
    } catch (error) {
      if (error instanceof CorruptionError || error instanceof FsError) return false;
      throw error;
    }
  }

  /** An error of the device names the block. */
  function readBlock(vbn: number, into: Uint8Array): void {
    try {
      device.read(vbn, 1, into, 0);
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
      throw new FsError("EIO", `block ${vbn} cannot be read`, { cause: error, vbn });
    }
  }

  function checkVbn(vbn: number): void {
    if (vbn < firstVbn || vbn >= endVbn)
      throw new CorruptionError(`block pointer ${vbn} is outside of the volume (${firstVbn} to ${endVbn - 1})`);
  }

  return shaped({
    device,
    space,
    firstVbn,
    endVbn,
    get missCount(): number {
      return missCount;
    },
    read(vbn, expected): CachedBlock {
      const cached = cache.get(vbn);
      if (cached !== undefined && cached.checksum === expected) return cached;
      const block = load(vbn, expected);
      cache.set(vbn, block);
      return block;
    },
    prefetch(vbn): void {
      if (vbn >= firstVbn && vbn < endVbn && !cache.has(vbn)) device.readAhead?.(vbn, 1);
    },
    adopt(vbn, expected): CachedBlock {
      const cached = cache.get(vbn);
      if (cached !== undefined && cached.checksum === expected) {
        cache.delete(vbn);
        return cached;
      }
      return load(vbn, expected);
    },
    buffer,
    zeroed(): CachedBlock {
      const block = buffer();
      block.words.fill(0);
      return block;
    },
    insert(block): void {
      assert(block.vbn !== 0, "a block without a place is not clean");
      cache.set(block.vbn, block);
    },
    retire(block): void {
      retired.push(block);
    },
    readData: dataReader(device, checkVbn, (vbn, expected, into) => {
      checkVbn(vbn);
      readVerified(vbn, expected, into);
    }),
    beginOperation(): void {
      if (retired.length === 0) return;
      for (const block of retired) {
        if (pool.length < poolBlocksMax) pool.push(block);
      }
      retired.length = 0;
    },
  });
}

export function mismatch(vbn: number, found: number, expected: number): CorruptionError {
  return new CorruptionError(`block ${vbn} has checksum ${hex(found)}, its parent expects ${hex(expected)}`, { vbn });
}

function hex(n: number): string {
  return `0x${n.toString(16).padStart(8, "0")}`;
}
