/** The clock of operations: it stands still within each, so that all that one changes gets the same time. */

import type { Clock, Time } from "../core/clock.ts";
import { shaped } from "../core/shaped.ts";

export interface OperationClock extends Clock {
  /** The next operation begins. */
  begin(): void;
  /** What the present operation was told; undefined: it has not asked. */
  readonly last: Time | undefined;
  /** From now on this is what operations are told, whatever the time is; undefined: the time. */
  force(time: Time | undefined): void;
}

export function operationClock(clock: Clock): OperationClock {
  let last: Time | undefined;
  let forced: Time | undefined;
  return shaped({
    begin(): void {
      last = undefined;
    },
    now(): Time {
      last ??= forced ?? clock.now();
      return last;
    },
    get last(): Time | undefined {
      return last;
    },
    force(time): void {
      forced = time;
    },
  });
}
