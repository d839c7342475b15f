/**
 * A history as data: what is done to a volume, step by step, with everything that is left to chance written down. So it can be
 * run again, with steps left out, and fail in the same way.
 */
import type { AccessTimes } from "../../src/fs/context.ts";
import type { Operation } from "../support/model-fs.ts";

export interface Setup {
  readonly blockCount: number;
  /** Goes on from a volume whose first region is full. */
  readonly isFilled: boolean;
  /** The least of them: what is kept in any case, which is fewer blocks and inodes than there are. */
  readonly cacheBytes: number;
  readonly accessTimes: AccessTimes;
  /** That there are at the start. */
  readonly snapshots: number;
}

/** How the world ends for the process: the host loses its power, or lives on with what was written but not flushed. */
export type CrashKind = "power" | "kill";

/** What is lost follows from the seed. `again`: operations after which each of the recoveries is cut too. */
export interface Crash {
  readonly how: CrashKind;
  readonly seed: number;
  readonly again: readonly number[];
}

/** The device refuses: `after` calls of this kind, `times` calls long. */
export interface Fault {
  readonly on: "read" | "write" | "flush";
  readonly code: "EIO" | "ENOSPC";
  readonly after: number;
  readonly times: number;
  /** By the device that the log is on, when it is apart. Default: by the volume's own. */
  readonly inLog?: boolean;
}

export type Action =
  | { readonly kind: "do"; readonly op: Operation }
  /** fsync of the file in a slot or at a path. `wait`: until it is durable, else the caller waits while others go on. */
  | { readonly kind: "fsync"; readonly path?: string; readonly slot?: number; readonly wait: boolean }
  | { readonly kind: "sync"; readonly wait: boolean }
  /** Begins a consistency point, or takes the one on its way one step further. */
  | { readonly kind: "cp" }
  /** The same with a frame of the change log. */
  | { readonly kind: "log" }
  | { readonly kind: "relieve" | "reclaim" | "compare" }
  /** Unmounts and mounts again, with the change log in the volume or apart. */
  | { readonly kind: "reopen"; readonly apart: boolean }
  | { readonly kind: "snapshot"; readonly what: "create" | "delete" | "restore"; readonly name: string }
  | { readonly kind: "snapshot"; readonly what: "rename"; readonly name: string; readonly into: string }
  /** Reads more names of a directory that is being read, or begins to. */
  | { readonly kind: "list"; readonly path: string; readonly count: number }
  | { readonly kind: "read"; readonly path: string; readonly offset: number; readonly length: number }
  /** The power goes now, or after so many writes and flushes. */
  | ({ readonly kind: "crash" } & Crash)
  | ({ readonly kind: "cut"; readonly after: number } & Crash)
  /** Looks at what crashes now would leave, and goes on. */
  | { readonly kind: "peek"; readonly seed: number; readonly count: number }
  /** Looks at what crashes in the middle of the next writes and flushes would leave. */
  | { readonly kind: "watch"; readonly count: number; readonly seed: number }
  /** Looks at what is left of a copy with flipped bits and unreadable blocks. */
  | { readonly kind: "rot"; readonly seed: number }
  | ({ readonly kind: "fault" } & Fault)
  /** Sends a snapshot to the other volume, as an increment when it can be one. */
  | { readonly kind: "send"; readonly name: string }
  | { readonly kind: "receive"; readonly frames: number; readonly checkpoint: boolean }
  | { readonly kind: "cutOther"; readonly after: number; readonly seed: number };

/** `at`: milliseconds since the beginning. No two steps have the same. */
export type Step = Action & { readonly at: number };

export interface History {
  readonly setup: Setup;
  readonly steps: readonly Step[];
}

/** Contents that a test writes: told by three numbers. */
export function pattern(length: number, first: number, step: number): Uint8Array {
  const data = new Uint8Array(length);
  for (let i = 0; i < length; i++) data[i] = (first + i * step + (i >>> 8)) & 0xff;
  return data;
}

/** One line of JSON a step; long names and patterns are told by their lengths. */
export function encodeHistory({ setup, steps }: History): string {
  return [setup, ...steps].map((line) => JSON.stringify(line, shorten)).join("\n");
}

export function decodeHistory(text: string): History {
  const [setup, ...steps] = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line.startsWith("{"))
    .map((line): unknown => JSON.parse(line, lengthen));
  return { setup: setup as Setup, steps: steps as Step[] };
}

function shorten(_key: string, value: unknown): unknown {
  if (value instanceof Uint8Array) {
    const [first = 0, second = 0] = value;
    return { pattern: [value.length, first, (second - first) & 0xff] };
  }
  if (typeof value !== "string") return value;
  return value.replaceAll(/(.)\1{9,}/gs, (run, char: string) => `${char}{*${run.length}}`);
}

function lengthen(_key: string, value: unknown): unknown {
  if (typeof value === "string") {
    return value.replaceAll(/(.)\{\*(\d+)\}/gs, (_all, char: string, count: string) => char.repeat(Number(count)));
  }
  if (typeof value === "object" && value !== null && "pattern" in value) {
    const [length, first, step] = value.pattern as [number, number, number];
    return pattern(length, first, step);
  }
  return value;
}
