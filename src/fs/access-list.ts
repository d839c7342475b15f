/**
 * POSIX access lists: the attributes system.posix_acl_access and system.posix_acl_default.
 *
 * The kernel reads the lists and enforces them (FUSE_POSIX_ACL). What is left to the filesystem is what ext4 does too: the
 * mode and the list of a file are two views of one thing, and a new file gets its list from its directory.
 *
 *     setfacl  -> the mode takes owner, group (or mask) and other from the list; one that says no more is not kept
 *     chmod    -> the list takes owner, mask (or group) and other from the mode
 *     create   -> the default list of the directory, cut down to the mode asked for; without one, the umask applies
 *     mkdir    -> the same, and the default list is passed on
 *
 * A list is kept as the kernel hands it over: {version u32} {tag u16, permissions u16, id u32} ..., in the order owner,
 * users, group, groups, mask, other. The rules are those of POSIX 1003.1e draft 17 as in Linux, fs/posix_acl.c.
 */
import { CorruptionError, FsError } from "../core/errors.ts";
import { type Struct, struct, u16, u32 } from "../format/struct.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import { getXattr, removeXattr, setXattr } from "../tree/xattr.ts";
import type { Caller } from "./file-system.ts";
import { isDirectory, isSymlink, PERMISSION_BITS, S_ISGID } from "./modes.ts";

export const ACCESS_LIST = "system.posix_acl_access";
export const DEFAULT_LIST = "system.posix_acl_default";

const headShape = { version: u32 };
const accessListHead: Struct<typeof headShape> = struct(4, headShape);
const entryShape = {
  tag: u16,
  permissions: u16, // 4 read, 2 write, 1 execute
  id: u32, // of the user or group; for the others NO_ID
};
const accessListEntry: Struct<typeof entryShape> = struct(8, entryShape);

const VERSION = 2;
const NO_ID = 0xffff_ffff;
const tag = { owner: 0x01, user: 0x02, group: 0x04, namedGroup: 0x08, mask: 0x10, other: 0x20 } as const;

interface AccessEntry {
  readonly tag: number;
  readonly permissions: number;
  readonly id: number;
}
export type AccessList = readonly AccessEntry[];

export function isAccessList(name: string): boolean {
  return name === ACCESS_LIST || name === DEFAULT_LIST;
}

/** Undefined: the list is empty, which means that there is none. Throws FsError EINVAL, EOPNOTSUPP (another version). */
export function decodeAccessList(value: Uint8Array): AccessList | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const entriesBytes = value.length - accessListHead.size;
  if (entriesBytes < 0 || entriesBytes % accessListEntry.size !== 0) throw invalid("is cut short");
  if (accessListHead.get.version(view, 0) !== VERSION) {
    throw new FsError("EOPNOTSUPP", `an access list of a version other than ${VERSION}`);
  }
  const list: AccessEntry[] = [];
  for (let at = accessListHead.size; at < value.length; at += accessListEntry.size) {
    list.push(accessListEntry.decode(view, at));
  }
  if (list.length === 0) return undefined;
  checkOrder(list);
  return list;
}

export function encodeAccessList(list: AccessList): Uint8Array {
  const value = new Uint8Array(accessListHead.size + list.length * accessListEntry.size);
  const view = new DataView(value.buffer);
  accessListHead.set.version(view, 0, VERSION);
  list.forEach((entry, i) => {
    const { tag: kind, permissions, id } = entry;
    const named = kind === tag.user || kind === tag.namedGroup;
    accessListEntry.encode(view, accessListHead.size + i * accessListEntry.size, {
      tag: kind,
      permissions,
      id: named ? id : NO_ID,
    });
  });
  return value;
}

/** Owner, users, group, groups, mask, other, in this order; a mask where there are names. */
function checkOrder(list: AccessList): void {
  const count = (kind: number): number => list.filter((entry) => entry.tag === kind).length;
  let last = 0;
  for (const entry of list) {
    if (!Object.values(tag).includes(entry.tag as (typeof tag)["owner"])) throw invalid(`has a tag ${entry.tag}`);
    if (entry.permissions > 7) throw invalid(`has permissions ${entry.permissions}`);
    if (entry.tag < last) throw invalid("is not in order");
    last = entry.tag;
  }
  for (const kind of [tag.owner, tag.group, tag.other]) if (count(kind) !== 1) throw invalid(`needs one tag ${kind}`);
  const names = count(tag.user) + count(tag.namedGroup);
  if (count(tag.mask) > 1 || (names > 0 && count(tag.mask) === 0)) throw invalid("needs one mask");
}

/** The permission bits that a mode shows for this list. */
export function modeOfAccessList(list: AccessList): number {
  const other = permissionsOf(list, tag.other) ?? 0;
  const group = permissionsOf(list, tag.mask) ?? permissionsOf(list, tag.group) ?? 0;
  const owner = permissionsOf(list, tag.owner) ?? 0;
  return (owner << 6) | (group << 3) | other;
}

/** Says no more than a mode does. */
function isMinimal(list: AccessList): boolean {
  return list.length === 3;
}

function permissionsOf(list: AccessList, kind: number): number | undefined {
  return list.find((entry) => entry.tag === kind)?.permissions;
}

/** The list after chmod: a mask stands in for the group. */
export function withMode(list: AccessList, mode: number): AccessList {
  const groupTag = list.some((entry) => entry.tag === tag.mask) ? tag.mask : tag.group;
  return list.map((entry) => {
    const permissions =
      entry.tag === tag.owner
        ? mode >>> 6
        : entry.tag === groupTag
          ? mode >>> 3
          : entry.tag === tag.other
            ? mode
            : entry.permissions;
    return { ...entry, permissions: permissions & 7 };
  });
}

/** Sets or, with an empty one, removes a list, and the mode with it. The inode is dirty. Throws as setXattr of the tree. */
export function setAccessList(
  inodes: InodeFile,
  inode: Inode,
  name: string,
  value: Uint8Array,
  { clearSetGroupId }: { readonly clearSetGroupId: boolean },
): void {
  if (isSymlink(inode.mode)) throw new FsError("EOPNOTSUPP", "a symbolic link has no access list");
  const list = decodeAccessList(value);
  if (name === DEFAULT_LIST && list !== undefined && !isDirectory(inode.mode)) {
    throw new FsError("EACCES", "only a directory has a default access list");
  }
  const isAccess = name === ACCESS_LIST;
  if (list === undefined || (isAccess && isMinimal(list))) removeXattr(inodes, inode, name);
  else setXattr(inodes, inode, name, encodeAccessList(list), { create: false, replace: false });
  if (!isAccess || list === undefined) return;
  const kept = clearSetGroupId ? ~(PERMISSION_BITS | S_ISGID) : ~PERMISSION_BITS;
  inode.mode = (inode.mode & kept) | modeOfAccessList(list);
}

/** To be called before chmod: the access list, if there is one, will say the same. The inode is dirty. */
export function chmodAccessList(inodes: InodeFile, inode: Inode, mode: number): void {
  if (inode.xattrIno === 0) return;
  const list = storedList(inodes, inode, ACCESS_LIST);
  if (list === undefined) return;
  setXattr(inodes, inode, ACCESS_LIST, encodeAccessList(withMode(list, mode)), { create: false, replace: false });
}

/** What a new file gets: its mode, and the lists that it is to have. */
export interface Inherited {
  readonly mode: number;
  readonly access: Uint8Array | undefined;
  readonly defaults: Uint8Array | undefined;
}

/** For a file of this mode in a directory. Undefined: the directory passes nothing on, and the umask applies. */
export function inheritedLists(inodes: InodeFile, dir: Inode, mode: number): Inherited | undefined {
  if (dir.xattrIno === 0 || isSymlink(mode)) return undefined;
  const defaults = storedList(inodes, dir, DEFAULT_LIST);
  if (defaults === undefined) return undefined;
  // What the mode does not ask for is taken away; the groups that are named, by the mask.
  const groupTag = defaults.some((entry) => entry.tag === tag.mask) ? tag.mask : tag.group;
  const access = defaults.map((entry): AccessEntry => {
    const asked =
      entry.tag === tag.owner ? mode >>> 6 : entry.tag === groupTag ? mode >>> 3 : entry.tag === tag.other ? mode : 7;
    return { ...entry, permissions: entry.permissions & asked & 7 };
  });
  return {
    mode: (mode & ~PERMISSION_BITS) | modeOfAccessList(access),
    access: isMinimal(access) ? undefined : encodeAccessList(access),
    defaults: isDirectory(mode) ? encodeAccessList(defaults) : undefined,
  };
}

/** Gives a new inode its lists. Throws as setXattr of the tree. */
export function giveLists(inodes: InodeFile, inode: Inode, { access, defaults }: Inherited): void {
  const how = { create: false, replace: false };
  if (access !== undefined) setXattr(inodes, inode, ACCESS_LIST, access, how);
  if (defaults !== undefined) setXattr(inodes, inode, DEFAULT_LIST, defaults, how);
}

/** The mode where no list decides. A symbolic link is open to all. */
export function withoutUmask(mode: number, { umask = 0 }: Caller): number {
  return isSymlink(mode) ? mode : mode & ~(umask & PERMISSION_BITS);
}

/** Only what we have checked is stored: anything else is damage. */
function storedList(inodes: InodeFile, inode: Inode, name: string): AccessList | undefined {
  const value = getXattr(inodes, inode, name);
  if (value === undefined) return undefined;
  try {
    return decodeAccessList(value);
  } catch (cause) {
    if (!(cause instanceof FsError)) throw cause;
    throw new CorruptionError(`inode ${inode.ino} has an attribute ${name} that is no access list`, { cause });
  }
}

function invalid(what: string): FsError {
  return new FsError("EINVAL", `the access list ${what}`);
}
