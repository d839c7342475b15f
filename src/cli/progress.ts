/**
 * Progress of long work. On a terminal: one line on stderr that is written over, from the first second on, ten times a
 * second at most. With --json: one line each on stdout. Otherwise nothing.
 */
import { formatBytes } from "./options.ts";

const FIRST_MS = 1000;
const EVERY_MS = 100;

export interface ProgressReport {
  readonly doneBytes: number;
  /** 0: not known. */
  readonly totalBytes: number;
}

export interface ProgressLine {
  update(report: ProgressReport): void;
  /** Wipes the line; to be called before anything else is printed. */
  end(): void;
}

export interface ProgressOptions {
  readonly json: boolean;
  readonly what: string;
  /** stdout carries a stream: JSON lines go to stderr too. */
  readonly stdoutTaken?: boolean;
}

export function progressLine({ json, what, stdoutTaken = false }: ProgressOptions): ProgressLine {
  const startMs = performance.now();
  const terminal = process.stderr.isTTY && !json;
  let nextMs = startMs + (json ? EVERY_MS : FIRST_MS);
  let shown = false;
  return {
    update({ doneBytes, totalBytes }): void {
      const nowMs = performance.now();
      if ((!terminal && !json) || nowMs < nextMs) return;
      nextMs = nowMs + EVERY_MS;
      const bytesPerSecond = Math.round((doneBytes * 1000) / (nowMs - startMs));
      if (json) {
        const line = JSON.stringify({ type: "progress", what, doneBytes, totalBytes, bytesPerSecond });
        (stdoutTaken ? process.stderr : process.stdout).write(`${line}\n`);
        return;
      }
      shown = true;
      const share = totalBytes > 0 ? ` ${Math.floor((doneBytes / totalBytes) * 100)}%` : "";
      const total = totalBytes > 0 ? ` of ${formatBytes(totalBytes)}` : "";
      process.stderr.write(
        `\r\u001b[K${what}:${share} ${formatBytes(doneBytes)}${total}, ${formatBytes(bytesPerSecond)}/s`,
      );
    },
    end(): void {
      if (shown) process.stderr.write("\r\u001b[K");
      shown = false;
    },
  };
}
