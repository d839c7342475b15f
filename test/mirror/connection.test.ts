// Who has the key may talk, who has not learns nothing; what is sent over an open connection may still be anything.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmodSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { connect as connectPlain, createServer as createPlainServer, type Socket } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect as connectTls, createServer as createTlsServer } from "node:tls";
import { below, prng } from "../../src/core/prng.ts";
import { encodeMirrorMessage, type MirrorMessage } from "../../src/format/mirror-message.ts";
import {
  type Address,
  type Connection,
  type ConnectionHandler,
  connectTo,
  formatAddress,
  listen,
  parseAddress,
  parsePeer,
} from "../../src/mirror/connection.ts";
import { createKey, readKey } from "../../src/mirror/key.ts";
import { temporaryDirectory } from "../support/temp.ts";
import { follow, makeKey, makeSourceFile, startRun, startServe, until } from "./loopback.ts";

const HERE: Address = { host: "127.0.0.1", port: 0 };
const deaf: ConnectionHandler = { message(): void {}, drained(): void {}, closed(): void {} };

/** Resolves when it is closed, in order or not. */
function closeOf(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.on("close", () => resolve());
  });
}

interface Heard {
  readonly address: Address;
  readonly connections: Connection[];
  readonly messages: MirrorMessage[];
  readonly refused: string[];
  readonly errors: (Error | undefined)[];
}

async function hear(t: TestContext, key: Uint8Array): Promise<Heard> {
  const heard: Omit<Heard, "address"> = { connections: [], messages: [], refused: [], errors: [] };
  const listener = await listen({
    address: HERE,
    key,
    onConnection(connection) {
      heard.connections.push(connection);
      return {
        message: (message) => void heard.messages.push(message),
        drained(): void {},
        closed: (error) => void heard.errors.push(error),
      };
    },
    onRefused: (_peer, why) => void heard.refused.push(why),
  });
  t.after(() => listener.close());
  return { ...heard, address: listener.address };
}

test("two ends with the same key exchange messages, and both hear of the end", async (t) => {
  const key = new Uint8Array(randomBytes(32));
  const heard = await hear(t, key);
  let closed = false;
  const connection = await connectTo(heard.address, key, () => ({
    ...deaf,
    closed: () => {
      closed = true;
    },
  }));
  const bytes = new Uint8Array(randomBytes(1 << 20));
  connection.send({ type: "frame", transfer: 1, frame: 0, bytes: bytes.slice() });
  connection.send({ type: "bye" });
  await until("both have come", () => heard.messages.length === 2);
  assert.deepEqual(heard.messages[1], { type: "bye" });
  connection.close();
  await until("both have heard", () => closed && heard.errors.length === 1);
  assert.deepEqual(heard.errors, [undefined]);
});

test("another key: no connection on either side, and both are told why", async (t) => {
  const heard = await hear(t, new Uint8Array(randomBytes(32)));
  await assert.rejects(
    connectTo(heard.address, new Uint8Array(randomBytes(32)), () => deaf),
    { name: "UserError", failure: "mismatch", message: /has another key/ },
  );
  await until("it is told", () => heard.refused.length > 0);
  assert.match(heard.refused[0] ?? "", /another key/);
  assert.equal(heard.connections.length, 0);
});

test("without a key, without TLS or with another identity nothing is let in", async (t) => {
  const key = new Uint8Array(randomBytes(32));
  const heard = await hear(t, key);
  const { host, port } = heard.address;

  const plain = connectPlain(port, host);
  plain.on("error", () => {});
  let answer = "";
  plain.on("data", (chunk) => {
    answer += chunk.toString("latin1");
  });
  plain.write("GET / HTTP/1.1\r\n\r\n");
  await closeOf(plain);
  assert.ok(answer.length < 32, "an alert of TLS at most");

  for (const options of [
    { rejectUnauthorized: false },
    { pskCallback: () => ({ psk: key, identity: "somebody" }), rejectUnauthorized: false },
    {
      pskCallback: () => ({ psk: key, identity: "tidemark-mirror-1" }),
      maxVersion: "TLSv1.2",
      ciphers: "PSK",
    } as const,
  ]) {
    const socket = connectTls({ host, port, ...options });
    let secure = false;
    socket.on("secureConnect", () => {
      secure = true;
    });
    socket.on("error", () => {});
    await closeOf(socket);
    assert.equal(secure, false);
  }
  assert.equal(heard.connections.length, 0);
});

test("a server that shows a certificate instead of the key is refused, even where certificates are not looked at", async (t) => {
  const directory = temporaryDirectory(t);
  const [keyFile, certificate] = [join(directory, "rogue.key"), join(directory, "rogue.crt")];
  const made = spawnSync("openssl", [
    ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=127.0.0.1".split(" "),
    ...`-keyout ${keyFile} -out ${certificate}`.split(" "),
  ]);
  if (made.error !== undefined || made.status !== 0) return t.skip("openssl is not there to make a certificate");
  const rogue = createTlsServer({ key: readFileSync(keyFile), cert: readFileSync(certificate) });
  rogue.on("secureConnection", (socket) => socket.on("error", () => {}));
  rogue.listen(0, "127.0.0.1");
  await once(rogue, "listening");
  t.after(() => rogue.close());
  const bound = rogue.address();
  assert.ok(bound !== null && typeof bound === "object");
  const address = { host: "127.0.0.1", port: bound.port };
  await assert.rejects(
    connectTo(address, new Uint8Array(32), () => deaf),
    { name: "UserError" },
  );
});

test("nobody there, or somebody who says nothing that can be understood: unreachable", async () => {
  const server = createPlainServer((socket) => {
    socket.on("error", () => {});
    socket.resume();
    socket.end("220 mail.example ESMTP\r\n");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  const address = { host: "127.0.0.1", port: bound.port };
  await assert.rejects(
    connectTo(address, new Uint8Array(32), () => deaf),
    { failure: "unreachable" },
  );
  server.close();
  await once(server, "close");
  await assert.rejects(
    connectTo(address, new Uint8Array(32), () => deaf),
    { failure: "unreachable" },
  );
  const controller = new AbortController();
  controller.abort();
  await assert.rejects(
    connectTo(address, new Uint8Array(32), () => deaf, controller.signal),
    { failure: "unreachable" },
  );
});

test("a mirror outlives random bytes and messages out of place from who has the key, and goes on serving its source", async (t) => {
  const directory = temporaryDirectory(t);
  const key = makeKey(directory);
  const source = makeSourceFile(t, join(directory, "source.tm"));
  source.write("a", 100_000);
  const mirror = join(directory, "mirror.tm");
  const serve = await startServe(t, { volume: mirror, key });
  startRun(t, source, { to: serve.address, key });
  await follow(source, mirror);
  const random = prng(3);
  const id = (): Uint8Array => new Uint8Array(16).map(() => random.u32());
  const zero = { uuid: new Uint8Array(16), cpCount: 0, rootChecksum: 0 };
  const hello: MirrorMessage = { type: "hello", version: 1, role: 1, volume: id(), sender: id() };
  const outOfPlace: readonly (readonly Uint8Array[])[] = [
    ...Array.from({ length: 10 }, () => [new Uint8Array(1 + below(random, 5000)).map(() => random.u32())]),
    encodeMirrorMessage({ type: "frame", transfer: 1, frame: 0, bytes: new Uint8Array(100) }),
    encodeMirrorMessage({ type: "ack", transfer: 1, framesWritten: 5, framesDurable: 5 }),
    encodeMirrorMessage({ type: "switched", transfer: 1, top: zero, switchedAt: { seconds: 0, nanoseconds: 0 } }),
    encodeMirrorMessage({ ...hello, version: 99 }),
    encodeMirrorMessage({ ...hello, role: 2 }),
    encodeMirrorMessage(hello), // of another volume
    [...encodeMirrorMessage(hello), ...encodeMirrorMessage(hello)],
    encodeMirrorMessage({ ...hello, volume: source.volume.committed.uuid }), // busy
  ];
  for (const parts of outOfPlace) {
    const socket = connectTls({
      ...serve.address,
      minVersion: "TLSv1.3",
      ciphers: "TLS_AES_128_GCM_SHA256",
      pskCallback: () => ({ psk: key, identity: "tidemark-mirror-1" }),
      checkServerIdentity: () => undefined,
    });
    socket.on("error", () => {});
    await once(socket, "secureConnect");
    socket.resume();
    const closed = closeOf(socket);
    for (const part of parts) socket.write(part);
    socket.end();
    await closed;
  }
  source.write("b", 100_000);
  await follow(source, mirror);
});

test("a key file is written once, for its owner alone, and read back", (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, "key");
  createKey(path, { force: false });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const text = readFileSync(path, "utf8");
  assert.match(text, /^[0-9a-f]{64}\n$/);
  assert.deepEqual(Buffer.from(readKey(path)).toString("hex"), text.trim());
  assert.throws(() => createKey(path, { force: false }), {
    failure: "failed",
    message: /exists already/,
    hint: /--force/,
  });
  assert.equal(readFileSync(path, "utf8"), text);
  chmodSync(path, 0o644);
  assert.throws(() => readKey(path), { message: /can be read by others \(mode 0644\)/, hint: `chmod 600 ${path}` });
  createKey(path, { force: true });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.notEqual(readFileSync(path, "utf8"), text);
  for (const wrong of ["", "abc", "g".repeat(64), "0".repeat(63), "0".repeat(65), "0".repeat(2000)]) {
    writeFileSync(path, wrong);
    assert.throws(() => readKey(path), { message: /is not a key file/ });
    if (wrong === "") continue;
    assert.throws(() => createKey(path, { force: true }), { message: /is not a key file, and is not replaced/ });
    assert.equal(readFileSync(path, "latin1"), wrong);
  }
  assert.throws(() => readKey(join(directory, "none")), { message: /cannot read key file/ });
});

test("addresses are read as HOST:PORT, and refused otherwise", () => {
  assert.deepEqual(parseAddress("mirror.example:7400"), { host: "mirror.example", port: 7400 });
  assert.deepEqual(parseAddress("[::1]:0"), { host: "::1", port: 0 });
  assert.equal(formatAddress(parseAddress("[fe80::1]:1")), "[fe80::1]:1");
  for (const wrong of ["", "host", "host:", ":7400", "host:x", "host:65536", "::1:7400", "host:-1", "[]:1"]) {
    assert.throws(() => parseAddress(wrong), { failure: "usage" }, wrong);
  }
  assert.deepEqual(parsePeer("[::1]:1"), { host: "::1", port: 1 });
  for (const wrong of ["host:0", "[::1]:0", "host"]) {
    assert.throws(() => parsePeer(wrong), { failure: "usage" }, wrong);
  }
});
