/**
 * What happened to files between two states of a filesystem: created, deleted, changed, renamed.
 *
 * The idea: the inode files of the two states are compared block by block, equal subtrees left out. That yields each inode
 * that is not the same. Then the directories among these are compared in the same way: the entries in blocks that differ
 * are the only ones that can have come or gone, for an entry that a split has moved from one such block to another is in
 * both. At last names are found for files whose contents changed, which no directory tells: an inode knows a directory
 * that it had a name in. That is a hint, right unless names were taken away in an unusual order; where it is wrong, all
 * directories are searched, once.
 *
 *     inode file  --different blocks-->  fates of inodes  --directories-->  names that came and went  -->  differences
 *
 * A file is the same in both states if it has the same inode number and generation. Names that it lost are paired with
 * names that it got: renamed. Access times do not count, nor do link counts and change times by themselves, which follow
 * from names.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError } from "../core/errors.ts";
import { ino as asIno } from "../core/numbers.ts";
import { FIRST_FREE_INO, INODE_BYTES, INODES_PER_BLOCK, ROOT_INO } from "../format/constants.ts";
import { DT_DIR, entryHead, entryOffset, NODE_LEAF, nameBytesAt, nodeHeader } from "../format/directory-node.ts";
import { inodeRecord } from "../format/inode.ts";
import { blockAt } from "./block-tree.ts";
import { BEFORE_FIRST_KEY, eachEntry } from "./directory.ts";
import { DirectoryFile } from "./directory-file.ts";
import { decodeInode, type Inode, type InodeFile } from "./inode-file.ts";
import { eachDifferentBlock } from "./tree-difference.ts";

/** Paths begin with a slash; they are bytes, one char each. */
export type Difference =
  | { readonly kind: "created" | "deleted"; readonly path: string; readonly type: number }
  | { readonly kind: "renamed"; readonly path: string; readonly from: string; readonly type: number }
  | { readonly kind: "changed"; readonly path: string; readonly type: number; readonly what: readonly Change[] };

export type Change = "contents" | "attributes";

/** An inode that is not the same: undefined where it does not exist. */
interface Fate {
  readonly before: Inode | undefined;
  readonly after: Inode | undefined;
}

/** A name that one of the states has and the other has not. */
interface NameIn {
  readonly directory: number;
  readonly name: string;
  readonly ino: number;
  readonly type: number;
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const DEPTH_MAX = 65536;
const ATIME_START = inodeRecord.offset.atime;
const ATIME_END = inodeRecord.offset.mtime;

/** All differences, ordered by path. Neither state may be changing. Throws CorruptionError. */
export function differencesBetween(before: InodeFile, after: InodeFile): readonly Difference[] {
  const fates = fatesOf(before, after);
  const { gone, come } = namesOf(before, after, fates);
  const paths = { before: pathsIn(before), after: pathsIn(after) };
  const found: Difference[] = [];

  const renamed = new Map<number, { readonly lost: NameIn[]; readonly got: NameIn[] }>();
  const ofRenamed = (ino: number): { readonly lost: NameIn[]; readonly got: NameIn[] } => {
    const known = renamed.get(ino) ?? { lost: [], got: [] };
    renamed.set(ino, known);
    return known;
  };
  for (const name of gone) {
    if (survives(fates, name.ino)) ofRenamed(name.ino).lost.push(name);
    else found.push({ kind: "deleted", path: paths.before.of(name), type: name.type });
  }
  for (const name of come) {
    if (survives(fates, name.ino)) ofRenamed(name.ino).got.push(name);
    else found.push({ kind: "created", path: paths.after.of(name), type: name.type });
  }
  for (const { lost, got } of renamed.values()) {
    for (let i = 0; i < Math.max(lost.length, got.length); i++) {
      const [from, into] = [lost[i], got[i]];
      if (from !== undefined && into !== undefined) {
        found.push({ kind: "renamed", path: paths.after.of(into), from: paths.before.of(from), type: into.type });
      } else if (into !== undefined) found.push({ kind: "created", path: paths.after.of(into), type: into.type });
      else if (from !== undefined) found.push({ kind: "deleted", path: paths.before.of(from), type: from.type });
    }
  }
  for (const { inode, what } of changedFiles(fates)) {
    found.push({ kind: "changed", path: paths.after.ofInode(inode), type: typeOf(inode), what });
  }
  return found.toSorted((a, b) => compareText(a.path, b.path) || compareText(a.kind, b.kind));
}

/** Each inode whose record is not the same, but for its access time. */
function fatesOf(before: InodeFile, after: InodeFile): Map<number, Fate> {
  const fates = new Map<number, Fate>();
  eachDifferentBlock(before, after, (index) => {
    const [old, now] = [recordsAt(before, index), recordsAt(after, index)];
    for (let i = 0; i < INODES_PER_BLOCK; i++) {
      const ino = index * INODES_PER_BLOCK + i;
      const isOfUser = ino >= FIRST_FREE_INO || ino === ROOT_INO;
      if (isOfUser && !isSameRecord(old, now, i * INODE_BYTES)) {
        fates.set(ino, { before: fileIn(old, ino, i), after: fileIn(now, ino, i) });
      }
    }
  });
  return fates;
}

function recordsAt(inodes: InodeFile, index: number): DataView {
  inodes.store.beginOperation();
  const bytes = blockAt(inodes.store, inodes.tree, index)?.bytes.slice() ?? new Uint8Array(BLOCK_BYTES);
  return new DataView(bytes.buffer);
}

function isSameRecord(a: DataView, b: DataView, at: number): boolean {
  for (let i = 0; i < INODE_BYTES; i++) {
    if ((i < ATIME_START || i >= ATIME_END) && a.getUint8(at + i) !== b.getUint8(at + i)) return false;
  }
  return true;
}

/** What has no name any more is gone, though it is freed only later. */
function fileIn(view: DataView, ino: number, slot: number): Inode | undefined {
  if (inodeRecord.get.mode(view, slot * INODE_BYTES) === 0) return undefined;
  const inode = decodeInode(asIno(ino), view, slot * INODE_BYTES);
  return inode.linkCount === 0 ? undefined : inode;
}

function survives(fates: ReadonlyMap<number, Fate>, ino: number): boolean {
  const fate = fates.get(ino);
  return fate === undefined || isSameFile(fate);
}

function isSameFile({ before, after }: Fate): boolean {
  return before !== undefined && after !== undefined && before.generation === after.generation;
}

/** Names that went and came, of all directories that are not the same. */
function namesOf(
  before: InodeFile,
  after: InodeFile,
  fates: ReadonlyMap<number, Fate>,
): { readonly gone: readonly NameIn[]; readonly come: readonly NameIn[] } {
  const gone: NameIn[] = [];
  const come: NameIn[] = [];
  for (const fate of fates.values()) {
    const old = isDirectory(fate.before) ? fate.before : undefined;
    const now = isDirectory(fate.after) ? fate.after : undefined;
    if (old === undefined || now === undefined || !isSameFile(fate)) {
      if (old !== undefined) gone.push(...namesIn(before, old));
      if (now !== undefined) come.push(...namesIn(after, now));
      continue;
    }
    const oldNames: NameIn[] = [];
    const newNames: NameIn[] = [];
    eachDifferentBlock({ store: before.store, tree: old.tree }, { store: after.store, tree: now.tree }, (index) => {
      readLeaf(before, old, index, oldNames);
      readLeaf(after, now, index, newNames);
    });
    // A name whose inode number has gone to another file is another entry, though it looks the same.
    const key = ({ name, ino }: NameIn): string => `${ino}/${name}`;
    const kept = (names: readonly NameIn[]): Set<string> =>
      new Set(names.filter(({ ino }) => survives(fates, ino)).map(key));
    const [inOld, inNew] = [kept(oldNames), kept(newNames)];
    gone.push(...oldNames.filter((one) => !inNew.has(key(one))));
    come.push(...newNames.filter((one) => !inOld.has(key(one))));
  }
  return { gone, come };
}

/** The entries of one block of a directory, if it is a leaf. */
function readLeaf(inodes: InodeFile, { ino, tree }: Inode, index: number, into: NameIn[]): void {
  if (index * BLOCK_BYTES >= tree.sizeBytes) return;
  inodes.store.beginOperation();
  const view = blockAt(inodes.store, tree, index)?.view;
  if (view === undefined || nodeHeader.get.kind(view, 0) !== NODE_LEAF) return;
  for (let slot = 0; slot < nodeHeader.get.count(view, 0); slot++) {
    const at = entryOffset(view, index, slot);
    const nameBytes = nameBytesAt(view, index, at);
    const start = view.byteOffset + at + entryHead.size;
    const name = Buffer.from(view.buffer, start, nameBytes).toString("latin1");
    into.push({ directory: ino, name, ino: entryHead.get.ino(view, at), type: entryHead.get.type(view, at) });
  }
}

function namesIn(inodes: InodeFile, directory: Inode): NameIn[] {
  const names: NameIn[] = [];
  inodes.store.beginOperation();
  eachEntry(new DirectoryFile(inodes, directory), BEFORE_FIRST_KEY, (name, ino, type) => {
    names.push({ directory: directory.ino, name, ino, type });
    return true;
  });
  return names;
}

/** Files that are the same in both states, with other contents or attributes. */
function changedFiles(fates: ReadonlyMap<number, Fate>): readonly { readonly inode: Inode; readonly what: Change[] }[] {
  const files: { readonly inode: Inode; readonly what: Change[] }[] = [];
  for (const [ino, fate] of fates) {
    const { before, after } = fate;
    if (before === undefined || after === undefined || !isSameFile(fate)) continue;
    if (isHolder(fates, ino, after)) continue;
    const isOtherTree = !isSameTree(before, after);
    const what: Change[] = [];
    if (isOtherTree && !isDirectory(after)) what.push("contents");
    const isTouched = !isOtherTree && !isSameTime(before.mtime, after.mtime);
    if (isTouched || hasOtherAttributes(fates, before, after)) what.push("attributes");
    if (what.length > 0) files.push({ inode: after, what });
  }
  return files;
}

function hasOtherAttributes(fates: ReadonlyMap<number, Fate>, before: Inode, after: Inode): boolean {
  const holder = after.xattrIno === 0 ? undefined : fates.get(after.xattrIno);
  return (
    before.mode !== after.mode ||
    before.uid !== after.uid ||
    before.gid !== after.gid ||
    before.rdev !== after.rdev ||
    before.xattrIno !== after.xattrIno ||
    holder !== undefined
  );
}

/** Does the inode hold the extended attributes of another? Then that one has changed with it. */
function isHolder(fates: ReadonlyMap<number, Fate>, ino: number, { parent }: Inode): boolean {
  return fates.get(parent)?.after?.xattrIno === ino;
}

function isSameTree(a: Inode, b: Inode): boolean {
  const isSameRoot = a.tree.sizeBytes === b.tree.sizeBytes && a.tree.height === b.tree.height && a.inline === b.inline;
  return isSameRoot && Buffer.compare(a.tree.pointers, b.tree.pointers) === 0;
}

function isSameTime(a: Inode["mtime"], b: Inode["mtime"]): boolean {
  return a.seconds === b.seconds && a.nanoseconds === b.nanoseconds;
}

function isDirectory(inode: Inode | undefined): inode is Inode {
  return inode !== undefined && (inode.mode & S_IFMT) === S_IFDIR;
}

/** As in a directory entry. */
function typeOf({ mode }: Inode): number {
  return (mode & S_IFMT) >>> 12;
}

interface Paths {
  of(name: NameIn): string;
  /** Of a file that has a name. */
  ofInode(inode: Inode): string;
}

/** Each directory that is on a way is read once. */
function pathsIn(inodes: InodeFile): Paths {
  const directories = new Map<number, string>([[ROOT_INO, ""]]);
  const read = new Map<number, ReadonlyMap<number, string>>();
  let all: ReadonlyMap<number, string> | undefined;

  function childrenOf(directory: Inode): ReadonlyMap<number, string> {
    const known = read.get(directory.ino);
    if (known !== undefined) return known;
    const children = new Map<number, string>();
    for (const { ino, name } of namesIn(inodes, directory)) if (!children.has(ino)) children.set(ino, name);
    read.set(directory.ino, children);
    return children;
  }

  function directoryPath(ino: number, depth = 0): string {
    const known = directories.get(ino);
    if (known !== undefined) return known;
    const directory = inodes.get(ino);
    const parent = isDirectory(directory) ? inodes.get(directory.parent) : undefined;
    const name = isDirectory(parent) ? childrenOf(parent).get(ino) : undefined;
    if (parent === undefined || name === undefined || depth > DEPTH_MAX) {
      throw new CorruptionError(`directory ${ino} has no way to the root`);
    }
    const path = `${directoryPath(parent.ino, depth + 1)}/${name}`;
    directories.set(ino, path);
    return path;
  }

  /** A path of every file, from the root down. */
  function search(): ReadonlyMap<number, string> {
    const found = new Map<number, string>();
    const waiting = [ROOT_INO as number];
    for (let ino = waiting.pop(); ino !== undefined; ino = waiting.pop()) {
      const directory = inodes.get(ino);
      if (!isDirectory(directory)) throw new CorruptionError(`inode ${ino} is no directory`);
      for (const name of namesIn(inodes, directory)) {
        if (found.has(name.ino)) continue; // and so no directory is entered twice
        found.set(name.ino, `${found.get(ino) ?? ""}/${name.name}`);
        if (name.type === DT_DIR) waiting.push(name.ino);
      }
    }
    return found;
  }

  return {
    of: ({ directory, name }) => `${directoryPath(directory)}/${name}`,
    ofInode(inode): string {
      if (inode.ino === ROOT_INO) return "/";
      if (typeOf(inode) === DT_DIR) return directoryPath(inode.ino);
      const hint = inode.parent === 0 ? undefined : inodes.get(inode.parent);
      const name = isDirectory(hint) ? childrenOf(hint).get(inode.ino) : undefined;
      if (hint !== undefined && name !== undefined) return `${directoryPath(hint.ino)}/${name}`;
      all ??= search();
      const path = all.get(inode.ino);
      if (path === undefined) throw new CorruptionError(`inode ${inode.ino} has no name`);
      return path;
    },
  };
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
