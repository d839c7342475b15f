/** The clock and the randomness of this host, for the rooms that are handed theirs. */
import { randomBytes } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import type { Random } from "../core/prng.ts";

/** The monotonic clock may run so far from the wall clock before it is set again. */
const DRIFT_MS_MAX = 2;

/** Wall time in microseconds: the monotonic clock on top of the wall clock, which alone has only milliseconds. */
export function systemClock(): Clock {
  let originMs = performance.timeOrigin;
  return {
    now: () => {
      const wallMs = Date.now();
      let ms = originMs + performance.now();
      if (Math.abs(ms - wallMs) > DRIFT_MS_MAX) {
        originMs += wallMs - ms;
        ms = wallMs;
      }
      const seconds = Math.floor(ms / 1000);
      return { seconds, nanoseconds: Math.floor((ms - seconds * 1000) * 1e3) * 1e3 };
    },
  };
}

export const systemRandom: Random = { u32: () => randomBytes(4).readUInt32LE() };
