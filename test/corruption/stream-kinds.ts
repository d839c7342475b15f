/**
 * What travels and what a mirror keeps beside its volume: image streams, the state of a transfer, messages. What does not
 * verify is refused as a whole, and the volume at the destination stays what it was.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { CorruptionError, UserError } from "../../src/core/errors.ts";
import {
  DIGEST_START,
  deflatedHead,
  digestFrame,
  FRAME_DATA,
  FRAME_HEADER,
  type FrameHeader,
  frameHeader,
  heldRecord,
  imageHeaderRecord,
  imageTrailer,
  patchRecord,
  resumeRecord,
  runRecord,
  segmentRecord,
} from "../../src/format/image-frame.ts";
import * as wire from "../../src/format/mirror-message.ts";
import { snapshotRecord } from "../../src/format/snapshot-record.ts";
import { decodeTransferState, encodeTransferState, transferStateRecord } from "../../src/format/transfer-state.ts";
import { decodeResumePoint, encodeResumePoint } from "../../src/image/resume-point.ts";
import { connectTo, listen } from "../../src/mirror/connection.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { readFsinfo } from "../../src/volume/fsinfo-copies.ts";
import { type StreamSample, sampleStreams } from "../hostile/streams.ts";
import { memoryTarget, receive } from "../image/histories.ts";
import { until } from "../mirror/loopback.ts";
import { fieldsOf, flipped, type Harm, isLayout, type Kind, type Layout, type Place } from "./kinds.ts";

let sampled: StreamSample | undefined;
function sample(): StreamSample {
  sampled ??= sampleStreams();
  return sampled;
}

/** An increment: its frames, and where each begins. */
export function increment(): { readonly stream: Uint8Array; readonly starts: readonly number[] } {
  const [frames] = sample().streams;
  assert(frames !== undefined);
  const starts: number[] = [];
  let bytes = 0;
  for (const frame of frames) {
    starts.push(bytes);
    bytes += frame.length;
  }
  return { stream: new Uint8Array(Buffer.concat(frames)), starts };
}

interface Part {
  readonly what: string;
  /** Where it lies in a frame of its kind; empty in others. */
  readonly places: (view: DataView, header: FrameHeader) => readonly Place[];
}

const parts: readonly Part[] = [
  { what: "the header of a frame of a stream", places: () => fieldsOf(frameHeader, 0) },
  {
    what: "the header of a stream",
    places: (_view, { kind, bodyBytes }) => {
      if (kind !== FRAME_HEADER) return [];
      const deflated = { at: frameHeader.size + deflatedHead.size, bytes: bodyBytes - deflatedHead.size };
      return [
        ...fieldsOf(deflatedHead, frameHeader.size),
        { ...deflated, of: [imageHeaderRecord, snapshotRecord, heldRecord] },
      ];
    },
  },
  {
    what: "the runs of a stream",
    places: (_view, { runCount }) =>
      runCount === 0 ? [] : fieldsOf(runRecord, frameHeader.size + (runCount - 1) * runRecord.size),
  },
  {
    what: "the patches of a stream",
    places: (_view, { runCount, patchCount }) => {
      if (patchCount === 0) return [];
      const at = frameHeader.size + runCount * runRecord.size;
      return [...fieldsOf(patchRecord, at), ...fieldsOf(segmentRecord, at + patchCount * patchRecord.size)];
    },
  },
  {
    what: "the blocks of a stream",
    places: (_view, { kind, bodyBytes }) =>
      kind === FRAME_DATA ? [{ at: frameHeader.size, bytes: bodyBytes, of: [] }] : [],
  },
  {
    what: "the trailer of a stream",
    places: (_view, { kind }) => (kind > FRAME_DATA ? fieldsOf(imageTrailer, frameHeader.size) : []),
  },
];

function partKind({ what, places }: Part): Kind {
  return {
    what,
    promise: "are refused, and the destination stays what it was",
    places() {
      const { stream, starts } = increment();
      return starts.flatMap((start) => {
        const view = new DataView(stream.buffer, start);
        return places(view, frameHeader.decode(view, 0)).map(({ at, bytes, of }) => ({ at: start + at, bytes, of }));
      });
    },
    judge(harm): void {
      const { destination } = sample();
      const device = destination.clone();
      assert.throws(
        () => receive(memoryTarget(device), flipped(increment().stream, harm)),
        (error) => error instanceof CorruptionError || error instanceof UserError,
      );
      assert.deepEqual(readFsinfo(device), readFsinfo(destination));
      assert.deepEqual(checkVolume(device).findings, []);
    },
  };
}

function resumePoint(): Uint8Array {
  const headerFrame = increment().stream.slice(0, increment().starts[1]);
  const digest = digestFrame(DIGEST_START, headerFrame.subarray(0, frameHeader.size));
  return encodeResumePoint({ headerFrame, frameNumber: 1, digest, blocksDone: 0, vbnNext: 0, cpCount: 3 });
}

const resumeKind: Kind = {
  what: "the point at which a transfer is resumed",
  promise: "make it none: the transfer begins anew",
  places: () => [...fieldsOf(resumeRecord, 0), { at: 0, bytes: resumePoint().length, of: [] }],
  judge(harm): void {
    assert.notEqual(decodeResumePoint(resumePoint()), undefined);
    assert.equal(decodeResumePoint(flipped(resumePoint(), harm)), undefined);
  },
};

function transferState(): Uint8Array {
  return encodeTransferState({ mirror: new Uint8Array(16).fill(4), resume: resumePoint() });
}

const transferKind: Kind = {
  what: "what a mirror keeps of a transfer",
  promise: "make it unread",
  places: () => [...fieldsOf(transferStateRecord, 0), { at: 0, bytes: transferState().length, of: [] }],
  judge(harm): void {
    assert.notEqual(decodeTransferState(transferState()), undefined);
    assert.equal(decodeTransferState(flipped(transferState(), harm)), undefined);
  },
};

/** Bytes of a record of TLS before what is in it, and behind it. */
const TLS_BYTES = 5 + 17;
const shipped: wire.MirrorMessage = { type: "frame", transfer: 1, frame: 0, bytes: new Uint8Array(1000).fill(6) };

/** Messages have no sum of their own: the connection has. */
const messageKind: Kind = {
  what: "a message of a mirror",
  promise: "end the connection, and nobody gets the message",
  places: () => {
    const bytes = Buffer.concat(wire.encodeMirrorMessage(shipped)).length + TLS_BYTES;
    return [{ at: 0, bytes, of: Object.values<unknown>(wire).filter(isLayout) as readonly Layout[] }];
  },
  async judge(harm): Promise<void> {
    const key = new Uint8Array(randomBytes(32));
    const heard: wire.MirrorMessage["type"][] = [];
    let ended = false;
    const listener = await listen({
      address: { host: "127.0.0.1", port: 0 },
      key,
      onConnection: () => ({
        message: ({ type }): void => void heard.push(type),
        drained(): void {},
        closed(): void {
          ended = true;
        },
      }),
      onRefused(): void {},
    });
    const link = await flippingLink(listener.address.port);
    try {
      const deaf = { message(): void {}, drained(): void {}, closed(): void {} };
      const connection = await connectTo({ host: "127.0.0.1", port: link.port }, key, () => deaf);
      connection.send({ type: "bye" });
      await until("the first has come", () => heard.length === 1);
      link.flipNext(harm);
      connection.send(shipped);
      connection.send({ ...shipped, bytes: new Uint8Array(1 << 20) }); // where the length of a record was hit, the next one shows it
      await until("the connection has ended", () => ended);
      assert.deepEqual(heard, ["bye"]);
    } finally {
      link.close();
      await listener.close();
    }
  },
};

interface FlippingLink {
  readonly port: number;
  /** In what comes next from the one who has connected, which may be a part of what was sent. */
  flipNext(harm: Harm): void;
  close(): void;
}

async function flippingLink(port: number): Promise<FlippingLink> {
  let next: Harm | undefined;
  const sockets: Socket[] = [];
  const server: Server = createServer((near) => {
    const far = createConnection(port, "127.0.0.1");
    sockets.push(near, far);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
    far.pipe(near);
    near.on("data", (chunk: Uint8Array) => {
      far.write(next === undefined ? chunk : flipped(chunk, { ...next, at: next.at % chunk.length }));
      next = undefined;
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  assert(bound !== null && typeof bound === "object");
  return {
    port: bound.port,
    flipNext(harm): void {
      next = harm;
    },
    close(): void {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

export const streamKinds: readonly Kind[] = [...parts.map(partKind), resumeKind, transferKind, messageKind];
