/**
 * How often each of many whole numbers is there, where these come and go all the time.
 *
 * A Map would do, were it not for V8: one that has emptied gets a new table, and once its table is old each new one is made
 * among the old objects too, where it is garbage until the next full collection, and keeps alive what it refers to. So it
 * costs a tenth of a small request, and pauses (native-notes/performance.md). This is a table of open addressing with linear
 * probing, which deletes by moving back what follows (Knuth, The Art of Computer Programming 3, 6.4, algorithm R), in two
 * arrays of numbers that are made again only when it has grown or shrunk by much.
 */
import { TWO_32 } from "./numbers.ts";

export interface Counts {
  /** 0: it is not there. */
  of(key: number): number;
  add(key: number, count: number): void;
  /** Takes that many away, or all there are; returns how many are left. */
  take(key: number, count: number): number;
  /** All that are there, in no order. */
  keys(): number[];
  clear(): void;
}

const CAPACITY_MIN = 16;
const NONE = -1;
const GOLDEN = 0x9e3779b1;

/** Of keys from 0 to 2^53 - 1. */
export function counts(): Counts {
  let keys = new Float64Array(0);
  let values = keys;
  let mask = 0;
  let size = 0;
  empty(CAPACITY_MIN);

  function empty(capacity: number): void {
    keys = new Float64Array(capacity).fill(NONE);
    values = new Float64Array(capacity);
    mask = capacity - 1;
  }

  function homeOf(key: number): number {
    const high = key < TWO_32 ? 0 : Math.floor(key / TWO_32);
    return (Math.imul((key | 0) ^ Math.imul(high, GOLDEN), GOLDEN) >>> 7) & mask;
  }

  /** Where the key is, or the free place where it would be. */
  function placeOf(key: number): number {
    let at = homeOf(key);
    for (let there = keys[at]; there !== key && there !== NONE; there = keys[at]) at = (at + 1) & mask;
    return at;
  }

  function resize(capacity: number): void {
    const [oldKeys, oldValues] = [keys, values];
    empty(capacity);
    for (let i = 0; i < oldKeys.length; i++) {
      const key = oldKeys[i] as number;
      if (key === NONE) continue;
      const at = placeOf(key);
      keys[at] = key;
      values[at] = oldValues[i] as number;
    }
  }

  /** Whatever stands behind a place that came free, and would be looked for from there or before, moves into it. */
  function vacate(place: number): void {
    let free = place;
    for (let at = (free + 1) & mask; keys[at] !== NONE; at = (at + 1) & mask) {
      const fromHome = (at - homeOf(keys[at] as number)) & mask;
      if (fromHome < ((at - free) & mask)) continue;
      keys[free] = keys[at] as number;
      values[free] = values[at] as number;
      free = at;
    }
    keys[free] = NONE;
    size -= 1;
    if (mask >= CAPACITY_MIN && size * 8 <= mask) resize((mask + 1) / 4);
  }

  return {
    of(key): number {
      const at = placeOf(key);
      return keys[at] === key ? (values[at] as number) : 0;
    },
    add(key, count): void {
      let at = placeOf(key);
      if (keys[at] === key) {
        values[at] = (values[at] as number) + count;
        return;
      }
      if (size * 2 > mask) {
        resize((mask + 1) * 2);
        at = placeOf(key);
      }
      keys[at] = key;
      values[at] = count;
      size += 1;
    },
    take(key, count): number {
      const at = placeOf(key);
      if (keys[at] !== key) return 0;
      const left = (values[at] as number) - count;
      if (left > 0) {
        values[at] = left;
        return left;
      }
      vacate(at);
      return 0;
    },
    keys: () => Array.from(keys).filter((key) => key !== NONE),
    clear(): void {
      size = 0;
      empty(CAPACITY_MIN);
    },
  };
}
