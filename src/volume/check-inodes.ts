/**
 * What a check knows of the inodes of a state, and how they refer to each other: counts that directories, attributes and the
 * orphan file make, compared at the end of each state with what the inodes say of themselves.
 *
 * Kept in pages, so that memory follows the inodes that there are and not the numbers that somebody claims. Going from one
 * state to the next only what has changed is counted off and on, and only what was touched is compared again.
 */
import { shaped } from "../core/shaped.ts";
import { FIRST_FREE_INO, ROOT_INO } from "../format/constants.ts";
import type { Inode } from "../tree/inode-file.ts";
import { eachMarked, isMarked, type Marks, makeMarks, mark, unmark } from "./check-marks.ts";
import type { Report } from "./check-report.ts";

const PAGE_INODES = 256;

/** Columns of 256 inodes. */
interface Page {
  /** Bits 12 to 15 of the mode; 0: free. */
  readonly type: Uint8Array;
  readonly linkCount: Uint32Array;
  /** Entries of directories that name it. */
  readonly refs: Int32Array;
  /** Of the types in these entries: the sum, and that of the squares. All are equal to T where the sums are those of T. */
  readonly typeSum: Int32Array;
  readonly typeSquares: Int32Array;
  /** Directories named in it. */
  readonly subdirs: Int32Array;
  readonly parent: Uint32Array;
  /** The directory that named it last. */
  readonly namedBy: Uint32Array;
  readonly xattrIno: Uint32Array;
  /** Inodes whose attributes it holds. */
  readonly xattrRefs: Int32Array;
  readonly orphanSlot: Uint32Array;
  /** Blocks it says it has. */
  readonly blockCount: Float64Array;
  /** How many more that is than it has, and the sum of that of the inodes that name it as their donor. */
  readonly excess: Float64Array;
  readonly owed: Float64Array;
  readonly donor: Uint32Array;
}

/** A mode whose type bits are all zero: in use, and of no type that there is. */
const TYPELESS = 255;
const TYPE_DIRECTORY = 4;
const TYPE_FILE = 8;

export interface InodeTable {
  /** Numbers in use in the present state. */
  readonly inUse: Marks;
  readonly usedCount: number;
  /** Inodes that something has changed for since `begin`. */
  readonly touched: Marks;
  begin(): void;
  /** An inode of the present state; undefined: free. */
  set(ino: number, inode: Inode | undefined): void;
  /** So many more blocks hang from an inode than in the state before. */
  countBlocks(ino: number, delta: number): void;
  /** An entry of a directory came (1) or went (-1). */
  countEntry(directory: number, ino: number, type: number, delta: 1 | -1): void;
  typeOf(ino: number): number;
  orphanSlotOf(ino: number): number;
  namedBy(ino: number): number;
  xattrOwner(ino: number): number;
  /** Compares counts and inodes of what was touched. `isOrphan`: the orphan file has that inode in that slot. */
  settle(isOrphan: (ino: number, slot: number) => boolean): void;
}

/** `exists`: the inode file of the present state has a block for that number. */
export function openInodeTable(report: Report, exists: (ino: number) => boolean): InodeTable {
  const pages = new Map<number, Page>();
  const inUse = makeMarks();
  let touched = makeMarks();
  let usedCount = 0;

  function pageOf(ino: number): Page | undefined {
    return pages.get(Math.floor(ino / PAGE_INODES));
  }

  /** Undefined where no inode can be: a number that somebody claims takes no memory. */
  function makePage(ino: number): Page | undefined {
    const key = Math.floor(ino / PAGE_INODES);
    let page = pages.get(key);
    if (page === undefined && exists(ino)) {
      page = newPage();
      pages.set(key, page);
    }
    return page;
  }

  function countXattr(owner: number, ino: number, delta: number): void {
    if (ino === 0) return;
    const page = makePage(ino);
    if (page === undefined) {
      if (delta > 0)
        report.add("xattr", `inode ${owner} has its attributes in inode ${ino}, which cannot be`, { ino: owner });
      return;
    }
    const i = ino % PAGE_INODES;
    page.xattrRefs[i] = (page.xattrRefs[i] as number) + delta;
    mark(touched, ino);
  }

  function set(ino: number, inode: Inode | undefined): void {
    const page = makePage(ino);
    if (page === undefined) return;
    const i = ino % PAGE_INODES;
    const wasUsed = page.type[i] !== 0;
    addExcess(ino, page, (inode?.tree.blockCount ?? 0) - (page.blockCount[i] as number), inode?.donor ?? 0);
    page.blockCount[i] = inode?.tree.blockCount ?? 0;
    countXattr(ino, page.xattrIno[i] as number, -1);
    page.type[i] = inode === undefined ? 0 : (inode.mode >>> 12) & 15 || TYPELESS;
    page.linkCount[i] = inode?.linkCount ?? 0;
    page.parent[i] = inode?.parent ?? 0;
    page.xattrIno[i] = inode?.xattrIno ?? 0;
    page.orphanSlot[i] = inode?.orphanSlot ?? 0;
    countXattr(ino, page.xattrIno[i], 1);
    mark(touched, ino);
    if (inode === undefined) unmark(inUse, ino);
    else mark(inUse, ino);
    usedCount += (inode === undefined ? 0 : 1) - (wasUsed ? 1 : 0);
  }

  function countBlocks(ino: number, delta: number): void {
    const page = makePage(ino);
    if (page !== undefined) addExcess(ino, page, -delta, page.donor[ino % PAGE_INODES] as number);
  }

  /** What the blocks of an inode with a donor are short of is what its donor has too many. */
  function addExcess(ino: number, page: Page, delta: number, donor: number): void {
    const i = ino % PAGE_INODES;
    const excess = page.excess[i] as number;
    addOwed(page.donor[i] as number, -excess);
    page.excess[i] = excess + delta;
    page.donor[i] = donor;
    addOwed(donor, excess + delta);
  }

  function addOwed(donor: number, delta: number): void {
    const page = donor === 0 ? undefined : makePage(donor);
    if (page === undefined) return;
    const i = donor % PAGE_INODES;
    page.owed[i] = (page.owed[i] as number) + delta;
    mark(touched, donor);
  }

  function settleBlocks(ino: number, page: Page, i: number): void {
    const donor = page.donor[i] as number;
    if (donor !== 0) {
      const from = pageOf(donor);
      const isFile = from?.type[donor % PAGE_INODES] === TYPE_FILE && from.donor[donor % PAGE_INODES] === 0;
      if (!isFile || page.orphanSlot[i] === 0)
        report.add("orphan", `inode ${ino} is to hold what was cut out of inode ${donor}, which cannot be`, { ino });
      return;
    }
    const blockCount = page.blockCount[i] as number;
    const excess = (page.excess[i] as number) + (page.owed[i] as number);
    if (excess === 0) return;
    report.add("inode", `inode ${ino} says it has ${blockCount} blocks, it has ${blockCount - excess}`, { ino });
    page.excess[i] = (page.excess[i] as number) - excess; // said once
  }

  function countEntry(directory: number, ino: number, type: number, delta: 1 | -1): void {
    const page = makePage(ino);
    if (page === undefined) {
      if (delta > 0)
        report.add("directory", `directory ${directory} names inode ${ino}, which cannot be`, { ino: directory });
      return;
    }
    const i = ino % PAGE_INODES;
    const refs = (page.refs[i] as number) + delta;
    page.refs[i] = refs;
    page.typeSum[i] = (page.typeSum[i] as number) + delta * type;
    page.typeSquares[i] = (page.typeSquares[i] as number) + delta * type * type;
    if (delta === 1) {
      page.namedBy[i] = directory;
    } else {
      if (page.namedBy[i] === directory) page.namedBy[i] = 0;
    }
    mark(touched, ino);
    if (type !== TYPE_DIRECTORY) return;
    const within = makePage(directory);
    if (within === undefined) return;
    const d = directory % PAGE_INODES;
    within.subdirs[d] = (within.subdirs[d] as number) + delta;
    mark(touched, directory);
  }

  /** Directories that are known to hang from the root, in the present state. */
  function hangsFromRoot(ino: number, known: Marks): boolean {
    const path: number[] = [];
    const onPath = new Set<number>();
    for (let at = ino; at !== ROOT_INO && !isMarked(known, at); ) {
      if (onPath.has(at)) return false;
      onPath.add(at);
      path.push(at);
      at = pageOf(at)?.namedBy[at % PAGE_INODES] ?? 0;
      if (at === 0) return false;
    }
    for (const above of path) mark(known, above);
    return true;
  }

  function settleFree(ino: number, page: Page, i: number): void {
    const refs = page.refs[i] as number;
    if (refs > 0) report.add("directory", `inode ${ino} is free, and directories name it ${refs} times`, { ino });
    if ((page.xattrRefs[i] as number) > 0)
      report.add("xattr", `inode ${ino} is free, and is to hold attributes`, { ino });
  }

  function settleDirectory(ino: number, page: Page, i: number, known: Marks): void {
    const refs = page.refs[i] as number;
    const linkCount = page.linkCount[i] as number;
    const subdirs = page.subdirs[i] as number;
    const parent = page.parent[i] as number;
    const isRoot = ino === ROOT_INO;
    if (isRoot ? refs !== 0 : refs > 1) report.add("links", `directory ${ino} is named ${refs} times`, { ino });
    if (isRoot || refs > 0) {
      if (linkCount !== 2 + subdirs)
        report.add(
          "links",
          `directory ${ino} has link count ${linkCount}, and ${subdirs} directories in it: 2 more is right`,
          { ino },
        );
      const namedBy = isRoot ? ROOT_INO : (page.namedBy[i] as number);
      if (parent !== namedBy)
        report.add("links", `directory ${ino} says that its parent is ${parent}, it is ${namedBy}`, { ino });
      if (refs > 0 && !hangsFromRoot(ino, known))
        report.add("links", `directory ${ino} does not hang from the root`, { ino });
    } else if (linkCount !== 0) {
      report.add("links", `directory ${ino} has link count ${linkCount}, and no directory names it`, { ino });
    }
    if ((page.xattrRefs[i] as number) > 0) report.add("xattr", `directory ${ino} is to hold attributes`, { ino });
  }

  function settleFile(ino: number, page: Page, i: number): void {
    const refs = page.refs[i] as number;
    const xattrRefs = page.xattrRefs[i] as number;
    const linkCount = page.linkCount[i] as number;
    if (xattrRefs > 0) {
      const owner = page.parent[i] as number;
      if (xattrRefs > 1) report.add("xattr", `inode ${ino} holds the attributes of ${xattrRefs} inodes`, { ino });
      if (page.type[i] !== TYPE_FILE)
        report.add("xattr", `inode ${ino} is to hold attributes, and is no regular file`, { ino });
      if (refs > 0)
        report.add("xattr", `inode ${ino} holds attributes, and directories name it ${refs} times`, { ino });
      if (pageOf(owner)?.xattrIno[owner % PAGE_INODES] !== ino)
        report.add("xattr", `inode ${ino} says it holds the attributes of ${owner}, it does not`, { ino });
    }
    const expected = refs + Math.min(1, xattrRefs);
    if (linkCount !== expected)
      report.add("links", `inode ${ino} has link count ${linkCount}, ${expected} is right`, { ino });
  }

  return shaped({
    inUse,
    get usedCount(): number {
      return usedCount;
    },
    get touched(): Marks {
      return touched;
    },
    begin(): void {
      touched = makeMarks();
    },
    set,
    countBlocks,
    countEntry,
    typeOf: (ino) => pageOf(ino)?.type[ino % PAGE_INODES] ?? 0,
    orphanSlotOf: (ino) => pageOf(ino)?.orphanSlot[ino % PAGE_INODES] ?? 0,
    namedBy: (ino) => pageOf(ino)?.namedBy[ino % PAGE_INODES] ?? 0,
    xattrOwner: (ino) =>
      (pageOf(ino)?.xattrRefs[ino % PAGE_INODES] ?? 0) > 0 ? (pageOf(ino)?.parent[ino % PAGE_INODES] ?? 0) : 0,
    settle(isOrphan): void {
      const known = makeMarks();
      eachMarked(touched, (ino) => {
        const page = pageOf(ino);
        if (page === undefined) return;
        const i = ino % PAGE_INODES;
        if (page.type[i] === 0) {
          settleFree(ino, page, i);
          return;
        }
        settleBlocks(ino, page, i);
        const type = page.type[i] as number;
        const refs = page.refs[i] as number;
        if (page.typeSum[i] !== Math.imul(refs, type) || page.typeSquares[i] !== Math.imul(refs, type * type)) {
          report.add("directory", `inode ${ino} is of type ${type}, a directory that names it says another`, { ino });
        }
        if (ino > ROOT_INO && ino < FIRST_FREE_INO) {
          if (page.linkCount[i] !== 1 || page.refs[i] !== 0)
            report.add(
              "links",
              `metadata file ${ino} has link count ${page.linkCount[i]} and is named ${page.refs[i]} times`,
              { ino },
            );
          return;
        }
        if (page.type[i] === TYPE_DIRECTORY) settleDirectory(ino, page, i, known);
        else settleFile(ino, page, i);
        const slot = page.orphanSlot[i] as number;
        if (slot === 0 && page.linkCount[i] === 0)
          report.add("orphan", `inode ${ino} has no name and is not in the orphan file`, { ino });
        if (slot !== 0 && page.linkCount[i] !== 0)
          report.add("orphan", `inode ${ino} has a name and a slot of the orphan file`, { ino });
        if (slot !== 0 && !isOrphan(ino, slot - 1))
          report.add("orphan", `inode ${ino} says it is in slot ${slot - 1} of the orphan file, it is not`, { ino });
      });
    },
  });
}

function newPage(): Page {
  return {
    type: new Uint8Array(PAGE_INODES),
    linkCount: new Uint32Array(PAGE_INODES),
    refs: new Int32Array(PAGE_INODES),
    typeSum: new Int32Array(PAGE_INODES),
    typeSquares: new Int32Array(PAGE_INODES),
    subdirs: new Int32Array(PAGE_INODES),
    parent: new Uint32Array(PAGE_INODES),
    namedBy: new Uint32Array(PAGE_INODES),
    xattrIno: new Uint32Array(PAGE_INODES),
    xattrRefs: new Int32Array(PAGE_INODES),
    orphanSlot: new Uint32Array(PAGE_INODES),
    blockCount: new Float64Array(PAGE_INODES),
    excess: new Float64Array(PAGE_INODES),
    owed: new Float64Array(PAGE_INODES),
    donor: new Uint32Array(PAGE_INODES),
  };
}
