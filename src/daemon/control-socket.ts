/** The daemon's end of the control socket: reads requests, hands them on, writes what comes back. */

import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { UserError } from "../core/errors.ts";
import {
  type ControlReply,
  type ControlRequest,
  decodeRequest,
  encodeMessage,
  lineReader,
  type Progress,
} from "../format/control-message.ts";
import { makeSocketDirectory } from "../mirror/socket-directory.ts";
import { plainError } from "./plain-error.ts";

/** Commands that may talk to a daemon at once. */
const CONNECTIONS_MAX = 64;

export type ControlHandler = (request: ControlRequest, onProgress: (progress: Progress) => void) => Promise<unknown>;

export interface ControlServer {
  /** No new connections; those that wait for an answer keep it. */
  close(): void;
}

/**
 * Listens at the path. A socket file that lies there is of a daemon that is dead, since who listens there holds the
 * volume's lock or has its process id in the name.
 */
export async function listenForControl(path: string, handler: ControlHandler): Promise<ControlServer> {
  makeSocketDirectory();
  rmSync(path, { force: true });
  const connections = new Set<Connection>();
  const server = createServer((socket) => {
    const connection = serveConnection(socket, handler);
    connections.add(connection);
    socket.once("close", () => connections.delete(connection));
  });
  server.maxConnections = CONNECTIONS_MAX;
  const listening = once(server, "listening");
  const mask = process.umask(0o177); // for the socket file, which listen() makes at once
  server.listen(path);
  process.umask(mask);
  try {
    await listening;
  } catch (cause) {
    throw new UserError("failed", `cannot listen at ${path}: ${(cause as Error).message}`, "", { cause });
  }
  return {
    close(): void {
      server.close(); // removes the socket file
      for (const connection of connections) connection.endWhenIdle();
    },
  };
}

interface Connection {
  /** Closes it at once, or when the request in hand is answered. */
  endWhenIdle(): void;
}

/** Requests of one connection are answered one after the other, in their order. */
function serveConnection(socket: Socket, handler: ControlHandler): Connection {
  let busyCount = 0;
  let isEnding = false;
  let last: Promise<void> = Promise.resolve();
  const reply = (message: ControlReply): void => {
    if (!socket.destroyed) socket.write(encodeMessage(message));
  };
  const answer = async (line: string): Promise<void> => {
    try {
      const request = decodeRequest(line);
      const value = await handler(request, (progress) => reply({ type: "progress", progress }));
      reply({ type: "result", value });
    } catch (error) {
      reply({ type: "error", error: plainError(error) });
    }
  };
  const answered = (): void => {
    busyCount -= 1;
    if (busyCount > 0) return;
    if (isEnding) socket.end();
    else socket.resume();
  };
  const reader = lineReader((line) => {
    socket.pause(); // one request at a time: no queue to bound
    busyCount += 1;
    last = last.then(() => answer(line)).finally(answered);
  });
  socket.on("data", (chunk) => {
    try {
      reader.push(chunk);
    } catch (error) {
      reply({ type: "error", error: plainError(error) });
      socket.end();
    }
  });
  socket.on("error", () => socket.destroy());
  return {
    endWhenIdle(): void {
      isEnding = true;
      if (busyCount === 0) socket.destroy();
    },
  };
}
