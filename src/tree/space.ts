/**
 * Where trees get blocks from. Trees own this interface; the volume's allocator implements it, and so does the
 * reserved area for the snapshot table.
 *
 * A block that is changed in memory needs a new place at the next consistency point. `dirtied` counts such
 * blocks, so that space for all of them is set aside the moment they become dirty: a consistency point never
 * runs out of space.
 */
export interface Space {
  /** Throws FsError ENOSPC unless `blocks` more blocks can become dirty or be placed. Changes nothing. */
  reserve(blocks: number, purpose: Purpose): void;
  /** `count` blocks (negative: fewer) wait for a place. */
  dirtied(count: number): void;
  /**
   * Takes a run of free blocks, at least 1 and at most `countMax`, and returns its first VBN; `runLength` tells how
   * many. Never one that the durable root or a snapshot references. Throws FsError ENOSPC when there is none.
   */
  allocate(countMax: number): number;
  readonly runLength: number;
  /**
   * The active filesystem does not reference the block any more. Never fails: it is taken note of here, and done when space
   * is reserved next. It is reused only when that is durable.
   */
  free(vbn: number): void;
}

/**
 * Who needs the space: writers leave a reserve that only deletions and consistency points may use, and what is set aside for
 * pages that the kernel has taken from writers already ("write-back").
 */
export type Purpose = "write" | "write-back" | "delete" | "cp";
