/** What can be wrong with an inode by itself. */
import { BLOCK_BYTES } from "../core/block.ts";
import { U32_MAX } from "../core/numbers.ts";
import { FILE_BYTES_MAX, FIRST_FREE_INO, INLINE_BYTES_MAX, SYMLINK_BYTES_MAX } from "../format/constants.ts";
import { fileRoot, INODE_INLINE, inodeRecord } from "../format/inode.ts";
import type { Inode } from "../tree/inode-file.ts";

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
/** fifo, character device, directory, block device, file, symlink, socket */
const TYPES: ReadonlySet<number> = new Set([0o010000, 0o020000, S_IFDIR, 0o060000, S_IFREG, S_IFLNK, 0o140000]);

export function isDirectoryMode(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

/**
 * Calls `say` for each thing that is wrong with an inode in use, whatever lies elsewhere. `generationNext`: of fsinfo, the
 * number that no inode of any state has yet.
 */
export function checkInodeRecord(
  inode: Inode,
  view: DataView,
  { at, generationNext }: { readonly at: number; readonly generationNext: number },
  say: (what: string) => void,
): void {
  const { mode, tree, inline } = inode;
  const type = mode & S_IFMT;
  if (!TYPES.has(type) || mode > 0o177777) say(`has mode 0${mode.toString(8)}`);
  const { ino, generation } = inode;
  if (ino < FIRST_FREE_INO ? generation !== 0 : generation === 0) say(`has generation ${generation}`);
  if (generation >= generationNext && generation !== U32_MAX)
    say(`has generation ${generation}, which is yet to be given: ${generationNext} is the next`);
  if (tree.sizeBytes > FILE_BYTES_MAX) say(`has a length of ${tree.sizeBytes} bytes`);
  if ((inodeRecord.get.flags(view, at) & ~INODE_INLINE) !== 0)
    say(`has unknown flags ${inodeRecord.get.flags(view, at)}`);
  if (!isZero(inodeRecord.get.reserved(view, at)) || !isZero(fileRoot.get.reserved(view, at + inodeRecord.offset.root)))
    say("has reserved bytes that are not zero");
  for (const time of [inode.atime, inode.mtime, inode.ctime, inode.btime]) {
    if (time.nanoseconds >= 1e9) say(`has a time with ${time.nanoseconds} nanoseconds`);
  }
  if (inline) {
    if (type !== S_IFREG && type !== S_IFLNK) say("has inline data, and is neither a file nor a symlink");
    if (tree.sizeBytes > INLINE_BYTES_MAX) say(`has ${tree.sizeBytes} bytes of inline data`);
    else if (!isZero(tree.pointers.subarray(tree.sizeBytes))) say("has inline bytes beyond its end");
    if (tree.height !== 0 || tree.blockCount !== 0)
      say(`has inline data, height ${tree.height} and ${tree.blockCount} blocks`);
  }
  if (type === S_IFDIR) {
    if (tree.sizeBytes % BLOCK_BYTES !== 0) say(`is a directory of ${tree.sizeBytes} bytes`);
    if ((inode.entryCount === 0) !== (tree.sizeBytes === 0))
      say(`is a directory of ${inode.entryCount} entries in ${tree.sizeBytes} bytes`);
  } else if (inode.entryCount !== 0) say(`is no directory, and has ${inode.entryCount} entries`);
  if (type === S_IFLNK && (tree.sizeBytes === 0 || tree.sizeBytes > SYMLINK_BYTES_MAX))
    say(`is a symlink of ${tree.sizeBytes} bytes`);
  if (type !== S_IFDIR && type !== S_IFREG && type !== S_IFLNK && (tree.sizeBytes > 0 || tree.blockCount > 0))
    say("is a special file, and has contents");
}

export function isZero(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) return false;
  return true;
}
