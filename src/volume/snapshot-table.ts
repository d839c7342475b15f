/**
 * The snapshot table: a file of 512-byte records, one a snapshot, that hangs off fsinfo beside the filesystem.
 *
 * Its blocks lie in the reserved area at the front of the volume, which no active map and no bit plane covers and from
 * which the allocator never takes: so a mirror keeps its own table (it lists exactly the snapshots whose blocks it has)
 * without ever standing in the way of a block that its source allocates (requirements 231 and 232).
 *
 * Nothing but this table says what snapshots there are, and without it no volume opens: so each of its blocks is written
 * twice, to the first half of its area and at the same place of the second. Where the first copy is bad the second serves,
 * until `repairTable` puts the first right.
 *
 * Within the reserved area the table is copy-on-write like everything else, by the same code: creating a snapshot
 * rewrites the block of its record and the path above it, however many snapshots there are.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { shaped } from "../core/shaped.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { fsinfoVbns } from "../format/constants.ts";
import type { Fsinfo } from "../format/fsinfo.ts";
import type { FileRootRecord } from "../format/inode.ts";
import { SNAPSHOTS_PER_BLOCK, type SnapshotRecord, snapshotRecord } from "../format/snapshot-record.ts";
import { type BlockStore, openBlockStore } from "../tree/block-store.ts";
import { type BlockTree, blockAt, dirtyBlockAt, eachPointer, recordOfTree, treeOfRecord } from "../tree/block-tree.ts";
import { assignPlaces, gatherWriter, sealNodes } from "../tree/place.ts";
import type { Space } from "../tree/space.ts";

export interface SnapshotTable {
  /** In the order in which they were taken. */
  readonly records: readonly SnapshotRecord[];
  readonly changed: boolean;
  /** Throws FsError ENOSPC when the reserved area is full. */
  add(record: SnapshotRecord): void;
  /** A new record for the same id. */
  replace(record: SnapshotRecord): void;
  remove(id: number): void;
  /** Writes what has changed to free blocks of the reserved area, without a flush; returns the root for fsinfo. */
  freeze(): FileRootRecord;
  /** Fsinfo with the frozen root is durable: what it replaced may be reused. */
  commit(): void;
  /** Both copies of each block, as on disk; of a table without changes. Throws CorruptionError where both are bad. */
  copies(): readonly TableCopy[];
}

/** One copy of a block of the table, and where the other one is. */
export interface TableCopy {
  readonly vbn: number;
  readonly otherVbn: number;
  readonly expected: number;
}

/** Blocks that changing one record makes dirty: its own and the path above it. */
function changeBlocks(tree: BlockTree): number {
  return tree.height + 1;
}

/**
 * Blocks that a new block of records needs, with a root that may get higher by one. A table that grows leaves room for
 * changing a record, so that a full one can be emptied and filled again.
 */
function growBlocks(tree: BlockTree): number {
  return 2 * (tree.height + 2);
}

/** Reads the whole table: O(snapshots). Throws CorruptionError. */
export function openSnapshotTable(device: BlockDevice, fsinfo: Fsinfo): SnapshotTable {
  const [first] = fsinfoVbns(fsinfo.reservedBlocks);
  const copyDistance = Math.floor((fsinfo.logFirst - first - 1) / 2);
  const [firstVbn, endVbn] = [first + 1, first + 1 + copyDistance];
  const area = reservedSpace(firstVbn, endVbn);
  const store = openBlockStore({ device, firstVbn, endVbn, cacheBytesMax: 1 << 20, space: area, copyDistance });
  const tree = treeOfRecord(fsinfo.snapshotTable);
  tree.blockCount = area.load(store, tree);
  const slots = loadSlots(store, tree);
  let records = [...slots.values()].toSorted((a, b) => a.id - b.id);
  const slotOf = new Map<number, number>();
  for (const [slot, record] of slots) slotOf.set(record.id, slot);
  let changed = false;

  function write(slot: number, record: SnapshotRecord | undefined): void {
    const index = Math.floor(slot / SNAPSHOTS_PER_BLOCK);
    const grows = blockAt(store, tree, index) === undefined;
    if (tree.dirtyNodes?.has(index) !== true) area.reserve(grows ? growBlocks(tree) : changeBlocks(tree), "write");
    const at = (slot % SNAPSHOTS_PER_BLOCK) * snapshotRecord.size;
    const block = dirtyBlockAt(store, tree, index);
    tree.sizeBytes = Math.max(tree.sizeBytes, (index + 1) * BLOCK_BYTES);
    block.bytes.fill(0, at, at + snapshotRecord.size);
    if (record !== undefined) {
      snapshotRecord.encode(block.view, at, record);
      snapshotRecord.set.checksum(
        block.view,
        at,
        checksum(block.bytes.subarray(at, at + snapshotRecord.offset.checksum)),
      );
    }
    changed = true;
  }

  return shaped({
    get records(): readonly SnapshotRecord[] {
      return records;
    },
    get changed(): boolean {
      return changed;
    },
    add(record): void {
      store.beginOperation();
      let slot = 0;
      const taken = new Set(slotOf.values());
      while (taken.has(slot)) slot += 1;
      write(slot, record);
      slotOf.set(record.id, slot);
      records = [...records, record].toSorted((a, b) => a.id - b.id);
    },
    replace(record): void {
      store.beginOperation();
      write(slotOf.get(record.id) as number, record);
      records = records.map((old) => (old.id === record.id ? record : old));
    },
    remove(id): void {
      store.beginOperation();
      write(slotOf.get(id) as number, undefined);
      slotOf.delete(id);
      records = records.filter((record) => record.id !== id);
    },
    freeze(): FileRootRecord {
      if (changed) {
        const writer = gatherWriter(twice(device, copyDistance));
        assignPlaces(store, tree);
        sealNodes(store, tree, writer);
        writer.flush();
        changed = false;
      }
      area.freeze();
      return recordOfTree(tree);
    },
    commit: () => area.commit(),
    copies(): readonly TableCopy[] {
      const copies: TableCopy[] = [];
      eachPointer(store, tree, (_level, _index, vbn, expected) => {
        copies.push({ vbn, otherVbn: vbn + copyDistance, expected });
        copies.push({ vbn: vbn + copyDistance, otherVbn: vbn, expected });
        return true;
      });
      return copies;
    },
  });
}

/** Blocks go to their place, and to that of their second copy. */
function twice(device: BlockDevice, copyDistance: number): Pick<BlockDevice, "writeGather"> {
  return {
    writeGather(vbn, buffers): void {
      device.writeGather(vbn, buffers);
      device.writeGather(vbn + copyDistance, buffers);
    },
  };
}

function loadSlots(store: BlockStore, tree: BlockTree): Map<number, SnapshotRecord> {
  const slots = new Map<number, SnapshotRecord>();
  const blocks = Math.ceil(tree.sizeBytes / BLOCK_BYTES);
  if (blocks > store.endVbn) throw new CorruptionError(`the snapshot table claims ${blocks} blocks`);
  for (let index = 0; index < blocks; index++) {
    store.beginOperation();
    const block = blockAt(store, tree, index);
    if (block === undefined) continue;
    for (let i = 0; i < SNAPSHOTS_PER_BLOCK; i++) {
      const at = i * snapshotRecord.size;
      if (snapshotRecord.get.id(block.view, at) === 0) continue;
      const found = checksum(block.bytes.subarray(at, at + snapshotRecord.offset.checksum));
      if (found !== snapshotRecord.get.checksum(block.view, at))
        throw new CorruptionError(`record ${index * SNAPSHOTS_PER_BLOCK + i} of the snapshot table does not verify`);
      const copy = block.bytes.slice(at, at + snapshotRecord.size); // a decoded record points into its bytes
      slots.set(index * SNAPSHOTS_PER_BLOCK + i, snapshotRecord.decode(new DataView(copy.buffer), 0));
    }
  }
  return slots;
}

interface ReservedSpace extends Space {
  /** Marks the blocks of a table as taken; returns how many they are. */
  load(store: BlockStore, tree: BlockTree): number;
  freeze(): void;
  commit(): void;
}

/** The blocks [first, end) of the reserved area. What is freed can be used again two steps later, when that is durable. */
function reservedSpace(first: number, end: number): ReservedSpace {
  const taken = new Uint8Array(end);
  let freeCount = end - first;
  let dirtyCount = 0;
  let freed: number[] = [];
  let inFlight: number[] = [];
  return {
    load(store, tree): number {
      let count = 0;
      eachPointer(store, tree, (_level, _index, vbn) => {
        if (vbn >= end || taken[vbn] === 1)
          throw new CorruptionError(`the snapshot table refers to block ${vbn} outside of its area or twice`);
        taken[vbn] = 1;
        count += 1;
        return true;
      });
      freeCount -= count;
      return count;
    },
    reserve(blocks): void {
      if (freeCount - dirtyCount < blocks)
        throw new FsError("ENOSPC", "the snapshot table is full: delete snapshots first");
    },
    dirtied(count): void {
      dirtyCount += count;
    },
    runLength: 1,
    allocate(): number {
      const vbn = taken.indexOf(0, first);
      if (vbn < 0) throw new FsError("ENOSPC", "the snapshot table is full");
      taken[vbn] = 1;
      freeCount -= 1;
      return vbn;
    },
    free(vbn): void {
      freed.push(vbn);
    },
    freeze(): void {
      inFlight = [...inFlight, ...freed];
      freed = [];
    },
    commit(): void {
      for (const vbn of inFlight) taken[vbn] = 0;
      freeCount += inFlight.length;
      inFlight = [];
    },
  };
}
