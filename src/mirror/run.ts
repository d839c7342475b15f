/** `mirror run`: the source's sidecar. Carries out what source.ts decides, with a socket, the block file and a holder. */
import type { Clock } from "../core/clock.ts";
import { UserError } from "../core/errors.ts";
import { assertNever } from "../core/numbers.ts";
import { type Random, randomUuid } from "../core/prng.ts";
import type { Reading } from "../device/file-device.ts";
import type { ImageSender } from "../image/send.ts";
import { type Address, type Connection, connectTo, formatAddress } from "./connection.ts";
import { TICK_MS } from "./session.ts";
import { settlement } from "./settlement.ts";
import { type SourceAction, type SourceEvent, type SourceWork, sourceSession } from "./source.ts";
import { openSourceVolume } from "./source-volume.ts";
import type { SourceStatus } from "./status.ts";
import { publishStatus } from "./status-socket.ts";

/** A look at the volume is late by one of them at most. */
const TICKS_PER_INTERVAL = 4;

/** How the sidecar has snapshots taken: by the daemon of a mounted volume, or under the lock of another. */
export interface SnapshotHolder {
  /** Bytes that were changed since the last consistency point. */
  dirtyBytes(): Promise<number>;
  /** A hidden snapshot (SNAPSHOT_MIRROR) of all that was written so far; it is committed when this resolves. */
  take(name: string): Promise<void>;
  drop(name: string): Promise<void>;
}

export interface MirrorRunOptions {
  /** The block file of the source. */
  readonly volume: string;
  readonly to: Address;
  readonly key: Uint8Array;
  readonly intervalMs: number;
  readonly holder: SnapshotHolder;
  /** Default: the disk reads when it must. */
  readonly findReading?: ((volume: string) => Promise<Reading>) | undefined;
  readonly clock: Clock;
  readonly random: Random;
  /** One line for people: a change of state, never a tick. */
  readonly log: (line: string) => void;
  /** Stops it in order. */
  readonly signal: AbortSignal;
}

/** Runs until it is stopped. Throws UserError: "mismatch", "no-volume", "failed". */
export async function runMirror(options: MirrorRunOptions): Promise<void> {
  const { to, key, clock, random, holder, signal } = options;
  const peer = formatAddress(to);
  const volume = await openSourceVolume(options.volume, options.findReading);
  const session = sourceSession({
    volume: volume.uuid,
    run: randomUuid(random),
    peer,
    intervalMs: options.intervalMs,
    clock,
    random,
  });
  const report = reporter(options.log);
  const aborting = new AbortController(); // of an attempt to connect
  const underWay = new Set<Promise<void>>();
  const events: SourceEvent[] = [];
  let handling = false;
  let current: Connection | undefined;
  let sender: ImageSender | undefined;
  let holding: Promise<unknown> = Promise.resolve(); // the last call of the holder: one after the other
  let wasConnected = false;
  const finished = settlement();

  function handle(event: SourceEvent): void {
    events.push(event);
    if (handling) return;
    handling = true;
    for (let next = events.shift(); next !== undefined; next = events.shift()) {
      for (const action of session.handle(next, performance.now())) carryOut(action);
    }
    handling = false;
    report(session.status());
  }

  function carryOut(action: SourceAction): void {
    switch (action.kind) {
      case "connect":
        return start(connect());
      case "send":
        return current?.send(action.message);
      case "disconnect":
        current?.close();
        current = undefined;
        return;
      case "survey":
        return work("survey", async () => {
          const survey = await volume.survey(await holder.dirtyBytes());
          handle({ kind: "surveyed", survey });
        });
      case "take":
        return work("take", async () => {
          await hold(() => holder.take(action.name));
          const { snapshots } = await volume.survey(0);
          const snapshot = snapshots.find(({ name }) => name === action.name);
          if (snapshot === undefined)
            throw new UserError("failed", `snapshot ${action.name} was taken, but is not there`);
          handle({ kind: "taken", snapshot });
        });
      case "plan":
        return work("plan", async () => {
          const { sender: made, headerDigest } = await volume.plan(action);
          sender = made;
          const { header, frameCount, blockCount } = made.plan;
          const { volumeBlocks } = header;
          const plan = { headerDigest, volumeBlocks, frameFirst: made.frameNumber, frameCount, blockCount };
          handle({ kind: "planned", plan });
        });
      case "ship": {
        const over = current; // a frame belongs to the connection that it was accepted on
        return work("ship", async () => {
          await nextTurn(); // what has arrived meanwhile comes first
          const frame = sender?.frameNumber ?? 0;
          const bytes = sender?.next();
          if (bytes === undefined) throw new UserError("failed", "there is no frame to send");
          if (over === current) over?.send({ type: "frame", transfer: action.transfer, frame, bytes });
          handle({ kind: "shipped", frame, bytes: bytes.length });
        });
      }
      case "drop":
        return work("drop", () => hold(() => holder.drop(action.name)));
      case "end":
        return action.error === undefined ? finished.resolve() : finished.reject(action.error);
      default:
        return assertNever(action);
    }
  }

  function start(promise: Promise<void>): void {
    underWay.add(promise);
    void promise.finally(() => underWay.delete(promise));
  }

  /** Does it; a failure is an event as well. */
  function work(what: SourceWork, does: () => Promise<void>): void {
    start(
      does().catch((error: unknown) => {
        handle({ kind: "failed", what, error: error instanceof Error ? error : new Error(String(error)) });
      }),
    );
  }

  function hold(call: () => Promise<void>): Promise<void> {
    const made = holding.then(call);
    holding = made.catch(() => {}); // told to who asked for it
    return made;
  }

  async function connect(): Promise<void> {
    try {
      const connection = await connectTo(
        to,
        key,
        (made) => ({
          message(message): void {
            if (current === made) handle({ kind: "message", message });
          },
          drained(): void {},
          closed(error): void {
            if (current !== made) return;
            current = undefined;
            handle({ kind: "disconnected", error, fatal: false });
          },
        }),
        aborting.signal,
      );
      current = connection;
      wasConnected = true;
      handle({ kind: "connected" });
    } catch (error) {
      // Another key at the first attempt is a mistake of set-up. Later, anybody on the way could cause it.
      const fatal = !wasConnected && error instanceof UserError && error.failure === "mismatch";
      handle({ kind: "disconnected", error: error instanceof Error ? error : new Error(String(error)), fatal });
    }
  }

  const server = await publishStatus(options.volume, "source", () => session.status());
  const stop = (): void => handle({ kind: "stop" });
  signal.addEventListener("abort", stop, { once: true });
  const tickMs = Math.min(TICK_MS, options.intervalMs / TICKS_PER_INTERVAL);
  const timer = setInterval(() => handle({ kind: "tick" }), tickMs);
  handle(signal.aborted ? { kind: "stop" } : { kind: "tick" });
  try {
    await finished.promise;
  } finally {
    clearInterval(timer);
    signal.removeEventListener("abort", stop);
    aborting.abort();
    server.close();
    await Promise.allSettled(underWay); // a snapshot that is being taken or dropped
    volume.close();
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** Tells of the changes that a person wants to know. */
function reporter(log: (line: string) => void): (status: SourceStatus) => void {
  let connected = false;
  let error: string | undefined;
  let transfers = 0;
  return ({ phase, peer, connectedSince, lastError, transfer, counts }) => {
    if (phase === "ended") return; // why, the caller is told
    const isConnected = connectedSince !== undefined;
    if (isConnected && !connected) log(`connected to ${peer}`);
    if (lastError !== undefined && lastError !== error) log(isConnected ? lastError : `${lastError}; trying again`);
    if (transfer !== undefined && transfer.resumedAt > 0 && transfers !== counts.connections) {
      transfers = counts.connections;
      log(`going on with cp ${transfer.cpCount} at frame ${transfer.resumedAt} of ${transfer.frames}`);
    }
    connected = isConnected;
    error = lastError;
  };
}
