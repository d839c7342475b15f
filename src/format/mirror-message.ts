/**
 * What the two ends of a mirror say to each other, inside an authenticated connection.
 *
 * A message is a header of 8 bytes and a body, whose fixed part is a declared record and whose length has a bound of
 * its own for each type: hostile input costs no more memory than one message. Nothing of a body is used before all
 * of it has been checked. Who may say what and when is in src/mirror/session.ts; the bytes are explained in
 * native-notes/mirror-protocol.md.
 */
import assert from "node:assert/strict";
import type { Time } from "../core/clock.ts";
import { DIGEST_BYTES } from "../core/digest.ts";
import { CorruptionError } from "../core/errors.ts";
import { assertNever } from "../core/numbers.ts";
import { sameBytes } from "../core/uuid.ts";
import { DATA_BODY_BYTES_MAX, frameHeader, HEADER_BODY_BYTES_MAX, IMAGE_SNAPSHOTS_MAX } from "./image-frame.ts";
import { timeRecord } from "./inode.ts";
import { bytes, nested, type Shape, type Struct, struct, text, u8, u16, u32, u64, type ValueOf } from "./struct.ts";

/** Refused when the other side has another. */
export const MIRROR_VERSION = 1;
/** "TMMIRROR" in ASCII. */
export const MIRROR_MAGIC: Uint8Array = new TextEncoder().encode("TMMIRROR");
export const ROLE_SOURCE = 1;
export const ROLE_DESTINATION = 2;

const headerShape = {
  bodyBytes: u32, // length of what follows the header
  type: u8, // which message
  reserved: bytes(3), // zero
};
export const messageHeader: Struct<typeof headerShape> = struct(8, headerShape);

const stateShape = {
  uuid: bytes(16), // identity of the snapshot, shared by all its copies; zero: none
  cpCount: u64, // the consistency point it is
  rootChecksum: u32, // checksum of the root of its inode file
};
/** Identity of one state of a volume: equal UUID and root checksum mean equal bytes in every block. */
export type StateIdentity = ValueOf<typeof stateShape>;
export const stateIdentity: Struct<typeof stateShape> = struct(28, stateShape);

export const NO_STATE: StateIdentity = { uuid: new Uint8Array(16), cpCount: 0, rootChecksum: 0 };

const helloShape = {
  magic: bytes(8), // "TMMIRROR"
  version: u32, // of this protocol; another one is refused
  role: u8, // 1: source, 2: destination
  reserved: bytes(3), // zero
  volume: bytes(16), // UUID of the volume; zero: the destination has none yet
  sender: bytes(16), // source: this run of the process; destination: this mirror, for ever
};
export const helloRecord: Struct<typeof helloShape> = struct(48, helloShape);

const destinationShape = {
  volume: bytes(16), // UUID of the volume; zero: there is none yet
  blockCount: u32, // blocks of the volume; 0: there is none yet
  top: nested(stateIdentity, "state"), // the state that is mounted there
  transferTop: nested(stateIdentity, "state"), // of an interrupted transfer that can be resumed; zero: none
  transferBase: nested(stateIdentity, "state"), // what it is an increment to; zero: a full image
  transferFrames: u32, // frames of it that the destination has, from the first one on
  transferDigest: bytes(DIGEST_BYTES), // the digest of the image stream after those
  snapshotCount: u32, // states that follow this record: all that the destination has
  headerBytes: u32, // length of frame 0 of the interrupted transfer, which follows the states
};
export const destinationRecord: Struct<typeof destinationShape> = struct(148, destinationShape);

const offerShape = {
  transfer: u32, // number of this offer within the connection
  top: nested(stateIdentity, "state"), // what the destination will be
  base: nested(stateIdentity, "state"), // what it has to be now; zero: a full image, there is no volume
  takenAt: nested(timeRecord, "time"), // when the top was taken, by the clock of the source
  volumeBlocks: u32, // blocks of the volume
  headerDigest: bytes(DIGEST_BYTES), // which image stream: its digest after frame 0
  frameFirst: u32, // the first frame that will be sent: the destination has those before it
  frameCount: u32, // frames of the whole stream
  blockCount: u32, // blocks in the whole stream
};
export const offerRecord: Struct<typeof offerShape> = struct(120, offerShape);

const acceptShape = {
  transfer: u32, // of which offer
  windowBytes: u32, // so many bytes of frames may be on their way
};
export const acceptRecord: Struct<typeof acceptShape> = struct(8, acceptShape);

const refuseShape = {
  transfer: u32, // of which offer
  reason: text(508), // for people
};
export const refuseRecord: Struct<typeof refuseShape> = struct(512, refuseShape);

const frameShape = {
  transfer: u32, // of which offer
  frame: u32, // number of the frame that follows, from 0 on
};
export const frameRecord: Struct<typeof frameShape> = struct(8, frameShape);

const ackShape = {
  transfer: u32, // of which offer
  framesWritten: u32, // frames written, from the first on: what the window counts
  framesDurable: u32, // frames that a crash of the destination does not undo
};
export const ackRecord: Struct<typeof ackShape> = struct(12, ackShape);

const switchedShape = {
  transfer: u32, // of which offer
  top: nested(stateIdentity, "state"), // the state that is mounted there from now on, durable
  switchedAt: nested(timeRecord, "time"), // by the clock of the destination
};
export const switchedRecord: Struct<typeof switchedShape> = struct(44, switchedShape);

const heartbeatShape = {
  sentAt: nested(timeRecord, "time"), // by the clock of the sender
  newestCp: u64, // source: newest consistency point; destination: that of its top
  newestCpAt: nested(timeRecord, "time"), // when that was
  pendingBytes: u64, // source: changed and not yet at the destination
  inStep: u8, // source: 1 when the top of the destination is all there is
  reserved: bytes(3), // zero
};
export const heartbeatRecord: Struct<typeof heartbeatShape> = struct(44, heartbeatShape);

const errorShape = {
  code: u16, // why, in a way that programs tell apart
  reason: text(510), // for people
};
export const errorRecord: Struct<typeof errorShape> = struct(512, errorShape);

/** Why a side gives up the connection. `busy`, `failed` and `bye` are worth another try, the others are not. */
export const errorCodes = { protocol: 1, version: 2, mismatch: 3, busy: 4, failed: 5 } as const;
export type ErrorCode = keyof typeof errorCodes;

type Without<T, K extends PropertyKey> = { readonly [P in keyof T as P extends K ? never : P]: T[P] };
/** The fields of a record that say something: the others are the codec's business. */
type Body<S extends Shape> = Without<ValueOf<S>, "magic" | "reserved" | "snapshotCount" | "headerBytes">;

export type Hello = { readonly type: "hello" } & Body<typeof helloShape>;
export type DestinationState = { readonly type: "state" } & Body<typeof destinationShape> & {
    readonly snapshots: readonly StateIdentity[];
    /** Frame 0 of the interrupted transfer; empty: there is none. */
    readonly transferHeader: Uint8Array;
  };
export type Offer = { readonly type: "offer" } & Body<typeof offerShape>;
export type Accept = { readonly type: "accept" } & Body<typeof acceptShape>;
export type Refuse = { readonly type: "refuse" } & Body<typeof refuseShape>;
export type FrameMessage = { readonly type: "frame" } & Body<typeof frameShape> & {
    /** A frame of an image stream. Of a received message: valid until its handler has returned. */
    readonly bytes: Uint8Array;
  };
export type Ack = { readonly type: "ack" } & Body<typeof ackShape>;
export type Switched = { readonly type: "switched" } & Body<typeof switchedShape>;
export type Heartbeat = { readonly type: "heartbeat" } & Without<Body<typeof heartbeatShape>, "inStep"> & {
    readonly inStep: boolean;
  };
export type ErrorMessage = { readonly type: "error"; readonly code: ErrorCode; readonly reason: string };
export type Bye = { readonly type: "bye" };

export type MirrorMessage =
  | Hello
  | DestinationState
  | Offer
  | Accept
  | Refuse
  | FrameMessage
  | Ack
  | Switched
  | Heartbeat
  | ErrorMessage
  | Bye;

const FRAME_BYTES_MAX = frameHeader.size + Math.max(HEADER_BODY_BYTES_MAX, DATA_BODY_BYTES_MAX);

/** Number of each type in the header, and the longest body that it may have. */
const types = {
  hello: { number: 1, bodyBytesMax: helloRecord.size },
  state: {
    number: 2,
    bodyBytesMax: destinationRecord.size + IMAGE_SNAPSHOTS_MAX * stateIdentity.size + FRAME_BYTES_MAX,
  },
  offer: { number: 3, bodyBytesMax: offerRecord.size },
  accept: { number: 4, bodyBytesMax: acceptRecord.size },
  refuse: { number: 5, bodyBytesMax: refuseRecord.size },
  frame: { number: 6, bodyBytesMax: frameRecord.size + FRAME_BYTES_MAX },
  ack: { number: 7, bodyBytesMax: ackRecord.size },
  switched: { number: 8, bodyBytesMax: switchedRecord.size },
  heartbeat: { number: 9, bodyBytesMax: heartbeatRecord.size },
  error: { number: 10, bodyBytesMax: errorRecord.size },
  bye: { number: 11, bodyBytesMax: 0 },
} as const satisfies Record<MirrorMessage["type"], { readonly number: number; readonly bodyBytesMax: number }>;

const typeNames = new Map<number, MirrorMessage["type"]>(
  Object.entries(types).map(([name, { number }]) => [number, name as MirrorMessage["type"]]),
);

/** The message as it goes over the connection, in one or two buffers: the bytes of a frame are not copied. */
export function encodeMirrorMessage(message: MirrorMessage): readonly Uint8Array[] {
  switch (message.type) {
    case "hello":
      return [fixed(message.type, helloRecord, { ...message, magic: MIRROR_MAGIC, reserved: zeros(3) })];
    case "state": {
      const { snapshots, transferHeader } = message;
      const statesBytes = snapshots.length * stateIdentity.size;
      const raw = start(message.type, destinationRecord.size + statesBytes, transferHeader.length);
      destinationRecord.encode(raw, messageHeader.size, {
        ...message,
        snapshotCount: snapshots.length,
        headerBytes: transferHeader.length,
      });
      const at = messageHeader.size + destinationRecord.size;
      snapshots.forEach((snapshot, index) => stateIdentity.encode(raw, at + index * stateIdentity.size, snapshot));
      return [bytesOf(raw), transferHeader];
    }
    case "offer":
      return [fixed(message.type, offerRecord, message)];
    case "accept":
      return [fixed(message.type, acceptRecord, message)];
    case "refuse":
      return [fixed(message.type, refuseRecord, message)];
    case "frame": {
      const raw = start(message.type, frameRecord.size, message.bytes.length);
      frameRecord.encode(raw, messageHeader.size, message);
      return [bytesOf(raw), message.bytes];
    }
    case "ack":
      return [fixed(message.type, ackRecord, message)];
    case "switched":
      return [fixed(message.type, switchedRecord, message)];
    case "heartbeat":
      return [fixed(message.type, heartbeatRecord, { ...message, inStep: message.inStep ? 1 : 0, reserved: zeros(3) })];
    case "error":
      return [fixed(message.type, errorRecord, { code: errorCodes[message.code], reason: message.reason })];
    case "bye":
      return [bytesOf(start(message.type, 0))];
    default:
      return assertNever(message);
  }
}

function fixed<S extends Shape>(type: MirrorMessage["type"], record: Struct<S>, value: ValueOf<S>): Uint8Array {
  const raw = start(type, record.size);
  record.encode(raw, messageHeader.size, value);
  return bytesOf(raw);
}

/** A buffer for header and body, the header written. `moreBytes` of the body follow in another buffer. */
function start(type: MirrorMessage["type"], bodyBytes: number, moreBytes = 0): DataView {
  assert(bodyBytes + moreBytes <= types[type].bodyBytesMax, `${type} of ${bodyBytes + moreBytes} bytes`);
  const raw = new DataView(new ArrayBuffer(messageHeader.size + bodyBytes));
  messageHeader.encode(raw, 0, { bodyBytes: bodyBytes + moreBytes, type: types[type].number, reserved: zeros(3) });
  return raw;
}

function bytesOf(raw: DataView): Uint8Array {
  return new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
}

function zeros(count: number): Uint8Array {
  return new Uint8Array(count);
}

/** Checks a header of 8 bytes. Throws CorruptionError. */
export function decodeMessageHeader(raw: Uint8Array): {
  readonly type: MirrorMessage["type"];
  readonly bodyBytes: number;
} {
  const { type: number, bodyBytes, reserved } = messageHeader.decode(viewOf(raw), 0);
  const type = typeNames.get(number);
  if (type === undefined) throw new CorruptionError(`mirror message of unknown type ${number}`);
  if (!isZero(reserved)) throw new CorruptionError(`${type} message uses reserved bytes`);
  const { bodyBytesMax } = types[type];
  if (bodyBytes > bodyBytesMax) {
    throw new CorruptionError(`${type} message of ${bodyBytes} bytes, at most ${bodyBytesMax} expected`);
  }
  return { type, bodyBytes };
}

/** Checks a body. Throws CorruptionError. Only the bytes of a frame are a view of `body`, the rest is copied. */
export function decodeMirrorMessage(type: MirrorMessage["type"], body: Uint8Array): MirrorMessage {
  switch (type) {
    case "hello": {
      const { magic, reserved, ...hello } = read(type, helloRecord, body);
      if (!sameBytes(magic, MIRROR_MAGIC)) throw new CorruptionError("hello message: the other side is no mirror");
      if (!isZero(reserved)) throw new CorruptionError("hello message uses reserved bytes");
      return { type, ...hello };
    }
    case "state": {
      const { snapshotCount, headerBytes, ...state } = read(type, destinationRecord, body, true);
      const headerAt = destinationRecord.size + snapshotCount * stateIdentity.size;
      if (snapshotCount > IMAGE_SNAPSHOTS_MAX || body.length !== headerAt + headerBytes) {
        throw new CorruptionError(`state message of ${body.length} bytes for ${snapshotCount} snapshots`);
      }
      const view = viewOf(new Uint8Array(body.subarray(destinationRecord.size, headerAt)));
      const snapshots = Array.from({ length: snapshotCount }, (_, index) =>
        stateIdentity.decode(view, index * stateIdentity.size),
      );
      for (const one of [state.top, state.transferTop, state.transferBase, ...snapshots]) checkState(type, one);
      return { type, ...state, snapshots, transferHeader: new Uint8Array(body.subarray(headerAt)) };
    }
    case "offer": {
      const offer = read(type, offerRecord, body);
      checkState(type, offer.top);
      checkState(type, offer.base);
      checkTime(type, offer.takenAt);
      if (isNoState(offer.top)) throw new CorruptionError("offer message without a top");
      if (offer.frameFirst > offer.frameCount || offer.blockCount > offer.volumeBlocks) {
        throw new CorruptionError("offer message with impossible counts");
      }
      return { type, ...offer };
    }
    case "accept":
      return { type, ...read(type, acceptRecord, body) };
    case "refuse":
      return { type, ...read(type, refuseRecord, body) };
    case "frame":
      return { type, ...read(type, frameRecord, body, true), bytes: body.subarray(frameRecord.size) };
    case "ack": {
      const ack = read(type, ackRecord, body);
      if (ack.framesDurable > ack.framesWritten) throw new CorruptionError("ack message with impossible counts");
      return { type, ...ack };
    }
    case "switched": {
      const switched = read(type, switchedRecord, body);
      checkState(type, switched.top);
      checkTime(type, switched.switchedAt);
      return { type, ...switched };
    }
    case "heartbeat": {
      const { reserved, inStep, ...heartbeat } = read(type, heartbeatRecord, body);
      if (!isZero(reserved) || inStep > 1) throw new CorruptionError("heartbeat message uses reserved bytes");
      checkSafe(type, heartbeat.newestCp);
      checkSafe(type, heartbeat.pendingBytes);
      checkTime(type, heartbeat.sentAt);
      checkTime(type, heartbeat.newestCpAt);
      return { type, ...heartbeat, inStep: inStep === 1 };
    }
    case "error": {
      const { code: number, reason } = read(type, errorRecord, body);
      const code = Object.entries(errorCodes).find(([, one]) => one === number)?.[0];
      if (code === undefined) throw new CorruptionError(`error message with unknown code ${number}: ${reason}`);
      return { type, code: code as ErrorCode, reason };
    }
    case "bye":
      if (body.length > 0) throw new CorruptionError("bye message with a body");
      return { type };
    default:
      return assertNever(type);
  }
}

/** The record at the front of a body, which holds nothing else unless `more`. */
function read<S extends Shape>(type: string, record: Struct<S>, body: Uint8Array, more = false): ValueOf<S> {
  if (more ? body.length < record.size : body.length !== record.size) {
    throw new CorruptionError(`${type} message of ${body.length} bytes, ${record.size} expected`);
  }
  return record.decode(viewOf(new Uint8Array(body.subarray(0, record.size))), 0);
}

function viewOf(raw: Uint8Array): DataView {
  return new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
}

function isZero(raw: Uint8Array): boolean {
  return raw.every((byte) => byte === 0);
}

function checkSafe(type: string, count: number): void {
  if (!Number.isSafeInteger(count)) throw new CorruptionError(`${type} message with an impossible number`);
}

function checkState(type: string, state: StateIdentity): void {
  checkSafe(type, state.cpCount);
}

function checkTime(type: string, { seconds, nanoseconds }: Time): void {
  // What a date can show: 275,000 years either way.
  if (Math.abs(seconds) > 8.64e12 || nanoseconds > 999_999_999) {
    throw new CorruptionError(`${type} message with an impossible time`);
  }
}

export function isNoState({ uuid }: Pick<StateIdentity, "uuid">): boolean {
  return isZero(uuid);
}

/** True when both are the same state: UUID and root, never a name or a number alone. */
export function isSameState(a: StateIdentity, b: StateIdentity): boolean {
  return sameBytes(a.uuid, b.uuid) && a.rootChecksum === b.rootChecksum;
}

/**
 * Cuts a byte stream into messages. Holds one message at most, and no more of it than has arrived (rounded up to a
 * power of two). `push` throws CorruptionError, after which the stream is of no use.
 */
export function mirrorMessageReader(onMessage: (message: MirrorMessage) => void): { push(chunk: Uint8Array): void } {
  let held = new Uint8Array(64 << 10);
  let heldBytes = 0;

  function hold(chunk: Uint8Array): void {
    const needed = heldBytes + chunk.length;
    if (needed > held.length) {
      const larger = new Uint8Array(2 ** Math.ceil(Math.log2(needed)));
      larger.set(held.subarray(0, heldBytes));
      held = larger;
    }
    held.set(chunk, heldBytes);
    heldBytes = needed;
  }

  return {
    push(chunk): void {
      let at = 0;
      while (at < chunk.length) {
        if (heldBytes < messageHeader.size) {
          const part = chunk.subarray(at, at + messageHeader.size - heldBytes);
          hold(part);
          at += part.length;
          if (heldBytes < messageHeader.size) return;
        }
        const { type, bodyBytes } = decodeMessageHeader(held.subarray(0, messageHeader.size));
        const end = messageHeader.size + bodyBytes;
        const part = chunk.subarray(at, at + end - heldBytes);
        hold(part);
        at += part.length;
        if (heldBytes < end) return;
        heldBytes = 0;
        onMessage(decodeMirrorMessage(type, held.subarray(messageHeader.size, end)));
      }
    },
  };
}
