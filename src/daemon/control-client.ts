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
  /** Throws what the daemon answers with, as UserError. One call at a time. */
  call<V extends Verb & keyof ControlResults>(
    verb: V,
    given: ArgumentsOf<V>,
    onProgress?: (progress: Progress) => void,
  ): Promise<ControlResults[V]>;
  close(): void;
}

/** The daemon that holds this volume for writing; undefined when there is none. UserError "unreachable". */
export async function connectWriter(volume: string): Promise<ControlClient | undefined> {
  const file = socketFilesOf(volume).find(({ pid }) => pid === undefined);
  const client = file === undefined ? "gone" : await connect(file);
  if (client === "silent") throw silentError(volume);
  return client === "gone" ? undefined : client;
}

/** How long a daemon may take to tell its status: it answers at once, even when its disk hangs. */
const STATUS_MS_MAX = 8000;

export interface DaemonStatuses {
  readonly mounts: readonly DaemonStatus[];
  /** Sockets of daemons that do not answer: stopped, or stuck. */
  readonly silent: readonly string[];
}

/** The status of all daemons of this volume or of this host. One that ends meanwhile is left out. */
export async function daemonStatuses(volume?: string): Promise<DaemonStatuses> {
  const { answers, silent } = await askAll(volume);
  for (const { client } of answers) client.close();
  return { mounts: answers.map(({ status }) => status), silent };
}

/** The daemon of a volume is there, and does not answer. */
export function silentError(volume: string): UserError {
  const hint = "look at its process: it is stopped, or its disk hangs";
  return new UserError("unreachable", `the daemon of ${volume} does not answer`, hint);
}

export interface Asked extends Pick<DaemonStatuses, "silent"> {
  /** Of the writer of a volume first. The clients are to be closed by the caller. */
  readonly answers: readonly Answer[];
  /** What was heard of those that ended before they answered. */
  readonly lost: readonly UserError[];
}

export interface Answer {
  readonly client: ControlClient;
  readonly status: DaemonStatus;
}

/** Asks all daemons of this volume, or of this host, for their status, side by side. */
export async function askAll(volume?: string): Promise<Asked> {
  const files = volume === undefined ? socketFiles() : socketFilesOf(volume);
  const asked = await Promise.all(files.map((file) => ask(file)));
  return {
    answers: asked.filter((answer) => typeof answer === "object" && "client" in answer),
    silent: files.filter((_, i) => asked[i] === "silent").map(({ path }) => path),
    lost: asked.filter((answer) => answer instanceof UserError),
  };
}

function socketFilesOf(volume: string): readonly SocketFile[] {
  const identity = identityOf(volume);
  if (identity === undefined) return [];
  const key = volumeKey(identity);
  return socketFiles()
    .filter((file) => file.volumeKey === key)
    .toSorted((a, b) => (a.pid ?? 0) - (b.pid ?? 0));
}

async function ask(file: SocketFile): Promise<Answer | "silent" | "gone" | UserError> {
  const client = await connect(file);
  if (typeof client !== "object") return client;
  const status = await statusInTime(client);
  if (typeof status === "object" && "mountPoint" in status) return { client, status };
  client.close();
  return status;
}

async function statusInTime(client: ControlClient): Promise<DaemonStatus | "silent" | UserError> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"silent">((resolve) => {
    timer = setTimeout(() => resolve("silent"), STATUS_MS_MAX);
  });
  try {
    return await Promise.race([client.call("status", {}), late]);
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * "gone": nobody listens. It is the socket of a daemon that was killed, which is then removed. "silent": it cannot be reached, as where
 * so many have connected that no more can wait for an answer (EAGAIN).
 */
async function connect(file: SocketFile): Promise<ControlClient | "silent" | "gone"> {
  const socket = createConnection(file.path);
  const refusal = await new Promise<string | undefined>((resolve) => {
    socket.once("connect", () => resolve(undefined));
    socket.once("error", ({ code = "" }: NodeJS.ErrnoException) => resolve(code));
  });
  if (refusal === "ECONNREFUSED") removeDeadSocket(file);
  if (refusal !== undefined) return refusal === "ECONNREFUSED" || refusal === "ENOENT" ? "gone" : "silent";
  socket.removeAllListeners("error");
  return clientOf(socket);
}

function clientOf(socket: Socket): ControlClient {
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
