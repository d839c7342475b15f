/**
 * The source's end of a session: decides what to take, offer, send and drop. Pure; session.ts has the theory.
 */
import type { Clock, Time } from "../core/clock.ts";
import { formatTime, timeToMs } from "../core/clock.ts";
import { type FailureClass, UserError } from "../core/errors.ts";
import { assertNever } from "../core/numbers.ts";
import type { Random } from "../core/prng.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import {
  type DestinationState,
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
import {
  BACKOFF_MS_MAX,
  BACKOFF_MS_MIN,
  describeState,
  describeStates,
  outOfPlace,
  type Pulse,
  pulse,
} from "./session.ts";
import type { SourceStatus, TransferStatus } from "./status.ts";

/** A snapshot that the source's volume has. */
export interface SourceSnapshot {
  readonly name: string;
  readonly state: StateIdentity;
  readonly takenAt: Time;
  /** Hidden: held by some mirror. */
  readonly mirror: boolean;
}

/** The volume as its last consistency point has it. */
export interface Survey {
  readonly volume: Uint8Array;
  readonly snapshots: readonly SourceSnapshot[];
  readonly newestCp: number;
  readonly newestCpAt: Time;
  /** Checksum of the root of the active filesystem: equal to that of a snapshot when nothing has changed since. */
  readonly rootChecksum: number;
  /** Bytes changed that no consistency point has. */
  readonly dirtyBytes: number;
}

/** How an interrupted transfer goes on, by what the destination has. */
export interface Resumption {
  /** Frame 0. */
  readonly header: Uint8Array;
  readonly frameFirst: number;
  readonly digest: Uint8Array;
}

/** A transfer that is ready to begin. */
export interface TransferPlan {
  readonly headerDigest: Uint8Array;
  readonly volumeBlocks: number;
  readonly frameFirst: number;
  readonly frameCount: number;
  readonly blockCount: number;
}

export type SourceEvent =
  /** The other end has proved that it has the key. */
  | { readonly kind: "connected" }
  /** The connection has ended, or could not be made. `fatal`: another attempt is of no use. */
  | { readonly kind: "disconnected"; readonly error: Error | undefined; readonly fatal: boolean }
  | { readonly kind: "message"; readonly message: MirrorMessage }
  | { readonly kind: "surveyed"; readonly survey: Survey }
  | { readonly kind: "taken"; readonly snapshot: SourceSnapshot }
  | { readonly kind: "planned"; readonly plan: TransferPlan }
  /** The frame that was asked for is on its way. */
  | { readonly kind: "shipped"; readonly frame: number; readonly bytes: number }
  /** survey, take, plan, ship or drop could not be done. */
  | { readonly kind: "failed"; readonly what: SourceWork; readonly error: Error }
  | { readonly kind: "tick" }
  | { readonly kind: "stop" };

export type SourceWork = "survey" | "take" | "plan" | "ship" | "drop";

/** To be carried out in this order. Of survey, take, plan, ship one is under way at most; each is answered. */
export type SourceAction =
  | { readonly kind: "connect" }
  | { readonly kind: "send"; readonly message: MirrorMessage }
  | { readonly kind: "disconnect" }
  | { readonly kind: "survey" }
  | { readonly kind: "take"; readonly name: string }
  | {
      readonly kind: "plan";
      readonly top: StateIdentity;
      /** undefined: a full image. */
      readonly base: StateIdentity | undefined;
      readonly resumption: Resumption | undefined;
    }
  /** Send the next frame of the transfer planned last, with this number of the transfer. */
  | { readonly kind: "ship"; readonly transfer: number }
  | { readonly kind: "drop"; readonly name: string }
  /** The last: the session is over. undefined: as it was asked to. */
  | { readonly kind: "end"; readonly error: Error | undefined };

export interface SourceOptions {
  readonly volume: Uint8Array;
  /** Identity of this run of the process: another connection of the same run replaces a dead one at once. */
  readonly run: Uint8Array;
  /** Of the destination, for messages. */
  readonly peer: string;
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly random: Random;
}

export interface SourceSession {
  handle(event: SourceEvent, nowMs: number): readonly SourceAction[];
  status(): SourceStatus;
}

interface Transfer {
  readonly number: number;
  readonly top: SourceSnapshot;
  readonly base: StateIdentity | undefined;
  /** The user's snapshots at the time of looking. */
  readonly signature: string;
  readonly resumed: boolean;
  readonly plan: TransferPlan;
  accepted: boolean;
  windowBytes: number;
  framesSent: number;
  framesWritten: number;
  framesDurable: number;
  /** Sizes of the frames on their way, and their sum. */
  readonly onTheirWay: number[];
  onTheirWayBytes: number;
}

type Phase = "waiting" | "connecting" | "greeting" | "ready" | "offered" | "shipping" | "ended";

/** Prefix of the names of the hidden snapshots that are held for a destination. */
export function heldPrefix(destination: Uint8Array): string {
  return `mirror-${formatUuid(destination).slice(0, 8)}-`;
}

export function sourceSession(options: SourceOptions): SourceSession {
  const { clock, random, peer } = options;
  let phase: Phase = "waiting";
  let actions: SourceAction[] = [];
  let nowMs = 0;
  let startMs = 0; // of the next attempt to connect
  let attempts = 0; // that came to nothing, one after the other
  let beat: Pulse = pulse(0);
  let greeting: Hello | undefined;
  let destination: DestinationState | undefined;
  let work: SourceWork | undefined; // under way
  let workFor = 0; // number of the connection that it was begun for
  let lookMs = 0; // of the next look at the volume
  let survey: Survey | undefined;
  let resuming: Resumption | undefined; // of the plan under way
  let planned: { readonly top: SourceSnapshot; readonly base: StateIdentity | undefined } | undefined;
  let resumeRefused = false;
  let transfer: Transfer | undefined;
  let transferNext = 1;
  /** Asked for and still listed by a survey that began before it was done. */
  const dropping = new Set<string>();
  let shipped: { readonly state: StateIdentity; readonly signature: string } | undefined;
  let inStep = false;
  let inStepAt: Time | undefined; // when the destination was last known to have everything

  // What status() tells.
  let connectedSince: Time | undefined;
  let lastError: string | undefined;
  let switchedAt: Time | undefined;
  const counts = { updates: 0, skippedCps: 0, framesSent: 0, bytesSent: 0, connections: 0 };

  function act(action: SourceAction): void {
    actions.push(action);
  }

  function send(message: MirrorMessage): void {
    act({ kind: "send", message });
  }

  function begin(what: Exclude<SourceWork, "drop">, action: SourceAction): void {
    work = what;
    workFor = counts.connections;
    act(action);
  }

  /** Takes the answer to what was under way. False: it was for a connection that is gone, and counts no more. */
  function finished(): boolean {
    work = undefined;
    return workFor === counts.connections;
  }

  /** Forgets the connection; another attempt follows after a while. */
  function lose(why: string | undefined): void {
    if (phase === "ended") return;
    if (why !== undefined) lastError = why;
    if (phase !== "waiting" && phase !== "connecting") act({ kind: "disconnect" });
    phase = "waiting";
    greeting = undefined;
    destination = undefined;
    transfer = undefined;
    connectedSince = undefined;
    inStep = false;
    const delayMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(attempts, 16));
    attempts += 1;
    startMs = nowMs + delayMs * (0.5 + random.u32() / 0x2_0000_0000);
  }

  function end(error: Error | undefined): void {
    if (phase === "ended") return;
    if (error !== undefined) lastError = error.message;
    if (phase !== "waiting" && phase !== "connecting") act({ kind: "disconnect" });
    phase = "ended";
    act({ kind: "end", error });
  }

  function giveUp(failure: FailureClass, message: string, hint: string): void {
    if (phase !== "waiting" && phase !== "connecting") send({ type: "error", code: "mismatch", reason: message });
    end(new UserError(failure, message, hint));
  }

  function onMessage(message: MirrorMessage): void {
    if (phase === "waiting" || phase === "connecting" || phase === "ended") return; // of a connection given up
    beat.heard(nowMs);
    switch (message.type) {
      case "hello":
        if (phase !== "greeting" || greeting !== undefined) return protocolError(message);
        return onHello(message);
      case "state":
        if (phase !== "greeting" || greeting === undefined) return protocolError(message);
        destination = message;
        phase = "ready";
        lookMs = nowMs;
        return;
      case "accept":
        if (phase !== "offered" || transfer?.number !== message.transfer) return protocolError(message);
        transfer.accepted = true;
        transfer.windowBytes = message.windowBytes;
        phase = "shipping";
        return;
      case "refuse":
        if (phase !== "offered" || transfer?.number !== message.transfer) return protocolError(message);
        if (transfer.resumed) resumeRefused = true;
        return lose(`${peer} refused cp ${transfer.top.state.cpCount}: ${message.reason}`);
      case "ack":
        if (transfer?.number !== message.transfer) return protocolError(message);
        return onAck(transfer, message.framesWritten, message.framesDurable, message);
      case "switched":
        if (transfer?.number !== message.transfer) return protocolError(message);
        return onSwitched(transfer, message);
      case "heartbeat":
        return;
      case "error":
        return onError(message.code, message.reason);
      case "bye":
        return lose(`${peer} was stopped`);
      case "offer":
      case "frame":
        return protocolError(message);
      default:
        return assertNever(message);
    }
  }

  function protocolError(message: MirrorMessage): void {
    const reason = outOfPlace(message, phase);
    send({ type: "error", code: "protocol", reason });
    lose(`${peer}: ${reason}`);
  }

  function onHello(hello: Hello): void {
    if (hello.version !== MIRROR_VERSION) {
      return giveUp(
        "mismatch",
        `${peer} speaks version ${hello.version} of the mirror protocol, this program ${MIRROR_VERSION}`,
        "install the same version of tidemark at both ends",
      );
    }
    if (hello.role !== ROLE_DESTINATION) {
      return giveUp("mismatch", `${peer} is no destination of a mirror`, "run `tidemark mirror serve` there");
    }
    greeting = hello;
  }

  function onError(code: string, reason: string): void {
    if (code === "mismatch" || code === "version") {
      const hint = "see at both ends: tidemark mirror status VOLUME";
      return end(new UserError("mismatch", `${peer} refused: ${reason}`, hint));
    }
    lose(`${peer}: ${reason}`);
  }

  function onAck(current: Transfer, written: number, durable: number, message: MirrorMessage): void {
    if (written < current.framesWritten || written > current.framesSent) return protocolError(message);
    for (; current.framesWritten < written; current.framesWritten += 1) {
      current.onTheirWayBytes -= current.onTheirWay.shift() ?? 0;
    }
    if (durable > current.framesDurable) attempts = 0; // a link over which things get on
    current.framesDurable = durable;
  }

  function onSwitched(current: Transfer, message: Extract<MirrorMessage, { type: "switched" }>): void {
    if (destination === undefined || !isSameState(message.top, current.top.state)) return protocolError(message);
    const base = destination.top;
    counts.updates += 1;
    if (current.base !== undefined) {
      counts.skippedCps += Math.max(0, current.top.state.cpCount - current.base.cpCount - 1);
    }
    attempts = 0;
    resumeRefused = false;
    lastError = undefined;
    switchedAt = message.switchedAt;
    destination = { ...destination, top: current.top.state, transferTop: NO_STATE };
    shipped = { state: current.top.state, signature: current.signature };
    inStepAt = current.top.takenAt;
    transfer = undefined;
    phase = "ready";
    const old = survey?.snapshots.find(({ state }) => isSameState(state, base));
    if (old !== undefined) drop(old);
  }

  function drop(snapshot: SourceSnapshot): void {
    if (!isOwn(snapshot) || dropping.has(snapshot.name)) return;
    dropping.add(snapshot.name);
    act({ kind: "drop", name: snapshot.name });
  }

  function isOwn({ name, mirror }: SourceSnapshot): boolean {
    return mirror && greeting !== undefined && name.startsWith(heldPrefix(greeting.sender));
  }

  function onSurveyed(found: Survey): void {
    survey = found;
    lookMs = nowMs + options.intervalMs;
    const listed = new Set(found.snapshots.map(({ name }) => name));
    for (const name of dropping) if (!listed.has(name)) dropping.delete(name);
    if (phase !== "ready" || greeting === undefined || destination === undefined) return;
    if (!isNoState({ uuid: destination.volume }) && !sameBytes(destination.volume, found.volume)) {
      return giveUp(
        "mismatch",
        `${peer} has volume ${formatUuid(destination.volume)}, this one is ${formatUuid(found.volume)}`,
        "give `tidemark mirror serve` the path of a new volume",
      );
    }
    const base = commonState(found, destination);
    if (base === "missing") {
      return giveUp(
        "mismatch",
        `no common base: the mirror at ${peer} is at ${describeState(destination.top)} and has ${describeStates(destination.snapshots)}; ` +
          `the source has ${describeStates(found.snapshots.map(({ state }) => state))}`,
        "to begin anew with a full image, give `tidemark mirror serve` the path of a new volume",
      );
    }
    const resumable = resumeRefused ? undefined : resumableTop(found, destination, base);
    // What is held for this destination and leads nowhere any more.
    for (const snapshot of found.snapshots) {
      if (!isSameState(snapshot.state, destination.top) && snapshot !== resumable) drop(snapshot);
    }
    if (resumable !== undefined) {
      const { transferHeader: header, transferFrames: frameFirst, transferDigest: digest } = destination;
      return plan(resumable, base, { header, frameFirst, digest });
    }
    if (base !== undefined && isNothingNew(found, base)) {
      inStep = true;
      inStepAt = clock.now();
      attempts = 0;
      return;
    }
    inStep = false;
    begin("take", { kind: "take", name: `${heldPrefix(greeting.sender)}${found.newestCp + 1}` });
  }

  /** The state to build on; undefined: the destination has no volume yet; "missing": the source no longer has it. */
  function commonState(found: Survey, { top, volume }: DestinationState): StateIdentity | undefined | "missing" {
    if (isNoState(top) && isNoState({ uuid: volume })) return undefined;
    return found.snapshots.find(({ state }) => isSameState(state, top))?.state ?? "missing";
  }

  /** The top of the transfer that was cut, when it is still held and still leads on from where the destination is. */
  function resumableTop(
    found: Survey,
    { transferTop, transferBase, transferFrames, transferHeader }: DestinationState,
    base: StateIdentity | undefined,
  ): SourceSnapshot | undefined {
    if (isNoState(transferTop) || transferFrames < 1 || transferHeader.length === 0) return undefined;
    if (!isSameState(transferBase, base ?? NO_STATE)) return undefined;
    return found.snapshots.find(({ state }) => isSameState(state, transferTop));
  }

  function isNothingNew(found: Survey, base: StateIdentity): boolean {
    return (
      found.dirtyBytes === 0 &&
      found.rootChecksum === base.rootChecksum &&
      shipped !== undefined &&
      isSameState(shipped.state, base) &&
      shipped.signature === signatureOf(found)
    );
  }

  function plan(top: SourceSnapshot, base: StateIdentity | undefined, resumption: Resumption | undefined): void {
    planned = { top, base };
    resuming = resumption;
    begin("plan", { kind: "plan", top: top.state, base, resumption });
  }

  function onTaken(snapshot: SourceSnapshot): void {
    if (phase !== "ready" || destination === undefined || survey === undefined) return; // the next look finds it
    const base = isNoState(destination.top) ? undefined : destination.top;
    survey = { ...survey, snapshots: [...survey.snapshots, snapshot] };
    plan(snapshot, base, undefined);
  }

  function onPlanned(made: TransferPlan): void {
    if (phase !== "ready" || planned === undefined || survey === undefined) return;
    const { top, base } = planned;
    transfer = {
      ...planned,
      number: transferNext,
      signature: signatureOf(survey),
      resumed: resuming !== undefined,
      plan: made,
      accepted: false,
      windowBytes: 0,
      framesSent: made.frameFirst,
      framesWritten: made.frameFirst,
      framesDurable: made.frameFirst,
      onTheirWay: [],
      onTheirWayBytes: 0,
    };
    transferNext += 1;
    phase = "offered";
    const { frameFirst, frameCount, blockCount, volumeBlocks, headerDigest } = made;
    const offer: Offer = {
      type: "offer",
      transfer: transfer.number,
      top: top.state,
      base: base ?? NO_STATE,
      takenAt: top.takenAt,
      volumeBlocks,
      headerDigest,
      frameFirst,
      frameCount,
      blockCount,
    };
    send(offer);
  }

  function onShipped(frame: number, bytes: number): void {
    if (phase !== "shipping" || transfer === undefined || frame !== transfer.framesSent) return;
    transfer.framesSent += 1;
    transfer.onTheirWay.push(bytes);
    transfer.onTheirWayBytes += bytes;
    counts.framesSent += 1;
    counts.bytesSent += bytes;
  }

  function onFailed(what: SourceWork, error: Error): void {
    if (what === "drop") {
      dropping.clear(); // the next survey tries again
      lastError = error.message;
      return;
    }
    // A stream that cannot be resumed, or whose snapshots are gone: the next one is made from scratch.
    if (what === "plan" || what === "ship") resumeRefused = true;
    if (error instanceof UserError && error.failure === "no-volume") return end(error);
    if (phase === "ready" || phase === "offered" || phase === "shipping") {
      send({ type: "error", code: "failed", reason: error.message });
      lose(error.message);
    } else {
      lastError = error.message;
    }
  }

  /** What there is to do by itself. */
  function advance(): void {
    if (phase === "waiting" && nowMs >= startMs) {
      phase = "connecting";
      act({ kind: "connect" });
    }
    if (work !== undefined) return;
    if ((phase === "ready" || phase === "shipping") && nowMs >= lookMs) {
      begin("survey", { kind: "survey" });
    } else if (phase === "shipping" && transfer !== undefined) {
      const { framesSent, plan: made, onTheirWayBytes, windowBytes, number } = transfer;
      // One frame is always allowed: a header may be larger than a window.
      const room = onTheirWayBytes === 0 || onTheirWayBytes < windowBytes;
      if (framesSent < made.frameCount && room) begin("ship", { kind: "ship", transfer: number });
    }
  }

  function tick(): void {
    if (phase === "waiting" || phase === "connecting" || phase === "ended") return;
    const what = beat.tick(nowMs);
    if (what === "dead") lose(`${peer} has gone silent`);
    if (what === "beat") {
      const { newestCp = 0, newestCpAt = clock.now() } = survey ?? {};
      const pendingBytes = pending();
      send({ type: "heartbeat", sentAt: clock.now(), newestCp, newestCpAt, pendingBytes, inStep });
    }
  }

  function pending(): number {
    const left = transfer === undefined ? 0 : (transfer.plan.frameCount - transfer.framesWritten) * FRAME_BYTES;
    return left + (survey?.dirtyBytes ?? 0);
  }

  function transferStatus({ plan: made, ...rest }: Transfer): TransferStatus {
    return {
      kind: rest.base === undefined ? "full" : "incremental",
      cpCount: rest.top.state.cpCount,
      baseCpCount: rest.base?.cpCount,
      blocks: made.blockCount,
      frames: made.frameCount,
      framesDone: rest.framesWritten,
      framesDurable: rest.framesDurable,
      resumedAt: made.frameFirst,
    };
  }

  return {
    handle(event, atMs): readonly SourceAction[] {
      nowMs = atMs;
      actions = [];
      if (phase === "ended") return actions;
      switch (event.kind) {
        case "connected":
          phase = "greeting";
          beat = pulse(nowMs);
          connectedSince = clock.now();
          counts.connections += 1;
          send({
            type: "hello",
            version: MIRROR_VERSION,
            role: ROLE_SOURCE,
            volume: options.volume,
            sender: options.run,
          });
          break;
        case "disconnected":
          if (event.fatal && event.error !== undefined) end(event.error);
          else if (phase !== "waiting") lose(event.error?.message ?? `${peer} closed the connection`);
          break;
        case "message":
          onMessage(event.message);
          break;
        case "surveyed":
          if (finished()) onSurveyed(event.survey);
          break;
        case "taken":
          if (finished()) onTaken(event.snapshot);
          break;
        case "planned":
          if (finished()) onPlanned(event.plan);
          break;
        case "shipped":
          if (finished()) onShipped(event.frame, event.bytes);
          break;
        case "failed":
          if (event.what === "drop" || finished()) onFailed(event.what, event.error);
          break;
        case "tick":
          tick();
          break;
        case "stop":
          if (phase !== "waiting" && phase !== "connecting") send({ type: "bye" });
          end(undefined);
          break;
        default:
          assertNever(event);
      }
      advance();
      return actions;
    },
    status(): SourceStatus {
      const top = destination?.top ?? shipped?.state;
      const known = top !== undefined && !isNoState(top);
      return {
        role: "source",
        volume: formatUuid(options.volume),
        peer,
        phase: phase === "ready" && inStep ? "in step" : phase,
        connectedSince: connectedSince === undefined ? undefined : formatTime(connectedSince),
        lastError,
        topCp: known ? top.cpCount : undefined,
        switchedAt: switchedAt === undefined ? undefined : formatTime(switchedAt),
        lag: {
          seconds:
            inStepAt === undefined
              ? undefined
              : inStep
                ? 0
                : Math.max(0, Math.round(timeToMs(clock.now()) - timeToMs(inStepAt)) / 1000),
          cps: inStep ? 0 : known && survey !== undefined ? Math.max(0, survey.newestCp - top.cpCount) : undefined,
          bytes: pending(),
        },
        transfer: transfer === undefined ? undefined : transferStatus(transfer),
        counts: { ...counts },
      };
    },
  };
}

/** What a frame carries, for estimates. */
const FRAME_BYTES = 1 << 20;

/** The user's snapshots: a change of them alone is shipped too. Those of mirrors do not count, or two would never rest. */
function signatureOf({ snapshots }: Survey): string {
  return snapshots
    .filter(({ mirror }) => !mirror)
    .map(({ name, state }) => `${formatUuid(state.uuid)} ${name}`)
    .join("\n");
}
