/** What goes back to the kernel: records written into the reply buffer, at an offset that the caller knows. */
import { putLong, wordsOf } from "../../format/struct.ts";
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
const entryWords = wordsOf(entryReply);
const attributesWords = wordsOf(attributesReply);
const statWords = wordsOf(attributesRecord);
const directoryWords = wordsOf(directoryEntry);
const SECONDS_MAX = 0xffff_ffff; // 136 years: "as long as you like"

/** The header, once the body is known. `error` is an errno, not negative; 0: none. */
export function putHeader(view: DataView, lengthBytes: number, error: number): void {
  replyHeader.set.lengthBytes(view, 0, lengthBytes);
  replyHeader.set.error(view, 0, -error >>> 0);
}

export function putEntry(words: Uint32Array, at: number, entry: Entry): number {
  const { entryValidMs, attributesValidMs } = entry;
  const start = at / 4;
  putLong(words, start + entryWords.node, entry.nodeId);
  putLong(words, start + entryWords.generation, entry.generation);
  putLong(words, start + entryWords.entryValidSeconds, wholeSeconds(entryValidMs));
  putLong(words, start + entryWords.attributesValidSeconds, wholeSeconds(attributesValidMs));
  words[start + entryWords.entryValidNs] = restNs(entryValidMs);
  words[start + entryWords.attributesValidNs] = restNs(attributesValidMs);
  putAttributes(words, start + entryWords.attributes, entry.attributes);
  return entryReply.size;
}

/** There is no such name, and the kernel may remember that: an entry without a node. */
export function putAbsence(words: Uint32Array, at: number): number {
  words.fill(0, at / 4, (at + entryReply.size) / 4);
  words[at / 4 + entryWords.entryValidSeconds] = SECONDS_MAX;
  return entryReply.size;
}

export function putAttributesReply(words: Uint32Array, at: number, reply: AttributesReply): number {
  const start = at / 4;
  putLong(words, start + attributesWords.validSeconds, wholeSeconds(reply.attributesValidMs));
  words[start + attributesWords.validNs] = restNs(reply.attributesValidMs);
  words[start + attributesWords.padding] = 0;
  putAttributes(words, start + attributesWords.attributes, reply.attributes);
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

export function makeDirectoryPacker(reply: Uint8Array, words: Uint32Array): DirectoryPacker {
  const headBytes = directoryEntry.size;
  const plusBytes = entryReply.size;
  let start = 0;
  let at = 0;
  let end = 0;

  /** All records are of whole words, and so is `at`. */
  function put(names: Uint8Array, from: number, nameBytes: number, ino: number, type: number, cookie: number): void {
    const word = at >>> 2;
    putLong(words, word + directoryWords.ino, ino);
    putLong(words, word + directoryWords.cookie, cookie);
    words[word + directoryWords.nameBytes] = nameBytes;
    words[word + directoryWords.type] = type;
    const name = at + headBytes;
    at = name + roundUp8(nameBytes);
    const last = at >>> 2;
    words[last - 2] = 0;
    words[last - 1] = 0;
    for (let i = 0; i < nameBytes; i++) reply[name + i] = names[from + i] as number;
  }

  return {
    start(from, roomBytes): void {
      start = from;
      at = from;
      end = from + roomBytes;
    },
    bytes: () => at - start,
    emit(names, nameStart, nameEnd, ino, type, cookie): boolean {
      const nameBytes = nameEnd - nameStart;
      if (at + headBytes + roundUp8(nameBytes) > end) return false;
      put(names, nameStart, nameBytes, ino, type, cookie);
      return true;
    },
    emitPlus(names, nameStart, nameEnd, ino, type, cookie, entry): boolean {
      const nameBytes = nameEnd - nameStart;
      if (at + plusBytes + headBytes + roundUp8(nameBytes) > end) return false;
      // Node 0: a name without its inode, which the kernel looks up when it needs it. So "." and "..".
      if (entry === undefined) words.fill(0, at >>> 2, (at + plusBytes) >>> 2);
      else putEntry(words, at, entry);
      at += plusBytes;
      put(names, nameStart, nameBytes, ino, type, cookie);
      return true;
    },
  };
}

function putAttributes(words: Uint32Array, start: number, a: Attributes): void {
  putLong(words, start + statWords.ino, a.ino);
  putLong(words, start + statWords.sizeBytes, a.sizeBytes);
  putLong(words, start + statWords.sectorCount, a.sectorCount);
  putLong(words, start + statWords.atimeSeconds, a.atime.seconds);
  putLong(words, start + statWords.mtimeSeconds, a.mtime.seconds);
  putLong(words, start + statWords.ctimeSeconds, a.ctime.seconds);
  words[start + statWords.atimeNs] = a.atime.nanoseconds;
  words[start + statWords.mtimeNs] = a.mtime.nanoseconds;
  words[start + statWords.ctimeNs] = a.ctime.nanoseconds;
  words[start + statWords.mode] = a.mode;
  words[start + statWords.linkCount] = a.linkCount;
  words[start + statWords.uid] = a.uid;
  words[start + statWords.gid] = a.gid;
  words[start + statWords.rdev] = a.rdev;
  words[start + statWords.blockBytes] = BLOCK_BYTES;
  words[start + statWords.flags] = 0;
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
