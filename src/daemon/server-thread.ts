/**
 * The server thread: the filesystem of one mount, and the loop that serves the kernel.
 *
 * Everything here is synchronous. The thread has no event loop while it serves: it reads a request, handles it, and
 * looks at the wake word before the next; then it empties its queue of messages. It never waits for the disk to
 * flush. It freezes consistency points and the main thread makes them durable; what must be durable before its reply
 * goes out is handed over to the main thread with the reply. The one thing it waits for is memory: when twice
 * the dirty limit is reached while a consistency point is in flight, applications wait until that one is committed.
 *
 * The end: the kernel says that the mount is gone, a last consistency point is taken, the volume is closed.
 */
import { fstatSync } from "node:fs";
import { type MessagePort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { UserError } from "../core/errors.ts";
import type { Clock } from "../core/clock.ts";
import { assertNever, type CpCount } from "../core/numbers.ts";
import { openFileDevice } from "../device/file-device.ts";
import { openFileSystem } from "../fs/active.ts";
import type { FileSystem } from "../fs/file-system.ts";
import { serve } from "../fuse/kernel/loop.ts";
import { openVolume } from "../volume/open.ts";
import type { Volume } from "../volume/volume.ts";
import { type CpTurns, cpTurns } from "./cp-turns.ts";
import { type Gate, gate } from "./gate.ts";
import { plainError } from "./plain-error.ts";
import { systemClock, systemRandom } from "./system.ts";
import type { FromServer, ServerStart, ToServer } from "./thread-messages.ts";
import { causeOf, performVerb, type VolumeRequest } from "./volume-verbs.ts";

/** What a thread holds while it lives. */
interface Server {
  readonly volume: Volume;
  readonly turns: CpTurns;
  readonly gate: Gate;
  readonly inbox: Inbox;
  readonly dirtyBytesMax: number;
  send(message: FromServer): void;
}

run(workerData as ServerStart);

function run(start: ServerStart): void {
  const { port } = start;
  const send = (message: FromServer): void => port.postMessage(message);
  try {
    const clock = systemClock();
    const volume = open(start, clock);
    const fileSystem = openFileSystem({ volume, clock });
    const server = assemble(start, volume, fileSystem, send);
    send({ kind: "opened", status: performVerb(volume, "volume-status", {}) });
    serveMount(server);
    finish(server);
    send({ kind: "ended", error: undefined });
  } catch (error) {
    send({ kind: "ended", error: plainError(error) });
  }
  port.close();
}

function open({ blockFile, identity, mode, cacheBytesMax, dirtyBytesMax }: ServerStart, clock: Clock): Volume {
  const writable = mode.kind === "write";
  const device = openFileDevice(blockFile, { writable });
  const { dev, ino } = fstatSync(device.descriptor);
  if (dev !== identity.dev || ino !== identity.ino) {
    throw new UserError("failed", `${blockFile} was replaced by another file while it was opened`, "try again");
  }
  return openVolume({ device, clock, random: systemRandom, writable, cacheBytesMax, dirtyBytesMax });
}

function assemble(
  start: ServerStart,
  volume: Volume,
  fileSystem: FileSystem,
  send: (message: FromServer) => void,
): Server {
  const gated = gate(fileSystem);
  const turns = cpTurns(volume, {
    send: (cp) => send({ kind: "frozen", cp }),
    onFailure: (message) => {
      gated.shut(message);
      send({ kind: "failed", message });
    },
  });
  return {
    volume,
    turns,
    gate: gated,
    inbox: inbox(start.port, start.wake),
    dirtyBytesMax: start.dirtyBytesMax,
    send,
  };
}

/** Waits for the mount, and serves it until it is gone. */
function serveMount(server: Server): void {
  const { inbox: messages } = server;
  for (;;) {
    for (let message = messages.take(); message !== undefined; message = messages.take()) {
      if (message.kind === "stop") return;
      if (message.kind !== "serve") {
        receive(server, message);
        continue;
      }
      serve({
        descriptor: message.descriptor,
        fileSystem: server.gate.fileSystem,
        readOnly: !server.volume.writable,
        wake: messages.word,
        onWake: () => {
          receiveAll(server);
          return "continue";
        },
        afterRequest: () => balance(server),
        hold: (durableAt, reply) => hold(server, durableAt, reply),
        log: (text) => server.send({ kind: "log", message: text }),
      });
      return;
    }
    messages.wait();
  }
}

/** The reply waits in the main thread; the consistency point that it waits for is asked for. */
function hold(server: Server, durableAt: CpCount, reply: Uint8Array): void {
  server.send({ kind: "held", durableAt, reply });
  const { state } = server.turns;
  if (state.phase === "flushing" && state.cp.cpCount >= durableAt) return;
  if (server.volume.openCp <= durableAt) server.turns.want("fsync");
}

/** Keeps the changes in memory within their bound. */
function balance(server: Server): void {
  const { volume, turns, dirtyBytesMax } = server;
  if (volume.dirtyBytes < dirtyBytesMax) return;
  turns.want("dirty");
  while (volume.dirtyBytes >= 2 * dirtyBytesMax && turns.state.phase === "flushing") {
    server.inbox.wait();
    receiveAll(server);
  }
}

/** A last consistency point, and the end. */
function finish(server: Server): void {
  const { volume, turns } = server;
  const settle = (): void => {
    while (turns.state.phase === "flushing") {
      server.inbox.wait();
      receiveAll(server);
    }
  };
  receiveAll(server);
  settle();
  if (volume.writable && volume.dirty) turns.want("unmount");
  settle();
  volume.close();
  if (turns.state.phase === "failed") throw new UserError("failed", turns.state.message);
}

function receiveAll(server: Server): void {
  server.inbox.clear();
  for (let message = server.inbox.take(); message !== undefined; message = server.inbox.take()) {
    receive(server, message);
  }
}

function receive(server: Server, message: ToServer): void {
  const { volume, turns } = server;
  switch (message.kind) {
    case "verb":
      performRequest(server, message.id, message.request);
      return;
    case "take-cp":
      if (volume.dirty) turns.want(message.cause);
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
    case "serve":
    case "stop":
      return; // only before the mount, where they are taken out
    default:
      assertNever(message);
  }
}

function performRequest(server: Server, id: number, request: VolumeRequest): void {
  const { volume, turns, send } = server;
  const refuse = (error: unknown): void => send({ kind: "refused", id, error: plainError(error) });
  const perform = (): unknown => performVerb(volume, request.verb, request.arguments as never);
  const cause = volume.writable ? causeOf(request.verb) : undefined;
  try {
    if (cause === undefined) {
      send({ kind: "result", id, value: perform() });
      return;
    }
    if (request.verb === "sync" && !volume.dirty && turns.state.phase === "idle") {
      send({ kind: "result", id, value: { cpCount: volume.committed.cpCount } });
      return;
    }
  } catch (error) {
    refuse(error);
    return;
  }
  let value: unknown;
  turns.change({
    cause,
    apply: () => {
      try {
        value = perform();
        return true;
      } catch (error) {
        refuse(error);
        return false;
      }
    },
    committed: () => send({ kind: "result", id, value }),
    failed: (text) => refuse(new UserError("failed", `the volume has failed: ${text}`)),
  });
}

/** The thread's queue of messages, and the word that says that some wait. */
interface Inbox {
  readonly word: Int32Array;
  take(): ToServer | undefined;
  clear(): void;
  /** Blocks the thread until the word is set, and clears it. */
  wait(): void;
}

function inbox(port: MessagePort, wake: SharedArrayBuffer): Inbox {
  const word = new Int32Array(wake);
  return {
    word,
    take: () => receiveMessageOnPort(port)?.message as ToServer | undefined,
    clear: () => void Atomics.store(word, 0, 0),
    wait(): void {
      while (Atomics.load(word, 0) === 0) Atomics.wait(word, 0, 0);
      Atomics.store(word, 0, 0);
    },
  };
}
