/** Frames of the change log, written as the log thread does it, by who may wait. */
import type { BlockDevice } from "../../src/device/block-device.ts";
import { type LogFrame, writeFrames } from "../../src/volume/change-log/frames.ts";

/** Makes frames durable, in one write when they are neighbours; `durableSeq` is what those before have made durable. */
export function makeDurable(device: BlockDevice, frames: readonly LogFrame[], durableSeq = 0): number {
  if (frames.some(({ needsFlush }) => needsFlush)) device.flush();
  return writeFrames(frames, durableSeq, (vbn, buffers) =>
    device.writeDurable(vbn, Uint8Array.from(Buffer.concat(buffers))),
  );
}
