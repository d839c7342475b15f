/** Entry of a daemon in the background. It has no terminal; it reports once, and then talks through its socket alone. */
import type { Report } from "./background.ts";
import type { MountConfig } from "./config.ts";
import { plainError } from "./plain-error.ts";
import { runDaemon } from "./run.ts";

const config = JSON.parse(process.argv[2] ?? "") as MountConfig;
process.title = `tidemark mount ${config.volume} ${config.mountPoint}`;

void run();

async function run(): Promise<void> {
  try {
    await runDaemon(config, () => report({ kind: "ready", pid: process.pid }));
  } catch (error) {
    process.exitCode = 1;
    report({ kind: "error", error: plainError(error) });
  }
}

/** Whoever started us may be gone: then nobody is told. */
function report(message: Report): void {
  if (process.send === undefined || !process.connected) return;
  process.send(message, () => {
    if (process.connected) process.disconnect();
  });
}
