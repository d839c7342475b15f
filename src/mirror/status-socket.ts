/**
 * How `mirror status` asks the running ends of a mirror: each listens on a unix socket beside those of the daemons, named
 * by the block file, and answers every connection with one line, its status as JSON.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, lstatSync, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
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
  const directory = socketDirectory();
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const { uid, mode } = lstatSync(directory);
  if (uid !== process.getuid?.() || (mode & 0o022) !== 0) {
    const message = `${directory} belongs to someone else or is open to others`;
    throw new UserError("failed", message, `chmod 700 ${directory}`);
  }
  const path = join(directory, `${volumeKey(volumePath)}-${role}-${process.pid}.sock`);
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
  void sweep(directory);
  return { close: () => void server.close() };
}

/** Removes what processes that were killed have left, whatever volume they were of. */
async function sweep(directory: string): Promise<void> {
  for (const name of readdirSync(directory)) {
    if (/-(source|destination)-\d+\.sock$/.test(name)) await ask(join(directory, name)).catch(() => {});
  }
}

/** What the ends of a mirror that run on this host for this volume say, the source first. */
export async function mirrorStatuses(volumePath: string): Promise<readonly MirrorStatus[]> {
  const directory = socketDirectory();
  if (!existsSync(volumePath)) {
    throw new UserError("no-volume", `there is no volume ${volumePath}`, "give the path of the block file");
  }
  if (!existsSync(directory)) return [];
  const key = volumeKey(volumePath);
  const found: MirrorStatus[] = [];
  for (const name of readdirSync(directory).toSorted()) {
    if (!name.startsWith(`${key}-source-`) && !name.startsWith(`${key}-destination-`)) continue;
    const status = await ask(join(directory, name));
    if (status !== undefined) found.push(status);
  }
  return found.toSorted((a, b) => b.role.localeCompare(a.role));
}

/** undefined: the process was killed, and its socket is left over; it is removed. */
async function ask(path: string): Promise<MirrorStatus | undefined> {
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
    if (code === "ENOENT") return undefined;
    if (code === "ECONNREFUSED") {
      rmSync(path, { force: true });
      return undefined;
    }
    throw new UserError("failed", `cannot ask the mirror at ${path}: ${message}`, "", { cause });
  } finally {
    socket.destroy();
  }
}

/** The name that the daemon's sockets have too: of the device and inode number of the block file. */
function volumeKey(volumePath: string): string {
  const { dev, ino } = statSync(volumePath);
  return createHash("sha256").update(`${dev}:${ino}`).digest("hex").slice(0, 16);
}

function socketDirectory(): string {
  const uid = process.getuid?.() ?? 0;
  if (uid === 0) return "/run/tidemark";
  const runtime = process.env["XDG_RUNTIME_DIR"];
  return runtime === undefined || runtime === "" ? `/tmp/tidemark-${uid}` : join(runtime, "tidemark");
}
