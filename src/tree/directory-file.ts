/** The nodes of a directory in the blocks of its inode: node n is block n. */
import { BLOCK_BYTES, type Block } from "../core/block.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { blockAt, dirtyBlockAt, freeBlocks, vbnAt } from "./block-tree.ts";
import type { NodeFile } from "./directory.ts";
import type { Inode, InodeFile } from "./inode-file.ts";

/**
 * One of these is made by every operation on a directory, so it is a class. Whoever changes the directory has marked its
 * inode dirty.
 */
export class DirectoryFile implements NodeFile {
  readonly inode: Inode;
  private readonly inodes: InodeFile;

  constructor(inodes: InodeFile, inode: Inode) {
    this.inodes = inodes;
    this.inode = inode;
  }

  get nodeCount(): number {
    return this.inode.tree.sizeBytes / BLOCK_BYTES;
  }

  node(index: number): Block {
    const block = blockAt(this.inodes.store, this.inode.tree, index);
    if (block === undefined) throw new CorruptionError(`directory ${this.inode.ino} has a hole at node ${index}`);
    return block;
  }

  prefetch(index: number): void {
    const { store } = this.inodes;
    try {
      store.prefetch(vbnAt(store, this.inode.tree, index));
    } catch (error) {
      if (!(error instanceof CorruptionError || error instanceof FsError)) throw error; // who asks for it hears of it
    }
  }

  dirtyNode(index: number): Block {
    return dirtyBlockAt(this.inodes.store, this.inode.tree, index);
  }

  appendNode(): { readonly index: number; readonly block: Block } {
    const index = this.nodeCount;
    const block = dirtyBlockAt(this.inodes.store, this.inode.tree, index);
    this.inode.tree.sizeBytes += BLOCK_BYTES;
    return { index, block };
  }

  truncateNodes(count: number): void {
    freeBlocks(this.inodes.store, this.inode.tree, count, Number.POSITIVE_INFINITY);
    this.inode.tree.sizeBytes = count * BLOCK_BYTES;
  }
}
