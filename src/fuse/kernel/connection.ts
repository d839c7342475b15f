/**
 * One connection to the kernel: the buffers, what was agreed at INIT, and the request in hand.
 *
 * Both buffers lie in page-aligned memory and are used for every request; only for WRITEs that are kept there are some more
 * (kept-writes.ts). The request begins 80 bytes before a page boundary, so that the payload of a WRITE (headers of 40 and
 * 40 bytes) begins on one; the reply begins 16 bytes before one, so that the data of a READ does. A filesystem may hand such
 * a payload to a direct write without a copy.
 */
import { alignedMemory } from "../../core/aligned-memory.ts";
import { counts } from "../../core/counts.ts";
import { FsError } from "../../core/errors.ts";
import { shaped } from "../../core/shaped.ts";
import type { ControlRequest } from "../../format/control-message.ts";
import type { FileSystem, Handle, NodeId } from "../../fs/file-system.ts";
import {
  initFlag,
  initFlag2,
  initReply,
  initRequest,
  initRequestLong,
  KERNEL_MAJOR,
  KERNEL_MINOR_MAX,
  KERNEL_MINOR_MIN,
  replyHeader,
  requestHeader,
  SETXATTR_SHORT_BYTES,
  setxattrRequest,
  writeRequest,
} from "./abi.ts";
import { type DirectoryPacker, makeDirectoryPacker } from "./replies.ts";
import { type Room, TOLD_NOTHING } from "./room.ts";

/** The largest payload of a READ or WRITE: what Linux allows by default (fs.fuse.max_pages_limit). */
export const PAYLOAD_BYTES_MAX = 1024 * 1024;
const PAGE_BYTES = 4096;
const PAGES_MAX = PAYLOAD_BYTES_MAX / PAGE_BYTES;
const PAGES_MAX_WITHOUT_FLAG = 32;

/**
 * Read-ahead and write-back requests that the kernel keeps under way: enough that the next one is always waiting when the
 * server asks, and that the disk reads for some while others are answered. Who makes a small request meanwhile has them before it in the
 * queue: WRITEs let it go ahead (kept-writes.ts). From the threshold on the kernel begins no read-ahead of its own accord.
 */
export const BACKGROUND_MAX = 12;
const CONGESTION_THRESHOLD = 12;

const WANTED =
  initFlag.ASYNC_READ |
  initFlag.ATOMIC_O_TRUNC |
  initFlag.EXPORT_SUPPORT |
  initFlag.BIG_WRITES |
  initFlag.DONT_MASK |
  initFlag.DO_READDIRPLUS |
  initFlag.READDIRPLUS_AUTO |
  initFlag.WRITEBACK_CACHE |
  initFlag.PARALLEL_DIROPS |
  initFlag.POSIX_ACL |
  initFlag.MAX_PAGES |
  initFlag.CACHE_SYMLINKS |
  initFlag.HANDLE_KILLPRIV_V2 |
  initFlag.SETXATTR_EXT |
  initFlag.INIT_EXT;

/** What other threads do for a request that cannot be answered at once. */
export type Errand =
  /** The kernel writes back the pages of a node from `offset` on, and drops them. */
  | { readonly kind: "write-back"; readonly node: NodeId; readonly offset: number }
  /** A verb, as a command may ask for it. */
  | { readonly kind: "verb"; readonly request: ControlRequest };

export type Log = (message: string) => void;

export interface ConnectionOptions {
  readonly fileSystem: FileSystem;
  /** The write-back cache: the kernel may have data that the server has not. Default: true. */
  readonly writeBack?: boolean;
  readonly canSend?: boolean;
  readonly writers?: Writers;
  /** What a name begins with that means a node by its number, whatever it is called. Default: nothing does. */
  readonly nodePrefix?: string | undefined;
  /** Whether what the kernel takes will fit. Default: there is room without end. */
  readonly room?: Room | undefined;
  /** Whether there may be space that is not known of yet: see short-of-space.ts. Default: there is none. */
  readonly maySpaceCome?: () => boolean;
  /** Somebody is told that there is no space, and this is why. */
  readonly onFull?: (error: FsError) => void;
  readonly log: Log;
}

/** Where a request is read: placed so that the payload of a WRITE begins on a page boundary. */
export interface RequestBuffer {
  request: Buffer;
  requestView: DataView;
}

/** Its fields change with each request; the shape never does. */
export interface Connection extends RequestBuffer {
  readonly fileSystem: FileSystem;
  readonly writeBack: boolean;
  readonly log: Log;

  readonly reply: Buffer;
  readonly replyView: DataView;
  readonly replyWords: Uint32Array;

  /** Agreed at INIT. */
  initialized: boolean;
  writebackCache: boolean;
  /** Files can be opened without page cache, and still be mapped. */
  directWithMmap: boolean;
  /** The kernel enforces access lists. */
  posixAcl: boolean;
  setxattrRequestBytes: number;

  /** Of the request in hand: its length, its node, and how far its arguments have been read. */
  requestBytes: number;
  node: NodeId;
  at: number;
  /** The change that must be durable before the reply goes out; 0: none. */
  durableAt: number;
  /** What a handler threw that is no answer: the server stops. */
  bug: Error | undefined;

  readonly directory: DirectoryPacker;

  /** With the write-back cache: the files that the kernel may hold dirty pages of, by handle and by node. */
  readonly writers: Writers;
  readonly nodePrefix: string | undefined;
  /** Whether there is somebody for errands. */
  readonly canSend: boolean;
  /** Set by a handler: what must be done before the request in hand, which is then asked again, can be answered. */
  errand: Errand | undefined;
  /** How the errand of the request in hand ended: an errno, 0: well; undefined: there has been none. */
  errandResult: number | undefined;
  /** Whether the request in hand may be put off rather than wait for the disk, and whether it has been: see put-off.ts. */
  mayPutOff: boolean;
  isPutOff: boolean;

  readonly maySpaceCome: () => boolean;
  readonly onFull: (error: FsError) => void;
  /** Whether the request in hand may be kept when it finds no space, and whether it is to be: see short-of-space.ts. */
  mayAwaitSpace: boolean;
  awaitsSpace: boolean;
  readonly room: Room | undefined;
  /** The request in hand is to be asked again when nothing is owed any more. */
  wantsRoom: boolean;
  /** The node that it told attributes of; see room.ts. */
  told: number;
  /** While the room is shut: all writers know that they must ask. */
  isReminded: boolean;
}

/** Which nodes are open for writing. Only the write-back cache has use for it. */
export interface Writers {
  add(handle: Handle, node: NodeId, how: { readonly isCached: boolean }): void;
  remove(handle: Handle): void;
  has(node: NodeId): boolean;
  /** Whether a handle of the node goes into the kernel's cache, and this one does not. */
  isBesideCached(handle: Handle, node: NodeId): boolean;
  /** Does what is written through this handle go into the kernel's cache? */
  isCached(handle: Handle): boolean;
  nodes(): readonly NodeId[];
  /** Handles that what is written through goes into the kernel's cache. */
  readonly cachedCount: number;
}

export function makeConnection(options: ConnectionOptions): Connection {
  const { fileSystem, writeBack = true, room, canSend = false, writers = makeWriters(), nodePrefix, log } = options;
  const { maySpaceCome = () => false, onFull = () => {} } = options;
  const replyStart = PAGE_BYTES - replyHeader.size;
  const replyBytesMax = replyHeader.size + PAYLOAD_BYTES_MAX;
  const memory = alignedMemory(replyStart + replyBytesMax);
  const reply = Buffer.from(memory, replyStart, replyBytesMax);
  const replyView = new DataView(memory, replyStart, replyBytesMax);
  const replyWords = new Uint32Array(memory, replyStart, replyBytesMax / 4);
  const [{ request, requestView }] = requestBuffers(1) as [RequestBuffer];
  return {
    fileSystem,
    writeBack,
    log,
    request,
    requestView,
    reply,
    replyView,
    replyWords,
    directory: makeDirectoryPacker(reply, replyWords),
    initialized: false,
    writebackCache: false,
    directWithMmap: false,
    posixAcl: false,
    setxattrRequestBytes: SETXATTR_SHORT_BYTES,
    requestBytes: 0,
    node: 0 as NodeId,
    at: 0,
    durableAt: 0,
    bug: undefined,
    writers,
    nodePrefix,
    canSend,
    errand: undefined,
    errandResult: undefined,
    mayPutOff: false,
    isPutOff: false,
    maySpaceCome,
    onFull,
    mayAwaitSpace: false,
    awaitsSpace: false,
    room,
    wantsRoom: false,
    told: TOLD_NOTHING,
    isReminded: false,
  };
}

export function requestBuffers(count: number): RequestBuffer[] {
  const start = PAGE_BYTES - requestHeader.size - writeRequest.size;
  const lengthBytes = PAGE_BYTES - start + PAYLOAD_BYTES_MAX + PAGE_BYTES;
  const stepBytes = start + lengthBytes;
  const memory = alignedMemory(count * stepBytes);
  return Array.from({ length: count }, (_, i) => ({
    request: Buffer.from(memory, i * stepBytes + start, lengthBytes),
    requestView: new DataView(memory, i * stepBytes + start, lengthBytes),
  }));
}

/**
 * Answers the INIT request at `at`, with the body of the reply from `into` on; returns its length. A kernel of
 * a newer major version is told ours and asks again.
 */
export function negotiate(connection: Connection, at: number, into: number): number {
  const { requestView: view, replyView, log } = connection;
  const offered = initRequest.decode(view, at);
  if (offered.major < KERNEL_MAJOR || (offered.major === KERNEL_MAJOR && offered.minor < KERNEL_MINOR_MIN)) {
    const least = `${KERNEL_MAJOR}.${KERNEL_MINOR_MIN}`;
    log(`the kernel speaks FUSE ${offered.major}.${offered.minor}; ${least} (Linux 5.4) or newer is needed`);
    throw new FsError("EPROTO", "FUSE version too old");
  }
  const isNewerMajor = offered.major > KERNEL_MAJOR;
  const wanted = connection.writeBack ? WANTED : WANTED & ~initFlag.WRITEBACK_CACHE;
  const flags = isNewerMajor ? 0 : (wanted & offered.flags) >>> 0;
  const pagesMax = (flags & initFlag.MAX_PAGES) === 0 ? PAGES_MAX_WITHOUT_FLAG : PAGES_MAX;

  connection.initialized = !isNewerMajor;
  connection.writebackCache = (flags & initFlag.WRITEBACK_CACHE) !== 0;
  const flags2 = offeredFlags2(connection, at, flags) & initFlag2.DIRECT_IO_ALLOW_MMAP;
  connection.directWithMmap = flags2 !== 0;
  connection.posixAcl = (flags & initFlag.POSIX_ACL) !== 0;
  connection.setxattrRequestBytes = (flags & initFlag.SETXATTR_EXT) === 0 ? SETXATTR_SHORT_BYTES : setxattrRequest.size;
  initReply.encode(replyView, into, {
    major: KERNEL_MAJOR,
    minor: isNewerMajor ? KERNEL_MINOR_MAX : Math.min(offered.minor, KERNEL_MINOR_MAX),
    readaheadBytesMax: PAYLOAD_BYTES_MAX, // the kernel takes the lesser of this and its own
    flags,
    backgroundMax: BACKGROUND_MAX,
    congestionThreshold: CONGESTION_THRESHOLD,
    writeBytesMax: pagesMax * PAGE_BYTES,
    timeGranularityNs: 1,
    pagesMax,
    mapAlignment: 0,
    flags2,
    stackDepthMax: 0,
    unused: new Uint8Array(24),
  });
  return initReply.size;
}

function offeredFlags2({ requestView: view, requestBytes }: Connection, at: number, flags: number): number {
  const isThere = (flags & initFlag.INIT_EXT) !== 0 && requestBytes >= at + initRequestLong.size;
  return isThere ? initRequestLong.get.flags2(view, at) : 0;
}

export function makeWriters(): Writers {
  /** By handle: these are small numbers. */
  const nodes: (NodeId | undefined)[] = [];
  const cached: boolean[] = [];
  let cachedCount = 0;
  const handleCounts = counts();
  return shaped({
    add(handle, node, { isCached }): void {
      nodes[handle] = node;
      cached[handle] = isCached;
      if (isCached) cachedCount += 1;
      handleCounts.add(node, 1);
    },
    remove(handle): void {
      const node = nodes[handle];
      if (node === undefined) return;
      nodes[handle] = undefined;
      if (cached[handle] === true) cachedCount -= 1;
      cached[handle] = false;
      handleCounts.take(node, 1);
    },
    has: (node) => handleCounts.of(node) > 0,
    isBesideCached(handle, node): boolean {
      if (nodes[handle] === undefined || cached[handle] === true || handleCounts.of(node) < 2) return false;
      return nodes.some((other, at) => other === node && cached[at] === true);
    },
    isCached: (handle) => cached[handle] === true,
    nodes: () => handleCounts.keys() as NodeId[],
    get cachedCount(): number {
      return cachedCount;
    },
  });
}
