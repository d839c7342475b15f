/** A device that refuses what it is told to refuse, and blocks that cannot be read any more. */

import { BLOCK_BYTES } from "../../src/core/block.ts";
import { FsError } from "../../src/core/errors.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import type { Fault } from "./steps.ts";

export interface Faults {
  /** Arms a fault; one is armed at a time. */
  arm(fault: Fault): void;
  disarm(): void;
  /** How often a device has refused. */
  readonly refused: number;
  /** The fault that refused last. */
  readonly last: Fault | undefined;
  /** The device, or the one that the log is on, with the faults that are meant for it. */
  faulty(device: BlockDevice, how: { readonly isLog: boolean }): BlockDevice;
}

/** A write of several blocks that is refused has been done in part; one that was to be durable may be so, or not. */
export function openFaults(): Faults {
  let armed: Fault | undefined;
  let calls = 0;
  let refused = 0;
  let last: Fault | undefined;

  /** The error to be thrown by this call. */
  function due(isLog: boolean, on: Fault["on"]): FsError | undefined {
    if (armed === undefined || armed.on !== on || (armed.inLog === true) !== isLog) return undefined;
    calls += 1;
    if (calls <= armed.after) return undefined;
    refused += 1;
    last = armed;
    const error = new FsError(armed.code, `the device refuses to ${on}`);
    if (calls >= armed.after + armed.times) armed = undefined;
    return error;
  }

  return {
    get refused(): number {
      return refused;
    },
    get last(): Fault | undefined {
      return last;
    },
    arm(fault): void {
      armed = fault;
      calls = 0;
    },
    disarm(): void {
      armed = undefined;
    },
    faulty: (device, { isLog }) => ({
      blockCount: device.blockCount,
      read(vbn, count, into, offset): void {
        const error = due(isLog, "read");
        if (error !== undefined) throw error;
        device.read(vbn, count, into, offset);
      },
      write(vbn, count, from, offset): void {
        const error = due(isLog, "write");
        if (error === undefined) device.write(vbn, count, from, offset);
        else {
          if (count > 1) device.write(vbn, Math.floor(count / 2), from, offset);
          throw error;
        }
      },
      writeGather(vbn, buffers): void {
        const error = due(isLog, "write");
        if (error === undefined) device.writeGather(vbn, buffers);
        else {
          if (buffers.length > 1) device.writeGather(vbn, buffers.slice(0, buffers.length / 2));
          throw error;
        }
      },
      flush(): void {
        const error = due(isLog, "flush");
        if (error !== undefined) throw error;
        device.flush();
      },
      writeDurable(vbn, bytes): void {
        const count = bytes.length / BLOCK_BYTES;
        const unwritten = due(isLog, "write");
        if (unwritten !== undefined) {
          if (count > 1) device.write(vbn, Math.floor(count / 2), bytes, 0);
          throw unwritten;
        }
        const unflushed = due(isLog, "flush");
        if (unflushed !== undefined) {
          device.write(vbn, count, bytes, 0);
          throw unflushed;
        }
        device.writeDurable(vbn, bytes);
      },
      discard: (vbn, count) => device.discard(vbn, count),
      close: () => device.close(),
    }),
  };
}

/** A device some of whose blocks cannot be read: EIO for any call that reaches one. */
export function unreadable(device: BlockDevice, vbns: ReadonlySet<number>): BlockDevice {
  return {
    blockCount: device.blockCount,
    read(vbn, count, into, offset): void {
      for (let next = vbn; next < vbn + count; next++) {
        if (!vbns.has(next)) continue;
        into.fill(0xa5, offset, offset + count * BLOCK_BYTES);
        throw new FsError("EIO", `block ${next} cannot be read`);
      }
      device.read(vbn, count, into, offset);
    },
    write: (vbn, count, from, offset) => device.write(vbn, count, from, offset),
    writeGather: (vbn, buffers) => device.writeGather(vbn, buffers),
    flush: () => device.flush(),
    writeDurable: (vbn, block) => device.writeDurable(vbn, block),
    discard: (vbn, count) => device.discard(vbn, count),
    close: () => device.close(),
  };
}
