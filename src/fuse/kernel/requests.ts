/**
 * What the kernel asks: the arguments of a request, read in the order in which they stand and checked as if a
 * stranger had sent them. Whatever does not hold is answered with an errno, never asserted.
 */
import type { Time } from "../../core/clock.ts";
import { FsError } from "../../core/errors.ts";
import type { AttributeChanges, Caller, Name, NodeId } from "../../fs/file-system.ts";
import { requestHeader, setattrBit, setattrRequest } from "./abi.ts";
import type { Connection } from "./connection.ts";

const NANOSECONDS_END = 1e9;

/** The next name of the request, up to its zero byte: one path component. */
export function takeName(connection: Connection): Name {
  const name = takeXattrName(connection);
  if (name.includes("/")) throw new FsError("EINVAL", "a name holds a slash");
  return name;
}

/** The name of an attribute: it leads nowhere, and may hold slashes. */
export function takeXattrName(connection: Connection): Name {
  const { request, at } = connection;
  const end = endOfString(connection);
  if (end === at) throw new FsError("EINVAL", "a name is empty");
  connection.at = end + 1;
  return request.toString("latin1", at, end) as Name;
}

/** The next string of the request, up to its zero byte, as a copy: the buffer is used again. */
export function takeString(connection: Connection): Uint8Array {
  const { at } = connection;
  const end = endOfString(connection);
  connection.at = end + 1;
  return new Uint8Array(connection.request.subarray(at, end));
}

/** The next `count` bytes of the request, as a copy. */
export function takeBytes(connection: Connection, count: number): Uint8Array {
  const { at, requestBytes } = connection;
  if (count > requestBytes - at) throw new FsError("EINVAL", "a value is longer than its request");
  connection.at = at + count;
  return new Uint8Array(connection.request.subarray(at, at + count));
}

/** Who asks. */
export function callerOf({ requestView: view }: Connection): Caller {
  return { uid: requestHeader.get.uid(view, 0), gid: requestHeader.get.gid(view, 0) };
}

/** Who makes a file. The kernel leaves the umask to us (DONT_MASK): a default access list comes before it. */
export function makerOf({ requestView: view }: Connection, umask: number): Caller {
  return { uid: requestHeader.get.uid(view, 0), gid: requestHeader.get.gid(view, 0), umask };
}

/** A node id other than the header's. */
export function checkedNode(node: NodeId): NodeId {
  if (node > Number.MAX_SAFE_INTEGER || node === 0) throw new FsError("ESTALE", "no such node id");
  return node;
}

/** A position or a size that a file can have here: below 2^53. */
export function checkedOffset(offset: number): number {
  if (offset > Number.MAX_SAFE_INTEGER) throw new FsError("EFBIG", "an offset of 2^53 or more");
  return offset;
}

/** The changes that a SETATTR request with its arguments at `at` asks for: always all fields, for V8 reads one shape quickly. */
export function attributeChanges(view: DataView, at: number): AttributeChanges {
  const { get } = setattrRequest;
  const valid = get.valid(view, at);
  const has = (bit: number): boolean => (valid & bit) !== 0;
  const atime = (): Time | "now" =>
    has(setattrBit.ATIME_NOW) ? "now" : checkedTime(get.atimeSeconds(view, at), get.atimeNs(view, at));
  const mtime = (): Time | "now" =>
    has(setattrBit.MTIME_NOW) ? "now" : checkedTime(get.mtimeSeconds(view, at), get.mtimeNs(view, at));
  return {
    mode: has(setattrBit.MODE) ? get.mode(view, at) : undefined,
    uid: has(setattrBit.UID) ? get.uid(view, at) : undefined,
    gid: has(setattrBit.GID) ? get.gid(view, at) : undefined,
    sizeBytes: has(setattrBit.SIZE) ? checkedOffset(get.sizeBytes(view, at)) : undefined,
    atime: has(setattrBit.ATIME) ? atime() : undefined,
    mtime: has(setattrBit.MTIME) ? mtime() : undefined,
    ctime: has(setattrBit.CTIME) ? checkedTime(get.ctimeSeconds(view, at), get.ctimeNs(view, at)) : undefined,
    killPriv: has(setattrBit.KILL_SUIDGID),
  };
}

/** Seconds that no number holds are brought to the nearest that one does. */
function checkedTime(seconds: number, nanoseconds: number): Time {
  if (nanoseconds >= NANOSECONDS_END) throw new FsError("EINVAL", "a second has 10^9 nanoseconds");
  const limit = Number.MAX_SAFE_INTEGER;
  return { seconds: Math.max(-limit, Math.min(limit, seconds)), nanoseconds };
}

function endOfString({ request, at, requestBytes }: Connection): number {
  const end = request.indexOf(0, at);
  if (end < 0 || end >= requestBytes) throw new FsError("EINVAL", "a string does not end");
  return end;
}
