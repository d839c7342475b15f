/**
 * The walk of a check: what differs between the trees of two states, block by block.
 *
 * Both trees are walked side by side. Where the pointers at one position are equal, what lies below is equal too and was
 * verified with the state before, so it is left out: all states of a volume are checked by reading each distinct block
 * about once. What only the new state has is added to the set of its blocks, what only the old one had is removed.
 *
 * Nothing read is trusted. Levels descend, so paths end; a block that is reached twice is not descended into again, so the
 * walk ends too, after as many steps as there are blocks.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { FsError } from "../core/errors.ts";
import { shaped } from "../core/shaped.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { POINTERS_PER_BLOCK, ROOT_POINTERS } from "../format/constants.ts";
import { type Marks, makeMarks, mark } from "./check-marks.ts";
import type { Report } from "./check-report.ts";

/** The root of a tree as it is on disk. */
export interface TreeRoot {
  readonly height: number;
  /** Pairs of vbn and checksum. */
  readonly words: Uint32Array;
}

export const NO_TREE: TreeRoot = { height: 0, words: new Uint32Array(ROOT_POINTERS * 2) };

/** The file that a walk is in. */
export interface Owner {
  readonly ino: number;
  /** For messages: "inode 17", "the inode file". */
  readonly name: string;
  /** Blocks of data that the file's length has room for. */
  readonly blocksMax: number;
  /** Its blocks are contents of a file, which nothing follows from. */
  readonly isData: boolean;
  /** The file is shorter than it was, so that what did not change may lie beyond its end. */
  readonly shrunk: boolean;
  /** Bytes of the last block that lie in the file; 0: all. The others must be zero. */
  readonly tailBytes: number;
  /** A data block at this index differs. A VBN of 0: a hole, or a pointer that is no good and was reported. */
  leaf(index: number, before: Pointer, after: Pointer): void;
}

export interface Pointer {
  readonly vbn: number;
  readonly checksum: number;
}

const HOLE: Pointer = { vbn: 0, checksum: 0 };

export interface Walk {
  /** Blocks of the new state that the old one has not, and the reverse. Cleared by the caller between states. */
  added: Marks;
  removed: Marks;
  /** Walks the differences of two trees; returns how many blocks more the new one has. */
  differences(owner: Owner, before: TreeRoot, after: TreeRoot): number;
  /** A verified block of metadata, or undefined and a finding. `quiet`: no finding, it was reported before. */
  read(pointer: Pointer, ino: number, quiet?: boolean): Uint8Array | undefined;
  /** Verifies a data block sometime before `finish` returns. */
  verify(owner: Owner, index: number, pointer: Pointer): void;
  finish(): void;
  readonly blocksRead: number;
  /** Blocks of metadata that could not be read: what they lead to is missing in all that is counted. */
  readonly metadataLost: number;
}

export interface WalkOptions {
  readonly device: BlockDevice;
  readonly report: Report;
  readonly firstVbn: number;
  readonly endVbn: number;
  readonly onBlocks: (blocksRead: number) => void;
}

/** Data blocks that wait to be verified, so that they can be read in the order in which they lie, whatever file they are of; at most. */
const BATCH_BLOCKS = 2 ** 18;
/** Read with one call. */
const READ_BLOCKS = 256;

/** The 512 pointers of a block; or what stands for a block that a lower tree does not have, with that tree below it. */
interface Node {
  readonly words: Uint32Array;
  readonly below: TreeRoot | undefined;
}

const NO_POINTERS = new Uint32Array(POINTERS_PER_BLOCK * 2);

export function openWalk({ device, report, firstVbn, endVbn, onBlocks }: WalkOptions): Walk {
  let blocksRead = 0;
  let metadataLost = 0;
  let countDelta = 0;
  const owners: Owner[] = [];
  const batchMax = Math.max(1, Math.min(BATCH_BLOCKS, endVbn - firstVbn));
  const indexes = new Float64Array(batchMax);
  const sums = new Uint32Array(batchMax);
  /** VBN and place in the batch, in one number that sorts by VBN. */
  const order = new Float64Array(batchMax);
  const runBytes = new Uint8Array(Math.min(READ_BLOCKS, batchMax) * BLOCK_BYTES);

  function readInto(vbn: number, count: number, into: Uint8Array): boolean {
    try {
      device.read(vbn, count, into, 0);
    } catch (error) {
      if (error instanceof FsError) return false;
      throw error;
    }
    return true;
  }

  function countRead(blocks: number): void {
    blocksRead += blocks;
    onBlocks(blocksRead);
  }

  /** Of metadata. */
  function read(pointer: Pointer, ino: number, quiet = false): Uint8Array | undefined {
    const bytes = readVerified(pointer, ino, quiet);
    if (bytes === undefined && !quiet) metadataLost += 1;
    return bytes;
  }

  function readVerified({ vbn, checksum: expected }: Pointer, ino: number, quiet: boolean): Uint8Array | undefined {
    if (vbn < firstVbn || vbn >= endVbn) return undefined;
    const bytes = new Uint8Array(BLOCK_BYTES);
    if (!readInto(vbn, 1, bytes)) {
      if (!quiet) report.add("unreadable", `block ${vbn} cannot be read`, { ino, vbn });
      return undefined;
    }
    countRead(1);
    const found = checksum(bytes);
    if (found === expected) return bytes;
    if (!quiet)
      report.add("checksum", `block ${vbn} has checksum ${hex(found)}, its parent expects ${hex(expected)}`, {
        ino,
        vbn,
      });
    return undefined;
  }

  function finish(): void {
    const count = owners.length;
    const sorted = order.subarray(0, count).toSorted();
    for (let from = 0; from < count; ) {
      const first = vbnOf(sorted[from] as number);
      let end = from + 1;
      while (end < count && end - from < READ_BLOCKS && vbnOf(sorted[end] as number) === first + (end - from)) end += 1;
      const isRead = readInto(first, end - from, runBytes);
      for (let i = from; i < end; i++) {
        const at = (i - from) * BLOCK_BYTES;
        const bytes = isRead ? runBytes.subarray(at, at + BLOCK_BYTES) : undefined;
        settle((sorted[i] as number) % BATCH_BLOCKS, first + i - from, bytes);
      }
      from = end;
    }
    owners.length = 0;
  }

  /** Judges a data block; what was not read, or is not right, is read again by itself. */
  function settle(place: number, vbn: number, bytes: Uint8Array | undefined): void {
    const owner = owners[place] as Owner;
    const expected = sums[place] as number;
    const isGood = bytes !== undefined && checksum(bytes) === expected;
    if (isGood) countRead(1);
    const good = isGood ? bytes : readVerified({ vbn, checksum: expected }, owner.ino, false);
    if (good === undefined && !owner.isData) metadataLost += 1;
    if (good !== undefined && owner.tailBytes > 0 && indexes[place] === owner.blocksMax - 1)
      checkTail(report, owner, vbn, good);
  }

  function add(owner: Owner, pointer: Pointer, level: number, index: number): boolean {
    const { vbn } = pointer;
    if (vbn < firstVbn || vbn >= endVbn) {
      const where = vbn < endVbn ? "in the reserved area" : "outside of the volume";
      report.add("pointer", `${owner.name} refers to block ${vbn}, ${where} (level ${level}, index ${index})`, {
        ino: owner.ino,
        vbn,
      });
      return false;
    }
    if (mark(walk.added, vbn)) return true;
    report.add(
      "pointer",
      `block ${vbn} is referred to twice, the second time by ${owner.name} (level ${level}, index ${index})`,
      { ino: owner.ino, vbn },
    );
    return false;
  }

  function remove({ vbn }: Pointer): boolean {
    return vbn >= firstVbn && vbn < endVbn && mark(walk.removed, vbn);
  }

  function children(pointer: Pointer, ino: number, quiet: boolean): Node | undefined {
    const bytes = read(pointer, ino, quiet);
    return bytes === undefined ? undefined : { words: new Uint32Array(bytes.buffer), below: undefined };
  }

  /** Compares two blocks of pointers whose children are of this level, the first of them number `first` of its level. */
  function compare(
    owner: Owner,
    before: Node | undefined,
    after: Node | undefined,
    level: number,
    first: number,
  ): void {
    const old = before?.words ?? NO_POINTERS;
    const now = after?.words ?? NO_POINTERS;
    const span = POINTERS_PER_BLOCK ** level;
    const count = Math.max(old.length, now.length) / 2;
    for (let i = 0; i < count; i++) {
      const oldVbn = old[2 * i] ?? 0;
      const nowVbn = now[2 * i] ?? 0;
      const oldBelow = i === 0 ? before?.below : undefined;
      const nowBelow = i === 0 ? after?.below : undefined;
      const same = oldVbn === nowVbn && old[2 * i + 1] === now[2 * i + 1];
      if (same && oldVbn === 0 && oldBelow === undefined && nowBelow === undefined) continue;
      const index = first + i;
      const from = index * span;
      const pastEnd = nowVbn !== 0 && from >= owner.blocksMax;
      if (pastEnd && (!same || owner.shrunk)) {
        report.add("pointer", `${owner.name} has block ${nowVbn} beyond its end (level ${level}, index ${index})`, {
          ino: owner.ino,
          vbn: nowVbn,
        });
      }
      if (same && nowVbn !== 0) {
        // Equal below, and known. Only what the end of the file cuts through has to be looked at again.
        if (!owner.shrunk || level === 0 || pastEnd || from + span <= owner.blocksMax) continue;
        const both = children({ vbn: nowVbn, checksum: now[2 * i + 1] as number }, owner.ino, true);
        if (both !== undefined) compare(owner, both, both, level - 1, index * POINTERS_PER_BLOCK);
        continue;
      }
      const gone: Pointer = { vbn: oldVbn, checksum: old[2 * i + 1] ?? 0 };
      const come: Pointer = { vbn: nowVbn, checksum: now[2 * i + 1] ?? 0 };
      const hadOld = oldVbn !== 0 && remove(gone);
      if (nowVbn !== 0) countDelta += 1;
      if (oldVbn !== 0) countDelta -= 1;
      const hasNew = nowVbn !== 0 && add(owner, come, level, index);
      if (level === 0) {
        if (hadOld || hasNew) owner.leaf(index, hadOld ? gone : HOLE, hasNew ? come : HOLE);
        continue;
      }
      const oldNode =
        oldBelow === undefined
          ? hadOld
            ? children(gone, owner.ino, true)
            : undefined
          : virtualNode(oldBelow, level - 1);
      const nowNode =
        nowBelow === undefined
          ? hasNew
            ? children(come, owner.ino, false)
            : undefined
          : virtualNode(nowBelow, level - 1);
      if (oldNode !== undefined || nowNode !== undefined)
        compare(owner, oldNode, nowNode, level - 1, index * POINTERS_PER_BLOCK);
    }
  }

  const walk: Walk = shaped({
    added: makeMarks(),
    removed: makeMarks(),
    differences(owner, before, after): number {
      const outer = countDelta; // walks nest: that of the inode file meets those of files
      countDelta = 0;
      const level = Math.max(before.height, after.height);
      compare(owner, virtualNode(before, level), virtualNode(after, level), level, 0);
      const delta = countDelta;
      countDelta = outer;
      return delta;
    },
    read,
    verify(owner, index, pointer): void {
      if (owners.length === batchMax) finish();
      const place = owners.length;
      owners.push(owner);
      indexes[place] = index;
      sums[place] = pointer.checksum;
      order[place] = pointer.vbn * BATCH_BLOCKS + place;
    },
    finish,
    get blocksRead(): number {
      return blocksRead;
    },
    get metadataLost(): number {
      return metadataLost;
    },
  });
  return walk;
}

/** A tree as a higher one would have it: growing moves the root's pointers down to the first position of each level. */
function virtualNode(tree: TreeRoot, level: number): Node {
  return level === tree.height ? { words: tree.words, below: undefined } : { words: NO_POINTERS, below: tree };
}

/** The bytes of a file's last block that lie beyond its end are zero: else they would show when the file grows. */
export function checkTail(report: Report, owner: Owner, vbn: number, bytes: Uint8Array): void {
  for (let at = owner.tailBytes; at < BLOCK_BYTES; at++) {
    if (bytes[at] === 0) continue;
    report.add("inode", `${owner.name} has bytes beyond its end in block ${vbn}`, { ino: owner.ino, vbn });
    return;
  }
}

function vbnOf(packed: number): number {
  return Math.floor(packed / BATCH_BLOCKS);
}

function hex(n: number): string {
  return `0x${n.toString(16).padStart(8, "0")}`;
}
