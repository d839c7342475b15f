/** The volumes that histories begin with: formatted once, and cloned. */
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { prng } from "../../src/core/prng.ts";
import { openFileSystem } from "../../src/fs/active.ts";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import { type MemoryDevice, memoryDevice } from "../support/devices.ts";
import { asName, errnoOf, forgetful, putFile, writeAt } from "../support/fs-paths.ts";
import { emptyModel, type Model } from "../support/model-fs.ts";
import type { Setup } from "./steps.ts";

/** The snapshot that holds nearly all of the first region of a filled volume. */
export const FILLER = "filler";
export const FILLED_BLOCKS = 34_000;
const FILLER_BYTES = 31_096 * BLOCK_BYTES;

export interface BaseVolume {
  readonly device: MemoryDevice;
  readonly model: Model;
}

const made = new Map<string, MemoryDevice>();

/** A new volume, one that has snapshots, or a filled one. */
export function baseVolume({ blockCount, isFilled, snapshots }: Setup): BaseVolume {
  const key = `${blockCount} ${isFilled} ${snapshots}`;
  let device = made.get(key);
  if (device === undefined) {
    device = isFilled ? filledVolume() : newVolume(blockCount);
    if (snapshots > 0) takeSnapshots(device, snapshots);
    made.set(key, device);
  }
  return { device: device.clone(), model: modelOf(device) };
}

function newVolume(blockCount: number): MemoryDevice {
  const device = memoryDevice(blockCount);
  createVolume({ device, clock: manualClock(), random: prng(blockCount), label: "simulation" });
  return device;
}

/** As many as the table has room for, if that is fewer. */
function takeSnapshots(device: MemoryDevice, count: number): void {
  const volume = openVolume({ device, clock: manualClock(), random: prng(3), writable: true });
  for (let i = 1; i <= count; i++) {
    if (errnoOf(() => void volume.createSnapshot(`first ${i}`)) !== "") break;
    volume.takeCp("snapshot");
  }
}

/**
 * A volume of two regions whose first is full but for a few blocks, held by a snapshot of its own, while the active
 * filesystem is empty: what is written from here on lies around the border of the two.
 */
function filledVolume(): MemoryDevice {
  const clock = manualClock();
  const device = newVolume(FILLED_BLOCKS);
  const volume = openVolume({ device, clock, random: prng(2), writable: true });
  const fs = forgetful(openFileSystem({ volume, clock }));
  putFile(fs, "/filler");
  const data = new Uint8Array(FILLER_BYTES / 8).fill(7);
  for (let at = 0; at < FILLER_BYTES; at += data.length) writeAt(fs, "/filler", at, data);
  volume.createSnapshot(FILLER);
  volume.takeCp("snapshot");
  fs.unlink(ROOT_NODE, asName("filler"));
  while (fs.reclaimSlice());
  volume.takeCp("sync");
  return device;
}

function modelOf(device: MemoryDevice): Model {
  const clock = manualClock();
  const volume = openVolume({ device, clock, random: prng(1), writable: false, cacheBytesMax: 1 << 20 });
  const { attributes } = openFileSystem({ volume, clock }).getAttributes(ROOT_NODE);
  const model = emptyModel(attributes.mtime);
  model.root.ino = attributes.ino;
  return model;
}
