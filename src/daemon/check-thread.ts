/** Verifies in a thread of its own: the work is synchronous and long, and the command must hear of an interruption. */
import { parentPort, workerData } from "node:worker_threads";
import { openDirectDevice } from "../device/direct-device.ts";
import { openFileDevice } from "../device/file-device.ts";
import type { ControlError } from "../format/control-message.ts";
import { type CheckOptions, type CheckProgress, type CheckReport, checkVolume } from "../volume/check.ts";
import { openLogToRead } from "./log-file.ts";
import { pacedDevice } from "./paced-device.ts";
import { plainError } from "./plain-error.ts";

export interface CheckStart {
  readonly path: string;
  /** Of reads from the disk itself; undefined: through the page cache, as fast as can be. */
  readonly bytesPerSecond: number | undefined;
  /** That has the change log, if it is apart and known. */
  readonly logFile: string | undefined;
  readonly options: Omit<CheckOptions, "onProgress" | "logFile">;
}

export type CheckMessage =
  | { readonly kind: "progress"; readonly progress: CheckProgress }
  | { readonly kind: "report"; readonly report: CheckReport }
  | { readonly kind: "error"; readonly error: ControlError };

const send = (message: CheckMessage): void => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(message);
};
const { path, bytesPerSecond, logFile: logPath, options } = workerData as CheckStart;

try {
  const device =
    bytesPerSecond === undefined
      ? openFileDevice(path, { writable: false })
      : pacedDevice(openDirectDevice(path), bytesPerSecond);
  const logFile = logPath === undefined ? undefined : openLogToRead(logPath);
  const onProgress = (progress: CheckProgress): void => send({ kind: "progress", progress });
  const report = checkVolume(device, { ...options, logFile, onProgress });
  send({ kind: "report", report });
} catch (error) {
  send({ kind: "error", error: plainError(error) });
}
