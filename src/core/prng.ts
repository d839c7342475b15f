/** Randomness comes in from outside, so that a simulation can be repeated from its seed. */
import { TWO_32 } from "./numbers.ts";

export interface Random {
  /** A u32. */
  u32(): number;
}

/** xoshiro128** (Blackman and Vigna, 2018), seeded through splitmix32. Not for secrets. */
export function prng(seed: number): Random {
  let x = seed >>> 0;
  const splitmix = (): number => {
    x = (x + 0x9e3779b9) >>> 0;
    let z = x;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  let [a, b, c, d] = [splitmix(), splitmix(), splitmix(), splitmix()];
  return {
    u32(): number {
      const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
      const t = (b << 9) >>> 0;
      c = (c ^ a) >>> 0;
      d = (d ^ b) >>> 0;
      b = (b ^ c) >>> 0;
      a = (a ^ d) >>> 0;
      c = (c ^ t) >>> 0;
      d = rotate(d, 11);
      return result;
    },
  };
}

function rotate(n: number, k: number): number {
  return ((n << k) | (n >>> (32 - k))) >>> 0;
}

/** An integer in [0, bound). */
export function below(random: Random, bound: number): number {
  return Math.floor((random.u32() / TWO_32) * bound);
}

/** A random (version 4) UUID as its 16 bytes. */
export function randomUuid(random: Random): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < 16; at += 4) view.setUint32(at, random.u32(), true);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return bytes;
}
