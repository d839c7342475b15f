/** The inode: 256 bytes, 16 in a block of the inode file. */
import { INLINE_BYTES_MAX, INODE_BYTES } from "./constants.ts";
import { bytes, i64, nested, type Struct, struct, u8, u32, u64, type ValueOf } from "./struct.ts";

const timeShape = { seconds: i64, nanoseconds: u32 };
/** Nanosecond time, from long before 1970 to long after 2038. */
export const timeRecord: Struct<typeof timeShape> = struct(12, timeShape);

const rootShape = {
  sizeBytes: u64, // length of the file
  height: u8, // levels of indirect blocks between these pointers and the data
  reserved: bytes(7), // zero
  pointers: bytes(INLINE_BYTES_MAX), // 16 block pointers of one level, or inline data
};
export type FileRootRecord = ValueOf<typeof rootShape>;
/** The root of a tree of blocks. Alone, it is the root of a whole filesystem: that of its inode file. */
export const fileRoot: Struct<typeof rootShape> = struct(144, rootShape);

const shape = {
  mode: u32, // file type and permissions as in stat(2); 0: the inode is free
  uid: u32,
  gid: u32,
  linkCount: u32, // 0: unlinked but still open, or being deleted; it is in the orphan file
  rdev: u32, // device number of a special file, in the kernel's encoding (major << 8 | minor, extended)
  flags: u32, // INODE_INLINE
  generation: u32, // tells two files apart that had the same number one after the other
  parent: u32, // directories: the inode of the parent; others: a directory that named it, a hint, 0: none
  blockCount: u64, // blocks held, indirect ones too
  atime: nested(timeRecord, "time"),
  mtime: nested(timeRecord, "time"),
  ctime: nested(timeRecord, "time"),
  btime: nested(timeRecord, "time"),
  xattrIno: u32, // inode that holds the extended attributes, 0: none
  orphanSlot: u32, // slot in the orphan file plus 1, 0: not an orphan
  entryCount: u32, // directories: entries, without . and ..
  donor: u32, // of an orphan that holds what was cut out of a file: that file, which counts its blocks; 0: none
  reserved: bytes(8), // zero
  root: nested(fileRoot, "file root"),
};
export type InodeRecord = ValueOf<typeof shape>;
export const inodeRecord: Struct<typeof shape> = struct(INODE_BYTES, shape);

/** The data lies in the inode, in the place of the pointers. */
export const INODE_INLINE = 1;
