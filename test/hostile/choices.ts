/**
 * Where the bytes of a hostile input come from: a list of numbers, its genome, read from the front; beyond its end, from a seed.
 * So one input is one short list, whatever it is an input of; a changed list is a changed input; and what was taken from
 * the seed can be kept as a list.
 */
import { prng, type Random } from "../../src/core/prng.ts";

export interface Choices extends Random {
  /** Everything that was drawn so far. */
  readonly drawn: readonly number[];
}

/** Numbers drawn at most: beyond, all are zero, so that no input grows without end. */
const DRAWN_MAX = 100_000;

export function choicesOf(genome: readonly number[], seed: number): Choices {
  const rest = prng(seed);
  const drawn: number[] = [];
  return {
    drawn,
    u32(): number {
      if (drawn.length >= DRAWN_MAX) return 0;
      const next = genome[drawn.length] ?? rest.u32();
      drawn.push(next);
      return next;
    },
  };
}
