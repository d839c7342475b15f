/** A daemon from its start to its end: in the background and in the foreground alike. */
import { UserError } from "../core/errors.ts";
import type { MountConfig } from "./config.ts";
import { daemonLog } from "./log.ts";
import { startDaemon } from "./main-thread.ts";

/**
 * Serves until the volume is unmounted. SIGTERM and SIGINT unmount; a second one, or one that comes when the directory is
 * unmounted already, does so also when the mount is busy or has copies, cutting off whoever uses it. Throws UserError when it cannot start, and when the volume failed.
 */
export async function runDaemon(config: MountConfig, onReady: () => void): Promise<void> {
  const log = daemonLog(config.logFile);
  const daemon = await startDaemon(config, log);
  process.on("uncaughtExceptionMonitor", (error) => log(`ended by a bug: ${error.stack ?? error.message}`));
  let signals = 0;
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    signals += 1;
    const force = signals > 1 || !daemon.isMounted();
    log(`${signal}: unmounting${force ? " by force" : ""}`);
    try {
      await daemon.unmount({ force });
    } catch (error) {
      log(error instanceof UserError ? `${error.message}; ${error.hint}` : String(error));
    }
  };
  const onSignal = (signal: NodeJS.Signals): void => void stop(signal);
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  process.on("SIGHUP", () => {}); // the terminal is gone, the mount stays
  onReady();
  try {
    await daemon.ended;
  } finally {
    process.off("SIGTERM", onSignal);
    process.off("SIGINT", onSignal);
  }
}
