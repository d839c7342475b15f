/**
 * What a mirror keeps beside its volume, in VOLUME.transfer: who it is, and how far an interrupted transfer got.
 *
 * It lies outside of the volume, so it can never stand where the source's allocator puts a block (requirement 231).
 * Losing it costs a transfer begun anew and a new identity, never data.
 */
import { checksum } from "../core/checksum.ts";
import { sameBytes } from "../core/uuid.ts";
import { bytes, type Struct, struct, u32, type ValueOf } from "./struct.ts";

/** "TMTRANSF" in ASCII. */
const TRANSFER_MAGIC: Uint8Array = new TextEncoder().encode("TMTRANSF");
const TRANSFER_VERSION = 1;

const shape = {
  magic: bytes(8), // "TMTRANSF"
  version: u32, // of this file; another one is ignored
  mirror: bytes(16), // identity of this mirror, for ever
  resumeBytes: u32, // length of the resume point that follows; 0: no transfer was interrupted
  reserved: bytes(28), // zero
  checksum: u32, // CRC-32 of the bytes before it and of the resume point
};
export const transferStateRecord: Struct<typeof shape> = struct(64, shape);

export interface TransferState extends Pick<ValueOf<typeof shape>, "mirror"> {
  /** As encoded by image/resume-point.ts; empty: none. */
  readonly resume: Uint8Array;
}

export function encodeTransferState({ mirror, resume }: TransferState): Uint8Array {
  const encoded = new Uint8Array(transferStateRecord.size + resume.length);
  const view = new DataView(encoded.buffer);
  transferStateRecord.encode(view, 0, {
    magic: TRANSFER_MAGIC,
    version: TRANSFER_VERSION,
    mirror,
    resumeBytes: resume.length,
    reserved: new Uint8Array(28),
    checksum: 0,
  });
  encoded.set(resume, transferStateRecord.size);
  transferStateRecord.set.checksum(view, 0, checksumOf(encoded));
  return encoded;
}

/** undefined: it does not verify. */
export function decodeTransferState(encoded: Uint8Array): TransferState | undefined {
  if (encoded.length < transferStateRecord.size) return undefined;
  const copy = new Uint8Array(encoded); // not slice(): that of a Buffer is no copy
  const record = transferStateRecord.decode(new DataView(copy.buffer), 0);
  if (!sameBytes(record.magic, TRANSFER_MAGIC) || record.version !== TRANSFER_VERSION) return undefined;
  if (copy.length !== transferStateRecord.size + record.resumeBytes) return undefined;
  if (checksumOf(copy) !== record.checksum) return undefined;
  return { mirror: record.mirror, resume: copy.subarray(transferStateRecord.size) };
}

function checksumOf(encoded: Uint8Array): number {
  const head = checksum(encoded.subarray(0, transferStateRecord.offset.checksum));
  return checksum(encoded.subarray(transferStateRecord.size), head);
}
