/**
 * Verifying a volume wherever it is. An unmounted one is locked, and does not move. Of a mounted one a hidden snapshot is
 * taken, whose blocks stay as they are, and checked with the others; the active filesystem, which moves on, is left
 * out: the snapshot is what it was.
 */
import { Worker } from "node:worker_threads";
import { UserError } from "../core/errors.ts";
import { openFileDevice } from "../device/file-device.ts";
import { lockVolume } from "../device/volume-lock.ts";
import type { CheckOptions, CheckProgress, CheckReport } from "../volume/check.ts";
import type { CheckMessage, CheckStart } from "./check-thread.ts";
import { type ControlClient, connectWriter } from "./control-client.ts";
import { userError } from "./plain-error.ts";

export interface CheckPathOptions extends Pick<CheckOptions, "readData"> {
  readonly onProgress: (progress: CheckProgress) => void;
  readonly signal: AbortSignal;
}

const HELD_PREFIX = "tidemark-check-";

/** Throws UserError "no-volume", and "corrupt" when there is no root to begin with; what the signal is aborted with. */
export async function checkPath(path: string, options: CheckPathOptions): Promise<CheckReport> {
  const client = await connectWriter(path);
  if (client === undefined) return checkUnmounted(path, options);
  try {
    return await checkMounted(path, client, options);
  } finally {
    client.close();
  }
}

async function checkMounted(path: string, client: ControlClient, options: CheckPathOptions): Promise<CheckReport> {
  await dropLeftOver(client);
  const name = `${HELD_PREFIX}${process.pid}`;
  await client.call("snapshot-create", { name, mirror: true });
  try {
    return await checkInThread({ path, options: { readData: options.readData ?? true, only: "snapshots" } }, options);
  } finally {
    await client.call("snapshot-delete", { name });
  }
}

/** What checks that were killed have left. */
async function dropLeftOver(client: ControlClient): Promise<void> {
  for (const { name, mirror } of await client.call("snapshot-list", { unique: false })) {
    if (!mirror || !name.startsWith(HELD_PREFIX)) continue;
    if (!isAlive(Number(name.slice(HELD_PREFIX.length)))) await client.call("snapshot-delete", { name });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return pid !== process.pid;
  } catch {
    return false;
  }
}

async function checkUnmounted(path: string, options: CheckPathOptions): Promise<CheckReport> {
  const device = openFileDevice(path, { writable: false });
  try {
    lockUnlessServed(() => lockVolume(device));
    return await checkInThread({ path, options: { readData: options.readData ?? true } }, options);
  } finally {
    device.close();
  }
}

/** A mirror that is being served is locked by who receives it. It is checked as it is; the report says if it moved. */
function lockUnlessServed(lock: () => void): void {
  try {
    lock();
  } catch (error) {
    if (!(error instanceof UserError) || error.failure !== "in-use") throw error;
  }
}

async function checkInThread(start: CheckStart, { onProgress, signal }: CheckPathOptions): Promise<CheckReport> {
  const worker = new Worker(new URL("./check-thread.js", import.meta.url), { workerData: start });
  try {
    return await new Promise<CheckReport>((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
      worker.on("message", (message: CheckMessage) => {
        if (message.kind === "progress") onProgress(message.progress);
        else if (message.kind === "report") resolve(message.report);
        else reject(userError(message.error));
      });
      worker.once("error", reject);
    });
  } finally {
    await worker.terminate();
  }
}
