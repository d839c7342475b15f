/**
 * Records are declared, never poked: one descriptor gives a record's type, its offsets, access to a single
 * field for hot paths, encode and decode for cold ones, and the rows of the table that documents it.
 * Little-endian throughout. Offsets follow from the order of the fields; the total size is asserted.
 */

import assert from "node:assert/strict";
import { TWO_32 } from "../core/numbers.ts";

export interface Field<T> {
  readonly kind: string;
  readonly sizeBytes: number;
  /** Accessors for a field that lies `offset` bytes into its record. Separate closures, so that each inlines. */
  getter(offset: number): (view: DataView, at: number) => T;
  setter(offset: number): (view: DataView, at: number, value: T) => void;
}

/** A field of whatever type: `never` as the value to set, since only its own type will do. */
interface AnyField {
  readonly kind: string;
  readonly sizeBytes: number;
  getter(offset: number): (view: DataView, at: number) => unknown;
  setter(offset: number): (view: DataView, at: number, value: never) => void;
}

export type Shape = Readonly<Record<string, AnyField>>;
export type ValueOf<S extends Shape> = { readonly [K in keyof S]: S[K] extends Field<infer T> ? T : never };

export interface LayoutRow {
  readonly offset: number;
  readonly sizeBytes: number;
  readonly field: string;
  readonly kind: string;
}

export interface Struct<S extends Shape> {
  /** Size of the record in bytes. */
  readonly size: number;
  readonly get: { readonly [K in keyof S]: (view: DataView, at: number) => S[K] extends Field<infer T> ? T : never };
  readonly set: {
    readonly [K in keyof S]: (view: DataView, at: number, value: S[K] extends Field<infer T> ? T : never) => void;
  };
  /** Offset of each field from the start of the record. */
  readonly offset: { readonly [K in keyof S]: number };
  readonly layout: readonly LayoutRow[];
  decode(view: DataView, at: number): ValueOf<S>;
  encode(view: DataView, at: number, value: ValueOf<S>): void;
}

export function struct<S extends Shape>(size: number, shape: S): Struct<S> {
  const get: Record<string, unknown> = {};
  const set: Record<string, unknown> = {};
  const offsets: Record<string, number> = {};
  const layout: LayoutRow[] = [];
  const readers: [string, (view: DataView, at: number) => unknown][] = [];
  const writers: [string, (view: DataView, at: number, value: unknown) => void][] = [];
  let offset = 0;
  for (const [name, field] of Object.entries(shape)) {
    const getter = field.getter(offset);
    const setter = field.setter(offset) as (view: DataView, at: number, value: unknown) => void;
    get[name] = getter;
    set[name] = setter;
    offsets[name] = offset;
    readers.push([name, getter]);
    writers.push([name, setter]);
    layout.push({ offset, sizeBytes: field.sizeBytes, field: name, kind: field.kind });
    offset += field.sizeBytes;
  }
  assert.equal(offset, size, `record of ${offset} bytes declared as ${size}`);
  return {
    size,
    get: get as Struct<S>["get"],
    set: set as Struct<S>["set"],
    offset: offsets as Struct<S>["offset"],
    layout,
    decode(view, at): ValueOf<S> {
      const value: Record<string, unknown> = {};
      for (const [name, read] of readers) value[name] = read(view, at);
      return value as ValueOf<S>;
    },
    encode(view, at, value): void {
      for (const [name, write] of writers) write(view, at, value[name]);
    },
  };
}

/**
 * Where each field of a record of whole words lies, in words of 32 bits. For records that are written in code that has hardly
 * run, right after a mount: V8 stores to an array directly, but calls each setter of a DataView until the code is optimized.
 */
export function wordsOf<S extends Shape>({ layout }: Struct<S>): { readonly [K in keyof S]: number } {
  const words: Record<string, number> = {};
  for (const { field, offset, sizeBytes } of layout) {
    assert(offset % 4 === 0 && sizeBytes % 4 === 0, `${field} is no whole number of words`);
    words[field] = offset / 4;
  }
  return words as { readonly [K in keyof S]: number };
}

/** Two words of an array: a u64 or i64, as a DataView would set it. */
export function putLong(words: Uint32Array, at: number, value: number): void {
  words[at] = value; // the remainder by 2^32
  words[at + 1] = value >= 0 && value < TWO_32 ? 0 : Math.floor(value / TWO_32);
}

export const u8: Field<number> = {
  kind: "u8",
  sizeBytes: 1,
  getter: (offset) => (view, at) => view.getUint8(at + offset),
  setter: (offset) => (view, at, value) => view.setUint8(at + offset, value),
};

export const u16: Field<number> = {
  kind: "u16",
  sizeBytes: 2,
  getter: (offset) => (view, at) => view.getUint16(at + offset, true),
  setter: (offset) => (view, at, value) => view.setUint16(at + offset, value, true),
};

export const u32: Field<number> = {
  kind: "u32",
  sizeBytes: 4,
  getter: (offset) => (view, at) => view.getUint32(at + offset, true),
  setter: (offset) => (view, at, value) => view.setUint32(at + offset, value, true),
};

/** What fits one word stays a small integer to V8, in code that is not optimized too; the product would be a number on the heap. */
function whole(low: number, high: number): number {
  return high === 0 ? low : low + high * TWO_32;
}

/** A u64 as a number. Values above 2^53 - 1 come out rounded: a reader of foreign bytes checks the range. */
export const u64: Field<number> = {
  kind: "u64",
  sizeBytes: 8,
  getter: (offset) => (view, at) => whole(view.getUint32(at + offset, true), view.getUint32(at + offset + 4, true)),
  setter: (offset) => (view, at, value) => {
    view.setUint32(at + offset, value >>> 0, true);
    view.setUint32(at + offset + 4, Math.floor(value / TWO_32), true);
  },
};

/** A signed 64-bit number of seconds. */
export const i64: Field<number> = {
  kind: "i64",
  sizeBytes: 8,
  getter: (offset) => (view, at) => whole(view.getUint32(at + offset, true), view.getInt32(at + offset + 4, true)),
  setter: (offset) => (view, at, value) => {
    const high = Math.floor(value / TWO_32);
    view.setUint32(at + offset, value - high * TWO_32, true);
    view.setInt32(at + offset + 4, high, true);
  },
};

/** A fixed run of bytes. `get` returns a view into the buffer, not a copy. */
export function bytes(count: number): Field<Uint8Array> {
  return {
    kind: `bytes[${count}]`,
    sizeBytes: count,
    getter: (offset) => (view, at) => new Uint8Array(view.buffer, view.byteOffset + at + offset, count),
    setter: (offset) => (view, at, value) => {
      assert.equal(value.length, count);
      new Uint8Array(view.buffer, view.byteOffset + at + offset, count).set(value);
    },
  };
}

/** UTF-8 text, cut to `count` bytes and padded with zeros. */
export function text(count: number): Field<string> {
  const raw = bytes(count);
  return {
    kind: `text[${count}]`,
    sizeBytes: count,
    getter: (offset) => {
      const read = raw.getter(offset);
      return (view, at) => {
        const value = read(view, at);
        const end = value.indexOf(0);
        return Buffer.from(end < 0 ? value : value.subarray(0, end)).toString("utf8");
      };
    },
    setter: (offset) => {
      const write = raw.setter(offset);
      return (view, at, value) => {
        const padded = new Uint8Array(count);
        padded.set(Buffer.from(value, "utf8").subarray(0, count));
        write(view, at, padded);
      };
    },
  };
}

/** A record within a record. */
export function nested<S extends Shape>(inner: Struct<S>, kind: string): Field<ValueOf<S>> {
  return {
    kind,
    sizeBytes: inner.size,
    getter: (offset) => (view, at) => inner.decode(view, at + offset),
    setter: (offset) => (view, at, value) => inner.encode(view, at + offset, value),
  };
}
