/**
 * The destination's end of a session: says what it has, takes what leads on from there. Pure; session.ts has the theory.
 *
 * Connections are numbered. One of them is the source; others are turned away, unless it has gone silent or they are of
 * the same run of the source's process, which knows best that its old connection is dead.
 */
import type { Clock, Time } from "../core/clock.ts";
import { formatTime, timeToMs } from "../core/clock.ts";
import { CorruptionError } from "../core/errors.ts";
import { assertNever } from "../core/numbers.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import {
  type ErrorCode,
  type Heartbeat,
  type Hello,
  isNoState,
  isSameState,
  MIRROR_VERSION,
  type MirrorMessage,
  NO_STATE,
  type Offer,
  ROLE_DESTINATION,
  ROLE_SOURCE,
  type StateIdentity,
} from "../format/mirror-message.ts";
import { CHECKPOINT_BYTES, DEAD_MS, describeState, outOfPlace, type Pulse, pulse, WINDOW_BYTES } from "./session.ts";
import type { DestinationStatus } from "./status.ts";

/** The volume of the destination. */
export interface MirrorVolume {
  readonly uuid: Uint8Array;
  readonly blockCount: number;
  readonly top: StateIdentity;
  readonly snapshots: readonly StateIdentity[];
}

/** An interrupted transfer, of which everything up to `frames` is durable. */
export interface Interrupted {
  readonly top: StateIdentity;
  readonly base: StateIdentity;
  readonly frames: number;
  readonly digest: Uint8Array;
  /** Frame 0, and the digest after it. */
  readonly header: Uint8Array;
  readonly headerDigest: Uint8Array;
}

export type DestinationEvent =
  /** Someone connected and has proved to have the key. */
  | { readonly kind: "connected"; readonly connection: number; readonly peer: string }
  | { readonly kind: "disconnected"; readonly connection: number; readonly error: Error | undefined }
  | { readonly kind: "message"; readonly connection: number; readonly message: MirrorMessage }
  | { readonly kind: "opened" }
  | { readonly kind: "written" }
  /** What has been written is durable, and remembered. undefined: the last frame has come meanwhile, and switching follows. */
  | { readonly kind: "checkpointed"; readonly interrupted: Interrupted | undefined }
  /** The volume is at its new top, durably. */
  | { readonly kind: "switched"; readonly volume: MirrorVolume }
  | { readonly kind: "failed"; readonly what: DestinationWork; readonly error: Error }
  | { readonly kind: "tick" }
  | { readonly kind: "stop" };

export type DestinationWork = "open" | "write" | "checkpoint" | "switch";

/**
 * To be carried out in this order. open and write are answered before the next event; checkpoint and switch when they
 * are done, and one of them is under way at most.
 */
export type DestinationAction =
  | { readonly kind: "send"; readonly connection: number; readonly message: MirrorMessage }
  | { readonly kind: "disconnect"; readonly connection: number }
  /** Begin to receive; a transfer that is not resumed first makes forgotten, durably, what was remembered of another. */
  | { readonly kind: "open"; readonly resume: boolean }
  /** Valid until the action has been carried out. */
  | { readonly kind: "write"; readonly bytes: Uint8Array }
  | { readonly kind: "checkpoint" }
  | { readonly kind: "switch" }
  /** Leave what was being received as it is. `forget`: it is of no use for a resumption. */
  | { readonly kind: "abandon"; readonly forget: boolean }
  /** For the log. */
  | { readonly kind: "note"; readonly text: string }
  | { readonly kind: "end" };

export interface DestinationOptions {
  /** Identity of this mirror, for ever. */
  readonly id: Uint8Array;
  readonly volume: MirrorVolume | undefined;
  readonly interrupted: Interrupted | undefined;
  /** Bytes of frames after which what has come is made durable. */
  readonly checkpointBytes?: number;
  readonly clock: Clock;
}

export interface DestinationSession {
  handle(event: DestinationEvent, nowMs: number): readonly DestinationAction[];
  status(): DestinationStatus;
}

interface Peer {
  readonly connection: number;
  readonly address: string;
  readonly beat: Pulse;
  heardMs: number;
  hello: Hello | undefined;
  /** It was told what is here: it may make an offer. */
  told: boolean;
  readonly since: Time;
}

interface Receiving {
  readonly offer: Offer;
  framesWritten: number;
  framesDurable: number;
  bytesSince: number; // the last checkpoint
}

export function destinationSession(options: DestinationOptions): DestinationSession {
  const { clock, checkpointBytes = CHECKPOINT_BYTES } = options;
  const peers = new Map<number, Peer>();
  let actions: DestinationAction[] = [];
  let nowMs = 0;
  let volume = options.volume;
  let interrupted = options.interrupted;
  let source: Peer | undefined; // the one that is listened to
  let receiving: Receiving | undefined;
  let work: "checkpoint" | "switch" | undefined; // under way
  let stopping = false;
  let ended = false;

  // What status() tells.
  let heartbeat: Heartbeat | undefined;
  let clockAheadMs = 0; // of ours against the source's, the way of the message included
  let currentAtMs: number | undefined; // by the source's clock: when we last had everything
  let switchedAt: Time | undefined;
  let lastError: string | undefined;
  const counts = { updates: 0, framesReceived: 0, bytesReceived: 0, connections: 0, refused: 0 };

  function act(action: DestinationAction): void {
    actions.push(action);
  }

  function send(peer: Peer, message: MirrorMessage): void {
    act({ kind: "send", connection: peer.connection, message });
  }

  /** Ends a connection. What it was sending stays resumable, unless `forget`. */
  function part(peer: Peer, code: ErrorCode | undefined, why: string, { forget = false } = {}): void {
    if (code !== undefined) send(peer, { type: "error", code, reason: why });
    act({ kind: "disconnect", connection: peer.connection });
    leave(peer, why, forget);
  }

  function leave(peer: Peer, why: string | undefined, forget = false): void {
    if (!peers.delete(peer.connection)) return;
    if (peer !== source) return;
    source = undefined;
    if (why !== undefined) {
      lastError = why;
      act({ kind: "note", text: `source ${peer.address} is gone: ${why}` });
    }
    if (receiving === undefined || work === "switch") return; // a switch goes through without its source
    if (forget) return abandon(true);
    // Everything that came is made durable, so that nothing of it is sent again.
    if (receiving.framesWritten > receiving.framesDurable) checkpoint();
    else if (work === undefined) abandon(false);
  }

  function abandon(forget: boolean): void {
    receiving = undefined;
    if (forget) interrupted = undefined;
    act({ kind: "abandon", forget });
  }

  function checkpoint(): void {
    if (work !== undefined || receiving === undefined) return;
    work = "checkpoint";
    receiving.bytesSince = 0;
    act({ kind: "checkpoint" });
  }

  function onMessage(peer: Peer, message: MirrorMessage): void {
    peer.beat.heard(nowMs);
    peer.heardMs = nowMs;
    switch (message.type) {
      case "hello":
        if (peer.hello !== undefined) return outOf(peer, message);
        return onHello(peer, message);
      case "offer":
        if (peer !== source || !peer.told || receiving !== undefined) return outOf(peer, message);
        return onOffer(peer, message);
      case "frame":
        if (peer !== source || receiving?.offer.transfer !== message.transfer) return outOf(peer, message);
        if (message.frame !== receiving.framesWritten || message.frame >= receiving.offer.frameCount) {
          return part(peer, "protocol", `frame ${message.frame} came, ${receiving.framesWritten} was expected`);
        }
        counts.framesReceived += 1;
        counts.bytesReceived += message.bytes.length;
        receiving.bytesSince += message.bytes.length;
        act({ kind: "write", bytes: message.bytes });
        return;
      case "heartbeat":
        if (peer !== source) return;
        return onHeartbeat(message);
      case "error":
        return part(peer, undefined, message.reason);
      case "bye":
        return part(peer, undefined, "it was stopped");
      case "state":
      case "accept":
      case "refuse":
      case "ack":
      case "switched":
        return outOf(peer, message);
      default:
        return assertNever(message);
    }
  }

  function outOf(peer: Peer, message: MirrorMessage): void {
    part(peer, "protocol", outOfPlace(message, peer === source ? phaseName() : "no source"));
  }

  function onHello(peer: Peer, hello: Hello): void {
    peer.hello = hello;
    if (hello.version !== MIRROR_VERSION) {
      const versions = `the source speaks version ${hello.version}, this program ${MIRROR_VERSION}`;
      return refuse(peer, "version", `${versions}: install the same version of tidemark at both ends`);
    }
    if (hello.role !== ROLE_SOURCE || isNoState({ uuid: hello.volume })) {
      return refuse(peer, "mismatch", "a destination is sent to by `tidemark mirror run`, and this is something else");
    }
    if (volume !== undefined && !sameBytes(hello.volume, volume.uuid)) {
      const both = `this is a mirror of volume ${formatUuid(volume.uuid)}, not of ${formatUuid(hello.volume)}`;
      return refuse(peer, "mismatch", `${both}: give \`tidemark mirror serve\` the path of a new volume`);
    }
    if (source !== undefined) {
      const sameRun = source.hello !== undefined && sameBytes(source.hello.sender, hello.sender);
      const silent = nowMs - source.heardMs > DEAD_MS / 2;
      if (!sameRun && !silent) return refuse(peer, "busy", `another source is connected, from ${source.address}`);
      part(source, "busy", `replaced by a newer connection from ${peer.address}`);
    }
    source = peer;
    counts.connections += 1;
    act({ kind: "note", text: `source ${peer.address} is connected` });
    tell();
  }

  function refuse(peer: Peer, code: ErrorCode, why: string): void {
    counts.refused += 1;
    act({ kind: "note", text: `${peer.address} was refused: ${why}` });
    part(peer, code, why);
  }

  /** HELLO and STATE, as soon as the disk has come to rest: what they say has to stay true. */
  function tell(): void {
    if (source === undefined || source.told || work !== undefined || receiving !== undefined) return;
    source.told = true;
    const uuid = volume?.uuid ?? NO_STATE.uuid;
    send(source, {
      type: "hello",
      version: MIRROR_VERSION,
      role: ROLE_DESTINATION,
      volume: uuid,
      sender: options.id,
    });
    send(source, {
      type: "state",
      volume: uuid,
      blockCount: volume?.blockCount ?? 0,
      top: volume?.top ?? NO_STATE,
      snapshots: volume?.snapshots ?? [],
      transferTop: interrupted?.top ?? NO_STATE,
      transferBase: interrupted?.base ?? NO_STATE,
      transferFrames: interrupted?.frames ?? 0,
      transferDigest: interrupted?.digest ?? NO_DIGEST,
      transferHeader: interrupted?.header ?? new Uint8Array(0),
    });
  }

  function onOffer(peer: Peer, offer: Offer): void {
    const top = volume?.top ?? NO_STATE;
    const resume = offer.frameFirst > 0;
    let problem: string | undefined;
    if (!isSameState(offer.base, top)) {
      problem = `an increment to ${describeState(offer.base)} was offered, but the mirror is at ${describeState(top)}`;
    } else if (
      resume &&
      (interrupted?.frames !== offer.frameFirst || !sameBytes(interrupted.headerDigest, offer.headerDigest))
    ) {
      problem = `there is nothing here to be resumed at frame ${offer.frameFirst}`;
    }
    if (problem !== undefined) {
      send(peer, { type: "refuse", transfer: offer.transfer, reason: problem });
      return;
    }
    receiving = { offer, framesWritten: offer.frameFirst, framesDurable: offer.frameFirst, bytesSince: 0 };
    if (!resume) interrupted = undefined;
    act({ kind: "open", resume });
  }

  function onOpened(): void {
    if (source === undefined || receiving === undefined) return;
    send(source, { type: "accept", transfer: receiving.offer.transfer, windowBytes: WINDOW_BYTES });
  }

  function onWritten(): void {
    if (receiving === undefined) return;
    receiving.framesWritten += 1;
    ack();
    if (receiving.framesWritten === receiving.offer.frameCount) {
      if (work === undefined) beginSwitch();
    } else if (receiving.bytesSince >= checkpointBytes) {
      checkpoint();
    }
  }

  function ack(): void {
    if (source === undefined || receiving === undefined) return;
    const { offer, framesWritten, framesDurable } = receiving;
    send(source, { type: "ack", transfer: offer.transfer, framesWritten, framesDurable });
  }

  function beginSwitch(): void {
    work = "switch";
    act({ kind: "switch" });
  }

  function onCheckpointed(made: Interrupted | undefined): void {
    work = undefined;
    if (receiving === undefined) return; // it was abandoned meanwhile, and forgotten
    if (receiving.framesWritten === receiving.offer.frameCount) return beginSwitch();
    if (made === undefined) return;
    interrupted = made;
    receiving.framesDurable = Math.min(made.frames, receiving.framesWritten);
    if (source?.told === true) return ack();
    if (receiving.framesWritten > receiving.framesDurable) return checkpoint();
    abandon(false); // its source is gone, or back and not told yet
  }

  function onSwitched(now: MirrorVolume): void {
    work = undefined;
    volume = now;
    interrupted = undefined;
    switchedAt = clock.now();
    counts.updates += 1;
    lastError = undefined;
    if (receiving === undefined) return;
    const { offer } = receiving;
    receiving = undefined;
    const takenAtMs = timeToMs(offer.takenAt);
    currentAtMs = Math.max(currentAtMs ?? takenAtMs, takenAtMs);
    if (source?.told === true) send(source, { type: "switched", transfer: offer.transfer, top: now.top, switchedAt });
  }

  function onFailed(what: DestinationWork, error: Error): void {
    if (what === "checkpoint" || what === "switch") work = undefined;
    const why = error.message;
    lastError = why;
    act({ kind: "note", text: `${what} failed: ${why}` });
    if (receiving === undefined) return;
    const { transfer } = receiving.offer;
    // What does not fit together is not begun with again; what the disk would not do may be tried again.
    const forget = error instanceof CorruptionError || what === "open" || what === "switch";
    abandon(forget);
    if (source === undefined || !source.told) return;
    if (what === "open") send(source, { type: "refuse", transfer, reason: why });
    else part(source, "failed", why);
  }

  function onHeartbeat(message: Heartbeat): void {
    heartbeat = message;
    const sentAtMs = timeToMs(message.sentAt);
    clockAheadMs = timeToMs(clock.now()) - sentAtMs;
    if (message.inStep) currentAtMs = sentAtMs;
  }

  function tick(): void {
    for (const peer of peers.values()) {
      const what = peer.beat.tick(nowMs);
      if (what === "dead") part(peer, undefined, "it has gone silent");
      if (what === "beat" && peer === source) {
        send(peer, {
          type: "heartbeat",
          sentAt: clock.now(),
          newestCp: volume?.top.cpCount ?? 0,
          newestCpAt: switchedAt ?? { seconds: 0, nanoseconds: 0 },
          pendingBytes: 0,
          inStep: heartbeat?.inStep ?? false,
        });
      }
    }
  }

  function stop(): void {
    stopping = true;
    for (const peer of peers.values()) {
      send(peer, { type: "bye" });
      act({ kind: "disconnect", connection: peer.connection });
      leave(peer, undefined);
    }
  }

  function phaseName(): DestinationStatus["phase"] {
    if (work === "switch") return "switching";
    if (receiving !== undefined) return "receiving";
    return source === undefined ? "vacant" : "ready";
  }

  function lagSeconds(): number | undefined {
    if (currentAtMs === undefined) return undefined;
    if (source !== undefined && heartbeat?.inStep === true) return 0;
    const sourceNowMs = timeToMs(clock.now()) - clockAheadMs;
    return Math.max(0, Math.round(sourceNowMs - currentAtMs) / 1000);
  }

  return {
    handle(event, atMs): readonly DestinationAction[] {
      nowMs = atMs;
      actions = [];
      if (ended) return actions;
      switch (event.kind) {
        case "connected": {
          const { connection, peer: address } = event;
          const since = clock.now();
          const beat = pulse(nowMs);
          peers.set(connection, { connection, address, beat, heardMs: nowMs, hello: undefined, told: false, since });
          break;
        }
        case "disconnected": {
          const peer = peers.get(event.connection);
          if (peer !== undefined) leave(peer, event.error?.message ?? "it closed the connection");
          break;
        }
        case "message": {
          const peer = peers.get(event.connection);
          if (peer !== undefined) onMessage(peer, event.message);
          break;
        }
        case "opened":
          onOpened();
          break;
        case "written":
          onWritten();
          break;
        case "checkpointed":
          onCheckpointed(event.interrupted);
          break;
        case "switched":
          onSwitched(event.volume);
          break;
        case "failed":
          onFailed(event.what, event.error);
          break;
        case "tick":
          tick();
          break;
        case "stop":
          stop();
          break;
        default:
          assertNever(event);
      }
      tell();
      if (stopping && work === undefined) {
        ended = true;
        act({ kind: "end" });
      }
      return actions;
    },
    status(): DestinationStatus {
      const known = volume !== undefined && !isNoState(volume.top);
      return {
        role: "destination",
        volume: volume === undefined ? undefined : formatUuid(volume.uuid),
        peer: source?.address,
        phase: phaseName(),
        connectedSince: source === undefined ? undefined : formatTime(source.since),
        lastError,
        topCp: known ? volume?.top.cpCount : undefined,
        switchedAt: switchedAt === undefined ? undefined : formatTime(switchedAt),
        lag: {
          seconds: lagSeconds(),
          cps:
            heartbeat === undefined || !known
              ? undefined
              : heartbeat.inStep
                ? 0
                : Math.max(0, heartbeat.newestCp - (volume?.top.cpCount ?? 0)),
          bytes: heartbeat?.pendingBytes ?? 0,
        },
        transfer:
          receiving === undefined
            ? undefined
            : {
                kind: isNoState(receiving.offer.base) ? "full" : "incremental",
                cpCount: receiving.offer.top.cpCount,
                baseCpCount: isNoState(receiving.offer.base) ? undefined : receiving.offer.base.cpCount,
                blocks: receiving.offer.blockCount,
                frames: receiving.offer.frameCount,
                framesDone: receiving.framesWritten,
                framesDurable: receiving.framesDurable,
                resumedAt: receiving.offer.frameFirst,
              },
        counts: { ...counts },
      };
    },
  };
}

const NO_DIGEST = new Uint8Array(32);
