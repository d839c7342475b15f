/**
 * Starting a daemon that outlives its command: a detached process, which reports over a pipe that the mount is served,
 * or why it is not.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { UserError } from "../core/errors.ts";
import type { ControlError } from "../format/control-message.ts";
import type { MountConfig } from "./config.ts";
import { userError } from "./plain-error.ts";

/** What the background process reports once. */
export type Report =
  | { readonly kind: "ready"; readonly pid: number }
  | { readonly kind: "error"; readonly error: ControlError };

/**
 * Resolves with the process id of the daemon when the mount is served; rejects with the daemon's UserError. When the signal is
 * aborted the daemon unmounts as soon as it can, and this rejects with the reason.
 */
export async function startInBackground(config: MountConfig, signal: AbortSignal): Promise<number> {
  const entry = fileURLToPath(new URL("./background-process.js", import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, entry, JSON.stringify(config)], {
    detached: true,
    cwd: "/", // keeps no other mount busy
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  const report = await new Promise<Report>((resolve, reject) => {
    child.once("message", (message) => resolve(message as Report));
    child.once("error", reject);
    child.once("exit", (code, killedBy) => {
      reject(
        new UserError("failed", `the daemon ended before the mount was served (${killedBy ?? `exit code ${code}`})`),
      );
    });
  });
  if (report.kind === "ready" && signal.aborted) {
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    await ended;
    throw signal.reason;
  }
  child.disconnect();
  child.unref();
  if (report.kind === "error") throw userError(report.error);
  return report.pid;
}
