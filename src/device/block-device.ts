/**
 * A block device: an array of 4096-byte blocks, the only way in which the filesystem reaches a disk.
 *
 * Synchronous, so that the core is one straight line of code and a simulation can stand in for the disk.
 * What is written may be lost, torn and reordered by a crash until `flush` has returned. Errors of the
 * host arrive as FsError EIO or ENOSPC with the cause.
 */
export interface BlockDevice {
  /** Where it is found, for messages. Undefined: in memory only. */
  readonly path?: string;
  readonly blockCount: number;
  /** Reads `count` blocks from block `vbn` on into `into`, from byte `offset`. Blocks never written read as zeros. */
  read(vbn: number, count: number, into: Uint8Array, offset: number): void;
  /**
   * Reads `count` blocks from block `vbn` on, the next one of them to block `places[i]` of `into`, counted from byte `offset`, or
   * NOWHERE. Who does not want to wait for the disk, unless for the rest of what begins in memory, may get false: it would take
   * that; what is missing is on its way. Throws FsError EIO where not all can be read, whatever that is worth. Undefined: this
   * device cannot do that.
   */
  readonly readScattered?: (
    vbn: number,
    places: Int32Array,
    count: number,
    into: Uint8Array,
    offset: number,
    how: HowRead,
  ) => boolean;
  /** Starts to read blocks that will be wanted, without waiting. A hint; undefined: this device takes none. */
  readonly readAhead?: (vbn: number, count: number) => void;
  /** Writes `count` blocks. The bytes may be changed by the caller as soon as the call has returned. */
  write(vbn: number, count: number, from: Uint8Array, offset: number): void;
  /** Writes buffers, each a whole number of blocks, one after the other from block `vbn` on. */
  writeGather(vbn: number, buffers: readonly Uint8Array[]): void;
  /** Returns when everything written is durable. */
  flush(): void;
  /** Writes whole blocks, and returns when they are durable: for fsinfo, the commit point, and for the change log. */
  writeDurable(vbn: number, blocks: Uint8Array): void;
  /** Tells the device that the blocks hold nothing any more: it may give the space back. A hint. */
  discard(vbn: number, count: number): void;
  close(): void;
}

/** Whether who reads may be made to wait for the disk. */
export interface HowRead {
  readonly waits: boolean;
}

/** For who can do nothing before the data is there. */
export const WAITING: HowRead = { waits: true };

/** The place of a block that is read because it lies between two others. */
export const NOWHERE = -1;
/** Blocks of one scattered read. */
export const SCATTERED_BLOCKS_MAX = 1024;
