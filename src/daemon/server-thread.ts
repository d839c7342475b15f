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
 * What must be durable is in server-durable.ts, memory and space in server-space.ts, what takes long in server-slices.ts.
 *
 * The end: the kernel says that the mount is gone, or the main thread that it is cut off; a last consistency point is
 * taken, the volume is closed.
 */
import { workerData } from "node:worker_threads";
import type { Clock } from "../core/clock.ts";
import { UserError } from "../core/errors.ts";
import { assertNever } from "../core/numbers.ts";
import { LONG_BLOCKS_MIN } from "../device/drop-behind.ts";
import { openFileDevice } from "../device/file-device.ts";
import { writeBehind } from "../device/write-behind.ts";
import { openFileSystem } from "../fs/active.ts";
import { listedName, type Name, type NodeId, ROOT_NODE } from "../fs/file-system.ts";
import { makeWriters } from "../fuse/kernel/connection.ts";
import { type Again, serve } from "../fuse/kernel/loop.ts";
import type { PathRequest } from "../fuse/native/path-request.ts";
import { type PathServer, pathServer } from "../fuse/native/path-server.ts";
import { readFsinfo } from "../volume/fsinfo-copies.ts";
import { openVolume } from "../volume/open.ts";
import type { Volume } from "../volume/volume.ts";
import { type Change, cpTurns } from "./cp-turns.ts";
import { gate } from "./gate.ts";
import { type HostCalls, hostCalls } from "./host-calls.ts";
import { openInbox } from "./inbox.ts";
import { beats } from "./light-sleep.ts";
import { openLogFile } from "./log-file.ts";
import { logLine } from "./log-line.ts";
import { errnoFor, plainError } from "./plain-error.ts";
import { committed, hold, lastChange, makeDurable, postToLog } from "./server-durable.ts";
import { afterEasing, afterReclaiming, endWaiting, goOn, offerToGoOn, slicesOf, wantEased } from "./server-slices.ts";
import { balance, fullNotes, makeSpace, openRoom, settle } from "./server-space.ts";
import type { Server } from "./server-state.ts";
import { systemClock, systemRandom } from "./system.ts";
import type { FromServer, ServerStart, ToServer } from "./thread-messages.ts";
import { causeOf, freesFirst, performVerb, type VolumeRequest } from "./volume-verbs.ts";

void run(workerData as ServerStart);

async function run(start: ServerStart): Promise<void> {
  const { port } = start;
  const send = (message: FromServer): void => port.postMessage(message);
  try {
    const calls = await hostCalls(start.blockFile);
    const server = open(start, send, calls);
    send({ kind: "opened", status: performVerb(server.volume, "volume-status", {})() });
    serveMount(server, calls);
    finish(server);
    send({ kind: "ended", error: undefined });
  } catch (error) {
    send({ kind: "ended", error: plainError(error) });
  }
  port.close();
}

function open(start: ServerStart, send: (message: FromServer) => void, calls: HostCalls | undefined): Server {
  const { mode, accessTimes, snapshotDirectories, dirtyBytesMax, port, wake, log, durability, pulse } = start;
  const clock = systemClock();
  const volume = openChecked(start, { clock, send, calls });
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
  const gated = gate(fileSystem, { makeSpace: () => makeSpace(server) });
  const turns = cpTurns(volume, {
    send: (cp) => send({ kind: "frozen", cp }),
    // What is in frames need not be dropped when it is frozen: the log stays open.
    beforeFreeze: () => void (volume.log.usedBlocks > 0 && postToLog(server, undefined)),
    onFailure: (message) => {
      gated.shut(message);
      send({ kind: "failed", message });
      endWaiting(server);
    },
  });
  const inbox = openInbox(port, wake);
  const line = log === undefined ? undefined : logLine(log);
  const server: Server = {
    volume,
    fileSystem,
    turns,
    gate: gated,
    onFull: fullNotes({ volume, nowMs, send }),
    inbox,
    line,
    holdAll: durability === "op" && volume.writable ? lastChange(volume) : undefined,
    dirtyBytesMax,
    relieveAtBytes: dirtyBytesMax,
    easing: undefined,
    reclaiming: [],
    isUnfinished: false,
    isAsked: false,
    stuckAtCp: undefined,
    awaitedSeq: 0,
    writers: makeWriters(),
    room: undefined,
    nowMs,
    beat: pulse === undefined ? () => {} : beats(pulse, nowMs, () => send({ kind: "busy" })),
    send,
  };
  return server;
}

function nowMs(): number {
  return performance.now();
}

interface Surroundings {
  readonly clock: Clock;
  readonly send: (message: FromServer) => void;
  readonly calls: HostCalls | undefined;
}

/** Opens the volume of the very file that the main thread has locked. */
function openChecked(start: ServerStart, { clock, send, calls }: Surroundings): Volume {
  const { blockFile, identity, mode, cacheBytesMax, changeLog } = start;
  const writable = mode.kind === "write";
  const file = openFileDevice(blockFile, { writable, identity, pageCache: calls?.pageCache, dropsBehind: true });
  const begin = (vbn: number, count: number): void => send({ kind: "written", vbn, count });
  const device = writable && calls !== undefined ? writeBehind(file, { runBlocksMin: LONG_BLOCKS_MIN, begin }) : file;
  const isApart = writable && changeLog.kind === "file";
  const logDevice = isApart ? openLogFile(changeLog.path, readFsinfo(device).uuid) : undefined;
  const forgetLog = changeLog.kind === "forget";
  return openVolume({ device, clock, random: systemRandom, writable, cacheBytesMax, logDevice, forgetLog });
}

/** Waits for the mount, and serves it until it is gone. */
function serveMount(server: Server, calls: HostCalls | undefined): void {
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
    const { descriptor, nodePrefix, dirtyPagesBytesMax } = message;
    const writeBack = volume.writable && holdAll === undefined;
    if (writeBack) server.room = openRoom(server, dirtyPagesBytesMax);
    serve({
      descriptor,
      fileSystem: server.gate.fileSystem,
      writeBack,
      room: server.room,
      maySpaceCome: () => server.fileSystem.hasUnnamedInUse,
      onFull: server.onFull,
      wake: inbox.word,
      onWake(again) {
        const next = receiveAll(server, again);
        if (calls === undefined) offerToGoOn(server);
        return next;
      },
      afterRequest: () => {
        server.isAsked = true;
        server.beat();
        balance(server);
        server.room?.look();
        if (calls === undefined) offerToGoOn(server);
      },
      hold: (seq, reply) => hold(server, seq, descriptor, reply),
      holdAll,
      writers: server.writers,
      nodePrefix,
      send: (errand, request) => send({ kind: "errand", errand, request }),
      waitForRequest: calls && ((atMostUs) => calls.isReadable(descriptor, atMostUs)),
      slices: calls && slicesOf(server),
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
    onFull: server.onFull,
    log: (text) => send({ kind: "log", message: text }),
  });
  for (;;) {
    offerToGoOn(server);
    const message = inbox.take() ?? inbox.wait();
    switch (message.kind) {
      case "ask":
        answerPath(server, paths, message.id, message.request);
        break;
      case "writers":
      case "verb":
      case "follow":
      case "committed": // and what waited for that, or for a slice, is done: a restore, it may be
      case "go-on":
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
      case "failed":
      case "errand-verb":
      case "drained":
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
  if (durableAt !== 0) makeDurable(server, durableAt);
  server.beat();
  balance(server);
}

/** A last consistency point, and the end. */
function finish(server: Server): void {
  const { volume, turns } = server;
  receiveAll(server, () => {});
  endWaiting(server);
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
    case "writers":
      server.send({ kind: "result", id: message.id, value: writingNodes(server, message) });
      return;
    case "verb": {
      const { id, request } = message;
      perform(server, request, {
        done: (value) => server.send({ kind: "result", id, value }),
        refused: (error) => server.send({ kind: "refused", id, error: plainError(error) }),
      });
      return;
    }
    case "take-cp":
      if (volume.dirty) wantEased(server, message.cause);
      return;
    case "committed":
      committed(server, message.cpCount);
      return;
    case "failed":
      turns.fail(message.message);
      return;
    case "follow":
      volume.follow();
      return;
    case "go-on":
      server.isUnfinished = false;
      goOn(server);
      balance(server);
      return;
    case "again":
      again(message.request, message.result);
      return;
    case "errand-verb":
      performErrand(server, message.verb, message.request);
      return;
    case "drained":
      for (const request of server.room?.drained(message.dirtyPagesBytesMax) ?? []) again(request, 0);
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

/** What cannot be told counts as kept. */
function writingNodes(
  { writers, fileSystem }: Server,
  { deletedToo }: { readonly deletedToo: boolean },
): readonly NodeId[] {
  const isDeleted = (node: NodeId): boolean => {
    try {
      return fileSystem.isDeleted(node);
    } catch {
      return false;
    }
  };
  return deletedToo ? writers.nodes() : writers.nodes().filter((node) => !isDeleted(node));
}

/** Who hears how a verb has ended. */
interface Outcome {
  readonly done: (value: unknown) => void;
  readonly refused: (error: unknown) => void;
}

/** A request that came to a verb is asked again when that has ended: behind the one in hand, if there is one. */
function performErrand(server: Server, verb: VolumeRequest, request: Uint8Array): void {
  const askAgain = (result: number): void => server.inbox.putOff({ kind: "again", request, result });
  perform(server, verb, { done: () => askAgain(0), refused: (error) => askAgain(errnoFor(error)) });
}

function perform(server: Server, request: VolumeRequest, { done, refused }: Outcome): void {
  const { volume, turns } = server;
  const change = (): (() => unknown) => performVerb(volume, request.verb, request.arguments as never);
  const cause = causeOf(request.verb);
  if (cause === undefined || !volume.writable) {
    try {
      done(change()());
    } catch (error) {
      refused(error);
    }
    return;
  }
  if (request.verb === "sync" && !volume.dirty && turns.state.phase === "idle") {
    done({ cpCount: volume.committed.cpCount });
    return;
  }
  let result: () => unknown;
  const whole: Change = {
    cause,
    apply: () => {
      try {
        result = request.verb === "snapshot-restore" ? restore(server, change) : change();
        return true;
      } catch (error) {
        refused(error);
        return false;
      }
    },
    committed: () => done(result()),
    failed: (text) => refused(new UserError("failed", `the volume has failed: ${text}`)),
  };
  const take = (): void => afterEasing(server, () => turns.change(whole));
  if (freesFirst(request.verb)) afterReclaiming(server, take);
  else take();
}

/** Setting the filesystem back makes the kernel's caches of the root wrong: of the names before and after. */
function restore(server: Server, change: () => () => unknown): () => unknown {
  const before = rootNames(server);
  const result = change();
  server.send({ kind: "stale", names: [...new Set([...before, ...rootNames(server)])] });
  return result;
}

function rootNames({ fileSystem }: Server): readonly Name[] {
  const names: Name[] = [];
  const { handle } = fileSystem.openDirectory(ROOT_NODE);
  fileSystem.readDirectory(handle, 0, { plus: false }, (bytes, start, end) => {
    const name = listedName(bytes, start, end);
    if (name !== "." && name !== "..") names.push(name);
    return true;
  });
  fileSystem.releaseDirectory(handle);
  return names;
}
