/**
 * What a volume has once: nearly everything. The block that is bad, and what hangs from it, is an error, everything else is read as
 * before, and who writes does no more harm.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { prng } from "../../src/core/prng.ts";
import { blockPointer } from "../../src/format/block-pointer.ts";
import {
  ACTIVE_MAP_INO,
  INODE_BYTES,
  INODE_MAP_INO,
  INODES_PER_BLOCK,
  ORPHAN_INO,
  ROOT_INO,
} from "../../src/format/constants.ts";
import {
  childRecord,
  entryHead,
  leafSlot,
  NODE_FREE,
  NODE_INTERIOR,
  NODE_LEAF,
  nodeHeader,
} from "../../src/format/directory-node.ts";
import { fileRoot, inodeRecord, timeRecord } from "../../src/format/inode.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
import { type BlockTree, eachPointer, vbnAt } from "../../src/tree/block-tree.ts";
import type { InodeFile } from "../../src/tree/inode-file.ts";
import { xattrHead } from "../../src/tree/xattr.ts";
import { checkVolume } from "../../src/volume/check.ts";
import type { Finding } from "../../src/volume/check-report.ts";
import { openVolume } from "../../src/volume/open.ts";
import { repairCopies } from "../../src/volume/repair.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { tolerate } from "../hostile/judge.ts";
import type { MemoryDevice } from "../support/devices.ts";
import { asName, forgetful, nodeAt, putFile } from "../support/fs-paths.ts";
import { blockOf, fieldsOf, harmed, type Kind, type Place, wholeBlocks } from "./kinds.ts";
import { lostOf, SNAPSHOT, sample } from "./sample-volume.ts";

/** A structure that is there once. */
interface Single {
  readonly what: string;
  readonly places: (volume: Volume) => readonly Place[];
  /** The state and the path that a finding has. */
  readonly state?: string;
  readonly path?: string;
  /** What cannot be read any more, at least one such piece; undefined: nothing of what users read is in it. */
  readonly loses?: RegExp;
  /** What else hangs from it, which is in the same block, or below. */
  readonly alsoLoses?: RegExp;
}

const isLeaf = 0;
const inTheActiveState = / \/(?!\.snapshot)/;
/** Of /d, which a snapshot has too. */
const below = / (\/\.snapshot\/old)?\/d(\/|$)/;

const singles: readonly Single[] = [
  {
    what: "a data block",
    places: (v) => wholeBlocks(vbnsOf(v, treeAt(v, "/large"), isLeaf)),
    path: "/large",
    loses: /^block \d+ of \/large$/,
  },
  ...[1, 2, 3, 4].map(
    (level): Single => ({
      what: `an indirect block of level ${level}`,
      places: (v) => {
        const vbns = vbnsOf(v, treeAt(v, "/deep"), level);
        return [...wholeBlocks(vbns), ...fieldsOf(blockPointer, (vbns[0] as number) * BLOCK_BYTES)];
      },
      path: "/deep",
      loses: /^block \d+ of \/deep$/,
    }),
  ),
  {
    what: "the target of a symbolic link",
    places: (v) => wholeBlocks(vbnsOf(v, treeAt(v, "/long"), isLeaf)),
    path: "/long",
    loses: /^target of \/long$/,
  },
  {
    what: "the target of a symbolic link in its inode",
    places: (v) => [contentsInInode(v, inoAt(v, "/short"))],
    loses: /^target of \/short$/,
    alsoLoses: inTheActiveState,
  },
  {
    what: "the contents of a file in its inode",
    places: (v) => [contentsInInode(v, inoAt(v, "/inline"))],
    loses: /^block 0 of \/inline$/,
    alsoLoses: inTheActiveState,
  },
  {
    what: "the inode of a file",
    places: (v) => inodeFields(v, inoAt(v, "/large")),
    loses: /^attributes of \/large$/,
    alsoLoses: inTheActiveState,
  },
  {
    what: "the inode of the root directory",
    places: (v) => inodeFields(v, ROOT_INO),
    loses: /^names in $/,
    alsoLoses: /^(?!snapshots)/,
  },
  {
    what: "the inode of the active map",
    places: (v) => inodeFields(v, ACTIVE_MAP_INO),
    loses: /^names in $/,
    alsoLoses: /^(?!snapshots)/,
  },
  { what: "a leaf of a directory", places: leafPlaces, path: "/d", loses: /^names in \/d$/, alsoLoses: below },
  {
    what: "an interior node of a directory",
    places: (v) => {
      const vbns = nodesOf(v, "/d", NODE_INTERIOR);
      const at = (vbns[0] as number) * BLOCK_BYTES;
      return [...wholeBlocks(vbns), ...fieldsOf(nodeHeader, at), ...fieldsOf(childRecord, at + nodeHeader.size)];
    },
    path: "/d",
    loses: /^names in \/d$/,
    alsoLoses: below,
  },
  { what: "a free node of a directory", places: (v) => wholeBlocks(nodesOf(v, "/d", NODE_FREE)), path: "/d" },
  {
    what: "the node of the root directory",
    places: (v) => wholeBlocks(vbnsOf(v, treeOf(v, ROOT_INO), isLeaf)),
    path: "/",
    loses: /^names in $/,
    alsoLoses: inTheActiveState,
  },
  {
    what: "extended attributes in a block",
    places: (v) => {
      const vbns = vbnsOf(v, treeOf(v, xattrInoOf(v, "/large")), isLeaf);
      return [...wholeBlocks(vbns), ...fieldsOf(xattrHead, (vbns[0] as number) * BLOCK_BYTES)];
    },
    path: "/large",
    loses: /^user\.note of \/large$/,
    alsoLoses: /^(xattrs|system\.posix_acl_access) of \/large$/,
  },
  {
    what: "extended attributes and an access list in an inode",
    places: (v) => [contentsInInode(v, xattrInoOf(v, "/inline"))],
    loses: /^system\.posix_acl_access of \/inline$/,
    alsoLoses: inTheActiveState,
  },
  {
    what: "an indirect block of the inode file",
    places: (v) => wholeBlocks(vbnsOf(v, v.active.tree, 1)),
    loses: /^names in $/,
    alsoLoses: /^(?!snapshots)/,
  },
  { what: "the active map", places: (v) => wholeBlocks(vbnsOf(v, treeOf(v, ACTIVE_MAP_INO), isLeaf)) },
  { what: "the inode map", places: (v) => wholeBlocks(vbnsOf(v, treeOf(v, INODE_MAP_INO), isLeaf)) },
  { what: "the orphan file", places: (v) => wholeBlocks(vbnsOf(v, treeOf(v, ORPHAN_INO), isLeaf)) },
  {
    what: "a data block that only a snapshot has",
    places: (v) => wholeBlocks(vbnsOf(v, snapshotTree(v, "/kept"), isLeaf)),
    state: SNAPSHOT,
    path: "/kept",
    loses: /^block \d+ of \/\.snapshot\/old\/kept$/,
  },
  {
    what: "the bit plane of a snapshot",
    places: (v) => wholeBlocks(vbnsOf(v, (inodesOf(v).get(ACTIVE_MAP_INO) as { tree: BlockTree }).tree, isLeaf)),
    state: SNAPSHOT,
  },
  {
    what: "a block of inodes that only a snapshot has",
    places: (v) => {
      const active = new Set(vbnsOf(v, v.active.tree, isLeaf));
      return wholeBlocks(vbnsOf(v, inodesOf(v).tree, isLeaf).filter((vbn) => !active.has(vbn)));
    },
    state: SNAPSHOT,
    loses: / \/\.snapshot\/old/,
  },
];

function vbnsOf(volume: Volume, tree: BlockTree, wanted: number): readonly number[] {
  const vbns: number[] = [];
  eachPointer(volume.active.store, tree, (level, _index, vbn) => {
    if (level === wanted) vbns.push(vbn);
    return true;
  });
  assert(vbns.length > 0, "there is such a block");
  return vbns;
}

function treeOf(volume: Volume, ino: number): BlockTree {
  return (volume.active.get(ino) ?? assert.fail(`no inode ${ino}`)).tree;
}

function treeAt(volume: Volume, path: string): BlockTree {
  return treeOf(volume, inoAt(volume, path));
}

function inoAt(volume: Volume, path: string): number {
  const fs = openFileSystem({ volume, clock: manualClock() });
  return fs.getAttributes(nodeAt(fs, path)).attributes.ino;
}

function xattrInoOf(volume: Volume, path: string): number {
  return volume.active.get(inoAt(volume, path))?.xattrIno ?? 0;
}

function inodesOf(volume: Volume): InodeFile {
  return volume.openSnapshot(volume.findSnapshot(SNAPSHOT) ?? assert.fail("no snapshot"));
}

function snapshotTree(volume: Volume, path: string): BlockTree {
  const ino = inoAt(volume, `/.snapshot/${SNAPSHOT}${path}`) % 2 ** 32; // above: which snapshot
  return (inodesOf(volume).get(ino) ?? assert.fail(`no inode ${ino}`)).tree;
}

function inodeOffset(volume: Volume, ino: number): number {
  const vbn = vbnAt(volume.active.store, volume.active.tree, Math.floor(ino / INODES_PER_BLOCK));
  return vbn * BLOCK_BYTES + (ino % INODES_PER_BLOCK) * INODE_BYTES;
}

function inodeFields(volume: Volume, ino: number): readonly Place[] {
  const at = inodeOffset(volume, ino);
  return [
    ...fieldsOf(inodeRecord, at),
    ...fieldsOf(timeRecord, at + inodeRecord.offset.mtime),
    ...fieldsOf(fileRoot, at + inodeRecord.offset.root),
  ];
}

/** The bytes that stand in an inode in place of pointers. */
function contentsInInode(volume: Volume, ino: number): Place {
  const { sizeBytes } = treeOf(volume, ino);
  const at = inodeOffset(volume, ino) + inodeRecord.offset.root + fileRoot.offset.pointers;
  return { at, bytes: sizeBytes, of: [] };
}

function nodesOf(volume: Volume, path: string, kind: number): readonly number[] {
  const vbns = vbnsOf(volume, treeAt(volume, path), isLeaf).filter(
    (vbn) => nodeHeader.get.kind(viewOf(volume, vbn), 0) === kind,
  );
  assert(vbns.length > 0, `there is a node of kind ${kind}`);
  return vbns;
}

function leafPlaces(volume: Volume): readonly Place[] {
  const vbns = nodesOf(volume, "/d", NODE_LEAF);
  const at = (vbns[0] as number) * BLOCK_BYTES;
  const entryOffset = leafSlot.get.entryOffset(viewOf(volume, vbns[0] as number), nodeHeader.size);
  return [
    ...wholeBlocks(vbns),
    ...fieldsOf(nodeHeader, at),
    ...fieldsOf(leafSlot, at + nodeHeader.size),
    ...fieldsOf(entryHead, at + entryOffset),
  ];
}

function viewOf({ device }: Volume, vbn: number): DataView {
  const bytes = new Uint8Array(BLOCK_BYTES);
  device.read(vbn, 1, bytes, 0);
  return new DataView(bytes.buffer);
}

function judgeSingle({ state, path, loses, alsoLoses }: Single, damaged: MemoryDevice, vbn: number): void {
  const { contents } = sample();
  const { findings } = checkVolume(damaged);
  const isIt = (finding: Finding): boolean =>
    finding.kind === "checksum" &&
    finding.vbn === vbn &&
    finding.path === path &&
    (state === undefined || finding.state === state);
  assert(findings.some(isIt), `block ${vbn} is not named in ${JSON.stringify(findings)}`);
  const lost = lostOf(damaged, contents, `block ${vbn}`);
  if (loses !== undefined)
    assert(
      lost.some((piece) => loses.test(piece)),
      "what hangs from it can be read",
    );
  const others = lost.filter((piece) => loses?.test(piece) !== true && alsoLoses?.test(piece) !== true);
  assert.deepEqual(others, [], "what does not hang from it cannot be read");
  assert.deepEqual(repairCopies(damaged), [], "there is no second copy of it");
  useAndDelete(damaged);
  lostOf(damaged, new Map([...contents].filter(([piece]) => !isTouched(piece))), `after writing around block ${vbn}`);
}

const touched: readonly string[] = ["large", "deep", "long", "inline"];

function isTouched(piece: string): boolean {
  return / \/(?!\.snapshot|d|short)/.test(piece) || piece === "names in ";
}

/** Files are made, cut and deleted, as far as it goes, and the rest stays what it was. */
function useAndDelete(device: MemoryDevice): void {
  const clock = manualClock();
  const volume = openVolume({ device, clock, random: prng(2), writable: true });
  const fs = tolerate("open", () => forgetful(openFileSystem({ volume, clock })));
  if (fs === undefined) return;
  const root = { uid: 0, gid: 0 };
  tolerate("write", () => putFile(fs, "/new", new Uint8Array(200_000).fill(0x77)));
  for (const name of touched) {
    tolerate("truncate", () => fs.setAttributes(nodeAt(fs, `/${name}`), { sizeBytes: 5000 }, root));
    tolerate("unlink", () => fs.unlink(ROOT_NODE, asName(name)));
  }
  tolerate("consistency point", () => {
    while (fs.reclaimSlice()) volume.takeCp("timer");
    volume.takeCp("sync");
  });
}

function singleKind(single: Single): Kind {
  return {
    what: single.what,
    promise: "are found and named, nobody reads anything wrong, and nothing else is lost",
    device: () => sample().device,
    places: () => single.places(sample().volume),
    judge: (harm) => judgeSingle(single, harmed(sample().device, harm), blockOf(harm)),
  };
}

export const singleKinds: readonly Kind[] = singles.map(singleKind);
