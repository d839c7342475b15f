/**
 * How `mirror status` asks the running ends of a mirror: each listens on a unix socket beside those of the daemons, named
 * by the block file, and answers every connection with one line, its status as JSON.
 */
import { once } from "node:events";
import { rmSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { UserError } from "../core/errors.ts";
import { openFileDevice } from "../device/file-device.ts";
import { openReadOnly } from "../image/open-state.ts";
import {
  type FoundSocket,
  foundSockets,
  identityOf,
  makeSocketDirectory,
  removeDeadSocket,
  socketNamed,
  volumeKey,
} from "./socket-directory.ts";
import type { MirrorStatus } from "./status.ts";

const STATUS_BYTES_MAX = 64 << 10;
const ANSWER_MS_MAX = 5000;
const CONNECTIONS_MAX = 16;

export interface StatusServer {
  close(): void;
}

/** Publishes the status of this process. Throws UserError "failed". */
export async function publishStatus(
  volumePath: string,
  role: MirrorStatus["role"],
  status: () => MirrorStatus,
): Promise<StatusServer> {
  makeSocketDirectory();
  const path = socketNamed(`${keyOf(volumePath)}-${role}-${process.pid}.sock`);
  rmSync(path, { force: true }); // of a process that had this id before
  const server = createServer((socket) => {
    socket.on("error", () => void socket.destroy());
    socket.end(`${JSON.stringify(status())}\n`);
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
  void sweep();
  return { close: () => void server.close() };
}

/** Removes what processes that were killed have left, whatever volume they were of. */
async function sweep(): Promise<void> {
  for (const socket of foundSockets()) {
    if (/-(source|destination)-\d+\.sock$/.test(socket.name)) await ask(socket).catch(() => {});
  }
}

/**
 * What the ends of a mirror that run on this host for this volume say, the source first. When there is none: UserError and
 * CorruptionError, if there is no volume either.
 */
export async function mirrorStatuses(volumePath: string): Promise<readonly MirrorStatus[]> {
  const key = keyOf(volumePath);
  const found: MirrorStatus[] = [];
  for (const socket of foundSockets()) {
    if (!socket.name.startsWith(`${key}-source-`) && !socket.name.startsWith(`${key}-destination-`)) continue;
    const status = await ask(socket);
    if (status !== undefined) found.push(status);
  }
  if (found.length === 0) refuseOther(volumePath);
  return found.toSorted((a, b) => b.role.localeCompare(a.role));
}

/** What is no volume has no mirror that could run. */
function refuseOther(path: string): void {
  const device = openFileDevice(path, { writable: false });
  try {
    openReadOnly(device);
  } finally {
    device.close();
  }
}

/** undefined: the process was killed, and its socket is left over; it is removed. */
async function ask({ path, ino }: FoundSocket): Promise<MirrorStatus | undefined> {
  const socket = createConnection(path);
  socket.setTimeout(ANSWER_MS_MAX, () => socket.destroy(new Error(`no answer within ${ANSWER_MS_MAX} ms`)));
  let text = "";
  try {
    for await (const chunk of socket) {
      text += String(chunk);
      if (text.length > STATUS_BYTES_MAX) throw new Error("the answer is too long");
    }
    return JSON.parse(text) as MirrorStatus;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ECONNREFUSED") removeDeadSocket({ path, ino });
    if (code === "ECONNREFUSED" || code === "ENOENT") return undefined;
    throw new UserError("failed", `cannot ask the mirror at ${path}: ${message}`, "", { cause });
  } finally {
    socket.destroy();
  }
}

/** UserError "no-volume". */
function keyOf(volumePath: string): string {
  const identity = identityOf(volumePath);
  if (identity !== undefined) return volumeKey(identity);
  throw new UserError("no-volume", `there is no volume ${volumePath}`, "give the path of the block file");
}
