/** SHA-256, for what must not be forged or mistaken: identities of streams, keys. Not for blocks: see checksum.ts. */
import { createHash } from "node:crypto";

export const DIGEST_BYTES = 32;

/** SHA-256 of the parts, one after the other: 32 bytes. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
}
