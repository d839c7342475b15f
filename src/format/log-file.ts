/** The first block of a change log that lies in a file of its own; the ring is all behind it. */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { bytes, type Struct, struct, u32, type ValueOf } from "./struct.ts";

/** "TIDELOG" and a zero, in ASCII. */
export const LOG_FILE_MAGIC: Uint8Array = new TextEncoder().encode("TIDELOG\0");
export const LOG_FILE_VERSION = 1;

const shape = {
  magic: bytes(8), // "TIDELOG" and a zero byte
  version: u32, // format version; an unknown one is refused
  blockCount: u32, // blocks of the file, this one included
  uuid: bytes(16), // its identity: fsinfo has it while the log is in use
  volumeUuid: bytes(16), // the volume that it belongs to
  reserved: bytes(BLOCK_BYTES - 52), // zero
  checksum: u32, // CRC-32 of all bytes before it
};
export type LogFileHead = ValueOf<typeof shape>;
export const logFileHead: Struct<typeof shape> = struct(BLOCK_BYTES, shape);

export function encodeLogFileHead(head: Pick<LogFileHead, "blockCount" | "uuid" | "volumeUuid">): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  const view = new DataView(block.buffer);
  const reserved = new Uint8Array(BLOCK_BYTES - 52);
  logFileHead.encode(view, 0, { ...head, magic: LOG_FILE_MAGIC, version: LOG_FILE_VERSION, reserved, checksum: 0 });
  logFileHead.set.checksum(view, 0, checksum(block.subarray(0, BLOCK_BYTES - 4)));
  return block;
}

/** Undefined: it is none, or none of a version that is known. */
export function decodeLogFileHead(block: Uint8Array): LogFileHead | undefined {
  const head = logFileHead.decode(new DataView(Uint8Array.from(block).buffer), 0);
  const isOurs = Buffer.compare(head.magic, LOG_FILE_MAGIC) === 0 && head.version === LOG_FILE_VERSION;
  return isOurs && head.checksum === checksum(block.subarray(0, BLOCK_BYTES - 4)) ? head : undefined;
}
