/** The patches of a data frame: which of its blocks are sent as what differs from a block of the base. */
import { makeBlock } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { FRAME_BLOCKS, PATCH_BYTES_MAX, patchRecord } from "../format/image-frame.ts";
import type { ExpectedBlocks } from "./expected-blocks.ts";
import { makePatch } from "./patch.ts";

/** The blocks of one frame. */
export interface Runs {
  readonly runCount: number;
  readonly vbns: Uint32Array;
  readonly counts: Uint32Array;
}

/** The patches of one frame. */
export interface FramePatches {
  /** Makes the patches of the blocks that are worth one; returns how many. */
  collect(runs: Runs): number;
  /** Bytes of their table and themselves. */
  readonly bytes: number;
  /** Writes their table and then themselves from `at` on. */
  store(into: Uint8Array, at: number): void;
  /** The first patched block of the frame that is not before `index`. */
  nextIndex(index: number): number;
}

const NO_PATCHES: FramePatches = { collect: () => 0, bytes: 0, store: () => {}, nextIndex: () => FRAME_BLOCKS };

export function openPatches(device: BlockDevice, { bases, ...expected }: ExpectedBlocks): FramePatches {
  if (bases.size === 0) return NO_PATCHES;
  const table = new Uint8Array(FRAME_BLOCKS * patchRecord.size);
  const tableView = viewOf(table);
  const bytes = new Uint8Array(FRAME_BLOCKS * PATCH_BYTES_MAX);
  const bytesView = viewOf(bytes);
  const isPatched = new Uint8Array(FRAME_BLOCKS);
  const [block, base] = [makeBlock(), makeBlock()];
  let count = 0;
  let end = 0; // of `bytes`

  function collectOne(index: number, vbn: number, baseVbn: number): void {
    device.read(vbn, 1, block.bytes, 0);
    device.read(baseVbn, 1, base.bytes, 0);
    const length = makePatch(base.words, block.words, bytesView, end);
    if (length < 0) return;
    const patch = { index, bytes: length, baseVbn, checksum: checksum(block.bytes) };
    expected.sent(vbn, patch.checksum);
    patchRecord.encode(tableView, count * patchRecord.size, patch);
    isPatched[index] = 1;
    count += 1;
    end += length;
  }

  return {
    collect({ runCount, vbns, counts }): number {
      count = 0;
      end = 0;
      isPatched.fill(0);
      for (let run = 0, index = 0; run < runCount; run += 1) {
        const vbn = vbns[run] as number;
        for (let i = 0; i < (counts[run] as number); i += 1, index += 1) {
          const baseVbn = bases.get(vbn + i);
          if (baseVbn !== undefined) collectOne(index, vbn + i, baseVbn);
        }
      }
      return count;
    },
    get bytes(): number {
      return count * patchRecord.size + end;
    },
    store(into, at): void {
      into.set(table.subarray(0, count * patchRecord.size), at);
      into.set(bytes.subarray(0, end), at + count * patchRecord.size);
    },
    nextIndex(index): number {
      const next = isPatched.indexOf(1, index);
      return next < 0 ? FRAME_BLOCKS : next;
    },
  };
}

function viewOf(raw: Uint8Array): DataView {
  return new DataView(raw.buffer, raw.byteOffset, raw.length);
}
