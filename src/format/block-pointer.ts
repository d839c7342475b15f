/** What a parent knows of a block: where it is and what it must contain. The tree is a Merkle tree of these. */
import { type Struct, struct, u32, type ValueOf } from "./struct.ts";

const shape = {
  vbn: u32, // 0: a hole, and the checksum is 0 too
  checksum: u32, // CRC-32 of the 4096 bytes it points at
};
export type BlockPointer = ValueOf<typeof shape>;
/** 512 of these fill an indirect block, 16 the root of a file. */
export const blockPointer: Struct<typeof shape> = struct(8, shape);
