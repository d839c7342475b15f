// What a peer can learn without the key: nothing, not even whether there is a volume. And with it: to change the volume that it
// was given, and nothing beside that.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, lstatSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { connect as connectPlain, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { prng } from "../../src/core/prng.ts";
import {
  DIGEST_START,
  decodeImageHeader,
  digestFrame,
  encodeImageHeader,
  frameHeader,
  type ImageHeader,
  identityOf,
} from "../../src/format/image-frame.ts";
import {
  encodeMirrorMessage,
  MIRROR_VERSION,
  type MirrorMessage,
  NO_STATE,
  ROLE_SOURCE,
} from "../../src/format/mirror-message.ts";
import type { SnapshotRecord } from "../../src/format/snapshot-record.ts";
import { type Address, connectTo } from "../../src/mirror/connection.ts";
import { hostileStream, sealStream } from "../hostile/streams.ts";
import { framesOf, makeSource } from "../image/histories.ts";
import { temporaryDirectory } from "../support/temp.ts";
import { follow, makeKey, makeSourceFile, startRun, startServe, until } from "./loopback.ts";

const IDENTITY = "tidemark-mirror-1";
/** Of TLS: a record of two bytes. */
const ALERT_BYTES = 7;
/** The mirror that a peer is given. */
const MIRROR = "mirror.tm";

/** All that a server says until it has closed the connection. */
async function answerTo(t: TestContext, { host, port }: Address, ask: (port: number) => Socket): Promise<Buffer> {
  const heard: Uint8Array[] = [];
  const recorder = createServer((near) => {
    const far = connectPlain(port, host);
    far.on("data", (chunk: Uint8Array) => heard.push(chunk));
    for (const one of [near, far]) one.on("error", () => {});
    near.pipe(far).pipe(near);
  });
  recorder.listen(0, "127.0.0.1");
  await once(recorder, "listening");
  t.after(() => recorder.close());
  const bound = recorder.address();
  assert(bound !== null && typeof bound === "object");
  const socket = ask(bound.port);
  socket.on("error", () => {});
  socket.resume();
  await new Promise((resolve) => socket.on("close", resolve));
  return Buffer.concat(heard);
}

function saying(bytes: Uint8Array | string): (port: number) => Socket {
  return (port) => connectPlain(port, "127.0.0.1").end(bytes);
}

function speakingTls(options: ConnectionOptions): (port: number) => Socket {
  return (port) => connectTls({ host: "127.0.0.1", port, rejectUnauthorized: false, ...options });
}

test("who has not the key hears the same of a mirror as of nothing at all, byte for byte", async (t) => {
  const directory = temporaryDirectory(t);
  const [key, other] = [makeKey(directory), makeKey(directory, "other key")];
  const source = makeSourceFile(t, join(directory, "payroll.tm"));
  source.write("salaries", 100_000);
  source.volume.createSnapshot("before the cuts");
  const mirror = join(directory, "mirror of payroll.tm");
  const full = await startServe(t, { volume: mirror, key });
  startRun(t, source, { to: full.address, key });
  await follow(source, mirror);
  const empty = await startServe(t, { volume: join(directory, "nothing.tm"), key });

  const { uuid } = source.volume.committed;
  const hello: MirrorMessage = {
    type: "hello",
    version: MIRROR_VERSION,
    role: ROLE_SOURCE,
    volume: uuid,
    sender: uuid,
  };
  const tls13: ConnectionOptions = { minVersion: "TLSv1.3", ciphers: "TLS_AES_128_GCM_SHA256" };
  const probes: Readonly<Record<string, (port: number) => Socket>> = {
    HTTP: saying("GET / HTTP/1.1\r\n\r\n"),
    "random bytes": saying(randomBytes(300)),
    "a greeting without TLS": saying(Buffer.concat(encodeMirrorMessage(hello))),
    "TLS without a key": speakingTls({}),
    "TLS 1.2": speakingTls({
      pskCallback: () => ({ psk: key, identity: IDENTITY }),
      maxVersion: "TLSv1.2",
      ciphers: "PSK",
    }),
    "another key": speakingTls({ ...tls13, pskCallback: () => ({ psk: other, identity: IDENTITY }) }),
    "another identity": speakingTls({ ...tls13, pskCallback: () => ({ psk: key, identity: "payroll" }) }),
  };
  for (const [what, ask] of Object.entries(probes)) {
    const [ofMirror, ofNothing] = [await answerTo(t, full.address, ask), await answerTo(t, empty.address, ask)];
    assert.deepEqual(ofMirror, ofNothing, what);
    assert(ofMirror.length <= ALERT_BYTES, `${what}: ${ofMirror.length} bytes are more than an alert of TLS`);
  }
  source.write("salaries", 100_000);
  await follow(source, mirror);
});

interface Given {
  readonly folder: string;
  readonly key: Uint8Array;
  /** A mirror at "a", and the increment that brings it to "b". */
  readonly pristine: string;
  readonly frames: readonly Uint8Array[];
  readonly header: ImageHeader;
}

/** A folder with a mirror and with what is none of a peer's business. */
async function given(t: TestContext): Promise<Given> {
  const folder = temporaryDirectory(t);
  const key = makeKey(folder);
  const source = makeSource({ seed: 3, blockCount: 2048 });
  source.change(20);
  source.snapshot("a");
  const first = framesOf(source.device, ["a"]);
  source.write("bulk", new Uint8Array(150 * 4096).fill(1));
  source.snapshot("b");
  const pristine = join(folder, "pristine.tm");
  const serve = await startServe(t, { volume: pristine, key });
  assert.equal(await ship(serve.address, key, { frames: first, header: headerOf(first) }), "switched");
  await serve.stop();
  makeSourceFile(t, join(folder, "other.tm")).write("file", 50_000);
  writeFileSync(join(folder, "notes"), "none of a peer's business");
  const frames = framesOf(source.device, ["b"], "a");
  return { folder, key, pristine, frames, header: headerOf(frames) };
}

function headerOf([first]: readonly Uint8Array[]): ImageHeader {
  return decodeImageHeader((first ?? assert.fail("no frame")).subarray(frameHeader.size));
}

interface Shipment {
  readonly frames: readonly Uint8Array[];
  /** What the offer says of them. */
  readonly header: ImageHeader;
}

/** Offers a stream as a source does, and sends all of it, whatever is in it. Returns what ends it. */
async function ship(to: Address, key: Uint8Array, { frames, header }: Shipment): Promise<string> {
  const { tops, base = NO_STATE, volumeUuid, volumeBlocks, blockCount, createdAt } = header;
  const first = frames[0] ?? assert.fail("no frame");
  let end: string | undefined;
  const connection = await connectTo(to, key, (made) => ({
    message(message): void {
      if (message.type === "state") {
        made.send({
          type: "offer",
          transfer: 1,
          top: identityOf(tops.at(-1) as SnapshotRecord),
          base,
          takenAt: createdAt,
          volumeBlocks,
          headerDigest: digestFrame(DIGEST_START, first.subarray(0, frameHeader.size)),
          frameFirst: 0,
          frameCount: frames.length,
          blockCount,
        });
      } else if (message.type === "accept") {
        for (const [frame, bytes] of frames.entries()) made.send({ type: "frame", transfer: 1, frame, bytes });
      } else if (message.type !== "hello" && message.type !== "ack" && message.type !== "heartbeat") {
        end ??= message.type;
      }
    },
    drained(): void {},
    closed(): void {
      end ??= "closed";
    },
  }));
  const sender = new Uint8Array(randomBytes(16));
  connection.send({ type: "hello", version: MIRROR_VERSION, role: ROLE_SOURCE, volume: volumeUuid, sender });
  await until("the transfer ends", () => end !== undefined);
  connection.destroy();
  return end as string;
}

/** All that lies in a folder beside the mirror and what it keeps of transfers. */
function beside(folder: string): Record<string, string> {
  const names = readdirSync(folder).filter((name) => name !== MIRROR && name !== `${MIRROR}.transfer`);
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name)).toString("base64")]));
}

/** Ships to a mirror that is at "a". Returns what ends it. */
async function attack(t: TestContext, { folder, key, pristine }: Given, shipment: Shipment): Promise<string> {
  const volume = join(folder, MIRROR);
  copyFileSync(pristine, volume);
  const before = beside(folder);
  const serve = await startServe(t, { volume, key });
  const end = await ship(serve.address, key, shipment);
  await serve.stop();
  assert.deepEqual(beside(folder), before, "something beside the mirror has changed");
  return end;
}

/** The stream with another header, and all that sums it up made right again. */
function withHeader({ frames, header }: Given, changed: Partial<ImageHeader>): Shipment {
  const forged = [encodeImageHeader({ ...header, ...changed }), ...frames.slice(1)].map((frame) => frame.slice());
  sealStream(forged);
  return { frames: forged, header };
}

test("who has the key and gives paths for names changes nothing but the volume it was given", async (t) => {
  const peer = await given(t);
  const { tops, held } = peer.header;
  const top = tops[0] ?? assert.fail("no top");
  const others = held.filter(({ name }) => name !== top.name);
  const paths = ["../other.tm", `${peer.folder}/other.tm`, "/etc/passwd", "..", ".", "a/../../notes", `${MIRROR}/x`];
  for (const name of paths) {
    const named = { tops: [{ ...top, name }], held: [...others, { uuid: top.uuid, name }] };
    assert.notEqual(await attack(t, peer, withHeader(peer, named)), "switched", name);
  }
  assert.equal(await attack(t, peer, withHeader(peer, { label: "../other.tm" })), "switched");
  assert.equal(await attack(t, peer, peer), "switched", "the stream as it is");
});

test("whatever stream who has the key sends, nothing is touched but the volume it was given", async (t) => {
  const peer = await given(t);
  const ends = new Set<string>();
  for (let seed = 0; seed < HOSTILE_STREAMS; seed++) {
    const stream = hostileStream(prng(seed), { streams: [peer.frames] });
    ends.add(await attack(t, peer, { frames: piecesOf(stream), header: peer.header }));
  }
  assert(ends.has("error"), [...ends].join());
});

const HOSTILE_STREAMS = 10;

/** A stream as frames, as far as it has any; the rest as one. */
function piecesOf(stream: Uint8Array): readonly Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < stream.length; ) {
    const isFrame = at + frameHeader.size <= stream.length;
    const bodyBytes = isFrame ? frameHeader.get.bodyBytes(new DataView(stream.buffer, stream.byteOffset), at) : 0;
    const end = isFrame ? Math.min(stream.length, at + frameHeader.size + bodyBytes) : stream.length;
    pieces.push(stream.subarray(at, end));
    at = end;
  }
  return pieces;
}

test("the key of one mirror opens no other on the same host, and the source of another volume is turned away", async (t) => {
  const peer = await given(t);
  const before = readFileSync(peer.pristine);
  const serve = await startServe(t, { volume: peer.pristine, key: makeKey(peer.folder, "other key") });
  await assert.rejects(ship(serve.address, peer.key, peer), { failure: "mismatch" });
  await serve.stop();
  const foreign = makeSource({ seed: 9, blockCount: 2048 });
  foreign.snapshot("b");
  const again = await startServe(t, { volume: peer.pristine, key: peer.key });
  const frames = framesOf(foreign.device, ["b"]);
  assert.equal(await ship(again.address, peer.key, { frames, header: headerOf(frames) }), "error");
  await again.stop();
  assert(before.equals(readFileSync(peer.pristine)));
});

test("links that somebody has laid where a mirror keeps its state lead nowhere", async (t) => {
  const peer = await given(t);
  const volume = join(peer.folder, MIRROR);
  const notes = join(peer.folder, "notes");
  for (const name of [`${volume}.transfer`, `${volume}.transfer.new`]) symlinkSync(notes, name);
  const before = readFileSync(notes);
  copyFileSync(peer.pristine, volume);
  const serve = await startServe(t, { volume, key: peer.key });
  assert.equal(await ship(serve.address, peer.key, peer), "switched");
  await serve.stop();
  assert(before.equals(readFileSync(notes)), "what the link leads to has changed");
  assert(lstatSync(`${volume}.transfer`).isFile());
});
