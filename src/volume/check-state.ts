/**
 * Checking the states of a volume one after the other: each snapshot in the order of time, the active filesystem last. A
 * state is compared with the one before, so that what they share is read, counted and compared once.
 */
import assert from "node:assert/strict";
import { bitCount } from "../bitset/plane.ts";
import { BLOCK_BYTES, type Block, blocksFor, makeBlock, REGION_BLOCKS, REGION_WORDS } from "../core/block.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { ino as asIno } from "../core/numbers.ts";
import { shaped } from "../core/shaped.ts";
import {
  ACTIVE_MAP_INO,
  FIRST_FREE_INO,
  INODE_BYTES,
  INODE_MAP_INO,
  INODES_PER_BLOCK,
  ORPHAN_INO,
  ROOT_INO,
} from "../format/constants.ts";
import type { FileRootRecord } from "../format/inode.ts";
import { inodeRecord } from "../format/inode.ts";
import { type BlockStore, openBlockStore } from "../tree/block-store.ts";
import { type BlockTree, blockAt, emptyTree, nodeAt, treeOfRecord } from "../tree/block-tree.ts";
import { checkDirectory, type NodeFile } from "../tree/directory.ts";
import { decodeInode, type Inode, type InodeFile, openInodeFile } from "../tree/inode-file.ts";
import { xattrNames } from "../tree/xattr.ts";
import { openInodeTable } from "./check-inodes.ts";
import { type BlockSets, checkMapPage, readable, takeBlocks } from "./check-maps.ts";
import { eachMarked, type Marks, makeMarks, mark } from "./check-marks.ts";
import { checkOrphanFile, orphanAt } from "./check-orphans.ts";
import { pathFinder } from "./check-path.ts";
import { checkInodeRecord, isDirectoryMode, isZero } from "./check-record.ts";
import type { Report } from "./check-report.ts";
import { checkTail, NO_TREE, type Owner, type Pointer, type TreeRoot, type Walk } from "./check-walk.ts";
import { regionCountOf } from "./space/plane.ts";

/** What a state says of itself, beside its root. */
export interface StateClaims {
  readonly name: string;
  readonly root: FileRootRecord;
  readonly activeBlocks: number;
  readonly usedInodes: number;
}

export interface StateChecker {
  /** Checks the next state. */
  check(claims: StateClaims): void;
  /** Blocks that any state so far refers to. */
  readonly usedBlocks: number;
}

export interface StateCheckerOptions {
  readonly walk: Walk;
  readonly report: Report;
  /** The blocks that states may use, on the device being checked. */
  readonly store: BlockStore;
  readonly blockCount: number;
  readonly hashSeed: number;
  readonly generationNext: number;
  readonly readData: boolean;
}

const CACHE_BYTES = 32 << 20;

export function storeForCheck(device: BlockStore["device"], firstVbn: number, endVbn: number): BlockStore {
  return openBlockStore({ device, firstVbn, endVbn, cacheBytesMax: CACHE_BYTES });
}

export function openStateChecker({
  walk,
  report,
  store,
  blockCount,
  hashSeed,
  generationNext,
  readData,
}: StateCheckerOptions): StateChecker {
  const regionCount = regionCountOf(blockCount);
  const sets: BlockSets = { reached: makeMarks(), used: makeMarks(), reachedCount: 0 };
  let inodeTree = emptyTree();
  let inodeRoot = NO_TREE;
  let inodes = viewOf(inodeTree);
  const table = openInodeTable(report, (ino) => hasInodeBlock(ino));
  // Pages of the two maps that have changed since the state before.
  let mapPages = makeMarks();
  let inodeMapPages = makeMarks();

  function viewOf(tree: BlockTree): InodeFile {
    return openInodeFile({
      store,
      tree,
      writable: false,
      hashSeed,
      counters: { usedInodes: 0, generationNext: 0 },
      cachedMax: 256,
    });
  }

  function hasInodeBlock(ino: number): boolean {
    return readable(store, () => nodeAt(store, inodeTree, 0, Math.floor(ino / INODES_PER_BLOCK))) !== undefined;
  }

  /** An inode of the present state; it may be missing. */
  function metadata(ino: number): Inode | undefined {
    return readable(store, () => inodes.get(ino));
  }

  function checkInodeBlock(index: number, before: Uint8Array | undefined, after: Uint8Array | undefined): void {
    for (let slot = 0; slot < INODES_PER_BLOCK; slot++) {
      const at = slot * INODE_BYTES;
      const old = before?.subarray(at, at + INODE_BYTES);
      const now = after?.subarray(at, at + INODE_BYTES);
      if (old !== undefined && now !== undefined && Buffer.compare(old, now) === 0) continue;
      const ino = index * INODES_PER_BLOCK + slot;
      const was = old === undefined ? undefined : decoded(ino, old, true);
      const is = now === undefined ? undefined : decoded(ino, now, false);
      if (was !== undefined || is !== undefined) compareInode(ino, was, is);
    }
  }

  function decoded(ino: number, bytes: Uint8Array, quiet: boolean): Inode | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, INODE_BYTES);
    const say = (what: string): void => {
      if (!quiet) report.add("inode", `inode ${ino} ${what}`, { ino });
    };
    if (inodeRecord.get.mode(view, 0) === 0) {
      if (!isZero(bytes)) say("is free, and its record is not zero");
      return undefined;
    }
    if (ino === 0 || (ino > ORPHAN_INO && ino < FIRST_FREE_INO)) say("is in use, and its number is not for use");
    let inode: Inode;
    try {
      inode = decodeInode(asIno(ino), view, 0);
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      say(`cannot be read: ${error.message}`);
      return undefined;
    }
    if (!quiet) checkInodeRecord(inode, view, { at: 0, generationNext }, say);
    return inode;
  }

  function compareInode(ino: number, was: Inode | undefined, is: Inode | undefined): void {
    if (was !== undefined && isDirectoryMode(was.mode)) {
      const entries = { count: 0 };
      checkDirectory(
        nodeFile(was),
        hashSeed,
        () => {},
        (_name, child, type) => countEntry(ino, child, type, -1, entries),
      );
    }
    table.set(ino, is);
    const owner = ownerOf(ino, was, is);
    table.countBlocks(ino, walk.differences(owner, rootOf(was), rootOf(is)));
    if (is === undefined) return;
    if (isDirectoryMode(is.mode)) {
      const entries = { count: 0 };
      checkDirectory(
        nodeFile(is),
        hashSeed,
        (finding) => report.add("directory", `directory ${ino}: ${finding}`, { ino }),
        (_name, child, type) => countEntry(ino, child, type, 1, entries),
      );
      if (entries.count !== is.entryCount)
        report.add("directory", `directory ${ino} says it has ${is.entryCount} entries, it has ${entries.count}`, {
          ino,
        });
    } else if (owner.shrunk && owner.tailBytes > 0 && !is.inline && readData) checkUnchangedTail(owner, is);
    if (ino === INODE_MAP_INO && is.tree.sizeBytes % BLOCK_BYTES !== 0)
      report.add("inode-map", `the inode map has ${is.tree.sizeBytes} bytes, no whole number of blocks`, { ino });
    if (ino === ACTIVE_MAP_INO && is.tree.sizeBytes !== regionCount * BLOCK_BYTES) {
      report.add("block-map", `the active map has ${is.tree.sizeBytes} bytes, ${regionCount * BLOCK_BYTES} are right`, {
        ino,
      });
    }
  }

  function countEntry(directory: number, ino: number, type: number, delta: 1 | -1, entries: { count: number }): void {
    entries.count += 1;
    table.countEntry(directory, ino, type, delta);
  }

  /** The block that the new end of a file lies in, where a shorter file kept it as it was. */
  function checkUnchangedTail(owner: Owner, inode: Inode): void {
    const block = readable(store, () => nodeAt(store, inode.tree, 0, owner.blocksMax - 1));
    if (block !== undefined) checkTail(report, owner, block.vbn, block.bytes);
  }

  function ownerOf(ino: number, was: Inode | undefined, is: Inode | undefined): Owner {
    const inode = is ?? was;
    assert(inode !== undefined);
    const isMap = ino === ACTIVE_MAP_INO || ino === INODE_MAP_INO;
    const isDirectory = isDirectoryMode(inode.mode);
    const isData = !isDirectory && ino >= FIRST_FREE_INO;
    const sizeBytes = is?.tree.sizeBytes ?? 0;
    const owner: Owner = {
      ino,
      name: `inode ${ino}`,
      blocksMax: blocksFor(sizeBytes),
      isData,
      shrunk: is !== undefined && was !== undefined && sizeBytes < was.tree.sizeBytes,
      tailBytes: isData ? sizeBytes % BLOCK_BYTES : 0,
      leaf(index: number, _before: Pointer, after: Pointer): void {
        if (isMap) mark(ino === ACTIVE_MAP_INO ? mapPages : inodeMapPages, index);
        else if (after.vbn !== 0 && (isDirectory || (isData && readData))) walk.verify(owner, index, after);
      },
    };
    return owner;
  }

  /** The nodes of a directory. Each is a copy: the buffers of the store are reused. */
  function nodeFile({ ino, tree }: Inode): NodeFile {
    return {
      nodeCount: Math.ceil(tree.sizeBytes / BLOCK_BYTES),
      node(index): Block {
        store.beginOperation();
        let found: Block | undefined;
        try {
          found = blockAt(store, tree, index);
        } catch (error) {
          if (error instanceof FsError) throw new CorruptionError(error.message, { cause: error });
          throw error;
        }
        if (found === undefined) throw new CorruptionError(`directory ${ino} has a hole at node ${index}`);
        const copy = makeBlock();
        copy.bytes.set(found.bytes);
        return copy;
      },
      prefetch: () => {}, // all blocks have been read
      dirtyNode: readOnly,
      appendNode: readOnly,
      truncateNodes: readOnly,
    };
  }

  function settleBlocks(): void {
    const touched = takeBlocks(walk, report, sets);
    eachMarked(touched, (region) => {
      mark(mapPages, region);
    });
    const map = metadata(ACTIVE_MAP_INO);
    eachMarked(mapPages, (index) => {
      checkMapPage(store, report, { kind: "block-map", map, index, expected: sets.reached.pages.get(index) });
    });
    mapPages = makeMarks();
  }

  function settleInodes(): void {
    eachMarked(table.touched, (ino) => {
      mark(inodeMapPages, Math.floor(ino / REGION_BLOCKS));
    });
    const map = metadata(INODE_MAP_INO);
    eachMarked(inodeMapPages, (index) => {
      let expected = table.inUse.pages.get(index);
      if (index === 0) {
        expected = expected?.slice() ?? new Uint32Array(REGION_WORDS);
        expected[0] = (expected[0] as number) | (2 ** FIRST_FREE_INO - 1); // never given to a file
      }
      checkMapPage(store, report, { kind: "inode-map", map, index, expected });
    });
    inodeMapPages = makeMarks();
  }

  function settleOrphans(): void {
    const file = metadata(ORPHAN_INO);
    if (file !== undefined)
      checkOrphanFile(walk, report, table, { root: rootOf(file), sizeBytes: file.tree.sizeBytes });
    table.settle((ino, slot) => orphanAt(store, file, slot) === ino);
  }

  function settleXattrs(): void {
    eachMarked(table.touched, (hidden) => {
      const ino = table.xattrOwner(hidden);
      const owner = ino === 0 ? undefined : metadata(ino);
      if (owner === undefined) return;
      try {
        xattrNames(inodes, owner);
      } catch (error) {
        if (!(error instanceof CorruptionError) && !(error instanceof FsError)) throw error;
        const isReported = readData && error.vbn !== undefined; // when the block was verified
        if (!isReported) report.add("xattr", error.message, { ino });
      }
    });
  }

  function check({ name, root, activeBlocks, usedInodes }: StateClaims): void {
    report.state = name;
    table.begin();
    let tree: BlockTree;
    try {
      tree = treeOfRecord(root);
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      report.add("inode", `the inode file cannot be read: ${error.message}`);
      return;
    }
    inodeTree = tree;
    inodes = viewOf(tree);
    const owner: Owner = {
      ino: 0,
      name: "the inode file",
      blocksMax: blocksFor(tree.sizeBytes),
      isData: false,
      shrunk: false,
      tailBytes: 0,
      leaf(index, before, after): void {
        const old = before.vbn === 0 ? undefined : walk.read(before, 0, true);
        const now = after.vbn === 0 ? undefined : walk.read(after, 0);
        checkInodeBlock(index, old, now);
      },
    };
    const into = wordsOf(tree);
    walk.differences(owner, inodeRoot, into);
    inodeRoot = into;
    walk.finish();
    for (const ino of [ROOT_INO, ACTIVE_MAP_INO, INODE_MAP_INO, ORPHAN_INO]) {
      const type = table.typeOf(ino);
      if (type !== (ino === ROOT_INO ? 4 : 8))
        report.add(
          "inode",
          `inode ${ino}, ${metadataNames.get(ino)}, ${type === 0 ? "is missing" : `is of type ${type}`}`,
          { ino },
        );
    }
    settleBlocks();
    settleInodes();
    settleOrphans();
    settleXattrs();
    if (activeBlocks !== sets.reachedCount)
      report.add("counter", `${activeBlocks} blocks are said to be in use, it is ${sets.reachedCount}`);
    if (usedInodes !== table.usedCount)
      report.add("counter", `${usedInodes} inodes are said to be in use, it is ${table.usedCount}`);
    report.resolvePaths(pathFinder({ table, directory: (ino) => directoryOf(ino) }));
    report.state = undefined;
  }

  function directoryOf(ino: number): NodeFile | undefined {
    const inode = metadata(ino);
    return inode !== undefined && isDirectoryMode(inode.mode) ? nodeFile(inode) : undefined;
  }

  return shaped({
    check,
    get usedBlocks(): number {
      return countOf(sets.used);
    },
  });
}

const metadataNames: ReadonlyMap<number, string> = new Map([
  [ROOT_INO, "the root directory"],
  [ACTIVE_MAP_INO, "the active map"],
  [INODE_MAP_INO, "the inode map"],
  [ORPHAN_INO, "the orphan file"],
]);

function readOnly(): never {
  assert.fail("a check changes nothing");
}

function rootOf(inode: Inode | undefined): TreeRoot {
  return inode === undefined || inode.inline ? NO_TREE : wordsOf(inode.tree);
}

function wordsOf({ height, pointers }: BlockTree): TreeRoot {
  return { height, words: new Uint32Array(pointers.slice().buffer) };
}

function countOf(marks: Marks): number {
  let count = 0;
  for (const page of marks.pages.values()) for (let w = 0; w < REGION_WORDS; w++) count += bitCount(page[w] as number);
  return count;
}
