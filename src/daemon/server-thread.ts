/**
 * The server thread: the filesystem of one mount, and the loop that serves the kernel.
 *
 * Everything here is synchronous. The thread has no event loop while it serves: it reads a request, handles it, and
 * looks at the wake word before the next; then it empties its queue of messages. It never waits for the disk to
 * flush. It freezes consistency points and the main thread makes them durable. What must be durable before its reply
 * goes out is handed over with the reply: to the log thread, as a frame of the change log, or where the log cannot take it
 * to the main thread, with a consistency point.
 *
 * It waits for the main thread in two cases only, both in the middle of a request: for memory, when changes of metadata
 * have reached twice the dirty limit while a consistency point is in flight; and for space, when a full volume can hope
 * for what was deleted lately. Then it handles the progress of consistency points and nothing else: commands, which may
 * replace the very state that the request is about, wait until it is answered.
 *
 * The end: the kernel says that the mount is gone, or the main thread that it is cut off; a last consistency point is
 * taken, the volume is closed.
 */
import { fstatSync } from "node:fs";
import { workerData } from "node:worker_threads";
import type { Clock } from "../core/clock.ts";
import { type FsError, UserError } from "../core/errors.ts";
import { assertNever, type ChangeSeq, changeSeq } from "../core/numbers.ts";
import { openFileDevice } from "../device/file-device.ts";
import { type OpenFileSystem, openFileSystem } from "../fs/active.ts";
import { type DurableAt, type Name, ROOT_NODE } from "../fs/file-system.ts";
import { serve } from "../fuse/kernel/loop.ts";
import type { PathRequest } from "../fuse/native/path-request.ts";
import { type PathServer, pathServer } from "../fuse/native/path-server.ts";
import type { LogFrame } from "../volume/change-log/frames.ts";
import { readFsinfo } from "../volume/fsinfo-copies.ts";
import { openVolume } from "../volume/open.ts";
import type { CpCause, Volume } from "../volume/volume.ts";
import { type CpTurns, cpTurns } from "./cp-turns.ts";
import { type Gate, gate } from "./gate.ts";
import { type Inbox, openInbox } from "./inbox.ts";
import { openLogFile } from "./log-file.ts";
import { type LogLine, logLine } from "./log-line.ts";
import { plainError } from "./plain-error.ts";
import { fullText, spaceOf } from "./space-holders.ts";
import { systemClock, systemRandom } from "./system.ts";
import type { FromServer, ServerStart, ToServer } from "./thread-messages.ts";
import { causeOf, performVerb, type VolumeRequest } from "./volume-verbs.ts";

/** What the thread holds while it lives. */
interface Server {
  readonly volume: Volume;
  readonly fileSystem: OpenFileSystem;
  readonly turns: CpTurns;
  readonly gate: Gate;
  readonly inbox: Inbox;
  /** To the log thread; undefined: the volume is not written to. */
  readonly line: LogLine | undefined;
  /** With durability "op": what the reply to the request just handled must wait for. */
  readonly holdAll: (() => DurableAt) | undefined;
  readonly dirtyBytesMax: number;
  /** Changes in memory from which data is written ahead of the next consistency point, with each request. */
  relieveAtBytes: number;
  /** A consistency point that will be frozen when the data that it has to write has been written, slice by slice. */
  easing: { readonly cause: CpCause; slicesLeft: number } | undefined;
  /** The main thread was told that there is something to go on with, and has not answered yet. */
  isUnfinished: boolean;
  readonly send: (message: FromServer) => void;
}

/** Between two lines in the log about a volume that is full. */
const FULL_NOTE_MS = 60_000;

/** Asks the loop to handle a request that it has handed out. */
type Again = (request: Uint8Array) => void;

/** Changes that come on top of a full measure are looked through so many times. */
const RELIEF_STEPS = 16;
/** Data written in one go before a consistency point that nobody waits for: 1 MiB. Requests come between. */
const EASE_BLOCKS = 256;
/** Who goes on writing as fast does not put the consistency point off for longer than this. */
const EASE_SLICES_MAX = 512;

run(workerData as ServerStart);

function run(start: ServerStart): void {
  const { port } = start;
  const send = (message: FromServer): void => port.postMessage(message);
  try {
    const server = open(start, send);
    send({ kind: "opened", status: performVerb(server.volume, "volume-status", {})() });
    serveMount(server);
    finish(server);
    send({ kind: "ended", error: undefined });
  } catch (error) {
    send({ kind: "ended", error: plainError(error) });
  }
  port.close();
}

function open(start: ServerStart, send: (message: FromServer) => void): Server {
  const { mode, accessTimes, snapshotDirectories, dirtyBytesMax, port, wake, log, durability } = start;
  const clock = systemClock();
  const volume = openChecked(start, clock);
  const snapshot = mode.kind === "snapshot" ? volume.findSnapshot(mode.name) : undefined;
  if (mode.kind === "snapshot" && snapshot === undefined) {
    throw new UserError("failed", `there is no snapshot ${mode.name}`, "see: tidemark snapshot list VOLUME");
  }
  const fileSystem = openFileSystem({
    volume,
    clock,
    readOnly: mode.kind !== "write",
    following: mode.kind === "follow",
    snapshot,
    accessTimes,
    snapshotDirectories,
    onDamage: (counts, first) => send({ kind: "damage", counts, first }),
  });
  const gated = gate(fileSystem, { makeSpace: () => makeSpace(server), onFull: fullNotes(volume, send) });
  const turns = cpTurns(volume, {
    send: (cp) => send({ kind: "frozen", cp }),
    // What is in frames need not be dropped when it is frozen: the log stays open.
    beforeFreeze: () => void (volume.log.usedBlocks > 0 && writeLog(server)),
    onFailure: (message) => {
      gated.shut(message);
      send({ kind: "failed", message });
    },
  });
  const inbox = openInbox(port, wake);
  const line = log === undefined ? undefined : logLine(log.port, log.words);
  const server: Server = {
    volume,
    fileSystem,
    turns,
    gate: gated,
    inbox,
    line,
    holdAll: durability === "op" && volume.writable ? lastChange(volume) : undefined,
    dirtyBytesMax,
    relieveAtBytes: dirtyBytesMax,
    easing: undefined,
    isUnfinished: false,
    send,
  };
  return server;
}

/** Opens the volume of the very file that the main thread has locked. */
function openChecked(start: ServerStart, clock: Clock): Volume {
  const { blockFile, identity, mode, cacheBytesMax, changeLog } = start;
  const writable = mode.kind === "write";
  const device = openFileDevice(blockFile, { writable });
  const { dev, ino } = fstatSync(device.descriptor);
  if (dev !== identity.dev || ino !== identity.ino) {
    throw new UserError("failed", `${blockFile} was replaced by another file while it was opened`, "try again");
  }
  const isApart = writable && changeLog.kind === "file";
  const logDevice = isApart ? openLogFile(changeLog.path, readFsinfo(device).uuid) : undefined;
  const forgetLog = changeLog.kind === "forget";
  return openVolume({ device, clock, random: systemRandom, writable, cacheBytesMax, logDevice, forgetLog });
}

/** Waits for the mount, and serves it until it is gone. */
function serveMount(server: Server): void {
  const { inbox, send, volume, holdAll } = server;
  for (;;) {
    const message = inbox.wait();
    if (message.kind === "stop") return;
    if (message.kind === "serve-paths") {
      servePaths(server);
      return;
    }
    if (message.kind !== "serve") {
      receive(server, message, () => {});
      continue;
    }
    const { descriptor } = message;
    serve({
      descriptor,
      fileSystem: server.gate.fileSystem,
      writeBack: volume.writable && holdAll === undefined,
      wake: inbox.word,
      onWake: (again) => receiveAll(server, again),
      afterRequest: () => {
        balance(server);
        offerToGoOn(server);
      },
      hold: (seq, reply) => hold(server, seq, descriptor, reply),
      holdAll,
      flush: (node, offset, request) => send({ kind: "flush", node, offset, request }),
      log: (text) => send({ kind: "log", message: text }),
    });
    return;
  }
}

/**
 * The same for the transport fuse-native, which calls the main thread: requests and everything else come as messages.
 * What a message may change or show to others is settled before: see hidden-files.ts.
 */
function servePaths(server: Server): void {
  const { inbox, send } = server;
  const paths = pathServer({
    fileSystem: server.gate.fileSystem,
    caller: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
    log: (text) => send({ kind: "log", message: text }),
  });
  for (;;) {
    const message = inbox.take() ?? inbox.wait();
    switch (message.kind) {
      case "ask":
        answerPath(server, paths, message.id, message.request);
        break;
      case "verb":
      case "follow":
        paths.clear();
        receive(server, message, () => {});
        break;
      case "take-cp":
        paths.settle();
        receive(server, message, () => {});
        break;
      case "unmounted":
      case "stop":
        paths.settle();
        return;
      case "serve":
      case "serve-paths":
      case "committed":
      case "failed":
      case "go-on":
      case "again":
        receive(server, message, () => {});
    }
  }
}

function answerPath(server: Server, paths: PathServer, id: number, request: PathRequest): void {
  const { reply, durableAt: asked, bug } = paths.handle(request);
  const durableAt = asked === 0 && server.holdAll !== undefined ? server.holdAll() : asked;
  server.send({ kind: "answered", id, durableAt, reply });
  if (bug !== undefined) throw bug;
  if (durableAt !== 0) {
    if (writeLog(server)) {
      server.line?.answer({ kind: "tell", seq: durableAt });
      makeRoomInLog(server);
    } else wantDurable(server, durableAt);
  }
  balance(server);
  offerToGoOn(server);
}

/** The reply waits at the log thread, behind a frame; or at the main thread, for a consistency point, which is asked for. */
function hold(server: Server, seq: ChangeSeq, descriptor: number, reply: Uint8Array): void {
  if (writeLog(server)) {
    server.line?.answer({ kind: "reply", descriptor, reply });
    makeRoomInLog(server);
    return;
  }
  server.send({ kind: "held", durableAt: seq, reply });
  wantDurable(server, seq);
}

/** True: all changes so far are in frames, and these on their way. False: they need a consistency point. */
function writeLog({ volume, fileSystem, turns, line }: Server): boolean {
  if (line === undefined || !volume.log.isOpen || turns.state.phase === "failed") return false;
  let frame: LogFrame | undefined;
  try {
    frame = fileSystem.logFrame();
  } catch (error) {
    turns.fail(`the change log could not be written: ${plainError(error).message}`);
    return false;
  }
  if (!volume.log.isOpen) return false;
  if (frame !== undefined) line.write(frame);
  return true;
}

function makeRoomInLog({ volume, turns }: Server): void {
  if (volume.log.isHalfFull && turns.state.phase === "idle") turns.want("log");
}

function wantDurable({ volume, turns }: Server, seq: ChangeSeq): void {
  const { state } = turns;
  if (state.phase === "flushing" && state.cp.logSeq >= seq) return;
  if (volume.committed.logSeq < seq) turns.want("fsync");
}

/** The last change, once for each: what a reply waits for when every change must be durable before its reply. */
function lastChange(volume: Volume): () => DurableAt {
  let seen = volume.log.seq;
  return () => {
    const { seq } = volume.log;
    if (seq === seen) return 0;
    seen = seq;
    return changeSeq(seq);
  };
}

/**
 * Keeps the changes in memory within their bound. While a consistency point is in flight, data goes to its final
 * blocks ahead of the next one; what is left are changes of metadata, and those wait.
 */
function balance(server: Server): void {
  const { volume, turns, dirtyBytesMax } = server;
  if (volume.dirtyBytes < dirtyBytesMax) {
    server.relieveAtBytes = dirtyBytesMax;
    return;
  }
  if (turns.state.phase === "failed") return;
  wantEased(server, "dirty");
  if (volume.dirtyBytes < server.relieveAtBytes) return;
  // It looks at every changed inode: where no data is left, not again before there is something to gain.
  if (!relieveSlice(server)) server.relieveAtBytes = volume.dirtyBytes + dirtyBytesMax / RELIEF_STEPS;
  if (volume.dirtyBytes < 2 * dirtyBytesMax) return;
  turns.want("dirty");
  while (volume.dirtyBytes >= 2 * dirtyBytesMax && turns.state.phase === "flushing") waitForMain(server);
}

/** A consistency point that nobody waits for: what it would have to write at once is written before, in slices. */
function wantEased(server: Server, cause: CpCause): void {
  if (server.easing !== undefined || server.turns.state.phase === "failed") return;
  server.easing = { cause, slicesLeft: EASE_SLICES_MAX };
  ease(server);
}

function ease(server: Server): void {
  const { easing, turns, volume } = server;
  if (easing === undefined) return;
  if (turns.state.phase !== "failed" && relieveSlice(server) && easing.slicesLeft > 0) {
    easing.slicesLeft -= 1;
    offerToGoOn(server);
    return;
  }
  server.easing = undefined;
  if (volume.dirty) turns.want(easing.cause);
}

/** True: data is left. */
function relieveSlice({ volume, turns }: Server): boolean {
  try {
    return volume.relieve({ blocksMax: EASE_BLOCKS });
  } catch (error) {
    turns.fail(`changes could not be written: ${plainError(error).message}`);
    return false;
  }
}

/** Blocks freed since the last consistency point can be used after the next. False: that would be nothing. */
function makeSpace(server: Server): boolean {
  const { volume, turns, fileSystem } = server;
  if (turns.state.phase === "failed") return false;
  if (fileSystem.doomedCount > 0) reclaim(server);
  if (volume.frozenBlocks === 0) return false;
  settle(server);
  turns.want("space");
  settle(server);
  return turns.state.phase === "idle";
}

/** Tells of a full volume, and of what holds its space, now and then. */
function fullNotes(volume: Volume, send: (message: FromServer) => void): (error: FsError) => void {
  let lastMs = Number.NEGATIVE_INFINITY;
  return (error) => {
    const nowMs = performance.now();
    if (nowMs - lastMs < FULL_NOTE_MS) return;
    lastMs = nowMs;
    const isHost = error.cause !== undefined;
    send({
      kind: "log",
      message: isHost ? `the disk of the host is full: ${error.message}` : fullText(spaceOf(volume)),
    });
  };
}

/** Waits until no consistency point is in flight or wanted. */
function settle(server: Server): void {
  while (server.turns.state.phase === "flushing") waitForMain(server);
}

/** In the middle of a request: what concerns consistency points is handled, everything else is put off. */
function waitForMain(server: Server): void {
  const message = server.inbox.wait();
  if (message.kind === "committed" || message.kind === "failed") receive(server, message, () => {});
  else server.inbox.putOff(message);
}

/** A last consistency point, and the end. */
function finish(server: Server): void {
  const { volume, turns } = server;
  receiveAll(server, () => {});
  settle(server);
  if (volume.writable && volume.needsLastCp) turns.want("unmount");
  settle(server);
  volume.close();
  if (turns.state.phase === "failed") throw new UserError("failed", turns.state.message);
}

function receiveAll(server: Server, again: Again): "continue" | "stop" {
  const { inbox } = server;
  inbox.clear();
  for (let message = inbox.take(); message !== undefined; message = inbox.take()) {
    if (message.kind === "stop") return "stop";
    receive(server, message, again);
  }
  return "continue";
}

function receive(server: Server, message: ToServer, again: Again): void {
  const { volume, turns } = server;
  switch (message.kind) {
    case "verb":
      performRequest(server, message.id, message.request);
      return;
    case "take-cp":
      if (volume.dirty) wantEased(server, message.cause);
      return;
    case "committed":
      turns.committed(message.cpCount);
      return;
    case "failed":
      turns.fail(message.message);
      return;
    case "follow":
      volume.follow();
      return;
    case "go-on":
      server.isUnfinished = false;
      if (server.fileSystem.doomedCount > 0) reclaim(server);
      ease(server);
      balance(server);
      offerToGoOn(server);
      return;
    case "again":
      again(message.request);
      return;
    case "serve":
    case "serve-paths":
    case "ask":
    case "unmounted":
    case "stop":
      return; // only before the mount or in its place, where they are taken out
    default:
      assertNever(message);
  }
}

/**
 * Large files that were deleted are freed, and data is written ahead of a consistency point, when the main thread finds the
 * time: so requests come between.
 */
function offerToGoOn(server: Server): void {
  const isMore = server.fileSystem.doomedCount > 0 || server.easing !== undefined;
  if (!isMore || server.isUnfinished || server.turns.state.phase === "failed") return;
  server.isUnfinished = true;
  server.send({ kind: "unfinished" });
}

function reclaim({ fileSystem, send }: Server): void {
  try {
    fileSystem.reclaimSlice();
  } catch (error) {
    send({ kind: "log", message: `cannot free a deleted file: ${plainError(error).message}` });
  }
}

function performRequest(server: Server, id: number, request: VolumeRequest): void {
  const { volume, turns, send } = server;
  const refuse = (error: unknown): void => send({ kind: "refused", id, error: plainError(error) });
  const perform = (): (() => unknown) => performVerb(volume, request.verb, request.arguments as never);
  const answer = (value: unknown): void => send({ kind: "result", id, value });
  const cause = causeOf(request.verb);
  if (cause === undefined || !volume.writable) {
    try {
      answer(perform()());
    } catch (error) {
      refuse(error);
    }
    return;
  }
  if (request.verb === "sync" && !volume.dirty && turns.state.phase === "idle") {
    answer({ cpCount: volume.committed.cpCount });
    return;
  }
  let result: () => unknown;
  turns.change({
    cause,
    apply: () => {
      try {
        result = request.verb === "snapshot-restore" ? restore(server, perform) : perform();
        return true;
      } catch (error) {
        refuse(error);
        return false;
      }
    },
    committed: () => answer(result()),
    failed: (text) => refuse(new UserError("failed", `the volume has failed: ${text}`)),
  });
}

/** Setting the filesystem back makes the kernel's caches of the root wrong: of the names before and after. */
function restore(server: Server, perform: () => () => unknown): () => unknown {
  const before = rootNames(server);
  const result = perform();
  server.send({ kind: "stale", names: [...new Set([...before, ...rootNames(server)])] });
  return result;
}

function rootNames({ fileSystem }: Server): readonly Name[] {
  const names: Name[] = [];
  const { handle } = fileSystem.openDirectory(ROOT_NODE);
  fileSystem.readDirectory(handle, 0, { plus: false }, (name) => {
    if (name !== "." && name !== "..") names.push(name);
    return true;
  });
  fileSystem.releaseDirectory(handle);
  return names;
}
