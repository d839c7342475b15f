/** Volumes with a past, for tests of images: random changes to a real filesystem, snapshots between them. */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { sha256 } from "../../src/core/digest.ts";
import { FsError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import type { FileRootRecord } from "../../src/format/inode.ts";
import type { SnapshotRecord } from "../../src/format/snapshot-record.ts";
import { type OpenFileSystem, openFileSystem } from "../../src/fs/active.ts";
import { type Name, ROOT_NODE } from "../../src/fs/file-system.ts";
import { openReadOnly } from "../../src/image/open-state.ts";
import { openReceiver, type ReceiveResult, type ReceiveTarget } from "../../src/image/receive.ts";
import { openSender, planImage } from "../../src/image/send.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import { openPlane } from "../../src/volume/space/plane.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";

export const clock = manualClock();

export interface Source {
  readonly device: MemoryDevice;
  readonly volume: Volume;
  readonly fs: OpenFileSystem;
  readonly random: Random;
  /** Some random operations: files come, grow, change, shrink and go. */
  change(operations: number): void;
  write(name: string, bytes: Uint8Array, offset?: number): void;
  snapshot(name: string): SnapshotRecord;
  drop(name: string): void;
}

export function makeSource({ seed = 1, blockCount = 2048 } = {}): Source {
  const random = prng(seed);
  const device = memoryDevice(blockCount);
  createVolume({ device, clock, random, label: "history" });
  return openSource(device, random);
}

export function openSource(device: MemoryDevice, random: Random = prng(1)): Source {
  const volume = openVolume({ device, clock, random, writable: true });
  const fs = openFileSystem({ volume, clock });
  const caller = { uid: 1000, gid: 1000 };

  function write(name: string, bytes: Uint8Array, offset = 0): void {
    const path = name as Name;
    let handle;
    try {
      ({ handle } = fs.create(ROOT_NODE, path, 0o100644, 2, caller));
    } catch (error) {
      if (!(error instanceof FsError) || error.code !== "EEXIST") throw error;
      ({ handle } = fs.open(fs.lookup(ROOT_NODE, path).nodeId, 2));
    }
    fs.write(handle, offset, bytes, 0, bytes.length, { fromCache: false, killPriv: false });
    fs.release(handle);
  }

  function changeOnce(): void {
    clock.advanceMs(1 + below(random, 5000));
    const name = `file-${below(random, 12)}`;
    const kind = below(random, 10);
    if (kind < 6) {
      const length = [10, 100, 5000, 30_000, 120_000][below(random, 5)] as number;
      const bytes = new Uint8Array(1 + below(random, length)).map(() => random.u32());
      write(name, bytes, below(random, 3) === 0 ? below(random, 200_000) : 0);
    } else if (kind < 8) {
      ignoring("ENOENT", () => fs.unlink(ROOT_NODE, name as Name));
    } else if (kind === 8) {
      ignoring("EEXIST", () => fs.makeDirectory(ROOT_NODE, `directory-${below(random, 20)}` as Name, 0o40755, caller));
    } else {
      ignoring("ENOENT", () => {
        const { nodeId } = fs.lookup(ROOT_NODE, name as Name);
        fs.setAttributes(nodeId, { sizeBytes: below(random, 100_000) }, caller);
      });
    }
    if (below(random, 8) === 0) volume.takeCp("timer");
  }

  return {
    device,
    volume,
    fs,
    random,
    write,
    change(operations): void {
      for (let i = 0; i < operations; i += 1) changeOnce();
      while (fs.reclaimSlice()) volume.takeCp("timer");
    },
    snapshot(name): SnapshotRecord {
      clock.advanceMs(1000);
      volume.createSnapshot(name);
      volume.takeCp("snapshot");
      return volume.findSnapshot(name) as SnapshotRecord;
    },
    drop(name): void {
      volume.deleteSnapshot(name);
      volume.takeCp("snapshot");
    },
  };
}

function ignoring(code: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof FsError) || error.code !== code) throw error;
  }
}

/** The whole stream of (sum of tops) - base, as the frames it is made of. */
export function framesOf(device: BlockDevice, tops: readonly string[], base?: string): Uint8Array[] {
  const volume = openReadOnly(device);
  const record = (name: string): SnapshotRecord => {
    const found = volume.findSnapshot(name);
    assert.ok(found, `no snapshot ${name}`);
    return found;
  };
  const plan = planImage(volume, { tops: tops.map(record), base: base === undefined ? undefined : record(base) });
  const sender = openSender(device, plan);
  const frames: Uint8Array[] = [];
  for (let frame = sender.next(); frame !== undefined; frame = sender.next()) frames.push(frame.slice());
  assert.equal(frames.length, plan.frameCount);
  return frames;
}

export function streamOf(device: BlockDevice, tops: readonly string[], base?: string): Uint8Array {
  return new Uint8Array(Buffer.concat(framesOf(device, tops, base)));
}

/** A place in memory to receive into. `onDevice` wraps the device that is written. */
export interface MemoryTarget extends ReceiveTarget {
  device: BlockDevice | undefined;
  /** The device that was made or grown, with or without a volume on it. */
  memory: MemoryDevice | undefined;
}

export function memoryTarget(
  memory?: MemoryDevice,
  wrap: (device: MemoryDevice) => BlockDevice = (same) => same,
): MemoryTarget {
  const target: MemoryTarget = {
    name: "test volume",
    device: memory === undefined ? undefined : wrap(memory),
    memory,
    prepare(blockCount): BlockDevice {
      const grown = memoryDevice(blockCount);
      if (target.memory !== undefined) copyInto(grown, target.memory);
      target.memory = grown;
      return wrap(grown);
    },
  };
  return target;
}

function copyInto(into: MemoryDevice, from: MemoryDevice): void {
  const block = new Uint8Array(BLOCK_BYTES);
  for (let vbn = 0; vbn < from.blockCount; vbn += 1) {
    from.read(vbn, 1, block, 0);
    if (block.some((byte) => byte !== 0)) into.write(vbn, 1, block, 0);
  }
}

/** Receives a stream in pieces of `pieceBytes`. */
export function receive(
  target: MemoryTarget,
  stream: Uint8Array,
  { pieceBytes = stream.length, role }: { readonly pieceBytes?: number; readonly role?: number } = {},
): ReceiveResult {
  const receiver = openReceiver(target, { clock, role });
  for (let at = 0; at < stream.length; at += pieceBytes) receiver.push(stream.subarray(at, at + pieceBytes));
  const result = receiver.finish();
  target.device = target.memory;
  return result;
}

/** The blocks of a state: those of its plane, with their bytes. */
export function blocksOf(device: BlockDevice, root: FileRootRecord): Map<number, string> {
  const volume = openReadOnly(device);
  const plane = openPlane(volume.active.store, root, volume.committed.blockCount);
  const blocks = new Map<number, string>();
  const bytes = new Uint8Array(BLOCK_BYTES);
  for (let region = 0; region < plane.regionCount; region += 1) {
    const words = plane.words(region).slice();
    for (let bit = 0; bit < words.length * 32; bit += 1) {
      if ((((words[bit >>> 5] as number) >>> (bit & 31)) & 1) === 0) continue;
      device.read(region * 32768 + bit, 1, bytes, 0);
      blocks.set(region * 32768 + bit, Buffer.from(sha256(bytes)).toString("hex"));
    }
  }
  return blocks;
}

/** The two devices hold the same state, block by block. */
export function assertSameState(a: BlockDevice, b: BlockDevice, root: FileRootRecord): void {
  assert.deepEqual(blocksOf(b, root), blocksOf(a, root));
}

/** The destination is clean, and every snapshot that it lists is that of the source, complete. */
export function assertFaithful(source: BlockDevice, destination: BlockDevice): void {
  assert.deepEqual(checkVolume(destination).findings, []);
  const from = openReadOnly(source);
  const into = openReadOnly(destination);
  for (const record of into.snapshots()) {
    const original = from.snapshots().find(({ uuid }) => Buffer.compare(uuid, record.uuid) === 0);
    assert.ok(original, `snapshot ${record.name} is not of the source`);
    assert.deepEqual(record, original);
    assertSameState(source, destination, record.root);
  }
}
