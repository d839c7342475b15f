/**
 * Branded numbers: a value of the wrong unit does not compile. The constructor is the only check;
 * what comes from a disk or a peer is checked by its reader, which answers with CorruptionError.
 */
import assert from "node:assert/strict";

declare const brand: unique symbol;
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** Volume block number: index of a 4096-byte block of the volume. A u32 on disk; 0 is a hole. */
export type Vbn = Brand<number, "Vbn">;
/** Inode number: index of a 256-byte record of the inode file. A u32; 0 means none. */
export type Ino = Brand<number, "Ino">;
/** Number of a consistency point. Grows by one with each; at most 2^53 - 1. */
export type CpCount = Brand<number, "CpCount">;
/** Number of a change of the active filesystem. Grows by one with each; at most 2^53 - 1. */
export type ChangeSeq = Brand<number, "ChangeSeq">;
/** Number of a snapshot within its volume, never used twice. A u32 that starts at 1. */
export type SnapshotId = Brand<number, "SnapshotId">;

export const U32_MAX = 0xffff_ffff;
/** The halves of larger numbers are told apart by it. */
export const TWO_32 = 0x1_0000_0000;

export function vbn(n: number): Vbn {
  check(Number.isInteger(n) && n >= 0 && n <= U32_MAX, "vbn", n);
  return n as Vbn;
}

export function ino(n: number): Ino {
  check(Number.isInteger(n) && n >= 0 && n <= U32_MAX, "ino", n);
  return n as Ino;
}

export function cpCount(n: number): CpCount {
  check(Number.isSafeInteger(n) && n >= 0, "cp count", n);
  return n as CpCount;
}

export function changeSeq(n: number): ChangeSeq {
  check(Number.isSafeInteger(n) && n >= 0, "change number", n);
  return n as ChangeSeq;
}

export function snapshotId(n: number): SnapshotId {
  check(Number.isInteger(n) && n >= 1 && n <= U32_MAX, "snapshot id", n);
  return n as SnapshotId;
}

/** The text is made when it fails only: every block and every inode that is met is checked. */
function check(isInRange: boolean, what: string, n: number): void {
  if (!isInRange) assert.fail(`${what} out of range: ${n}`);
}

/** Marks a state that the types cannot rule out but the program never reaches. */
export function assertNever(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`);
}
