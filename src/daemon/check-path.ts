/**
 * Verifying a volume wherever it is. An unmounted one is locked, and does not move. Of a mounted one a hidden snapshot is
 * taken, whose blocks stay as they are, and checked with the others; the active filesystem, which moves on, is left
 * out: the snapshot is what it was. So is the change log, which is being written.
 */
import { Worker } from "node:worker_threads";
import { UserError } from "../core/errors.ts";
import { openFileDevice } from "../device/file-device.ts";
import { lockVolume } from "../device/volume-lock.ts";
import type { CheckOptions, CheckProgress, CheckReport } from "../volume/check.ts";
import type { CheckMessage, CheckStart } from "./check-thread.ts";
import { type ControlClient, connectWriter } from "./control-client.ts";
import { withHeldSnapshot } from "./held-snapshot.ts";
import { userError } from "./plain-error.ts";

export interface CheckPathOptions extends Pick<CheckOptions, "readData"> {
  /** Read from the disk itself, and no faster. Default: through the page cache, as fast as can be. */
  readonly bytesPerSecond?: number;
  /** The file that has the change log, if it is apart. */
  readonly logFile?: string | undefined;
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

/** Checks what a daemon has mounted, which this client is connected to. */
export async function checkMounted(
  path: string,
  client: ControlClient,
  options: CheckPathOptions,
): Promise<CheckReport> {
  return withHeldSnapshot(client, HELD_PREFIX, (activeAs) => checkInThread(path, { activeAs }, options));
}

async function checkUnmounted(path: string, options: CheckPathOptions): Promise<CheckReport> {
  const device = openFileDevice(path, { writable: false });
  try {
    lockUnlessServed(() => lockVolume(device));
    return await checkInThread(path, {}, options);
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

/** Checks beside the event loop. */
export async function checkInThread(
  path: string,
  { activeAs }: Pick<CheckOptions, "activeAs">,
  { readData = true, bytesPerSecond, logFile, onProgress, signal }: CheckPathOptions,
): Promise<CheckReport> {
  const start: CheckStart = { path, bytesPerSecond, logFile, options: { readData, activeAs } };
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
