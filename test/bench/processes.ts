/** Children of the benchmark: commands that end, daemons that stay, and what a daemon has used. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";

const COMMAND_MS_MAX = 1_200_000;
const DAEMON_END_MS_MAX = 60_000;
const OUTPUT_CHARS_MAX = 16 << 20;

/** Running now, so that an interrupted benchmark leaves none behind. */
const running = new Set<ChildProcess>();

export interface CommandOptions {
  readonly directory?: string;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Where authorities of one's own are named, Node reads them all at each start: 45 ms that only hosts with such have. */
const { NODE_EXTRA_CA_CERTS: _, ...plainEnvironment } = process.env;

/** Runs a command to its end and returns what it printed. Rejects unless it ends with 0. */
export async function command(file: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { directory, environment } = options;
  const child = spawn(file, args, {
    stdio: ["ignore", "pipe", "pipe"],
    timeout: COMMAND_MS_MAX,
    killSignal: "SIGKILL",
    cwd: directory,
    env: { ...plainEnvironment, ...environment },
  });
  running.add(child);
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    if (stdout.length < OUTPUT_CHARS_MAX) stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (stderr.length < OUTPUT_CHARS_MAX) stderr += text;
  });
  try {
    const ended = await new Promise<string>((settle, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => settle(signal ?? String(code)));
    });
    if (ended === "0") return stdout;
    throw new Error(`${file} ${args.join(" ")} ended with ${ended}: ${stderr.trim().slice(-500)}`);
  } finally {
    running.delete(child);
  }
}

/** A line for the shell, with arguments $1, $2 ... */
export function shell(line: string, args: readonly string[] = [], options: CommandOptions = {}): Promise<string> {
  return command("/bin/bash", ["-euo", "pipefail", "-c", line, "bench", ...args], options);
}

/** Seconds that a line for the shell takes. */
export async function secondsOf(line: string, args: readonly string[], options: CommandOptions = {}): Promise<number> {
  const beganMs = performance.now();
  await shell(line, args, options);
  return (performance.now() - beganMs) / 1000;
}

/** Commands under way are killed; their callers see them fail. */
export function killCommands(): void {
  for (const child of running) child.kill("SIGKILL");
}

export interface Daemon {
  readonly pid: number;
  /** Resolves when it has ended. */
  readonly ended: Promise<void>;
  readonly complaint: () => string;
}

/** Starts a server in the foreground, in a process group of its own: Ctrl-C is for the benchmark, which unmounts. */
export function startDaemon(file: string, args: readonly string[]): Daemon {
  const child = spawn(file, args, { stdio: ["ignore", "ignore", "pipe"], detached: true });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (stderr.length < OUTPUT_CHARS_MAX) stderr += text;
  });
  const ended = new Promise<void>((settle) => {
    child.once("error", () => settle());
    child.once("close", () => settle());
  });
  return { pid: child.pid ?? 0, ended, complaint: () => stderr.trim().slice(-500) };
}

/** Waits for a daemon that has been told to end; one that does not is killed. */
export async function waitForEnd(daemon: Daemon): Promise<void> {
  const timer = setTimeout(() => kill(daemon, "SIGKILL"), DAEMON_END_MS_MAX);
  await daemon.ended;
  clearTimeout(timer);
}

export function kill({ pid }: Daemon, signal: NodeJS.Signals): void {
  try {
    if (pid > 0) process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

export interface Usage {
  readonly cpuSeconds: number;
  readonly peakMib: number;
}

const CLOCK_TICKS_PER_SECOND = 100;

/** CPU time so far, and the most memory held at once since `resetPeak`. */
export function usageOf(pid: number): Usage {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return {
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND,
      peakMib: Number(peak?.[1] ?? 0) / 1024,
    };
  } catch {
    return { cpuSeconds: 0, peakMib: 0 };
  }
}

export function resetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5");
  } catch {
    // The peak is then that of the whole run.
  }
}
