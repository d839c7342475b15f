/** Deflate, for structures that are mostly zeros. Not for data: what is worth compressing of it, applications have compressed. */
import { deflateRawSync, inflateRawSync } from "node:zlib";

export function deflate(plain: Uint8Array): Uint8Array {
  return deflateRawSync(plain);
}

/**
 * The bytes again, which must be exactly so many, of exactly these; undefined: they are not. No more memory than that is
 * used, whatever is in them.
 */
export function inflate(packed: Uint8Array, plainBytes: number): Uint8Array | undefined {
  try {
    const options = { maxOutputLength: plainBytes, info: true };
    // With `info` the result is this, and not a buffer as the types have it.
    const { buffer, engine } = inflateRawSync(packed, options) as unknown as {
      readonly buffer: Uint8Array;
      readonly engine: { readonly bytesWritten: number }; // of the input
    };
    return buffer.length === plainBytes && engine.bytesWritten === packed.length ? new Uint8Array(buffer) : undefined;
  } catch {
    return undefined;
  }
}
