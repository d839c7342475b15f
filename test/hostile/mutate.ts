/** Changes that are likely to hurt: of a number in a record, and of a string of bytes. */
import { below, type Random } from "../../src/core/prng.ts";
import type { LayoutRow } from "../../src/format/struct.ts";

/** Ends of ranges, and what is next to them. */
const NUMBERS: readonly number[] = [
  0, 1, 2, 3, 4, 7, 15, 16, 17, 127, 128, 129, 255, 256, 339, 340, 341, 511, 512, 4095, 4096, 4097, 8191, 16384, 32767,
  32768, 65535, 65536, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff,
];

function pick<T>(random: Random, list: readonly T[]): T {
  return list[below(random, list.length)] as T;
}

/** Puts another number into a field of 1, 2, 4 or 8 bytes, if it is not cut off. `near`: numbers that mean something where it stands. */
export function mutateNumber(
  random: Random,
  view: DataView,
  at: number,
  sizeBytes: number,
  near: readonly number[],
): void {
  if (at + sizeBytes > view.byteLength) return;
  const value = ((): number => {
    switch (below(random, 5)) {
      case 0:
        return pick(random, NUMBERS);
      case 1:
        return near.length > 0 ? pick(random, near) : random.u32();
      case 2:
        return random.u32();
      case 3:
        return readNumber(view, at, sizeBytes) + below(random, 9) - 4;
      default:
        return readNumber(view, at, sizeBytes) ^ (1 << below(random, 8 * Math.min(4, sizeBytes)));
    }
  })();
  if (sizeBytes === 1) view.setUint8(at, value);
  else if (sizeBytes === 2) view.setUint16(at, value, true);
  else view.setUint32(at, value, true);
  if (sizeBytes !== 8) return;
  // A large number now and then: the upper half is zero in nearly all that is written.
  view.setUint32(at + 4, below(random, 3) === 0 ? pick(random, NUMBERS) : 0, true);
}

function readNumber(view: DataView, at: number, sizeBytes: number): number {
  if (sizeBytes === 1) return view.getUint8(at);
  return sizeBytes === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
}

/** One field of a record, whatever its kind. */
export function mutateField(random: Random, view: DataView, at: number, row: LayoutRow, near: readonly number[]): void {
  if ([1, 2, 4, 8].includes(row.sizeBytes)) mutateNumber(random, view, at + row.offset, row.sizeBytes, near);
  else mutateNumber(random, view, at + row.offset + below(random, row.sizeBytes - 3), 4, near);
}

/** Flips, overwrites, cuts, repeats, inserts and moves. */
export function mutateBytes(random: Random, input: Uint8Array): Uint8Array {
  const at = below(random, input.length + 1);
  const length = below(random, Math.min(64, input.length + 1));
  switch (below(random, 7)) {
    case 0:
      return changed(input, (bytes) => {
        if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << below(random, 8));
      });
    case 1:
      return changed(input, (bytes, view) => {
        if (bytes.length >= 8)
          mutateNumber(random, view, below(random, bytes.length - 7), pick(random, [1, 2, 4, 8]), []);
      });
    case 2:
      return input.slice(0, at);
    case 3:
      return joined(input.subarray(0, at), input.subarray(at + length));
    case 4:
      return joined(input.subarray(0, at), input.subarray(Math.max(0, at - length)));
    case 5:
      return joined(
        input.subarray(0, at),
        Uint8Array.from({ length }, () => below(random, 256)),
        input.subarray(at),
      );
    default:
      return changed(input, (bytes) => void bytes.copyWithin(at, below(random, bytes.length + 1)));
  }
}

function changed(input: Uint8Array, change: (bytes: Uint8Array, view: DataView) => void): Uint8Array {
  const bytes = input.slice();
  change(bytes, new DataView(bytes.buffer));
  return bytes;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
