// Two ends of a mirror over a seeded network that delays and cuts, with processes that die and volumes of which only the
// identities exist. It checks the invariants of session.ts at every step.

import assert from "node:assert/strict";
import { manualClock } from "../../src/core/clock.ts";
import { assertNever } from "../../src/core/numbers.ts";
import { below, prng, type Random, randomUuid } from "../../src/core/prng.ts";
import { formatUuid, sameBytes } from "../../src/core/uuid.ts";
import {
  encodeMirrorMessage,
  isNoState,
  isSameState,
  type MirrorMessage,
  mirrorMessageReader,
  NO_STATE,
  type StateIdentity,
} from "../../src/format/mirror-message.ts";
import {
  type DestinationAction,
  type DestinationEvent,
  type DestinationSession,
  destinationSession,
  type Interrupted,
  type MirrorVolume,
} from "../../src/mirror/destination.ts";
import {
  type SourceAction,
  type SourceEvent,
  type SourceSession,
  type SourceSnapshot,
  sourceSession,
} from "../../src/mirror/source.ts";

interface Link {
  readonly number: number;
  open: boolean;
}

interface Faults {
  /** Chances in a thousand, for each step of 10 ms. */
  readonly cut: number;
  readonly sourceDies: number;
  readonly destinationDies: number;
  /** The link says nothing and delivers nothing, and nobody is told. */
  readonly goesSilent: number;
}

export interface Pair {
  readonly cpCount: number;
  readonly sourceCounts: { updates: number; framesSent: number; resumptions: number; skippedCps: number };
  readonly errors: readonly string[];
  /** Lets time pass, with faults and with changes at the source. */
  run(ms: number, faults: Faults, changes: number): void;
  /** True when the destination has all that the source has, and the source holds nothing but the base. */
  isSettled(): boolean;
  describe(): string;
}

const NOT_RESUMABLE = "a snapshot of it is gone";
const STEP_MS = 10;
const CHECKPOINT_FRAMES_MS = 15;

export function simulatedPair(seed: number): Pair {
  const random: Random = prng(seed);
  const clock = manualClock();
  let nowMs = 0;
  let sequence = 0;
  const agenda: { readonly atMs: number; readonly order: number; readonly what: () => void }[] = [];
  const errors: string[] = [];
  const sourceCounts = { updates: 0, framesSent: 0, resumptions: 0, skippedCps: 0 };

  function later(delayMs: number, what: () => void): void {
    agenda.push({ atMs: nowMs + delayMs, order: sequence++, what });
  }

  // The source's volume.
  const uuid = randomUuid(random);
  let cpCount = 1;
  let rootChecksum = 1;
  let dirty = false;
  let snapshots: SourceSnapshot[] = [];
  const taken: StateIdentity[] = []; // ever

  // The destination's disk: survives its processes.
  let disk: { volume: MirrorVolume | undefined; interrupted: Interrupted | undefined } = {
    volume: undefined,
    interrupted: undefined,
  };

  // What must never be sent again: by headerDigest, frames acknowledged.
  const durable = new Map<string, number>();
  let acknowledged = new Map<string, number>(); // to the destination process that lives

  let link: Link | undefined;
  let silent = false;
  let linkNext = 1;
  let source = bornSource();
  let destination = bornDestination();

  function bornSource(): { session: SourceSession; life: number; sender: Sender | undefined } {
    const session = sourceSession({
      volume: uuid,
      run: randomUuid(random),
      peer: "there:1",
      intervalMs: 1000,
      clock,
      random,
    });
    return { session, life: sequence++, sender: undefined };
  }

  function bornDestination(): { session: DestinationSession; life: number; receiver: Receiver | undefined } {
    const session = destinationSession({ id: new Uint8Array(16).fill(7), ...disk, checkpointBytes: 300, clock });
    return { session, life: sequence++, receiver: undefined };
  }

  interface Sender {
    readonly header: Uint8Array;
    readonly frameCount: number;
    frame: number;
  }
  interface Receiver {
    header: Uint8Array | undefined;
    frames: number;
  }

  function toSource(event: SourceEvent): void {
    for (const action of source.session.handle(event, nowMs)) actAsSource(action);
  }

  function afterWork(event: () => SourceEvent): void {
    const { life } = source;
    const delayMs = below(random, below(random, 10) === 0 ? 3000 : 120); // some outlive their connection
    later(delayMs, () => {
      if (source.life === life) toSource(event());
    });
  }

  function actAsSource(action: SourceAction): void {
    switch (action.kind) {
      case "connect": {
        const { life } = source;
        later(below(random, 60), () => {
          if (source.life !== life) return;
          if (below(random, 10) === 0) {
            toSource({ kind: "disconnected", error: new Error("unreachable"), fatal: false });
            return;
          }
          silent = false;
          link = { number: linkNext++, open: true };
          toDestination({ kind: "connected", connection: link.number, peer: "here:2" });
          toSource({ kind: "connected" });
        });
        return;
      }
      case "send":
        return deliver(action.message, "destination");
      case "disconnect":
        return cut("orderly");
      case "survey":
        return afterWork(() => ({
          kind: "surveyed",
          survey: {
            volume: uuid,
            snapshots: [...snapshots],
            newestCp: cpCount,
            newestCpAt: clock.now(),
            rootChecksum,
            dirtyBytes: dirty ? 4096 : 0,
          },
        }));
      case "take":
        return afterWork(() => {
          cpCount += 1;
          dirty = false;
          const state = { uuid: randomUuid(random), cpCount, rootChecksum };
          const snapshot = { name: action.name, state, takenAt: clock.now(), mirror: true };
          assert.ok(!snapshots.some(({ name }) => name === action.name), `${action.name} is taken twice`);
          snapshots.push(snapshot);
          taken.push(state);
          return { kind: "taken", snapshot };
        });
      case "plan":
        return afterWork(() => plan(action));
      case "ship": {
        const over = link;
        return afterWork(() => ship(over));
      }
      case "drop":
        assert.ok(
          snapshots.some(({ name }) => name === action.name),
          `${action.name} is dropped twice`,
        );
        snapshots = snapshots.filter(({ name }) => name !== action.name);
        return;
      case "end":
        errors.push(`the source ended: ${action.error?.message}`);
    }
  }

  function plan({ top, base, resumption }: Extract<SourceAction, { kind: "plan" }>): SourceEvent {
    assert.ok(
      snapshots.some(({ state }) => isSameState(state, top)),
      "a plan without its top",
    );
    if (base !== undefined)
      assert.ok(
        snapshots.some(({ state }) => isSameState(state, base)),
        "a plan without its base",
      );
    if (resumption !== undefined && below(random, 5) === 0) {
      return { kind: "failed", what: "plan", error: new Error(NOT_RESUMABLE) };
    }
    const header =
      resumption?.header ?? Buffer.concat([top.uuid, base?.uuid ?? new Uint8Array(16), randomUuid(random)]);
    const frameCount = frameCountOf(header);
    assert.ok((resumption?.frameFirst ?? 0) < frameCount, "a resumption without a frame");
    source.sender = { header, frameCount, frame: resumption?.frameFirst ?? 0 };
    if (resumption !== undefined) sourceCounts.resumptions += 1;
    const headerDigest = digestOf(header);
    return {
      kind: "planned",
      plan: { headerDigest, volumeBlocks: 1000, frameFirst: source.sender.frame, frameCount, blockCount: 100 },
    };
  }

  function ship(over: Link | undefined): SourceEvent {
    const { sender } = source;
    assert.ok(sender !== undefined);
    const frame = sender.frame++;
    assert.ok(frame < sender.frameCount, "more frames than there are");
    const key = Buffer.from(digestOf(sender.header)).toString("hex");
    assert.ok(frame >= (acknowledged.get(key) ?? 0), `frame ${frame} was acknowledged, and is sent again`);
    assert.ok(frame >= (durable.get(key) ?? 0), `frame ${frame} was durable, and is sent again`);
    sourceCounts.framesSent += 1;
    const bytes = frame === 0 ? sender.header : Buffer.concat([sender.header, Buffer.from([frame])]);
    if (over === link) deliver({ type: "frame", transfer: transferNumber, frame, bytes }, "destination");
    return { kind: "shipped", frame, bytes: 1 << 20 };
  }

  let transferNumber = 0;

  function toDestination(event: DestinationEvent): void {
    const queue = [event];
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      for (const action of destination.session.handle(next, nowMs)) {
        const answer = actAsDestination(action);
        if (answer !== undefined) queue.push(answer);
      }
    }
    checkInvariants();
  }

  function afterDisk(event: () => DestinationEvent): void {
    const { life } = destination;
    later(CHECKPOINT_FRAMES_MS + below(random, 300), () => {
      if (destination.life === life) toDestination(event());
    });
  }

  function actAsDestination(action: DestinationAction): DestinationEvent | undefined {
    switch (action.kind) {
      case "send":
        if (action.connection === link?.number) deliver(action.message, "source");
        return undefined;
      case "disconnect":
        if (action.connection === link?.number) cut("orderly");
        return undefined;
      case "open":
        if (!action.resume) disk.interrupted = undefined;
        destination.receiver = { header: disk.interrupted?.header, frames: disk.interrupted?.frames ?? 0 };
        return { kind: "opened" };
      case "write": {
        const { receiver } = destination;
        assert.ok(receiver !== undefined, "a frame without a transfer");
        if (receiver.frames === 0) receiver.header = action.bytes.slice();
        else {
          assert.ok(receiver.header !== undefined);
          assert.deepEqual(action.bytes, new Uint8Array([...receiver.header, receiver.frames]));
        }
        receiver.frames += 1;
        return { kind: "written" };
      }
      case "checkpoint": {
        const { receiver } = destination;
        assert.ok(receiver?.header !== undefined);
        const { header } = receiver;
        afterDisk(() => {
          const { frames } = receiver;
          if (frames === frameCountOf(header)) return { kind: "checkpointed", interrupted: undefined };
          const interrupted = {
            ...endsOf(header),
            frames,
            digest: new Uint8Array(32),
            header,
            headerDigest: digestOf(header),
          };
          disk.interrupted = interrupted;
          durable.set(Buffer.from(digestOf(header)).toString("hex"), frames);
          return { kind: "checkpointed", interrupted };
        });
        return undefined;
      }
      case "switch": {
        const { receiver } = destination;
        assert.ok(receiver?.header !== undefined);
        const { header, frames } = receiver;
        afterDisk(() => {
          const { top, base } = endsOf(header);
          assert.equal(frames, frameCountOf(header), "a switch without all frames");
          assert.ok(isSameState(base, disk.volume?.top ?? NO_STATE), "a switch from another base");
          const volume = { uuid, blockCount: 1000, top, snapshots: [top] };
          disk = { volume, interrupted: undefined };
          destination.receiver = undefined;
          return { kind: "switched", volume };
        });
        return undefined;
      }
      case "abandon":
        destination.receiver = undefined;
        if (action.forget) disk.interrupted = undefined;
        return undefined;
      case "note":
      case "end":
        return undefined;
      default:
        return assertNever(action);
    }
  }

  function endsOf(header: Uint8Array): { top: StateIdentity; base: StateIdentity } {
    return { top: stateOf(header.subarray(0, 16)), base: stateOf(header.subarray(16, 32)) };
  }

  function stateOf(id: Uint8Array): StateIdentity {
    return taken.find((state) => sameBytes(state.uuid, id)) ?? NO_STATE;
  }

  // A message goes through its bytes, cut at random, and arrives after those sent before it.
  const arrival = { source: 0, destination: 0 };

  function deliver(message: MirrorMessage, to: "source" | "destination"): void {
    const over = link;
    if (over === undefined || !over.open) return;
    if (message.type === "offer") transferNumber = message.transfer;
    if (message.type === "error" && message.code !== "busy" && message.reason !== NOT_RESUMABLE)
      errors.push(`${message.code}: ${message.reason}`);
    const raw = Buffer.concat(encodeMirrorMessage(message));
    arrival[to] = Math.max(arrival[to], nowMs + below(random, 40));
    const life = to === "source" ? source.life : destination.life;
    later(arrival[to] - nowMs, () => {
      if (!over.open || silent || life !== (to === "source" ? source.life : destination.life)) return;
      const at = below(random, raw.length);
      const reader = mirrorMessageReader((received) => {
        if (received.type === "ack" && to === "source") {
          const key = Buffer.from(digestOf(source.sender?.header ?? new Uint8Array(0))).toString("hex");
          acknowledged.set(key, Math.max(acknowledged.get(key) ?? 0, received.framesWritten));
        }
        if (to === "source") toSource({ kind: "message", message: received });
        else toDestination({ kind: "message", connection: over.number, message: received });
      });
      reader.push(raw.subarray(0, at));
      reader.push(raw.subarray(at));
    });
  }

  /** orderly: what was sent before still arrives. */
  function cut(how: "orderly" | "hard"): void {
    const over = link;
    if (over === undefined || !over.open) return;
    const end = (): void => {
      if (!over.open) return;
      over.open = false;
      if (silent) return;
      toDestination({ kind: "disconnected", connection: over.number, error: undefined });
      if (link === over) {
        link = undefined;
        toSource({ kind: "disconnected", error: undefined, fatal: false });
      }
    };
    if (how === "orderly") link = undefined;
    if (how === "orderly") later(50, end);
    else end();
  }

  function checkInvariants(): void {
    const top = disk.volume?.top ?? NO_STATE;
    if (isNoState(top)) return;
    assert.ok(
      snapshots.some(({ state }) => isSameState(state, top)),
      "the last common snapshot is gone",
    );
  }

  function strikes(chance: number): boolean {
    return below(random, 1000) < chance;
  }

  function step(faults: Faults, changes: number): void {
    nowMs += STEP_MS;
    clock.advanceMs(STEP_MS);
    agenda.sort((a, b) => a.atMs - b.atMs || a.order - b.order);
    while (agenda.length > 0 && (agenda[0]?.atMs ?? 0) <= nowMs) agenda.shift()?.what();
    if (strikes(changes)) {
      rootChecksum += 1;
      dirty = true;
      if (strikes(500)) cpCount += 1; // a consistency point that no mirror sees
    }
    if (strikes(faults.cut)) cut("hard");
    if (strikes(faults.goesSilent)) silent = true;
    if (strikes(faults.sourceDies)) {
      cut("hard");
      source = bornSource();
    }
    if (strikes(faults.destinationDies)) {
      cut("hard");
      destination = bornDestination();
      acknowledged = new Map();
    }
    if (nowMs % 100 === 0) {
      toSource({ kind: "tick" });
      toDestination({ kind: "tick" });
    }
    sourceCounts.updates = Math.max(sourceCounts.updates, source.session.status().counts.updates);
    sourceCounts.skippedCps = Math.max(sourceCounts.skippedCps, source.session.status().counts.skippedCps);
  }

  return {
    get cpCount() {
      return cpCount;
    },
    sourceCounts,
    errors,
    run(ms, faults, changes): void {
      for (const endMs = nowMs + ms; nowMs < endMs; ) step(faults, changes);
    },
    isSettled(): boolean {
      const { volume } = disk;
      return (
        volume?.top.rootChecksum === rootChecksum &&
        snapshots.length === 1 &&
        source.session.status().phase === "in step"
      );
    },
    describe(): string {
      const states = snapshots.map(({ name }) => name).join(" ");
      return JSON.stringify({
        source: source.session.status(),
        destination: destination.session.status(),
        snapshots: states,
        top: formatUuid(disk.volume?.top.uuid ?? NO_STATE.uuid),
      });
    },
  };
}

/** 3 to 42: the first byte of the UUID of its top says how many. */
function frameCountOf(header: Uint8Array): number {
  return 3 + ((header[0] as number) % 40);
}

function digestOf(header: Uint8Array): Uint8Array {
  const digest = new Uint8Array(32);
  digest.set(header.subarray(32, 48));
  digest.set(header.subarray(0, 16), 16);
  return digest;
}
