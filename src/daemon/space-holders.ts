/** What holds the space of a volume, for the status of one that is nearly full, and for the log when it is. */
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { regionCountOf } from "../volume/space/plane.ts";
import type { Volume } from "../volume/volume.ts";

export interface SpaceHolders {
  /** Blocks that only snapshots hold, all together. */
  readonly snapshotBlocks: number;
  /** Less than a tenth is available. */
  readonly nearlyFull: boolean;
  /**
   * When it is nearly full: the snapshots that hold most, each with the blocks that nothing else holds. What two of them share
   * is in neither number. Empty where counting would take long.
   */
  readonly holders: readonly { readonly name: string; readonly blocks: number }[];
}

const HOLDERS_MAX = 8;
/** Map blocks that are looked at for it: planes times regions. */
const REGIONS_MAX = 200_000;

export function spaceOf(volume: Volume): SpaceHolders {
  const { blockCount, reservedBlocks, availableBlocks } = volume.status();
  // Of the last consistency point: what has been freed since is in use still, and no snapshot's.
  const snapshotBlocks = volume.committed.usedBlocks - volume.committed.activeBlocks;
  const nearlyFull = availableBlocks * 10 < blockCount - reservedBlocks;
  const names = volume.snapshots().map(({ name }) => name);
  const isShort = names.length * regionCountOf(blockCount) <= REGIONS_MAX;
  if (!nearlyFull || !volume.writable || !isShort) return { snapshotBlocks, nearlyFull, holders: [] };
  return { snapshotBlocks, nearlyFull, holders: holdersOf(volume, names) };
}

function holdersOf(volume: Volume, names: readonly string[]): SpaceHolders["holders"] {
  try {
    return names
      .map((name) => ({ name, blocks: volume.reclaimable([name]) }))
      .toSorted((a, b) => b.blocks - a.blocks)
      .slice(0, HOLDERS_MAX);
  } catch (error) {
    if (error instanceof CorruptionError || error instanceof FsError) return []; // a map that cannot be read
    throw error;
  }
}

/** Why there is no space, and what gives it back. */
export function fullText({ snapshotBlocks, holders }: SpaceHolders): string {
  if (snapshotBlocks === 0) return "the volume is full";
  const each = holders.map(({ name, blocks }) => `${name} ${inMib(blocks)}`).join(", ");
  return `the volume is full; snapshots hold ${inMib(snapshotBlocks)} of it${each === "" ? "" : `, by itself each: ${each}`}`;
}

function inMib(blocks: number): string {
  return `${((blocks * BLOCK_BYTES) / 2 ** 20).toFixed(1)} MiB`;
}
