/** Control-C: a short command ends at once, long work is told and cleans up behind itself, a daemon unmounts. */
import { exitCodes } from "./exit-codes.ts";

/** What work that was interrupted ends with. */
export class InterruptedError extends Error {
  override readonly name: string = "InterruptedError";
}

/** Ends the process with its own exit code, unless somebody else listens to the signal: a daemon, or long work. */
export function exitWhenInterrupted(): void {
  process.on("SIGINT", () => {
    if (process.listenerCount("SIGINT") === 1) process.exit(exitCodes.interrupted.code);
  });
}

/**
 * A signal that aborts long work when the user interrupts or ends it. A second time ends the process at once, as the system does
 * it: an exit of its own would wait for calls that are under way, as for who opens the other end of a FIFO.
 */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  const stop = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    }
    controller.abort(new InterruptedError(`interrupted by ${signal}`));
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  return controller.signal;
}
