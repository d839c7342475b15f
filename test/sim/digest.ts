/**
 * One number for all that a filesystem shows: the sum of one hash for each inode, of its number, attributes, contents and, if it
 * is a directory, entries. The same for the model, where it costs next to nothing: an operation changes the ctime of every
 * node that it changes, so the hash of any other is known.
 */
import { crc32 } from "node:zlib";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { type Attributes, type FileSystem, listedName, type NodeId, ROOT_NODE } from "../../src/fs/file-system.ts";
import { asName, readSparse } from "../support/fs-paths.ts";
import { linkCountOf, type Model, type ModelNode } from "../support/model-fs.ts";
import { type SparseBytes, sparseBytes } from "../support/sparse-bytes.ts";

export type Digest = number;

const TWO_50 = 2 ** 50;
const TWO_32 = 2 ** 32;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;

/** Contents and their blocks are never changed, only replaced. */
const knownData = new WeakMap<SparseBytes, number>();
const knownBlocks = new WeakMap<Uint8Array, number>();
const ZERO_SUM = crc32(new Uint8Array(BLOCK_BYTES));

export function digestOfModel(model: Model): Digest {
  const seen = new Set<ModelNode>();
  let sum = 0;
  const visit = (node: ModelNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    sum = add(sum, digestOfNode(node));
    if (node.kind === "directory") for (const child of node.entries.values()) visit(child);
  };
  visit(model.root);
  return sum;
}

function digestOfNode(node: ModelNode): Digest {
  if (node.hash !== undefined && node.hash.ctime === node.ctime) return node.hash.value;
  let contents = 0;
  if (node.kind === "directory")
    for (const [name, child] of node.entries) contents = add(contents, entry(name, child.ino));
  else contents = knownData.get(node.data) ?? rememberData(node.data);
  let xattrs = 0;
  for (const [name, value] of node.xattrs) xattrs = add(xattrs, attribute(name, Buffer.from(value, "latin1")));
  const links = linkCountOf(node);
  const value = inode({ ...node, linkCount: links, sizeBytes: node.data.length }, contents, xattrs);
  node.hash = { ctime: node.ctime, value };
  return value;
}

/** The same of a real filesystem. Throws what reading throws. */
export function digestOfReal(fs: FileSystem): Digest {
  const seen = new Set<number>();
  let sum = 0;
  const visit = (node: NodeId, attributes: Attributes): void => {
    const ino = attributes.ino % TWO_32;
    if (seen.has(ino)) return;
    seen.add(ino);
    const type = attributes.mode & S_IFMT;
    const below: { readonly node: NodeId; readonly attributes: Attributes }[] = [];
    let contents = 0;
    if (type === S_IFDIR) {
      const { handle } = fs.openDirectory(node);
      fs.readDirectory(handle, 0, { plus: true }, (names, start, end, childIno, _type, _cookie, child) => {
        const name = listedName(names, start, end);
        if (name === "." || name === "..") return true;
        contents = add(contents, entry(name, childIno % TWO_32));
        const { nodeId, attributes: found } = child ?? fs.lookup(node, name); // one that is in use comes as a name
        below.push({ node: nodeId, attributes: found });
        return true;
      });
      fs.releaseDirectory(handle);
    } else if (type === S_IFREG) contents = contentsOf(fs, node, attributes.sizeBytes);
    else if (type === S_IFLNK) contents = hashOfData(sparseBytes(fs.readLink(node)), crc32);
    const xattrs = xattrsOf(fs, node);
    sum = add(
      sum,
      inode({ ...attributes, ino, sizeBytes: type === S_IFDIR ? 0 : attributes.sizeBytes }, contents, xattrs),
    );
    for (const child of below) {
      visit(child.node, child.attributes);
      fs.forget(child.node, 1);
    }
  };
  visit(ROOT_NODE, fs.getAttributes(ROOT_NODE).attributes);
  return sum;
}

const O_NOATIME = 0o1000000;

function contentsOf(fs: FileSystem, node: NodeId, sizeBytes: number): number {
  if (sizeBytes === 0) return 0;
  const { handle } = fs.open(node, O_NOATIME);
  try {
    return hashOfData(readSparse(fs, handle, sizeBytes), crc32);
  } finally {
    fs.release(handle);
  }
}

function xattrsOf(fs: FileSystem, node: NodeId): number {
  const names = fs.listXattrs(node);
  if (names.length === 0) return 0;
  let sum = 0;
  for (const name of Buffer.from(names).toString("latin1").split("\0").slice(0, -1)) {
    sum = add(sum, attribute(name, fs.getXattr(node, asName(name))));
  }
  return sum;
}

function inode(
  {
    ino,
    mode,
    uid,
    gid,
    rdev,
    linkCount,
    sizeBytes,
    mtime,
    ctime,
  }: Omit<Attributes, "sectorCount" | "atime" | "btime">,
  contents: number,
  xattrs: number,
): Digest {
  const times = `${mtime.seconds}.${mtime.nanoseconds},${ctime.seconds}.${ctime.nanoseconds}`;
  return hash(`${ino},${mode},${uid},${gid},${rdev},${linkCount},${sizeBytes},${times},${contents},${xattrs}`);
}

function entry(name: string, ino: number): number {
  return hash(`${ino} ${name}`);
}

function attribute(name: string, value: Uint8Array): number {
  return hash(`${name}=${value.length},${crc32(value)}`);
}

function rememberData(data: SparseBytes): number {
  const found = hashOfData(data, (block) => {
    const before = knownBlocks.get(block);
    if (before !== undefined) return before;
    const sum = crc32(block);
    knownBlocks.set(block, sum);
    return sum;
  });
  knownData.set(data, found);
  return found;
}

/** Of all blocks that are not zero, so that holes make no difference. */
function hashOfData({ blocks }: SparseBytes, sumOf: (block: Uint8Array) => number): number {
  let total = 0;
  for (const [index, block] of blocks) {
    const sum = sumOf(block);
    if (sum !== ZERO_SUM) total = add(total, hash(`${index} ${sum}`));
  }
  return total;
}

function add(a: number, b: number): number {
  return (a + b) % TWO_50;
}

/** 50 bits of the characters, all of them in the range of a byte. */
function hash(text: string): number {
  let a = 0x9e3779b9;
  let b = 0x85ebca6b;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    a = Math.imul(a ^ char, 0x9e3779b1);
    b = Math.imul(b ^ char, 0x5f356495);
    b ^= a >>> 15;
  }
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ Math.imul(b ^ (b >>> 13), 0xc2b2ae35);
  b = Math.imul(b ^ (b >>> 16), 0x85ebca6b) ^ Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
  return (b >>> 14) * TWO_32 + (a >>> 0);
}
