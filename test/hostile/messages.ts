/** Hostile messages: those of the control socket, and those that a mirror gets from whoever has its key. */
import { manualClock } from "../../src/core/clock.ts";
import { below, type Random } from "../../src/core/prng.ts";
import { causeOf, isVolumeRequest, performVerb } from "../../src/daemon/volume-verbs.ts";
import { decodeReply, decodeRequest, lineReader } from "../../src/format/control-message.ts";
import {
  encodeMirrorMessage,
  MIRROR_VERSION,
  type MirrorMessage,
  mirrorMessageReader,
  NO_STATE,
  ROLE_SOURCE,
} from "../../src/format/mirror-message.ts";
import { destinationSession } from "../../src/mirror/destination.ts";
import { makeBench } from "../support/fs-paths.ts";
import { tolerate } from "./judge.ts";
import { mutateBytes } from "./mutate.ts";

const LINES: readonly string[] = [
  '{"verb":"volume-status","arguments":{}}',
  '{"verb":"repair","arguments":{}}',
  '{"verb":"snapshot-list","arguments":{"unique":true}}',
  '{"verb":"snapshot-create","arguments":{"name":"one","mirror":false}}',
  '{"verb":"snapshot-rename","arguments":{"from":"one","into":"two"}}',
  '{"verb":"snapshot-restore","arguments":{"name":"two"}}',
  '{"verb":"snapshot-reclaimable","arguments":{"names":["one","two"]}}',
  '{"verb":"snapshot-delete","arguments":{"name":"two"}}',
  '{"verb":"umount","arguments":{"force":true}}',
  '{"type":"error","error":{"failure":"usage","message":"m","hint":"h"}}',
  '{"type":"progress","progress":{"step":"s","done":1,"total":2}}',
];
/** What JSON can hold where something else is expected. */
const VALUES: readonly string[] = [
  "null",
  "true",
  "1e308",
  "-1",
  '""',
  '"\\u0000"',
  '"../.."',
  "[]",
  "{}",
  '{"__proto__":{"x":1}}',
  "[[[[[[]]]]]]",
  '"constructor"',
];

/** Lines of commands, some of them whole. */
export function hostileLines(random: Random): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let n = 1 + below(random, 6); n > 0; n--) {
    let line = LINES[below(random, LINES.length)] as string;
    if (below(random, 2) === 0) {
      const places = [...line.matchAll(/"[^"]*"|true|false|\d+/g)];
      const place = places[below(random, places.length)];
      if (place !== undefined)
        line =
          line.slice(0, place.index) +
          (VALUES[below(random, VALUES.length)] as string) +
          line.slice(place.index + place[0].length);
    }
    const bytes = new TextEncoder().encode(`${line}\n`);
    parts.push(below(random, 3) === 0 ? mutateBytes(random, bytes) : bytes);
  }
  return new Uint8Array(Buffer.concat(parts));
}

export function exerciseLines(random: Random, bytes: Uint8Array): void {
  const { volume } = makeBench(256);
  const reader = lineReader((line) => {
    tolerate("reply", () => decodeReply(line));
    const request = tolerate("request", () => decodeRequest(line));
    if (request === undefined || !isVolumeRequest(request)) return;
    tolerate(request.verb, () => {
      const result = performVerb(volume, request.verb, request.arguments as never);
      const cause = causeOf(request.verb);
      if (cause !== undefined) volume.takeCp(cause);
      JSON.stringify(result());
    });
  });
  for (let at = 0; at < bytes.length; ) {
    const some = 1 + below(random, bytes.length);
    if (tolerate("push", () => (reader.push(bytes.subarray(at, at + some)), true)) === undefined) return;
    at += some;
  }
}

function uuid(n: number): Uint8Array {
  return new Uint8Array(16).fill(n);
}

/** What a source says in one transfer, over and over in another order. */
function someMessages(random: Random): MirrorMessage[] {
  const state = (n: number) => (n === 0 ? NO_STATE : { uuid: uuid(n), cpCount: n, rootChecksum: n });
  const transfer = below(random, 3);
  const small = (): number => below(random, 4);
  const all: MirrorMessage[] = [
    {
      type: "hello",
      version: MIRROR_VERSION,
      role: ROLE_SOURCE,
      volume: uuid(1 + below(random, 2)),
      sender: uuid(small()),
    },
    {
      type: "offer",
      transfer,
      top: state(1 + small()),
      base: state(small()),
      takenAt: { seconds: 1, nanoseconds: 2 },
      volumeBlocks: 1024 * small(),
      headerDigest: new Uint8Array(32).fill(small()),
      frameFirst: small(),
      frameCount: 2 + small(),
      blockCount: 256 * small(),
    },
    { type: "frame", transfer, frame: small(), bytes: new Uint8Array(below(random, 3000)).fill(7) },
    { type: "frame", transfer, frame: small(), bytes: new Uint8Array(100) },
    { type: "accept", transfer, windowBytes: random.u32() },
    { type: "refuse", transfer, reason: "because" },
    { type: "error", code: "failed", reason: "an error" },
  ];
  return Array.from(
    { length: 1 + below(random, 12) },
    (_, i) => (i < 2 && below(random, 4) > 0 ? all[i] : all[below(random, all.length)]) as MirrorMessage,
  );
}

export function hostileMessages(random: Random): Uint8Array {
  const parts = someMessages(random).map((message) => {
    const bytes = new Uint8Array(Buffer.concat(encodeMirrorMessage(message)));
    return below(random, 4) === 0 ? mutateBytes(random, bytes) : bytes;
  });
  return new Uint8Array(Buffer.concat(parts));
}

/** A destination that carries out what its session says, or says that it cannot. */
export function exerciseMessages(random: Random, bytes: Uint8Array): void {
  const volume = {
    uuid: uuid(1),
    blockCount: 1024,
    top: { uuid: uuid(1), cpCount: 1, rootChecksum: 1 },
    snapshots: [],
  };
  const session = destinationSession({
    id: uuid(9),
    volume: below(random, 2) === 0 ? volume : undefined,
    interrupted: undefined,
    clock: manualClock(),
  });
  let nowMs = 0;
  const handle = (event: Parameters<typeof session.handle>[0], depth = 0): void => {
    nowMs += below(random, 2000);
    for (const action of session.handle(event, nowMs)) {
      if (depth > 20) return;
      const fails = below(random, 8) === 0;
      const error = new Error("failed by the test");
      if (
        action.kind === "open" ||
        action.kind === "write" ||
        action.kind === "checkpoint" ||
        action.kind === "switch"
      ) {
        if (fails) handle({ kind: "failed", what: action.kind, error }, depth + 1);
        else if (action.kind === "open") handle({ kind: "opened" }, depth + 1);
        else if (action.kind === "write") handle({ kind: "written" }, depth + 1);
        else if (action.kind === "checkpoint") handle({ kind: "checkpointed", interrupted: undefined }, depth + 1);
        else handle({ kind: "switched", volume }, depth + 1);
      }
    }
  };
  const connections = 1 + below(random, 2);
  for (let connection = 1; connection <= connections; connection++)
    handle({ kind: "connected", connection, peer: "test" });
  const reader = mirrorMessageReader((message) =>
    handle({ kind: "message", connection: 1 + below(random, connections), message }),
  );
  for (let at = 0; at < bytes.length; ) {
    const some = 1 + below(random, bytes.length);
    if (tolerate("push", () => (reader.push(bytes.subarray(at, at + some)), true)) === undefined) break;
    if (below(random, 4) === 0) handle({ kind: "tick" });
    at += some;
  }
  handle({ kind: "disconnected", connection: 1, error: undefined });
  session.status();
}
