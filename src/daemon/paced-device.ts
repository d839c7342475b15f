/** Reads at a bounded rate, for work that has time. It blocks its thread, and so is for a thread that does nothing else. */
import { BLOCK_BYTES } from "../core/block.ts";
import type { BlockDevice } from "../device/block-device.ts";

/** Time that was not used is not made up for beyond this. */
const CREDIT_MS_MAX = 100;

export function pacedDevice(device: BlockDevice, bytesPerSecond: number): BlockDevice {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  let dueMs = performance.now();
  return {
    ...device,
    read(vbn, count, into, offset): void {
      const nowMs = performance.now();
      if (dueMs > nowMs) Atomics.wait(sleeper, 0, 0, dueMs - nowMs);
      dueMs = Math.max(dueMs, nowMs - CREDIT_MS_MAX) + (count * BLOCK_BYTES * 1000) / bytesPerSecond;
      device.read(vbn, count, into, offset);
    },
  };
}
