/**
 * What the trees of the tops say of the blocks of an image: what each must hold, and what those of metadata have come from.
 *
 * Blocks are sent in the order of their VBNs, and a tree tells of them in its own order. To remember a checksum of each would
 * take 4 bytes a block, without bound. So two sums are kept: over all blocks that the trees expect, each with its checksum,
 * and over those that are read to be sent. One block that is not what its parent expects makes the sums differ for sure; which
 * one it is is found by a second walk. A bit a block remembers which have been counted, as snapshots may share them and the
 * base may have them: 8 KiB for each region (128 MiB) in which the image has blocks.
 */
import { add, has, remove } from "../bitset/plane.ts";
import { BLOCK_BYTES, REGION_WORDS } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { CorruptionError } from "../core/errors.ts";
import type { BlockDevice } from "../device/block-device.ts";
import type { FileRootRecord } from "../format/inode.ts";
import { eachNewBlock } from "../volume/new-blocks.ts";
import { regionOf, regionStart, type Selection } from "./select.ts";

export interface ExpectedBlocks {
  /** Blocks of metadata, and the blocks of the base that they have come from. */
  readonly bases: ReadonlyMap<number, number>;
  /** A block has been read to be sent, and has this checksum. */
  sent(vbn: number, sum: number): void;
  /** All blocks from `fromVbn` on have been. Throws CorruptionError when one was not what its parent expects. */
  check(): void;
}

export interface Expectation {
  readonly selection: Selection;
  /** Roots of the base, if there is one, and of the tops, oldest first. */
  readonly base: FileRootRecord | undefined;
  readonly tops: readonly FileRootRecord[];
  readonly firstVbn: number;
  readonly endVbn: number;
  /** Blocks before this one are not sent. */
  readonly fromVbn: number;
}

/** Of 1 GiB of changed metadata; what comes beyond has no base. */
const BASES_MAX = 1 << 18;
/** 1 TiB of regions: 64 MiB of bits. Of blocks in others nothing is known. */
const REGIONS_MAX = 8192;

/** Members of the image in one region: those that the walk has yet to meet, and those it has met. */
interface Region {
  readonly waiting: Uint32Array;
  readonly met: Uint32Array;
}

/** Walks the trees. Throws CorruptionError when a block of metadata is not what its parent expects. */
export function openExpectedBlocks(device: BlockDevice, expectation: Expectation): ExpectedBlocks {
  const { selection, fromVbn } = expectation;
  const regions = new Map<number, Region>();
  const bases = new Map<number, number>();
  const expected = new BlockSum();
  const read = new BlockSum();
  let lastNumber = -1;
  let last: Region | undefined;
  eachOfTops(device, expectation, meet);

  /** Blocks of one region are mostly asked for one after the other. */
  function knownRegion(number: number): Region | undefined {
    if (number !== lastNumber) last = regions.get(number);
    lastNumber = number;
    return last;
  }

  function regionAt(vbn: number): Region | undefined {
    const number = regionOf(vbn);
    const known = knownRegion(number);
    if (known !== undefined) return known;
    if ((selection.regionCounts[number] ?? 0) === 0 || regions.size === REGIONS_MAX) return undefined;
    const region = { waiting: new Uint32Array(REGION_WORDS), met: new Uint32Array(REGION_WORDS) };
    selection.fill(number, region.waiting);
    regions.set(number, region);
    last = region;
    return region;
  }

  function meet(vbn: number, sum: number, vbnBefore: number): void {
    const region = regionAt(vbn);
    const at = vbn - regionStart(regionOf(vbn));
    if (region === undefined || !has(region.waiting, at)) return; // the base has it, or an older top
    remove(region.waiting, at);
    add(region.met, at);
    if (vbn >= fromVbn) expected.add(vbn, sum);
    const base = vbnBefore === 0 || bases.size === BASES_MAX ? undefined : baseOf(vbnBefore);
    if (base !== undefined) bases.set(vbn, base);
  }

  /** What is in a top and not in the image is in the base. What is in the image may have come from there itself. */
  function baseOf(vbnBefore: number): number | undefined {
    const known = bases.get(vbnBefore);
    if (known !== undefined) return known;
    if ((selection.regionCounts[regionOf(vbnBefore)] ?? 0) === 0) return vbnBefore;
    const region = regionAt(vbnBefore);
    if (region === undefined) return undefined;
    const at = vbnBefore - regionStart(regionOf(vbnBefore));
    return has(region.waiting, at) || has(region.met, at) ? undefined : vbnBefore;
  }

  function isMet(vbn: number): boolean {
    const number = regionOf(vbn);
    const region = knownRegion(number);
    return region !== undefined && has(region.met, vbn - regionStart(number));
  }

  return {
    bases,
    sent(vbn, sum): void {
      if (isMet(vbn)) read.add(vbn, sum);
    },
    check(): void {
      if (expected.isSame(read)) return;
      const block = new Uint8Array(BLOCK_BYTES);
      eachOfTops(device, expectation, (vbn, sum) => {
        if (!isMet(vbn)) return;
        device.read(vbn, 1, block, 0);
        if (checksum(block) !== sum) throw damaged(`block ${vbn}`);
      });
      throw damaged("a block");
    },
  };
}

function damaged(what: string): CorruptionError {
  return new CorruptionError(`${what} of the image is not what its parent expects, so it was not sent to its end`);
}

/** Each top against the one before it. */
function eachOfTops(
  device: BlockDevice,
  { base, tops, firstVbn, endVbn }: Expectation,
  visit: (vbn: number, sum: number, vbnBefore: number) => void,
): void {
  let before = base;
  for (const after of tops) {
    eachNewBlock(device, { before, after, firstVbn, endVbn }, visit);
    before = after;
  }
}

/** A sum in which the order of the blocks does not count. Multiplying by an odd number loses nothing of a checksum. */
class BlockSum {
  low = 0;
  high = 0;

  add(vbn: number, sum: number): void {
    const mixed = Math.imul(sum ^ Math.imul(vbn, 0x9e3779b1), 0x85ebca6b);
    this.low = (this.low + mixed) >>> 0;
    this.high = (this.high + Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae35)) >>> 0;
  }

  isSame({ low, high }: BlockSum): boolean {
    return low === this.low && high === this.high;
  }
}
