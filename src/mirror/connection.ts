/**
 * The connection between the two ends of a mirror: TCP, TLS 1.3 with a pre-shared key, and messages in it.
 *
 * Both ends prove that they have the key before either says anything else: without it the handshake fails and the
 * other side has learnt nothing, not even that there is a volume. There are no certificates. The key exchange is
 * ephemeral (X25519), so who records a connection and steals the key later cannot read it. Session tickets are off,
 * as a ticket would be a second key.
 *
 * A slow peer is not buffered for: `queuedBytes` is what the host has not taken yet, and the sessions above send
 * no frame while there is more of it than their window.
 */
import { constants } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer, type TLSSocket } from "node:tls";
import { CorruptionError, UserError } from "../core/errors.ts";
import { encodeMirrorMessage, type MirrorMessage, mirrorMessageReader } from "../format/mirror-message.ts";

const PSK_IDENTITY = "tidemark-mirror-1";
/** The suites of TLS 1.3 with SHA-256, the hash that OpenSSL gives a key of this kind. */
const CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
const HANDSHAKE_MS_MAX = 10_000;
/** Sockets that a listener has open at once: one source, and strangers on their way out. */
const CONNECTIONS_MAX = 32;
const KEEPALIVE_MS = 5000;
const CLOSE_MS_MAX = 2000;
/** What a listener that closes gives its connections to deliver what was sent. */
const LAST_WORDS_MS_MAX = 500;

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface Connection {
  /** Of the other end, HOST:PORT. */
  readonly peer: string;
  /** Bytes that wait for the host to take them. */
  readonly queuedBytes: number;
  send(message: MirrorMessage): void;
  /** Sends what is queued, then closes. The handler hears of it as of any other end. */
  close(): void;
  /** Closes at once. */
  destroy(): void;
}

export interface ConnectionHandler {
  /** The bytes of a frame are valid until it returns. What it throws ends the connection. */
  message(message: MirrorMessage): void;
  /** Less than before is queued. */
  drained(): void;
  /** Called once, as the last: undefined when the connection was closed in order. */
  closed(error: Error | undefined): void;
}

export interface Listener {
  readonly address: Address;
  close(): Promise<void>;
}

/** HOST:PORT, or [HOST]:PORT for an address with colons. Throws UserError "usage". */
export function parseAddress(text: string): Address {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  const host = bracketed ?? plain;
  if (host === undefined || !(port <= 65535)) {
    throw new UserError("usage", `not an address: ${JSON.stringify(text)}`, "HOST:PORT, as in mirror.example:7400");
  }
  return { host, port };
}

/** The address of somebody who listens: not port 0, which is any that is free. Throws UserError "usage". */
export function parsePeer(text: string): Address {
  const address = parseAddress(text);
  if (address.port !== 0) return address;
  throw new UserError(
    "usage",
    `nobody listens at port 0: ${JSON.stringify(text)}`,
    "give the port that `tidemark mirror serve` tells when it starts",
  );
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Connects, and resolves when the other end has proved that it has the key. Throws UserError: "unreachable" when
 * nobody answers, "mismatch" when the other end has another key. `aborted` gives up at once.
 */
export async function connectTo(
  address: Address,
  key: Uint8Array,
  handlerOf: (connection: Connection) => ConnectionHandler,
  aborted?: AbortSignal,
): Promise<Connection> {
  const { host, port } = address;
  const socket = connect({
    host,
    port,
    minVersion: "TLSv1.3",
    ciphers: CIPHERS,
    pskCallback: () => ({ psk: key, identity: PSK_IDENTITY }),
    // Called for a server that presents a certificate instead of the key, however well it is signed.
    checkServerIdentity: () => new Error("it did not prove that it has the key"),
  });
  const abort = (): void => void socket.destroy(new Error("stopped"));
  aborted?.addEventListener("abort", abort, { once: true });
  if (aborted?.aborted === true) abort();
  try {
    await handshake(socket);
  } catch (cause) {
    socket.on("error", () => {});
    socket.destroy();
    throw connectError(formatAddress(address), cause as NodeJS.ErrnoException);
  } finally {
    aborted?.removeEventListener("abort", abort);
  }
  return serve(socket, formatAddress(address), handlerOf);
}

async function handshake(socket: TLSSocket): Promise<void> {
  const timer = setTimeout(() => socket.destroy(timeout()), HANDSHAKE_MS_MAX);
  const stages = new AbortController();
  const { signal } = stages;
  try {
    await Promise.race([
      once(socket, "secureConnect", { signal }), // rejects on "error"
      once(socket, "close", { signal }).then(() => {
        throw new Error("the connection was closed during the handshake");
      }),
    ]);
  } finally {
    clearTimeout(timer);
    stages.abort(); // takes the listeners off
  }
  // Only a session that grew out of the key counts as reused.
  if (!socket.isSessionReused()) throw new Error("it did not prove that it has the key");
}

function timeout(): Error {
  return Object.assign(new Error(`no answer within ${HANDSHAKE_MS_MAX / 1000} s`), { code: "ETIMEDOUT" });
}

function connectError(peer: string, cause: NodeJS.ErrnoException): UserError {
  const { code = "", message } = cause;
  if (isKeyError(code) || message.includes("did not prove")) {
    return new UserError(
      "mismatch",
      `${peer} has another key: the handshake failed`,
      "copy the key file of one end to the other; both read it at start",
      { cause },
    );
  }
  return new UserError(
    "unreachable",
    `cannot connect to ${peer}: ${message}`,
    "is `tidemark mirror serve` running there, and the port open?",
    { cause },
  );
}

/** What OpenSSL calls a key that does not verify, on the one side and on the other. */
function isKeyError(code: string): boolean {
  return /BINDER|BAD_RECORD_MAC|ILLEGAL_PARAMETER|DECRYPT|HANDSHAKE_FAILURE|NO_SHARED_CIPHER|NO_SUITABLE/.test(code);
}

export interface ListenOptions {
  readonly address: Address;
  readonly key: Uint8Array;
  /** Someone connected who has the key. */
  readonly onConnection: (connection: Connection) => ConnectionHandler;
  /** Someone connected who has not, or who speaks something else: for the log. */
  readonly onRefused: (peer: string, why: string) => void;
}

/** Listens. Throws UserError "failed" when the address cannot be had. */
export async function listen({ address, key, onConnection, onRefused }: ListenOptions): Promise<Listener> {
  const sockets = new Set<Socket>();
  const server = createServer({
    minVersion: "TLSv1.3",
    ciphers: CIPHERS,
    handshakeTimeout: HANDSHAKE_MS_MAX,
    secureOptions: constants.SSL_OP_NO_TICKET,
    pskCallback: (_socket, identity) => (identity === PSK_IDENTITY ? key : null),
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {}); // told by the TLS socket above it
  });
  server.on("tlsClientError", (error: NodeJS.ErrnoException, socket: TLSSocket) => {
    const { code = "", message } = error;
    onRefused(peerOf(socket), isKeyError(code) ? "it has another key, or none" : message);
    socket.destroy();
  });
  server.on("secureConnection", (socket: TLSSocket) => void serve(socket, peerOf(socket), onConnection));
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      reject(
        new UserError("failed", `cannot listen at ${formatAddress(address)}: ${cause.message}`, "choose another", {
          cause,
        }),
      );
    });
    server.listen(address.port, address.host, resolve);
  });
  server.on("error", (error) => onRefused("?", error.message)); // accept failed: for want of descriptors, say
  const { address: host, port } = server.address() as AddressInfo;
  return {
    address: { host, port },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        const timer = setTimeout(() => {
          for (const socket of sockets) socket.destroy();
        }, LAST_WORDS_MS_MAX);
        server.on("close", () => clearTimeout(timer));
      }),
  };
}

function peerOf({ remoteAddress = "?", remotePort = 0 }: Socket): string {
  return formatAddress({ host: remoteAddress, port: remotePort });
}

function serve(socket: TLSSocket, peer: string, handlerOf: (connection: Connection) => ConnectionHandler): Connection {
  let failure: Error | undefined;
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEPALIVE_MS);
  const connection: Connection = {
    peer,
    get queuedBytes() {
      return socket.writableLength;
    },
    send(message): void {
      if (socket.destroyed || socket.writableEnded) return; // `closed` tells, or has told
      socket.cork();
      for (const part of encodeMirrorMessage(message)) {
        // The bytes of a frame lie in a buffer that is used again before the socket is done with it.
        socket.write(message.type === "frame" ? new Uint8Array(part) : part);
      }
      socket.uncork();
    },
    close(): void {
      socket.end();
      setTimeout(() => void socket.destroy(), CLOSE_MS_MAX).unref(); // the other end may be gone
    },
    destroy: () => void socket.destroy(),
  };
  const handler = handlerOf(connection);
  const reader = mirrorMessageReader((message) => handler.message(message));
  socket.on("data", (chunk: Uint8Array) => {
    if (failure !== undefined || socket.destroyed) return;
    try {
      reader.push(chunk);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      if (failure instanceof CorruptionError) {
        connection.send({ type: "error", code: "protocol", reason: failure.message });
      }
      socket.end();
      socket.destroySoon();
    }
  });
  socket.on("drain", () => handler.drained());
  socket.on("error", (error) => {
    failure ??= error;
    socket.destroy(); // after a record that does not verify it is not closed by itself
  });
  socket.on("end", () => socket.destroySoon());
  socket.on("close", () => handler.closed(failure));
  return connection;
}
