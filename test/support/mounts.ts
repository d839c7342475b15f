/**
 * Real mounts in tests. The test process never touches a mount itself: the accessing side is a child, run by
 * `run`, which is killed when it takes too long. What was mounted is unmounted whatever happened.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { accessSync, constants, readFileSync } from "node:fs";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";

/** The built command, beside the built tests. */
export const tidemarkPath: string = fileURLToPath(new URL("../../command/main.js", import.meta.url));

const OUTPUT_BYTES_MAX = 256 * 1024 * 1024;
const RUN_MS_MAX = 60_000;

export interface RunResult {
  /** Exit code; 128 + n after signal n, -1 when it was killed for taking too long. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly timeoutMs?: number;
  readonly cwd?: string;
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a program to its end. Never throws for its exit code: see `runOk`. */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { timeoutMs = RUN_MS_MAX, cwd, input, env } = options;
  return new Promise((resolve) => {
    const child = execFile(
      file,
      [...args],
      { timeout: timeoutMs, killSignal: "SIGKILL", maxBuffer: OUTPUT_BYTES_MAX, cwd, env: { ...process.env, ...env } },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        const why = error !== null && typeof error.code !== "number" ? `\n${error.message}` : "";
        resolve({ code, stdout, stderr: stderr + why });
      },
    );
    // A child that ends before it has read its input is judged by its exit code.
    child.stdin?.on("error", () => {});
    child.stdin?.end(input ?? "");
  });
}

/** Runs a program that must end with 0; returns its stdout. */
export async function runOk(file: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await run(file, args, options);
  assert.equal(code, 0, `${file} ${args.join(" ")} ended with ${code}\n${stdout.slice(-4000)}\n${stderr.slice(-4000)}`);
  return stdout;
}

/** A line for the shell, which must end with 0. Errors of any command of it count. */
export function shell(script: string, options: RunOptions = {}): Promise<string> {
  return runOk("/bin/sh", ["-euc", script], options);
}

/** The built `tidemark` command with these arguments. */
export function tidemark(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(process.execPath, ["--enable-source-maps", tidemarkPath, ...args], options);
}

export function tidemarkOk(args: readonly string[], options: RunOptions = {}): Promise<string> {
  return runOk(process.execPath, ["--enable-source-maps", tidemarkPath, ...args], options);
}

/** Why real mounts cannot be tested here; undefined: they can. */
export function mountImpossible(): string | undefined {
  if (process.getuid?.() !== 0) return "real mounts are tested as root only";
  try {
    accessSync("/dev/fuse", constants.R_OK | constants.W_OK);
  } catch {
    return "there is no usable /dev/fuse here";
  }
  return undefined;
}

/**
 * For the `skip` of a test of real mounts: `test(name, { skip: skipWithoutMounts() }, ...)`. Where CI is "true" nothing
 * is skipped: a machine that cannot mount fails there.
 */
export function skipWithoutMounts(): string | false {
  const why = mountImpossible();
  if (why === undefined) return false;
  assert.notEqual(process.env["CI"], "true", `${why}, and on CI that is a failure`);
  return why;
}

/** True when something is mounted at the folder, by the kernel's own list: the mount itself is not touched. */
export function isMounted(path: string): boolean {
  const escaped = path.replaceAll(/[\\ \t\n]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[4] === escaped);
}

/** Mounts with the built command and unmounts after the test. */
export async function mountVolume(
  t: TestContext,
  volume: string,
  directory: string,
  more: readonly string[] = [],
): Promise<void> {
  unmountAfter(t, directory);
  await tidemarkOk(["mount", volume, directory, ...more]);
  assert(isMounted(directory), `${directory} is not mounted after tidemark mount`);
}

/** Unmounts with the built command, which returns when the last consistency point is durable. */
export async function unmountVolume(directory: string): Promise<void> {
  await tidemarkOk(["umount", directory]);
  assert(!isMounted(directory), `${directory} is still mounted after tidemark umount`);
}

/** Makes sure that nothing is left mounted there when the test has ended, however it ended. */
export function unmountAfter(t: TestContext, directory: string): void {
  t.after(async () => {
    for (let tries = 0; tries < 3 && isMounted(directory); tries++) {
      await run("umount", ["-f", directory], { timeoutMs: 10_000 });
      if (isMounted(directory)) await run("umount", ["-l", directory], { timeoutMs: 10_000 });
    }
  });
}

/** A long-running `tidemark`, killed after the test. Its stderr is passed on when the test fails to end it well. */
export function startTidemark(t: TestContext, args: readonly string[], env = process.env): ChildProcess {
  const child = spawn(process.execPath, ["--enable-source-maps", tidemarkPath, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env,
  });
  t.after(() => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  });
  return child;
}

/** Resolves with the first line of the output that matches; rejects when the output ends or time is up before it. */
export function lineOf(
  stream: NodeJS.ReadableStream,
  pattern: RegExp,
  timeoutMs: number = RUN_MS_MAX,
): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const timer = setTimeout(
      () => done(new Error(`no line ${String(pattern)} within ${timeoutMs} ms, but:\n${text}`)),
      timeoutMs,
    );
    const onData = (chunk: string | Buffer): void => {
      text += chunk.toString();
      const line = text.split("\n").find((candidate) => pattern.test(candidate));
      if (line !== undefined) done(line);
    };
    const onEnd = (): void => done(new Error(`the output ended without a line ${String(pattern)}:\n${text}`));
    function done(outcome: string | Error): void {
      clearTimeout(timer);
      stream.off("data", onData);
      stream.off("end", onEnd);
      stream.resume();
      if (typeof outcome === "string") resolve(outcome);
      else reject(outcome);
    }
    stream.on("data", onData);
    stream.on("end", onEnd);
  });
}
