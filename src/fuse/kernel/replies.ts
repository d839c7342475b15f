/** What goes back to the kernel: records written into the reply buffer, at an offset that the caller knows. */
import type { Time } from "../../core/clock.ts";
import type { Attributes, AttributesReply, EmitEntry, Entry, FileSystemStatus, Opened } from "../../fs/file-system.ts";
import {
  attributes as attributesRecord,
  attributesReply,
  directoryEntry,
  entryReply,
  FOPEN_CACHE_DIR,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  openReply,
  replyHeader,
  STATX_BASIC_STATS,
  STATX_BTIME,
  statfsReply,
  statxReply,
} from "./abi.ts";

const BLOCK_BYTES = 4096;
const SECONDS_MAX = 0xffff_ffff; // 136 years: "as long as you like"

/** The header, once the body is known. `error` is an errno, not negative; 0: none. */
export function putHeader(view: DataView, lengthBytes: number, error: number): void {
  replyHeader.set.lengthBytes(view, 0, lengthBytes);
  replyHeader.set.error(view, 0, -error >>> 0);
}

export function putEntry(view: DataView, at: number, entry: Entry): number {
  entryReply.set.node(view, at, entry.nodeId);
  entryReply.set.generation(view, at, entry.generation);
  entryReply.set.entryValidSeconds(view, at, wholeSeconds(entry.entryValidMs));
  entryReply.set.attributesValidSeconds(view, at, wholeSeconds(entry.attributesValidMs));
  entryReply.set.entryValidNs(view, at, restNs(entry.entryValidMs));
  entryReply.set.attributesValidNs(view, at, restNs(entry.attributesValidMs));
  putAttributes(view, at + entryReply.offset.attributes, entry.attributes);
  return entryReply.size;
}

/** There is no such name, and the kernel may remember that: an entry without a node. */
export function putAbsence(view: DataView, at: number): number {
  for (let i = at; i < at + entryReply.size; i += 4) view.setUint32(i, 0);
  entryReply.set.entryValidSeconds(view, at, SECONDS_MAX);
  return entryReply.size;
}

export function putAttributesReply(view: DataView, at: number, reply: AttributesReply): number {
  attributesReply.set.validSeconds(view, at, wholeSeconds(reply.attributesValidMs));
  attributesReply.set.validNs(view, at, restNs(reply.attributesValidMs));
  attributesReply.set.padding(view, at, 0);
  putAttributes(view, at + attributesReply.offset.attributes, reply.attributes);
  return attributesReply.size;
}

/** What the kernel may keep with a handle: a file's pages, nothing of what it writes, a directory's entries. */
export type Kept = "pages" | "nothing" | "entries";

const keepFlagsOf: Readonly<Record<Kept, number>> = {
  pages: FOPEN_KEEP_CACHE,
  nothing: FOPEN_KEEP_CACHE | FOPEN_DIRECT_IO,
  entries: FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR,
};

export function putOpened(view: DataView, at: number, opened: Opened, kept: Kept): number {
  const flags = keepFlagsOf[kept];
  openReply.set.handle(view, at, opened.handle);
  openReply.set.openFlags(view, at, opened.keepCache ? flags : flags & FOPEN_DIRECT_IO);
  openReply.set.padding(view, at, 0);
  return openReply.size;
}

export function putStatus(view: DataView, at: number, status: FileSystemStatus): number {
  statfsReply.encode(view, at, {
    ...status,
    blockBytes: BLOCK_BYTES,
    fragmentBytes: BLOCK_BYTES,
    padding: 0,
    spare: new Uint8Array(24),
  });
  return statfsReply.size;
}

export function putStatx(view: DataView, at: number, { attributes: a, attributesValidMs }: AttributesReply): number {
  statxReply.encode(view, at, {
    validSeconds: wholeSeconds(attributesValidMs),
    validNs: restNs(attributesValidMs),
    flags: 0,
    spare1: new Uint8Array(16),
    mask: STATX_BASIC_STATS | STATX_BTIME,
    blockBytes: BLOCK_BYTES,
    attributeBits: 0,
    linkCount: a.linkCount,
    uid: a.uid,
    gid: a.gid,
    mode: a.mode,
    spare2: 0,
    ino: a.ino,
    sizeBytes: a.sizeBytes,
    sectorCount: a.sectorCount,
    attributeBitsMask: 0,
    atimeSeconds: a.atime.seconds,
    atimeNs: a.atime.nanoseconds,
    spare3: 0,
    btimeSeconds: a.btime.seconds,
    btimeNs: a.btime.nanoseconds,
    spare4: 0,
    ctimeSeconds: a.ctime.seconds,
    ctimeNs: a.ctime.nanoseconds,
    spare5: 0,
    mtimeSeconds: a.mtime.seconds,
    mtimeNs: a.mtime.nanoseconds,
    spare6: 0,
    rdevMajor: (a.rdev >>> 8) & 0xfff,
    rdevMinor: (a.rdev & 0xff) | ((a.rdev >>> 12) & 0xfff00),
    deviceMajor: 0,
    deviceMinor: 0,
    spare7: new Uint8Array(112),
  });
  return statxReply.size;
}

/**
 * Packs directory entries into the reply. `start` says where and how much room there is; `emit` and `emitPlus`
 * take an entry each, or say that it does not fit; `bytes` is then what was packed.
 */
export interface DirectoryPacker {
  start(at: number, roomBytes: number): void;
  readonly emit: EmitEntry;
  readonly emitPlus: EmitEntry;
  bytes(): number;
}

export function makeDirectoryPacker(reply: Buffer, view: DataView): DirectoryPacker {
  let start = 0;
  let at = 0;
  let end = 0;

  function put(name: string, ino: number, type: number, cookie: number): void {
    directoryEntry.set.ino(view, at, ino);
    directoryEntry.set.cookie(view, at, cookie);
    directoryEntry.set.nameBytes(view, at, name.length);
    directoryEntry.set.type(view, at, type);
    at += directoryEntry.size;
    const padded = at + roundUp8(name.length);
    at += reply.write(name, at, "latin1");
    while (at < padded) reply[at++] = 0;
  }

  return {
    start(from, roomBytes): void {
      start = from;
      at = from;
      end = from + roomBytes;
    },
    bytes: () => at - start,
    emit(name, ino, type, cookie): boolean {
      if (at + directoryEntry.size + roundUp8(name.length) > end) return false;
      put(name, ino, type, cookie);
      return true;
    },
    emitPlus(name, ino, type, cookie, entry): boolean {
      if (at + entryReply.size + directoryEntry.size + roundUp8(name.length) > end) return false;
      // Node 0: a name without its inode, which the kernel looks up when it needs it. So "." and "..".
      if (entry === undefined) reply.fill(0, at, at + entryReply.size);
      else putEntry(view, at, entry);
      at += entryReply.size;
      put(name, ino, type, cookie);
      return true;
    },
  };
}

function putAttributes(view: DataView, at: number, a: Attributes): void {
  const { set } = attributesRecord;
  set.ino(view, at, a.ino);
  set.sizeBytes(view, at, a.sizeBytes);
  set.sectorCount(view, at, a.sectorCount);
  putTime(view, at, set.atimeSeconds, set.atimeNs, a.atime);
  putTime(view, at, set.mtimeSeconds, set.mtimeNs, a.mtime);
  putTime(view, at, set.ctimeSeconds, set.ctimeNs, a.ctime);
  set.mode(view, at, a.mode);
  set.linkCount(view, at, a.linkCount);
  set.uid(view, at, a.uid);
  set.gid(view, at, a.gid);
  set.rdev(view, at, a.rdev);
  set.blockBytes(view, at, BLOCK_BYTES);
  set.flags(view, at, 0);
}

type Setter = (view: DataView, at: number, value: number) => void;

function putTime(view: DataView, at: number, setSeconds: Setter, setNs: Setter, time: Time): void {
  setSeconds(view, at, time.seconds);
  setNs(view, at, time.nanoseconds);
}

function wholeSeconds(ms: number): number {
  return Math.min(Math.floor(ms / 1000), SECONDS_MAX);
}

function restNs(ms: number): number {
  return ms >= SECONDS_MAX * 1000 ? 0 : Math.floor((ms % 1000) * 1e6);
}

function roundUp8(n: number): number {
  return (n + 7) & ~7;
}
