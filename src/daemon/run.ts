/** A daemon from its start to its end: in the background and in the foreground alike. */
import { setTimeout as delay } from "node:timers/promises";
import { UserError } from "../core/errors.ts";
import type { MountConfig } from "./config.ts";
import { daemonLog } from "./log.ts";
import { type Daemon, startDaemon } from "./main-thread.ts";

/** A mount that could not be unmounted is tried again so often. */
const RETRY_MS = 1000;

/**
 * Serves until the volume is unmounted. SIGTERM and SIGINT unmount as soon as nobody uses the mount; a second one, or one that comes
 * when the directory is unmounted already, at once, cutting off who uses it or a copy of it. Throws UserError when it cannot start,
 * and when the volume failed.
 */
export async function runDaemon(config: MountConfig, onReady: () => void): Promise<void> {
  const log = daemonLog(config.logFile);
  const daemon = await startDaemon(config, log);
  process.on("uncaughtExceptionMonitor", (error) => log(`ended by a bug: ${error.stack ?? error.message}`));
  let signals = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    signals += 1;
    const ours = signals;
    const force = signals > 1 || !daemon.isMounted();
    log(`${signal}: unmounting${force ? " by force" : ""}`);
    void end(daemon, { force, isLast: () => ours === signals, log });
  };
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

interface EndOptions {
  readonly force: boolean;
  /** No other signal has come since. */
  readonly isLast: () => boolean;
  readonly log: (text: string) => void;
}

/**
 * Unmounts, as soon as that can be done: it may be busy; and a service manager sends its signal to every process that it finds, so
 * also to the umount(8) that does it.
 */
async function end(daemon: Daemon, { force, isLast, log }: EndOptions): Promise<void> {
  let told = "";
  do {
    try {
      await daemon.unmount({ force });
      return;
    } catch (error) {
      const text = whatNow(error, force);
      if (text !== told) log(text);
      told = text;
    }
    await delay(RETRY_MS, undefined, { ref: false });
  } while (isLast());
}

function whatNow(error: unknown, force: boolean): string {
  if (!(error instanceof UserError)) return String(error);
  const isBusy = !force && error.failure === "in-use";
  return `${error.message}; ${isBusy ? "it is waited for, and a second signal cuts it off" : error.hint}`;
}
