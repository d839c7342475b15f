/** Talks to the daemons of this host: finds the one of a volume or of a directory, asks it, waits for the answer. */
import { createConnection, type Socket } from "node:net";
import { UserError } from "../core/errors.ts";
import {
  type ArgumentsOf,
  CONTROL_REPLY_BYTES_MAX,
  type ControlReply,
  decodeReply,
  lineReader,
  type Progress,
  type Verb,
} from "../format/control-message.ts";
import { identityOf, removeDeadSocket, volumeKey } from "../mirror/socket-directory.ts";
import { type SocketFile, socketFiles } from "./control-paths.ts";
import type { DaemonStatus, Unmounted } from "./daemon-status.ts";
import { userError } from "./plain-error.ts";
import type { VerbResults } from "./volume-verbs.ts";

/** What each verb answers, those of the daemon too. */
export interface ControlResults extends VerbResults {
  readonly status: DaemonStatus;
  readonly umount: Unmounted;
}

export interface ControlClient {
  readonly socket: SocketFile;
  /** Throws what the daemon answers with, as UserError. One call at a time. */
  call<V extends Verb & keyof ControlResults>(
    verb: V,
    given: ArgumentsOf<V>,
    onProgress?: (progress: Progress) => void,
  ): Promise<ControlResults[V]>;
  close(): void;
}

/** The daemon that holds this volume for writing; undefined when there is none. */
export async function connectWriter(volume: string): Promise<ControlClient | undefined> {
  const identity = identityOf(volume);
  if (identity === undefined) return undefined;
  const key = volumeKey(identity);
  const file = socketFiles().find((one) => one.volumeKey === key && one.pid === undefined);
  return file === undefined ? undefined : connect(file);
}

/** All daemons of this volume, the writer first; of all volumes when there is no path. To be closed by the caller. */
export async function connectAll(volume?: string): Promise<readonly ControlClient[]> {
  const identity = volume === undefined ? undefined : identityOf(volume);
  if (volume !== undefined && identity === undefined) return [];
  const key = identity === undefined ? undefined : volumeKey(identity);
  const clients: ControlClient[] = [];
  for (const file of socketFiles()) {
    if (key !== undefined && file.volumeKey !== key) continue;
    const client = await connect(file);
    if (client !== undefined) clients.push(client);
  }
  return clients.toSorted((a, b) => (a.socket.pid ?? 0) - (b.socket.pid ?? 0));
}

/** How long a daemon may take to tell its status: it answers at once, even when its disk hangs. */
const STATUS_MS_MAX = 8000;

export interface DaemonStatuses {
  readonly mounts: readonly DaemonStatus[];
  /** Sockets of daemons that do not answer: stopped, or stuck. */
  readonly silent: readonly string[];
}

/** The status of all daemons of this volume or of this host, asked side by side. One that ends meanwhile is left out. */
export async function daemonStatuses(volume?: string): Promise<DaemonStatuses> {
  const clients = await connectAll(volume);
  const answers = await statusesInTime(clients);
  for (const client of clients) client.close();
  const mounts = answers.filter((answer) => typeof answer === "object");
  const silent = clients.filter((_, i) => answers[i] === "silent").map(({ socket }) => socket.path);
  return { mounts, silent };
}

/** The daemon of a volume is there, and does not answer. */
export function silentError(volume: string): UserError {
  const hint = "look at its process: it is stopped, or its disk hangs";
  return new UserError("unreachable", `the daemon of ${volume} does not answer`, hint);
}

/** One for each, side by side: what it answers, or that it does not, or that it has ended meanwhile. */
export function statusesInTime(
  clients: readonly ControlClient[],
): Promise<readonly (DaemonStatus | "silent" | "gone")[]> {
  return Promise.all(clients.map((client) => statusInTime(client)));
}

async function statusInTime(client: ControlClient): Promise<DaemonStatus | "silent" | "gone"> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"silent">((resolve) => {
    timer = setTimeout(() => resolve("silent"), STATUS_MS_MAX);
  });
  try {
    return await Promise.race([client.call("status", {}), late]);
  } catch (error) {
    if (error instanceof UserError && error.failure === "unreachable") return "gone";
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Connects; undefined when nobody listens: the socket of a daemon that was killed, which is then removed. */
async function connect(file: SocketFile): Promise<ControlClient | undefined> {
  const { path, ino } = file;
  const socket = createConnection(path);
  const refusal = await new Promise<string | undefined>((resolve, reject) => {
    socket.once("connect", () => resolve(undefined));
    socket.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") resolve(error.code);
      else reject(new UserError("failed", `cannot reach the daemon at ${path}: ${error.message}`));
    });
  });
  if (refusal === "ECONNREFUSED") removeDeadSocket({ path, ino });
  if (refusal !== undefined) return undefined;
  socket.removeAllListeners("error");
  return clientOf(file, socket);
}

function clientOf(file: SocketFile, socket: Socket): ControlClient {
  let receive: ((reply: ControlReply) => void) | undefined;
  let lose: ((error: UserError) => void) | undefined;
  const reader = lineReader((line) => receive?.(decodeReply(line)), { bytesMax: CONTROL_REPLY_BYTES_MAX });
  const lost = (why: string): void => {
    lose?.(new UserError("unreachable", `the daemon went away before it answered: ${why}`, "see: tidemark status"));
  };
  socket.on("data", (chunk) => {
    try {
      reader.push(chunk);
    } catch (error) {
      lost(error instanceof Error ? error.message : String(error));
      socket.destroy();
    }
  });
  socket.on("error", (error) => lost(error.message));
  socket.on("close", () => lost("connection closed"));

  return {
    socket: file,
    async call(verb, given, onProgress) {
      const answer = new Promise<unknown>((resolve, reject) => {
        lose = reject;
        receive = (reply) => {
          if (reply.type === "progress") onProgress?.(reply.progress);
          else if (reply.type === "result") resolve(reply.value);
          else reject(userError(reply.error));
        };
        if (socket.destroyed) lost("connection closed");
      });
      socket.write(`${JSON.stringify({ verb, arguments: given })}\n`);
      return (await answer) as ControlResults[typeof verb];
    },
    close: () => void socket.destroy(),
  };
}
