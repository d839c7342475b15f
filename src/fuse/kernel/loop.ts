/**
 * The server loop: read a request, answer it, read the next. It blocks its thread in the read, so it has one to
 * itself; other threads reach it through `wake` and a knock, which is any request on the mount, such as statfs.
 *
 *     other thread: post a message, set wake[0], knock   |   loop: readSync -> dispatch -> writeSync -> wake? onWake()
 *
 * It waits for the disk as late as it can: a READ whose blocks are not in memory is put off (put-off.ts). And it lets those go
 * ahead whom an application waits for: a WRITE of the kernel's cache is kept meanwhile (kept-writes.ts). Who finds no space is
 * kept until all is known that may give some (short-of-space.ts).
 *
 * A reply that must wait until changes are durable is handed to `hold`, which copies it; whoever has seen to that sends it
 * with `sendReply`, from any thread, while the loop goes on. The loop allocates nothing for a request that is
 * answered at once.
 */
import { readSync, writeSync } from "node:fs";
import { errnoOf, type FsError } from "../../core/errors.ts";
import { type ChangeSeq, changeSeq } from "../../core/numbers.ts";
import type { DurableAt, FileSystem, NodeId } from "../../fs/file-system.ts";
import { replyHeader } from "./abi.ts";
import { type Connection, type Errand, type Log, makeConnection, type Writers } from "./connection.ts";
import { dispatch } from "./dispatch.ts";
import { keptWrites } from "./kept-writes.ts";
import {
  type IsRequestWaiting,
  type Kept,
  NOTHING,
  nextRequest,
  type Slices,
  type Source,
  UNMOUNTED,
} from "./next-request.ts";
import { forgetAttributes } from "./notify.ts";
import { putOffReads } from "./put-off.ts";
import { type Room, TOLD_MANY, TOLD_NOTHING } from "./room.ts";
import { shortOfSpace } from "./short-of-space.ts";

export interface ServeOptions {
  /** Of /dev/fuse, mounted. */
  readonly descriptor: number;
  readonly fileSystem: FileSystem;
  /** The kernel may keep dirty pages, and write them back later. Default: true. */
  readonly writeBack?: boolean;
  /** Whether what it keeps will fit, and who waits until that is known. Default: there is room without end. */
  readonly room?: Room | undefined;
  /** See Connection. */
  readonly maySpaceCome?: () => boolean;
  readonly onFull?: (error: FsError) => void;
  /**
   * In shared memory. Word 0 is looked at after each request; the loop calls onWake while it is not 0. Word 1 is set when there
   * is no way for knocks.
   */
  readonly wake: Int32Array;
  /** To clear word 0 before it looks for messages, so that none is missed. May have requests asked `again`. */
  readonly onWake: (again: Again) => "continue" | "stop";
  /** Called after each request, its reply sent; it may block the loop to hold applications back. */
  readonly afterRequest?: () => void;
  /** Takes a finished reply, whose bytes are its own until it returns, that is to be sent once all changes up to `seq` are durable. */
  readonly hold: (seq: ChangeSeq, reply: Uint8Array) => void;
  /** What replies wait for that need not by themselves: the last change, if each must be durable before its reply. */
  readonly holdAll?: (() => DurableAt) | undefined;
  /**
   * Takes a request, a copy, that cannot be answered before something is done that is not the loop's to do, such as having
   * pages invalidated (notify.ts). Whoever does it wakes the loop then, to ask `again`. Without it, SEEK_DATA and SEEK_HOLE are
   * refused for files that are open for writing, and the directory of the snapshots is read-only.
   */
  readonly send?: (errand: Errand, request: Uint8Array) => void;
  /**
   * Waits for a request, for so many microseconds, less than a second; false: none has come. Without it the loop sleeps in its
   * read until there is one, and requests are answered as they come: see put-off.ts, kept-writes.ts.
   */
  readonly waitForRequest?: IsRequestWaiting | undefined;
  /** What is to be done while no request waits; only with `waitForRequest`. Default: nothing. */
  readonly slices?: Slices | undefined;
  /** See Connection. */
  readonly writers?: Writers;
  readonly nodePrefix?: string | undefined;
  readonly log: Log;
}

/** A request that was put off for an errand, and the errno that this ended with; 0: it is done. */
export type Again = (request: Uint8Array, result: number) => void;

/** In `wake`: messages wait; who posts them cannot knock, so the loop looks for itself. */
export const WORD_WAKE = 0;
export const WORD_UNREACHED = 1;
export const WAKE_WORDS = 2;

/** How often the loop looks where nobody can knock. */
const LOOK_US = 20_000;

/** Serves until the mount is gone or onWake says stop, and says which. Throws what is a bug, after an EIO to who asked. */
export function serve(options: ServeOptions): "unmounted" | "stopped" {
  const { descriptor, wake, waitForRequest, afterRequest } = options;
  const connection = makeConnection({ ...options, canSend: options.send !== undefined });
  const kept: Kept = {
    reads: putOffReads(),
    writes: keptWrites(connection),
    shortOfSpace: shortOfSpace(connection),
  };
  /** Requests that are to be asked again. Who made them is not to wait for a knock that does not come. */
  let owedCount = 0;
  const source: Source = {
    receive(): number {
      const isLooking = owedCount > 0 || Atomics.load(wake, WORD_UNREACHED) !== 0;
      return isLooking && waitForRequest?.(LOOK_US) === false ? NOTHING : receive(connection, descriptor);
    },
    isRequestWaiting: waitForRequest,
    slices: options.slices,
  };
  const serveInHand = (lengthBytes: number): void => {
    owedCount += handle(connection, lengthBytes, options);
    if (connection.isPutOff) kept.reads.add(connection.request);
    if (connection.awaitsSpace) kept.shortOfSpace.keep(lengthBytes);
    afterRequest?.();
    remind(connection, descriptor);
  };
  const again: Again = (request, result) => {
    owedCount -= 1;
    connection.request.set(request);
    connection.errandResult = result;
    connection.mayPutOff = false;
    connection.mayAwaitSpace = false;
    serveInHand(request.length);
    connection.errandResult = undefined;
  };
  for (;;) {
    const lengthBytes = nextRequest(connection, kept, source);
    if (lengthBytes === UNMOUNTED) {
      while (kept.writes.count > 0) handle(connection, kept.writes.take(), options); // a RELEASE may free a file
      return "unmounted";
    }
    if (lengthBytes !== NOTHING) serveInHand(lengthBytes);
    if (Atomics.load(wake, WORD_WAKE) !== 0 && options.onWake(again) === "stop") return "stopped";
  }
}

/** EIO in place of a reply that was held. */
export function errorReply(reply: Uint8Array): Uint8Array {
  const header = reply.slice(0, replyHeader.size);
  const view = new DataView(header.buffer);
  replyHeader.set.lengthBytes(view, 0, header.length);
  replyHeader.set.error(view, 0, -errnoOf("EIO") >>> 0);
  return header;
}

/** Sends a held reply. Blocks for no longer than the copy takes. */
export function sendReply(descriptor: number, reply: Uint8Array): void {
  send(descriptor, reply, reply.length);
}

/** The mount is gone, or was cut off through /sys/fs/fuse/connections. */
const GONE = new Set(["ENODEV", "ECONNABORTED"]);
/** A signal came; there is nothing yet; the request was taken back before it was read. */
const PASSING = new Set(["EINTR", "EAGAIN", "ENOENT"]);

/** Length of the next request; NOTHING: look again; UNMOUNTED: there will be none. */
function receive({ request }: Connection, descriptor: number): number {
  try {
    return readSync(descriptor, request, 0, request.length, null);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (GONE.has(code)) return UNMOUNTED;
    if (PASSING.has(code)) return NOTHING;
    throw error;
  }
}

/** How many requests are to be asked again: this one, or none. */
function handle(connection: Connection, lengthBytes: number, options: ServeOptions): 0 | 1 {
  const replyBytes = dispatch(connection, lengthBytes);
  const { errand, wantsRoom, bug } = connection;
  const isOwed = replyBytes === 0 && (errand !== undefined || wantsRoom);
  if (replyBytes > 0) answer(connection, replyBytes, options);
  else if (isOwed) {
    const request = new Uint8Array(connection.request.subarray(0, lengthBytes));
    if (errand !== undefined) options.send?.(errand, request);
    else options.room?.defer(request);
  }
  if (bug !== undefined) throw bug;
  return isOwed ? 1 : 0;
}

/** A request has been answered: while the room is shut, every writer has to ask, also whom the answer told what it would ask. */
function remind(connection: Connection, descriptor: number): void {
  const { room, writers, told, directWithMmap } = connection;
  connection.told = TOLD_NOTHING;
  const isShut = room?.isShut === true && directWithMmap;
  if (isShut && (!connection.isReminded || told === TOLD_MANY)) {
    for (const node of writers.nodes()) forgetAttributes(descriptor, node);
  } else if (isShut && told !== TOLD_NOTHING && writers.has(told as NodeId)) {
    forgetAttributes(descriptor, told as NodeId);
  }
  connection.isReminded = isShut;
}

function answer(connection: Connection, replyBytes: number, { descriptor, hold, holdAll }: ServeOptions): void {
  const { reply } = connection;
  const durableAt = connection.durableAt === 0 && holdAll !== undefined ? holdAll() : connection.durableAt;
  if (durableAt === 0) send(descriptor, reply, replyBytes);
  else hold(changeSeq(durableAt), reply.subarray(0, replyBytes));
}

/** Who asked may be gone (ENOENT), or the mount, as the next read tells. */
function send(descriptor: number, reply: Uint8Array, lengthBytes: number): void {
  for (;;) {
    try {
      writeSync(descriptor, reply, 0, lengthBytes);
      return;
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? "";
      if (code === "ENOENT" || GONE.has(code)) return;
      if (code !== "EINTR") throw error;
    }
  }
}
