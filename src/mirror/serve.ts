/**
 * `mirror serve`: the destination. Carries out what destination.ts decides, with a listener and the image receiver, and
 * holds the volume's lock from its start to its end.
 *
 * What may be on disk after a crash at any point: the old state or the new one (the receiver's promise), and beside it
 * VOLUME.transfer with a point up to which the blocks of an interrupted transfer are durable, or none. The order that
 * makes it so: blocks, flush, then the point; and the point is forgotten before a block of another transfer is written.
 * A point that was left behind by a switch names a base that is no longer the top, and is ignored.
 */
import { closeSync, openSync, rmSync, statSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { resolve } from "node:path";
import type { Clock } from "../core/clock.ts";
import { UserError } from "../core/errors.ts";
import { assertNever } from "../core/numbers.ts";
import type { Random } from "../core/prng.ts";
import { sameBytes } from "../core/uuid.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { ROLE_MIRROR } from "../format/fsinfo.ts";
import { decodeImageHeader, frameHeader, identityOf } from "../format/image-frame.ts";
import { isSameState, NO_STATE } from "../format/mirror-message.ts";
import { openReadOnly } from "../image/open-state.ts";
import { type ImageReceiver, openReceiver, type ResumePoint } from "../image/receive.ts";
import { digestOfHeader } from "../image/send.ts";
import type { WriteBack } from "../image/targets/file.ts";
import { openVolumeFile, type VolumeFile } from "../image/targets/volume-file.ts";
import { type Address, type Connection, listen } from "./connection.ts";
import {
  type DestinationAction,
  type DestinationEvent,
  type DestinationWork,
  destinationSession,
  type Interrupted,
  type MirrorVolume,
} from "./destination.ts";
import { CHECKPOINT_BYTES, TICK_MS } from "./session.ts";
import { settlement } from "./settlement.ts";
import { publishStatus } from "./status-socket.ts";
import { openTransferFile, type TransferFile } from "./transfer-state.ts";

export interface MirrorServeOptions {
  /** The block file of the mirror; made when there is none. */
  readonly volume: string;
  readonly listen: Address;
  readonly key: Uint8Array;
  /** Bytes of frames after which what has come is made durable. */
  readonly checkpointBytes?: number;
  readonly clock: Clock;
  readonly random: Random;
  /** For the block file. It is ended. */
  readonly writeBack?: WriteBack | undefined;
  /** One line for people. */
  readonly log: (line: string) => void;
  readonly onListening?: (address: Address) => void;
  /** Stops it in order. */
  readonly signal: AbortSignal;
}

/** Runs until it is stopped. Throws UserError: "in-use", "failed", "mismatch" (the volume is no mirror), "corrupt". */
export async function serveMirror(options: MirrorServeOptions): Promise<void> {
  const path = resolve(options.volume);
  const isOurs = makeFile(path);
  const target = openVolumeFile(path, { writeBack: options.writeBack });
  try {
    const volume = target.device === undefined ? undefined : volumeOf(path, target.device);
    const transfers = openTransferFile(path, options.random);
    try {
      await serve({ path, target, volume, transfers }, options);
    } finally {
      transfers.close();
    }
  } finally {
    await options.writeBack?.end();
    target.close();
    if (isOurs && statSync(path, { throwIfNoEntry: false })?.size === 0) rmSync(path); // nothing has come
  }
}

/** The file has to be there to be locked. False when something is. */
function makeFile(path: string): boolean {
  try {
    closeSync(openSync(path, "wx", 0o600));
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw new UserError("failed", `cannot write ${path}: ${(cause as Error).message}`, "", { cause });
  }
}

/** What is served, locked: the volume is undefined until one has come. */
interface Served {
  readonly path: string;
  readonly target: VolumeFile;
  readonly volume: VolumeFound | undefined;
  readonly transfers: TransferFile;
}

async function serve(
  { path, target, volume, transfers }: Served,
  { listen: address, key, checkpointBytes = CHECKPOINT_BYTES, clock, log, onListening, signal }: MirrorServeOptions,
): Promise<void> {
  if (!isUsable(transfers.resume, volume)) {
    log("the transfer that was interrupted does not lead on from here: it is forgotten");
    transfers.save(undefined);
  }
  const session = destinationSession({
    id: transfers.mirror,
    volume: volume?.state,
    interrupted: transfers.resume === undefined ? undefined : interruptedAt(transfers.resume),
    checkpointBytes,
    clock,
  });
  const flusher = await open(path, "r+"); // flushes in another thread
  const connections = new Map<number, Connection>();
  const events: DestinationEvent[] = [];
  let handling = false;
  let connectionNext = 1;
  let receiver: ImageReceiver | undefined;
  const finished = settlement();

  /** Handles an event and all that follow from it at once, before it returns: the bytes of a frame live no longer. */
  function handle(event: DestinationEvent): void {
    events.push(event);
    if (handling) return;
    handling = true;
    try {
      for (let next = events.shift(); next !== undefined; next = events.shift()) {
        for (const action of session.handle(next, performance.now())) carryOut(action);
      }
    } catch (error) {
      finished.reject(error); // a bug, or VOLUME.transfer cannot be written
    } finally {
      handling = false;
    }
  }

  function carryOut(action: DestinationAction): void {
    switch (action.kind) {
      case "send":
        return connections.get(action.connection)?.send(action.message);
      case "disconnect":
        return connections.get(action.connection)?.close();
      case "open":
        return attempt("open", () => {
          const resume = action.resume ? transfers.resume : undefined;
          if (!action.resume && transfers.resume !== undefined) transfers.save(undefined);
          receiver = openReceiver(target, { role: ROLE_MIRROR, clock, resume });
          events.push({ kind: "opened" });
        });
      case "write":
        return attempt("write", () => {
          receiver?.push(action.bytes);
          events.push({ kind: "written" });
        });
      case "checkpoint":
        return later("checkpoint", checkpoint(receiver));
      case "switch":
        return later("switch", switchTo(receiver));
      case "abandon":
        receiver = undefined;
        if (action.forget && transfers.resume !== undefined) transfers.save(undefined);
        return;
      case "note":
        return log(action.text);
      case "end":
        return finished.resolve();
      default:
        return assertNever(action);
    }
  }

  /** Now. A failure is an event as well, to be handled next. */
  function attempt(what: DestinationWork, does: () => void): void {
    try {
      does();
    } catch (error) {
      events.push(failure(what, error));
    }
  }

  function later(what: DestinationWork, doing: Promise<DestinationEvent>): void {
    void doing.catch((error: unknown) => failure(what, error)).then(handle);
  }

  /** The long part of the flush runs beside the receiving; the short rest is the receiver's. */
  async function checkpoint(of: ImageReceiver | undefined): Promise<DestinationEvent> {
    await flusher.datasync();
    if (of === undefined || of !== receiver) throw new UserError("failed", "the transfer was given up");
    if (of.complete) return { kind: "checkpointed", interrupted: undefined }; // there is no frame left to go on with
    const point = of.checkpoint();
    transfers.save(point);
    return { kind: "checkpointed", interrupted: interruptedAt(point) };
  }

  async function switchTo(of: ImageReceiver | undefined): Promise<DestinationEvent> {
    await flusher.datasync();
    if (of === undefined || of !== receiver) throw new UserError("failed", "the transfer was given up");
    const { top, cpCount, blocksReceived } = of.finish();
    target.accept();
    receiver = undefined;
    transfers.save(undefined);
    if (target.device === undefined) throw new UserError("failed", "there is no volume after a full image");
    const { state } = volumeOf(path, target.device);
    log(`at cp ${cpCount} (${top.name}), blocks received: ${blocksReceived}`);
    return { kind: "switched", volume: state };
  }

  const listener = await listen({
    address,
    key,
    onConnection(connection) {
      const number = connectionNext;
      connectionNext += 1;
      transfers.keep();
      connections.set(number, connection);
      handle({ kind: "connected", connection: number, peer: connection.peer });
      return {
        message: (message) => handle({ kind: "message", connection: number, message }),
        drained(): void {},
        closed(error): void {
          connections.delete(number);
          handle({ kind: "disconnected", connection: number, error });
        },
      };
    },
    onRefused: (peer, why) => log(`${peer} was refused: ${why}`),
  });
  const stop = (): void => handle({ kind: "stop" });
  const status = await publishStatus(path, "destination", () => session.status());
  const timer = setInterval(() => handle({ kind: "tick" }), TICK_MS);
  signal.addEventListener("abort", stop, { once: true });
  onListening?.(listener.address);
  if (signal.aborted) stop();
  try {
    await finished.promise;
  } finally {
    clearInterval(timer);
    signal.removeEventListener("abort", stop);
    status.close();
    await closeAll(listener.close(), flusher);
  }
}

async function closeAll(listener: Promise<void>, flusher: FileHandle): Promise<void> {
  await listener;
  await flusher.close();
}

function failure(what: DestinationWork, error: unknown): DestinationEvent {
  return { kind: "failed", what, error: error instanceof Error ? error : new Error(String(error)) };
}

interface VolumeFound {
  readonly state: MirrorVolume;
  readonly cpCount: number;
}

function volumeOf(path: string, device: BlockDevice): VolumeFound {
  const volume = openReadOnly(device);
  const { committed } = volume;
  if (committed.role !== ROLE_MIRROR) {
    const message = `${path} is a volume of its own, not a mirror: receiving would overwrite it`;
    throw new UserError("mismatch", message, "give the path of a mirror, or of a file that is not there yet");
  }
  const records = volume.snapshots();
  const top = records.find(({ uuid }) => sameBytes(uuid, committed.topUuid));
  return {
    cpCount: committed.cpCount,
    state: {
      uuid: committed.uuid,
      blockCount: committed.blockCount,
      top: top === undefined ? NO_STATE : identityOf(top),
      snapshots: records.map(identityOf),
    },
  };
}

function interruptedAt({ headerFrame, frameNumber, digest }: ResumePoint): Interrupted {
  const { tops, base } = decodeImageHeader(headerFrame.subarray(frameHeader.size));
  const top = tops.at(-1);
  return {
    top: top === undefined ? NO_STATE : identityOf(top),
    base: base ?? NO_STATE,
    frames: frameNumber,
    digest,
    header: headerFrame,
    headerDigest: digestOfHeader(headerFrame),
  };
}

/** Whether the point leads on from the state that the volume is in. */
function isUsable(resume: ResumePoint | undefined, volume: VolumeFound | undefined): boolean {
  if (resume === undefined) return true; // nothing to forget
  const { base } = interruptedAt(resume);
  return isSameState(base, volume?.state.top ?? NO_STATE) && resume.cpCount === (volume?.cpCount ?? 0);
}
