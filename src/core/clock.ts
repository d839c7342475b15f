/** Time comes in from outside, so that a simulation can drive it. */

export interface Time {
  /** Seconds since 1970, negative before. A signed 64-bit field on disk. */
  readonly seconds: number;
  /** 0 to 999,999,999. */
  readonly nanoseconds: number;
}

export interface Clock {
  now(): Time;
}

export const EPOCH: Time = { seconds: 0, nanoseconds: 0 };

/** A clock that stands still until it is moved: for tests and simulation. */
export function manualClock(
  start: Time = { seconds: 1_000_000_000, nanoseconds: 0 },
): Clock & { advanceMs(ms: number): void } {
  let { seconds, nanoseconds } = start;
  return {
    now: () => ({ seconds, nanoseconds }),
    advanceMs(ms: number): void {
      nanoseconds += (ms % 1000) * 1e6;
      seconds += Math.floor(ms / 1000) + Math.floor(nanoseconds / 1e9);
      nanoseconds %= 1e9;
    },
  };
}

export function timeToMs(time: Time): number {
  return time.seconds * 1000 + time.nanoseconds / 1e6;
}

/** ISO 8601 in UTC with the nanoseconds cut to milliseconds: what people and scripts read. */
export function formatTime(time: Time): string {
  return new Date(Math.floor(timeToMs(time))).toISOString();
}
