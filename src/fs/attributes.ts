/** What stat shows and chmod, chown, utimensat and truncate change; extended attributes. */
import type { Time } from "../core/clock.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { SYMLINK_BYTES_MAX } from "../format/constants.ts";
import { readFile, resizeFile } from "../tree/file-data.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import { getXattr, removeXattr, setXattr, xattrNames } from "../tree/xattr.ts";
import { chmodAccessList, isAccessList, setAccessList } from "./access-list.ts";
import { inodesBound } from "./bounds.ts";
import { attributesReply, type Context, stampAccess, stampChange, writableInodes } from "./context.ts";
import {
  type AttributeChanges,
  type AttributesReply,
  type FileSystem,
  type Name,
  type NodeId,
  XATTR_CLEAR_SETGID,
  XATTR_CREATE,
  XATTR_REPLACE,
} from "./file-system.ts";
import { isDirectory, isRegular, isSymlink, MODE_BITS, S_IFMT, withoutSetId } from "./modes.ts";
import { inoOf, isSnapshotsNode } from "./nodes.ts";
import { snapshotsAttributes } from "./snapshot-view.ts";

type AttributeOperations = Pick<
  FileSystem,
  "getAttributes" | "setAttributes" | "readLink" | "findXattr" | "getXattr" | "listXattrs" | "setXattr" | "removeXattr"
>;

/** File capabilities: they go when the contents or the owner change. */
const CAPABILITY = "security.capability" as Name;

/** Answered often: made once. */
const NO_XATTR = new FsError("ENODATA", "no such attribute");

export function attributeOperations(context: Context): AttributeOperations {
  const { states, clock } = context;

  function findXattr(node: NodeId, name: Name): Uint8Array | undefined {
    if (isSnapshotsNode(node)) return undefined;
    const state = states.of(node);
    const inode = states.inode(state, inoOf(node));
    return inode.xattrIno === 0 ? undefined : getXattr(states.inodesOf(state), inode, name);
  }

  return {
    getAttributes(node): AttributesReply {
      if (isSnapshotsNode(node)) return { attributes: snapshotsAttributes(context, node), attributesValidMs: 0 };
      const state = states.of(node);
      return attributesReply(context, state, states.inode(state, inoOf(node)));
    },

    setAttributes(node, changes): AttributesReply {
      if (isSnapshotsNode(node)) throw readOnlySnapshots();
      const state = states.of(node);
      const inodes = writableInodes(context, state);
      const inode = states.inode(state, inoOf(node));
      changeAttributes(context, inodes, inode, changes, clock.now());
      return attributesReply(context, state, inode);
    },

    readLink(node): Uint8Array {
      const state = isSnapshotsNode(node) ? undefined : states.of(node);
      const inode = state === undefined ? undefined : states.inode(state, inoOf(node));
      if (state === undefined || inode === undefined || !isSymlink(inode.mode)) {
        throw new FsError("EINVAL", "not a symbolic link");
      }
      const { sizeBytes } = inode.tree;
      if (sizeBytes > SYMLINK_BYTES_MAX) throw new CorruptionError(`symbolic link ${inode.ino} has ${sizeBytes} bytes`);
      const target = new Uint8Array(sizeBytes);
      readFile(states.inodesOf(state), inode, 0, sizeBytes, target, 0);
      stampAccess(context, state, inode);
      return target;
    },

    findXattr,

    getXattr(node, name): Uint8Array {
      const value = findXattr(node, name);
      if (value === undefined) throw NO_XATTR;
      return value;
    },

    listXattrs(node): Uint8Array {
      if (isSnapshotsNode(node)) return new Uint8Array(0);
      const state = states.of(node);
      return xattrNames(states.inodesOf(state), states.inode(state, inoOf(node)));
    },

    setXattr(node, name, value, flags): void {
      if (isSnapshotsNode(node)) throw readOnlySnapshots();
      const state = states.of(node);
      const inodes = writableInodes(context, state);
      const inode = states.inode(state, inoOf(node));
      inodes.reserve(inodesBound(inodes, 2), "write");
      inodes.markDirty(inode);
      if (isAccessList(name)) {
        setAccessList(inodes, inode, name, value, { clearSetGroupId: (flags & XATTR_CLEAR_SETGID) !== 0 });
      } else {
        setXattr(inodes, inode, name, value, {
          create: (flags & XATTR_CREATE) !== 0,
          replace: (flags & XATTR_REPLACE) !== 0,
        });
      }
      inode.ctime = clock.now();
      context.changes.xattrSet(inode, name, value, flags);
    },

    removeXattr(node, name): void {
      if (isSnapshotsNode(node)) throw readOnlySnapshots();
      const state = states.of(node);
      const inodes = writableInodes(context, state);
      const inode = states.inode(state, inoOf(node));
      if (inode.xattrIno === 0) {
        if (isAccessList(name)) return; // a list that is not there is removed: setfacl -b
        throw NO_XATTR;
      }
      inodes.reserve(inodesBound(inodes, 2), "delete");
      inodes.markDirty(inode);
      if (!removeXattr(inodes, inode, name)) {
        if (isAccessList(name)) return;
        throw NO_XATTR;
      }
      inode.ctime = clock.now();
      context.changes.xattrRemoved(inode, name);
    },
  };
}

function changeAttributes(
  context: Context,
  inodes: InodeFile,
  inode: Inode,
  changes: AttributeChanges,
  now: Time,
): void {
  const { mode, uid, gid, sizeBytes, atime, mtime, ctime, killPriv } = changes;
  if (sizeBytes !== undefined && !isRegular(inode.mode)) {
    throw new FsError(isDirectory(inode.mode) ? "EISDIR" : "EINVAL", "only a regular file can be truncated");
  }
  inodes.reserve(inodesBound(inodes, 1), "delete");
  inodes.markDirty(inode);
  const isChown = uid !== undefined || gid !== undefined;
  const isResized = sizeBytes !== undefined && sizeBytes !== inode.tree.sizeBytes;
  const { xattrIno } = inode;
  let isDropped = false;
  try {
    isDropped = (isChown || isResized || killPriv === true) && dropCapability(inodes, inode);
    if (mode !== undefined) chmodAccessList(inodes, inode, mode);
    if (isResized) resizeFile(inodes, inode, sizeBytes, context.orphans().release);
  } catch (error) {
    if (isDropped || (mode !== undefined && xattrIno !== 0)) context.changes.undescribed();
    throw error;
  }
  if (isResized) inode.mtime = now;
  // Nothing below can fail.
  if (mode !== undefined) inode.mode = (inode.mode & S_IFMT) | (mode & MODE_BITS);
  else if ((isChown || killPriv === true) && !isDirectory(inode.mode)) inode.mode = withoutSetId(inode.mode);
  if (uid !== undefined) inode.uid = uid;
  if (gid !== undefined) inode.gid = gid;
  if (atime !== undefined) inode.atime = atime === "now" ? now : atime;
  if (mtime !== undefined) inode.mtime = mtime === "now" ? now : mtime;
  const isChanged = isResized || isChown || mode !== undefined || atime !== undefined || mtime !== undefined;
  if (ctime !== undefined) inode.ctime = ctime;
  else if (isChanged || killPriv === true) inode.ctime = now;
  context.changes.attributesSet(inode, {
    mode,
    uid,
    gid,
    sizeBytes,
    atime: atime === "now" ? now : atime,
    mtime: mtime === "now" ? now : mtime,
    ctime,
    killPriv,
  });
}

/** The file is to be empty, and has been changed even if it was: O_TRUNC. */
export function truncateAtOpen(context: Context, inodes: InodeFile, inode: Inode): void {
  inodes.reserve(inodesBound(inodes, 1), "delete");
  inodes.markDirty(inode);
  const isDropped = dropCapability(inodes, inode);
  try {
    if (inode.tree.sizeBytes > 0) resizeFile(inodes, inode, 0, context.orphans().release);
  } catch (error) {
    if (isDropped) context.changes.undescribed();
    throw error;
  }
  const now = context.clock.now();
  stampChange(inode, now);
  if (isDropped) context.changes.xattrRemoved(inode, CAPABILITY);
  context.changes.attributesSet(inode, { sizeBytes: 0, mtime: now });
}

/**
 * A write takes away what lets a program act as somebody else: capabilities always, set-user-id and set-group-id if the
 * writer is an ordinary user. The inode is dirty.
 */
export function killPrivileges(inodes: InodeFile, inode: Inode, { setId }: { readonly setId: boolean }): boolean {
  const { mode } = inode;
  const isDropped = dropCapability(inodes, inode);
  if (setId) inode.mode = withoutSetId(inode.mode);
  return isDropped || inode.mode !== mode;
}

/** True: there was one. */
function dropCapability(inodes: InodeFile, inode: Inode): boolean {
  return inode.xattrIno !== 0 && removeXattr(inodes, inode, CAPABILITY);
}

function readOnlySnapshots(): FsError {
  return new FsError("EROFS", "snapshots are read-only");
}
