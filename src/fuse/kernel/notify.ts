/**
 * Telling the kernel that what it has cached is no longer so.
 *
 * The kernel may hold a lock that a request under way waits behind, and writing the notification waits for that
 * lock: so a notification is written by a thread that is not the server, and asynchronously, for the same reason.
 */
import { write, writeSync } from "node:fs";
import { type Name, type NodeId, ROOT_NODE } from "../../fs/file-system.ts";
import {
  NOTIFY_INVALIDATE_ENTRY,
  NOTIFY_INVALIDATE_INODE,
  notifyEntryBody,
  notifyInodeBody,
  replyHeader,
} from "./abi.ts";

/**
 * Drops attributes, and the pages of a range: `lengthBytes` 0 is up to the end, an `offset` below 0 is no pages. Dirty
 * pages are written back first. Resolves to false when the kernel does not know the node.
 */
export async function invalidateInode(
  descriptor: number,
  node: NodeId,
  { offset, lengthBytes }: { readonly offset: number; readonly lengthBytes: number },
): Promise<boolean> {
  const message = notification(NOTIFY_INVALIDATE_INODE, notifyInodeBody.size);
  notifyInodeBody.encode(viewOf(message), replyHeader.size, { node, offset, lengthBytes });
  return notify(descriptor, message);
}

/**
 * Drops the attributes of a node, and nothing else: in this thread, which may be the server's. It waits for an inode that the
 * kernel is about to give up, and so it is not for those that pages are written back of then: a file that is open for writing is
 * not given up, and has no dirty pages left when it is closed. False: there is no such node, or no mount, any more.
 */
export function forgetAttributes(descriptor: number, node: NodeId): boolean {
  const message = notification(NOTIFY_INVALIDATE_INODE, notifyInodeBody.size);
  const noPages = { node, offset: -1, lengthBytes: 0 };
  notifyInodeBody.encode(viewOf(message), replyHeader.size, noPages);
  try {
    writeSync(descriptor, message);
    return true;
  } catch (error) {
    if (isGone(error as NodeJS.ErrnoException)) return false;
    throw error;
  }
}

/** Drops a name from the kernel's cache, also its absence. Resolves to false when the kernel does not know it. */
export async function invalidateEntry(descriptor: number, parent: NodeId, name: Name): Promise<boolean> {
  const message = notification(NOTIFY_INVALIDATE_ENTRY, notifyEntryBody.size + name.length + 1);
  notifyEntryBody.encode(viewOf(message), replyHeader.size, { parent, nameBytes: name.length, flags: 0 });
  message.write(name, replyHeader.size + notifyEntryBody.size, "latin1");
  return notify(descriptor, message);
}

/**
 * Is the filesystem still mounted somewhere, in a copy of the mount or kept by who uses it after a lazy unmount? Asked by
 * way of the root's attributes, which the kernel then asks for anew. Waits for nothing.
 */
export function isServed(descriptor: number): boolean {
  return forgetAttributes(descriptor, ROOT_NODE);
}

function notification(code: number, bodyBytes: number): Buffer {
  const message = Buffer.alloc(replyHeader.size + bodyBytes);
  const lengthBytes = message.length;
  replyHeader.encode(viewOf(message), 0, { lengthBytes, error: code, uniqueLow: 0, uniqueHigh: 0 });
  return message;
}

function viewOf(message: Buffer): DataView {
  return new DataView(message.buffer, message.byteOffset, message.length);
}

async function notify(descriptor: number, message: Buffer): Promise<boolean> {
  return new Promise((resolve, reject) => {
    write(descriptor, message, 0, message.length, null, (error) => {
      if (error === null) resolve(true);
      else if (isGone(error)) resolve(false);
      else reject(error);
    });
  });
}

/** The node, the name, or the whole mount; with fuse-native also the descriptor, which libfuse closes when the mount has ended. */
function isGone({ code }: NodeJS.ErrnoException): boolean {
  return code === "ENOENT" || code === "ENODEV" || code === "ENOTDIR" || code === "EBADF";
}
