/**
 * Keeps processors from sleeping deeply while requests follow one another closely.
 *
 * A round trip through FUSE is two wake-ups: that of the server, and that of who asked. A processor that has fallen asleep
 * meanwhile takes its time, in a virtual machine 20 us and more, for it is the host that wakes it: most of what a small
 * request costs (native-notes/performance.md). While somebody holds /dev/cpu_dma_latency, no processor sleeps deeper than it
 * can be woken from within the microseconds written there; the kernel forgets them when the file is closed, if only by the
 * end of the process.
 *
 *     server thread                                      main thread
 *       counts requests in shared memory;
 *       some in a row with less than 1 ms between ------->  hold; every 10 ms look at the count:
 *                                          <-------------   hardly any more: let go
 *
 * One word has one writer: the count is the server's, and the other one is set by the server and cleared by the main thread.
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";

const DEVICE = "/dev/cpu_dma_latency";
/** What sleeps the lightest, where sleeping is cheap: the first state of any processor wakes within it. */
const LIGHT_US = 10;
/** In a virtual machine, what the processor says of its sleep is not true: it is not to sleep at all. */
const NONE_US = 0;
const ANY_US = -1;

const GAP_MS_MAX = 1;
const STREAK = 8;
const LOOK_MS = 10;

const WORD_COUNT = 0;
const WORD_HELD = 1;
const WORDS = 2;

/** Counts one request. Called after each, by one thread. */
export type Beat = () => void;

/** The server thread's side. `onStreak`: the main thread is to `hold`. */
export function beats(shared: SharedArrayBuffer, nowMs: () => number, onStreak: () => void): Beat {
  const words = new Int32Array(shared);
  let lastMs = Number.NEGATIVE_INFINITY;
  let streak = 0;
  return () => {
    words[WORD_COUNT] = (words[WORD_COUNT] as number) + 1;
    if (words[WORD_HELD] !== 0) return;
    const atMs = nowMs();
    streak = atMs - lastMs < GAP_MS_MAX ? streak + 1 : 1;
    lastMs = atMs;
    if (streak < STREAK) return;
    streak = 0;
    Atomics.store(words, WORD_HELD, 1);
    onStreak();
  };
}

/** The main thread's side. */
export interface LightSleep {
  /** For the server thread's `beats`. */
  readonly shared: SharedArrayBuffer;
  hold(): void;
  close(): void;
}

/** Undefined where it cannot be had: for an ordinary user, in a container. Sleep is then what it always was. */
export function openLightSleep(device: string = DEVICE): LightSleep | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(device, "r+");
  } catch {
    return undefined;
  }
  const shared = new SharedArrayBuffer(4 * WORDS);
  const words = new Int32Array(shared);
  const value = new Int32Array(1);
  const lightUs = isVirtual() ? NONE_US : LIGHT_US;
  let timer: NodeJS.Timeout | undefined;
  let seen = 0;

  function allow(latencyUs: number): void {
    value[0] = latencyUs;
    writeSync(descriptor, value);
  }

  function look(): void {
    const count = Atomics.load(words, WORD_COUNT);
    const isBusy = ((count - seen) | 0) >= STREAK;
    if (isBusy) {
      lookLater(count);
      return;
    }
    timer = undefined;
    allow(ANY_US);
    Atomics.store(words, WORD_HELD, 0);
  }

  function lookLater(count: number): void {
    seen = count;
    timer = setTimeout(look, LOOK_MS).unref();
  }

  return {
    shared,
    hold(): void {
      if (timer !== undefined) return;
      allow(lightUs);
      lookLater(Atomics.load(words, WORD_COUNT));
    },
    close(): void {
      clearTimeout(timer);
      closeSync(descriptor);
    },
  };
}

/** As x86 has it among the flags of a processor; other guests are known by the driver that the kernel has for them. */
function isVirtual(): boolean {
  return (
    /^flags\s*:.*\bhypervisor\b/m.test(textOf("/proc/cpuinfo")) ||
    textOf("/sys/devices/system/cpu/cpuidle/current_driver").trim() === "haltpoll"
  );
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
