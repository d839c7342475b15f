/** What a table of structure kinds is made of: where the bytes of each lie, and what is promised when bits of them flip. */
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { below, type Random } from "../../src/core/prng.ts";
import type { LayoutRow } from "../../src/format/struct.ts";
import type { MemoryDevice } from "../support/devices.ts";

/** A record as its codec declares it. */
export interface Layout {
  readonly size: number;
  readonly layout: readonly LayoutRow[];
}

export function isLayout(value: unknown): value is Layout {
  return typeof value === "object" && value !== null && "layout" in value && "size" in value;
}

/** Bytes of one structure, or of one field of it. */
export interface Place {
  readonly at: number;
  readonly bytes: number;
  /** The records that these bytes are of, in whole or in part. */
  readonly of: readonly Layout[];
}

/** A bit that flips; or, on a device, the whole block that it is in reads as zeros, as where somebody has punched a hole. */
export interface Harm {
  readonly at: number;
  readonly xor: number;
  readonly isHole: boolean;
}

export interface Kind {
  readonly what: string;
  /** What is promised: ends the sentence that names the test. */
  readonly promise: string;
  /** Whose blocks they are: holes are punched in them too. Undefined: it is in no device. */
  readonly device?: () => MemoryDevice;
  readonly places: () => readonly Place[];
  /** Does the harm, and fails unless the promise is kept. */
  readonly judge: (harm: Harm) => void | Promise<void>;
}

/** Each field of a record that lies there. */
export function fieldsOf(record: Layout, at: number): readonly Place[] {
  return record.layout.map(({ offset, sizeBytes }) => ({ at: at + offset, bytes: sizeBytes, of: [record] }));
}

export function wholeBlocks(vbns: readonly number[], of: readonly Layout[] = []): readonly Place[] {
  return vbns.map((vbn) => ({ at: vbn * BLOCK_BYTES, bytes: BLOCK_BYTES, of }));
}

export function randomHarm(random: Random, places: readonly Place[], { isHole }: { readonly isHole: boolean }): Harm {
  const { at, bytes } = places[below(random, places.length)] as Place;
  return { at: at + below(random, bytes), xor: 1 << below(random, 8), isHole };
}

export function blockOf({ at }: Harm): number {
  return Math.floor(at / BLOCK_BYTES);
}

/** A device with the harm; the given one stays as it is. */
export function harmed(device: MemoryDevice, harm: Harm): MemoryDevice {
  const copy = device.clone();
  if (harm.isHole) copy.write(blockOf(harm), 1, new Uint8Array(BLOCK_BYTES), 0);
  else copy.corrupt(harm.at, harm.xor);
  return copy;
}

export function flipped(bytes: Uint8Array, { at, xor }: Harm): Uint8Array<ArrayBuffer> {
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] as number) ^ xor;
  return copy;
}
