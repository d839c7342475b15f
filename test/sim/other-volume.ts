/**
 * The volume that snapshots are sent to, on a host of its own whose power goes as well. At any time it is what one of the
 * snapshots was that it has received whole, and nothing between.
 */
import assert from "node:assert/strict";
import type { Clock } from "../../src/core/clock.ts";
import { UserError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import { formatUuid, sameBytes } from "../../src/core/uuid.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import type { SnapshotRecord } from "../../src/format/snapshot-record.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { openReadOnly } from "../../src/image/open-state.ts";
import { type ImageReceiver, openReceiver, type ReceiveTarget, type ResumePoint } from "../../src/image/receive.ts";
import { openSender, planImage } from "../../src/image/send.ts";
import { checkVolume } from "../../src/volume/check.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { type CrashDevice, crashDevice, memoryDevice, PowerCut } from "../support/devices.ts";
import { type Digest, digestOfReal } from "./digest.ts";

export interface Other {
  /** Begins to send a snapshot that is durable at the source; `digest` is what it holds. */
  send(source: BlockDevice, record: SnapshotRecord, digest: Digest): void;
  /** Takes frames of what is being sent; after the last one, switches. */
  receive(frames: number, how: { readonly checkpoint: boolean }): void;
  /** The power goes after so many writes and flushes. */
  cut(after: number, seed: number): void;
  readonly transfers: number;
  readonly crashes: number;
}

interface Transfer {
  readonly frames: readonly Uint8Array[];
  readonly top: SnapshotRecord;
  readonly digest: Digest;
  receiver: ImageReceiver | undefined;
  next: number;
  resume: ResumePoint | undefined;
}

export function openOther(clock: Clock, trace: (line: string) => void): Other {
  let disk: CrashDevice | undefined;
  let transfer: Transfer | undefined;
  let seed = 0;
  /** Writes and flushes until the power goes. */
  let left = Number.POSITIVE_INFINITY;
  let transfers = 0;
  let crashes = 0;
  /** What the volume is, as last seen; undefined: there is none. */
  let shown: Digest | undefined;

  const target: ReceiveTarget = {
    name: "the other volume",
    get device(): BlockDevice | undefined {
      return shown === undefined ? undefined : disk;
    },
    prepare(blockCount): BlockDevice {
      if (disk !== undefined) return disk;
      disk = crashDevice({ random: prng(0), base: memoryDevice(blockCount) });
      disk.cutAfter(left);
      return disk;
    },
  };

  /** The newest snapshot that both have, when the other volume stands at it and it is older than the top. */
  function baseFor(volume: Volume, top: SnapshotRecord): SnapshotRecord | undefined {
    if (shown === undefined || disk === undefined) return undefined;
    const newest = openReadOnly(disk).snapshots().at(-1);
    const base = volume.snapshots().find(({ uuid }) => newest !== undefined && sameBytes(uuid, newest.uuid));
    return base !== undefined && base.id < top.id && base.cpCount < top.cpCount ? base : undefined;
  }

  /** True: it is what was being sent. */
  function recover({ digest, top }: Transfer): boolean {
    crashes += 1;
    left = Number.POSITIVE_INFINITY;
    const image = (disk as CrashDevice).crash(prng(seed));
    disk = crashDevice({ random: prng(0), base: image });
    const before = shown;
    const volume = volumeOn(disk);
    if (volume === undefined) {
      assert.equal(before, undefined, "the other volume is gone after a crash");
      trace("  the other volume: power cut, there is no volume yet");
      return false;
    }
    assert.deepEqual(checkVolume(disk).findings, [], "check of the other volume");
    shown = digestOfReal(openFileSystem({ volume, clock, readOnly: true }));
    const isReceived = has(volume, top);
    assert.equal(shown, isReceived ? digest : before, "the other volume is neither what it was nor what was sent");
    trace(`  the other volume: power cut, it is ${isReceived ? "what was sent" : "what it was"}`);
    return isReceived;
  }

  /** Goes on where what is durable ends; from the start when a snapshot has given way since, which is a new consistency point. */
  function begin(current: Transfer): ImageReceiver {
    let receiver: ImageReceiver;
    try {
      receiver = openReceiver(target, { clock, resume: current.resume });
    } catch (error) {
      if (!(error instanceof UserError) || current.resume === undefined) throw error;
      current.resume = undefined;
      receiver = openReceiver(target, { clock });
    }
    current.next = receiver.frameNumber;
    return receiver;
  }

  function push(current: Transfer, frames: number, checkpoint: boolean): void {
    const receiver = (current.receiver ??= begin(current));
    for (let i = 0; i < frames && current.next < current.frames.length; i++) {
      receiver.push(current.frames[current.next] as Uint8Array);
      current.next += 1;
    }
    if (current.next < current.frames.length) {
      if (checkpoint && receiver.header !== undefined) current.resume = receiver.checkpoint();
      return;
    }
    receiver.finish();
    finished(current);
  }

  function finished(current: Transfer): void {
    assert.deepEqual(checkVolume(disk as CrashDevice).findings, [], "check of the other volume");
    const volume = openReadOnly(disk as CrashDevice);
    const at = digestOfReal(openFileSystem({ volume, clock, readOnly: true }));
    assert.equal(at, current.digest, "what was received is not what was sent");
    assert(has(volume, current.top), `snapshot ${formatUuid(current.top.uuid)} was received`);
    shown = at;
    transfer = undefined;
    transfers += 1;
    trace(`  the other volume: has ${current.top.name}`);
  }

  return {
    get transfers(): number {
      return transfers;
    },
    get crashes(): number {
      return crashes;
    },
    send(source, { uuid }, digest): void {
      const volume = openReadOnly(source);
      // As the disk has it: it may have another name since.
      const record = volume.snapshots().find((one) => sameBytes(one.uuid, uuid)) as SnapshotRecord;
      const base = baseFor(volume, record);
      if (base === undefined) {
        disk = undefined; // a full image goes to a place where no volume is
        shown = undefined;
      }
      const sender = openSender(source, planImage(volume, { tops: [record], base }));
      const frames: Uint8Array[] = [];
      for (let frame = sender.next(); frame !== undefined; frame = sender.next()) frames.push(frame.slice());
      transfer = { frames, top: record, digest, receiver: undefined, next: 0, resume: undefined };
      trace(`  ${base === undefined ? "full image" : `increment to ${base.name}`}: ${frames.length} frames`);
    },
    receive(frames, { checkpoint }): void {
      if (transfer === undefined) return;
      try {
        push(transfer, frames, checkpoint);
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        transfer.receiver = undefined;
        if (recover(transfer)) finished(transfer);
      }
    },
    cut(after, with_): void {
      seed = with_;
      left = after;
      disk?.cutAfter(after);
    },
  };
}

function has(volume: Volume, { uuid }: SnapshotRecord): boolean {
  return volume.snapshots().some((found) => sameBytes(found.uuid, uuid));
}

function volumeOn(device: BlockDevice): Volume | undefined {
  try {
    return openReadOnly(device);
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}
