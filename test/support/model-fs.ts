/**
 * A filesystem as simple as it can be: objects that point at each other. It knows nothing of blocks, space or
 * durability; it is what the real one is compared with. Operations go by path and answer "" or the name of an errno.
 */
import type { Time } from "../../src/core/clock.ts";
import { NO_BYTES, overwrite, resized, type SparseBytes, sliceOf, sparseBytes, zeroed } from "./sparse-bytes.ts";

export interface ModelNode {
  kind: "file" | "directory" | "symlink" | "special";
  mode: number;
  uid: number;
  gid: number;
  rdev: number;
  mtime: Time;
  ctime: Time;
  data: SparseBytes;
  names: number;
  entries: Map<string, ModelNode>;
  parent: ModelNode | undefined;
  xattrs: Map<string, string>;
  linkable: boolean;
  /** What the real filesystem calls it; 0: nobody has told. Kept in copies. */
  ino: number;
  /** A hash of all the rest, for who compares models: good as long as the ctime is this very object. */
  hash: { readonly ctime: Time; readonly value: number } | undefined;
}

export type Operation =
  | { readonly kind: "create"; readonly path: string; readonly mode: number; readonly uid: number }
  | { readonly kind: "mkdir"; readonly path: string; readonly mode: number; readonly uid: number }
  | { readonly kind: "mknod"; readonly path: string; readonly mode: number; readonly rdev: number }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string }
  | { readonly kind: "link"; readonly path: string; readonly into: string }
  | { readonly kind: "unlink" | "rmdir"; readonly path: string }
  | { readonly kind: "rename"; readonly path: string; readonly into: string; readonly flags: number }
  | { readonly kind: "write"; readonly path: string; readonly offset: number; readonly data: Uint8Array }
  | { readonly kind: "truncate"; readonly path: string; readonly sizeBytes: number }
  | {
      readonly kind: "fallocate";
      readonly path: string;
      readonly mode: number;
      readonly offset: number;
      readonly length: number;
    }
  | {
      readonly kind: "copyRange";
      readonly path: string;
      readonly fromOffset: number;
      readonly into: string;
      readonly offset: number;
      readonly length: number;
    }
  | { readonly kind: "chmod"; readonly path: string; readonly mode: number }
  | { readonly kind: "chown"; readonly path: string; readonly uid: number; readonly gid: number }
  | { readonly kind: "utimes"; readonly path: string; readonly mtime: Time }
  | {
      readonly kind: "setxattr";
      readonly path: string;
      readonly name: string;
      readonly value: string;
      readonly flags: number;
    }
  | { readonly kind: "removexattr"; readonly path: string; readonly name: string }
  /** An access list with one more user: permissions of owner, that user, group, mask and others, 3 bits each. */
  | {
      readonly kind: "setAccess";
      readonly path: string;
      readonly of: "access" | "default";
      readonly user: number;
      readonly permissions: number;
    }
  | { readonly kind: "open"; readonly path: string; readonly slot: number }
  | { readonly kind: "tmpfile"; readonly path: string; readonly slot: number; readonly excl: boolean }
  | { readonly kind: "writeSlot"; readonly slot: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly kind: "linkSlot"; readonly slot: number; readonly into: string }
  | { readonly kind: "close"; readonly slot: number };

export interface Model {
  readonly root: ModelNode;
  /** Open files. They do not survive a crash, and are not part of a copy. */
  readonly slots: Map<number, ModelNode>;
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_ISGID = 0o2000;

export function emptyModel(now: Time): Model {
  return { root: newNode("directory", S_IFDIR | 0o755, now), slots: new Map() };
}

function newNode(kind: ModelNode["kind"], mode: number, now: Time): ModelNode {
  return {
    kind,
    mode,
    uid: 0,
    gid: 0,
    rdev: 0,
    mtime: now,
    ctime: now,
    data: NO_BYTES,
    names: 0,
    entries: new Map(),
    parent: undefined,
    xattrs: new Map(),
    linkable: false,
    ino: 0,
    hash: undefined,
  };
}

/** What the link count must be. */
export function linkCountOf(node: ModelNode): number {
  if (node.kind !== "directory") return node.names;
  return 2 + [...node.entries.values()].filter((child) => child.kind === "directory").length;
}

/** A copy that shares nothing: a snapshot, or the state at a consistency point. */
export function copyModel(model: Model): Model {
  const copies = new Map<ModelNode, ModelNode>();
  const copy = (node: ModelNode): ModelNode => {
    const known = copies.get(node);
    if (known !== undefined) return known;
    const made: ModelNode = { ...node, entries: new Map(), xattrs: new Map(node.xattrs) };
    copies.set(node, made);
    for (const [name, child] of node.entries) made.entries.set(name, copy(child));
    return made;
  };
  const root = copy(model.root);
  for (const made of copies.values()) if (made.parent !== undefined) made.parent = copies.get(made.parent);
  return { root, slots: new Map() };
}

class ModelError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** "" or the errno. A failed operation changes nothing. */
export function applyToModel(model: Model, operation: Operation, now: Time): string {
  try {
    run(model, operation, now);
    return "";
  } catch (error) {
    if (error instanceof ModelError) return error.code;
    throw error;
  }
}

function run(model: Model, op: Operation, now: Time): void {
  switch (op.kind) {
    case "create":
      add(model, op.path, own(newNode("file", 0o100000 | op.mode, now), op.uid), now);
      return;
    case "mkdir":
      add(model, op.path, own(newNode("directory", S_IFDIR | op.mode, now), op.uid), now);
      return;
    case "mknod": {
      const node = newNode((op.mode & S_IFMT) === 0o100000 ? "file" : "special", op.mode, now);
      const isDevice = (op.mode & S_IFMT) === 0o020000 || (op.mode & S_IFMT) === 0o060000;
      node.rdev = isDevice ? op.rdev : 0;
      add(model, op.path, node, now);
      return;
    }
    case "symlink": {
      const node = newNode("symlink", 0o120777, now);
      node.data = sparseBytes(Buffer.from(op.target, "latin1"));
      add(model, op.path, node, now);
      return;
    }
    case "link": {
      const node = resolve(model, op.path);
      const { dir, name } = placeOf(model, op.into);
      if (node.kind === "directory") throw new ModelError("EPERM");
      if (dir.entries.has(name)) throw new ModelError("EEXIST");
      link(dir, name, node, now);
      return;
    }
    case "unlink": {
      const { dir, name } = placeOf(model, op.path);
      const node = childOf(dir, name);
      if (node.kind === "directory") throw new ModelError("EISDIR");
      unlink(dir, name, node, now);
      return;
    }
    case "rmdir": {
      const { dir, name } = placeOf(model, op.path);
      const node = childOf(dir, name);
      if (node.kind !== "directory") throw new ModelError("ENOTDIR");
      if (node.entries.size > 0) throw new ModelError("ENOTEMPTY");
      unlink(dir, name, node, now);
      return;
    }
    case "rename":
      rename(model, op, now);
      return;
    case "write":
      write(fileOf(model, op.path), op.offset, op.data, now);
      return;
    case "truncate": {
      const node = resolve(model, op.path);
      if (node.kind !== "file") throw new ModelError(node.kind === "directory" ? "EISDIR" : "EINVAL");
      if (node.data.length === op.sizeBytes) return;
      node.xattrs.delete("security.capability");
      node.data = resized(node.data, op.sizeBytes);
      stamp(node, now);
      return;
    }
    case "fallocate": {
      const node = fileOf(model, op.path);
      const end = op.offset + op.length;
      if ((op.mode & ~1) !== 0) node.data = zeroed(node.data, op.offset, end);
      if ((op.mode & 1) === 0 && end > node.data.length) node.data = resized(node.data, end);
      stamp(node, now);
      return;
    }
    case "copyRange": {
      const from = fileOf(model, op.path);
      const into = fileOf(model, op.into);
      write(into, op.offset, sliceOf(from.data, op.fromOffset, op.fromOffset + op.length), now);
      return;
    }
    case "chmod": {
      const node = resolve(model, op.path);
      const list = node.xattrs.get(ACCESS);
      if (list !== undefined) node.xattrs.set(ACCESS, cutDown(list, op.mode, "to"));
      node.mode = (node.mode & S_IFMT) | op.mode;
      node.ctime = now;
      return;
    }
    case "chown": {
      const node = resolve(model, op.path);
      node.xattrs.delete("security.capability");
      node.uid = op.uid;
      node.gid = op.gid;
      node.ctime = now;
      if (node.kind === "directory") return;
      node.mode &= ~0o4000;
      if ((node.mode & 0o010) !== 0) node.mode &= ~S_ISGID;
      return;
    }
    case "utimes": {
      const node = resolve(model, op.path);
      node.mtime = op.mtime;
      node.ctime = now;
      return;
    }
    case "setxattr": {
      const node = resolve(model, op.path);
      if (op.flags === 1 && node.xattrs.has(op.name)) throw new ModelError("EEXIST");
      if (op.flags === 2 && !node.xattrs.has(op.name)) throw new ModelError("ENODATA");
      node.xattrs.set(op.name, op.value);
      node.ctime = now;
      return;
    }
    case "removexattr": {
      const node = resolve(model, op.path);
      if (!node.xattrs.delete(op.name)) throw new ModelError("ENODATA");
      node.ctime = now;
      return;
    }
    case "setAccess": {
      const node = resolve(model, op.path);
      if (node.kind === "symlink") throw new ModelError("EOPNOTSUPP");
      if (op.of === "default" && node.kind !== "directory") throw new ModelError("EACCES");
      const [owner, user, group, mask, other] = [12, 9, 6, 3, 0].map((shift) => (op.permissions >> shift) & 7);
      const list = accessList([owner, user, group, mask, other] as number[], op.user);
      if (op.of === "access") node.mode = (node.mode & ~0o777) | modeOf(list);
      node.xattrs.set(op.of === "access" ? ACCESS : DEFAULT, list);
      node.ctime = now;
      return;
    }
    case "open":
      model.slots.set(op.slot, fileOf(model, op.path));
      return;
    case "tmpfile": {
      const dir = resolve(model, op.path);
      if (dir.kind !== "directory") throw new ModelError("ENOTDIR");
      const node = newNode("file", 0o100600, now);
      node.linkable = !op.excl;
      if ((dir.mode & S_ISGID) !== 0) node.gid = dir.gid;
      inheritAccess(dir, node);
      model.slots.set(op.slot, node);
      return;
    }
    case "writeSlot":
      write(slotOf(model, op.slot), op.offset, op.data, now);
      return;
    case "linkSlot": {
      const node = slotOf(model, op.slot);
      const { dir, name } = placeOf(model, op.into);
      if (dir.entries.has(name)) throw new ModelError("EEXIST");
      if (node.names === 0 && !node.linkable) throw new ModelError("ENOENT");
      node.linkable = false;
      link(dir, name, node, now);
      return;
    }
    case "close":
      slotOf(model, op.slot);
      model.slots.delete(op.slot);
      return;
  }
}

function rename(model: Model, op: Extract<Operation, { kind: "rename" }>, now: Time): void {
  parentOf(model, op.path);
  parentOf(model, op.into);
  if (op.flags > 2) throw new ModelError("EINVAL");
  const from = placeOf(model, op.path);
  const into = placeOf(model, op.into);
  const moved = childOf(from.dir, from.name);
  const target = into.dir.entries.get(into.name);
  if (target !== undefined && op.flags === 1) throw new ModelError("EEXIST");
  if (isBelow(into.dir, moved)) throw new ModelError("EINVAL");
  if (op.flags === 2) {
    if (target === undefined) throw new ModelError("ENOENT");
    if (isBelow(from.dir, target)) throw new ModelError("EINVAL");
    if (target === moved) return;
    place(from.dir, from.name, target);
    place(into.dir, into.name, moved);
    target.ctime = now;
  } else {
    if (target === moved) return;
    if (target !== undefined) {
      if (moved.kind === "directory") {
        if (target.kind !== "directory") throw new ModelError("ENOTDIR");
        if (target.entries.size > 0) throw new ModelError("ENOTEMPTY");
      } else if (target.kind === "directory") throw new ModelError("EISDIR");
      target.names -= 1;
      target.ctime = now;
    }
    from.dir.entries.delete(from.name);
    place(into.dir, into.name, moved);
  }
  stamp(from.dir, now);
  stamp(into.dir, now);
  moved.ctime = now;
}

function isBelow(dir: ModelNode, top: ModelNode): boolean {
  for (let above: ModelNode | undefined = dir; above !== undefined; above = above.parent) {
    if (above === top) return true;
  }
  return false;
}

function place(dir: ModelNode, name: string, node: ModelNode): void {
  dir.entries.set(name, node);
  if (node.kind === "directory") node.parent = dir;
}

function add(model: Model, path: string, node: ModelNode, now: Time): void {
  const { dir, name } = placeOf(model, path);
  if (dir.entries.has(name)) throw new ModelError("EEXIST");
  if ((dir.mode & S_ISGID) !== 0) {
    node.gid = dir.gid;
    if (node.kind === "directory") node.mode |= S_ISGID;
  }
  inheritAccess(dir, node);
  place(dir, name, node);
  node.names = 1;
  stamp(dir, now);
}

const ACCESS = "system.posix_acl_access";
const DEFAULT = "system.posix_acl_default";
/** Byte of the permissions of owner, user, group, mask and others in the lists that the model makes. */
const OWNER_AT = 6;
const [MASK_AT, OTHER_AT] = [OWNER_AT + 24, OWNER_AT + 32];

/** The attribute as the kernel has it: {version 2}, then {tag u16, permissions u16, id u32} five times. */
function accessList(permissions: readonly number[], user: number): string {
  const bytes = Buffer.alloc(4 + 5 * 8);
  bytes.writeUInt32LE(2, 0);
  [0x01, 0x02, 0x04, 0x10, 0x20].forEach((tag, i) => {
    bytes.writeUInt16LE(tag, 4 + i * 8);
    bytes.writeUInt16LE(permissions[i] as number, OWNER_AT + i * 8);
    bytes.writeUInt32LE(tag === 0x02 ? user : 0xffff_ffff, 8 + i * 8);
  });
  return bytes.toString("latin1");
}

function modeOf(list: string): number {
  return (list.charCodeAt(OWNER_AT) << 6) | (list.charCodeAt(MASK_AT) << 3) | list.charCodeAt(OTHER_AT);
}

/** The list with owner, mask and others set to those of a mode, or cut down by it. */
function cutDown(list: string, mode: number, how: "to" | "by"): string {
  const bytes = Buffer.from(list, "latin1");
  for (const [at, shift] of [
    [OWNER_AT, 6],
    [MASK_AT, 3],
    [OTHER_AT, 0],
  ] as const) {
    bytes[at] = (how === "to" ? 7 : (bytes[at] as number)) & (mode >> shift) & 7;
  }
  return bytes.toString("latin1");
}

function inheritAccess(dir: ModelNode, node: ModelNode): void {
  const defaults = dir.xattrs.get(DEFAULT);
  if (defaults === undefined || node.kind === "symlink") return;
  const list = cutDown(defaults, node.mode, "by");
  node.mode = (node.mode & ~0o777) | modeOf(list);
  node.xattrs.set(ACCESS, list);
  if (node.kind === "directory") node.xattrs.set(DEFAULT, defaults);
}

function own(node: ModelNode, uid: number): ModelNode {
  node.uid = uid;
  node.gid = uid;
  return node;
}

function link(dir: ModelNode, name: string, node: ModelNode, now: Time): void {
  place(dir, name, node);
  node.names += 1;
  node.ctime = now;
  stamp(dir, now);
}

function unlink(dir: ModelNode, name: string, node: ModelNode, now: Time): void {
  dir.entries.delete(name);
  node.names -= 1;
  node.ctime = now;
  stamp(dir, now);
}

function write(node: ModelNode, offset: number, data: Uint8Array, now: Time): void {
  if (data.length === 0) return;
  node.xattrs.delete("security.capability");
  node.data = overwrite(node.data, offset, data);
  stamp(node, now);
}

function stamp(node: ModelNode, now: Time): void {
  node.mtime = now;
  node.ctime = now;
}

function slotOf(model: Model, slot: number): ModelNode {
  const node = model.slots.get(slot);
  if (node === undefined) throw new ModelError("EBADF");
  return node;
}

function fileOf(model: Model, path: string): ModelNode {
  const node = resolve(model, path);
  if (node.kind === "directory") throw new ModelError("EISDIR");
  if (node.kind === "symlink") throw new ModelError("ELOOP");
  if (node.kind !== "file") throw new ModelError("EINVAL");
  return node;
}

/** A path is "/" or "/a/b/c". Links are not followed. */
function resolve(model: Model, path: string): ModelNode {
  let node = model.root;
  for (const name of path.split("/")) if (name !== "") node = childOf(node, name);
  return node;
}

function childOf(dir: ModelNode, name: string): ModelNode {
  if (dir.kind !== "directory") throw new ModelError("ENOTDIR");
  const child = dir.entries.get(name);
  if (child === undefined) throw new ModelError("ENOENT");
  return child;
}

/** The node at a path; undefined: there is none. */
export function modelNodeAt(model: Model, path: string): ModelNode | undefined {
  let node: ModelNode | undefined = model.root;
  for (const name of path.split("/")) if (name !== "") node = node?.entries.get(name);
  return node;
}

function parentOf(model: Model, path: string): ModelNode {
  return resolve(model, path.slice(0, path.lastIndexOf("/")));
}

function placeOf(model: Model, path: string): { dir: ModelNode; name: string } {
  const dir = parentOf(model, path);
  if (dir.kind !== "directory") throw new ModelError("ENOTDIR");
  return { dir, name: path.slice(path.lastIndexOf("/") + 1) };
}
