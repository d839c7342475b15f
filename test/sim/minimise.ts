/**
 * Finding the few steps that a failure needs: leaves out halves, quarters, eighths ... of a history for as long as it goes on
 * failing (Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002).
 */
import { runHistory } from "./run.ts";
import type { History } from "./steps.ts";

/** What running a history throws; undefined: nothing. */
export function failureOf(history: History): unknown {
  try {
    runHistory(history);
    return undefined;
  } catch (error) {
    return error;
  }
}

const TRIES_MAX = 2000;

/** A part of the history that fails too, out of which no step can be left, if there are tries enough to find it. */
export function minimise(
  { setup, steps: all }: History,
  isFailing: (history: History) => boolean = (history) => failureOf(history) !== undefined,
): History {
  let steps = all;
  for (let size = Math.ceil(steps.length / 2), left = TRIES_MAX; size >= 1 && left > 0; ) {
    let isShorter = false;
    for (let at = 0; at < steps.length && left > 0; left -= 1) {
      const some = [...steps.slice(0, at), ...steps.slice(at + size)];
      if (isFailing({ setup, steps: some })) {
        steps = some;
        isShorter = true;
      } else at += size;
    }
    if (size > 1) size = Math.ceil(size / 2);
    else if (!isShorter) break;
  }
  return { setup, steps };
}
