/**
 * How many blocks an operation may dirty at most: what it asks for before it changes anything, so that it cannot run out
 * of space in the middle. Generous where that is cheap; deletions are counted closely, a full volume must allow them.
 */
import { insertNodesMax, removeNodesMax } from "../tree/directory.ts";
import type { DirectoryFile } from "../tree/directory-file.ts";
import type { InodeFile } from "../tree/inode-file.ts";

/** Changing so many inodes. */
export function inodesBound(inodes: InodeFile, count: number): number {
  return count + Math.min(count, 2) * inodes.tree.height;
}

/** Allocating or freeing an inode, and with it the inode map. */
export function inodeMapBound(inodes: InodeFile): number {
  return inodesBound(inodes, 2) + 3;
}

export function insertBound(dir: DirectoryFile): number {
  return insertNodesMax(dir) + (2 + dir.inode.tree.height) * 2;
}

export function removeBound(dir: DirectoryFile): number {
  return removeNodesMax(dir) + 2 * dir.inode.tree.height;
}

/** Replacing the inode of an entry. */
export function replaceBound(dir: DirectoryFile): number {
  return 1 + dir.inode.tree.height;
}
