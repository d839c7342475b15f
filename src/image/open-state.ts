/** Opening states of a volume to be read: the committed one, and one that is not committed yet. */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../core/block.ts";
import { type Clock, EPOCH } from "../core/clock.ts";
import { CorruptionError } from "../core/errors.ts";
import type { Random } from "../core/prng.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { fsinfoVbns } from "../format/constants.ts";
import { encodeFsinfo, type Fsinfo } from "../format/fsinfo.ts";
import { openVolume } from "../volume/open.ts";
import type { Volume } from "../volume/volume.ts";

/** Attempts at reading fsinfo and the snapshot table of one consistency point, while the volume's owner goes on. */
const OPEN_TRIES_MAX = 8;

/** Maps are read once, region by region; and making a large cache costs more than a small increment. */
const CACHE_BYTES = 4 << 20;
const STILL: Clock = { now: () => EPOCH };
const CONSTANT: Random = { u32: () => 0 };

/** The volume at its last consistency point. It changes nothing, so it needs neither time nor randomness. */
export function openReadOnly(device: BlockDevice): Volume {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return openVolume({ device, clock: STILL, random: CONSTANT, writable: false, cacheBytesMax: CACHE_BYTES });
    } catch (error) {
      if (!(error instanceof CorruptionError) || attempt === OPEN_TRIES_MAX) throw error;
    }
  }
}

/**
 * The device as it will be when `fsinfo` is written: what is about to be committed is opened and examined by the
 * same code as any volume, while the disk still has the state before.
 */
export function candidateDevice(device: BlockDevice, fsinfo: Fsinfo): BlockDevice {
  const encoded = encodeFsinfo(fsinfo);
  const vbns = fsinfoVbns(fsinfo.reservedBlocks);
  return {
    blockCount: device.blockCount,
    read(vbn, count, into, offset): void {
      device.read(vbn, count, into, offset);
      for (const copy of vbns) {
        if (copy >= vbn && copy < vbn + count) into.set(encoded, offset + (copy - vbn) * BLOCK_BYTES);
      }
    },
    write: refuse,
    writeGather: refuse,
    flush: refuse,
    writeDurable: refuse,
    discard: refuse,
    close(): void {},
  };
}

function refuse(): never {
  assert.fail("a candidate is only read");
}
