/**
 * Volumes of a size that takes long to make by way of a mount, made by the core itself: `node scale-work.js ACTION PATH COUNT`.
 * `fill` prints what it has measured; the others leave a volume to be mounted.
 */
import { rmSync } from "node:fs";
import { systemClock, systemRandom } from "../../src/daemon/system.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { createFileDevice, openFileDevice } from "../../src/device/file-device.ts";
import { type OpenFileSystem, openFileSystem } from "../../src/fs/active.ts";
import type { Handle, Name, NodeId } from "../../src/fs/file-system.ts";
import { ROOT_NODE } from "../../src/fs/file-system.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume } from "../../src/volume/volume.ts";

const BLOCK_BYTES = 4096;
const MIB = 1 << 20;
const GIB = 2 ** 30;
const DIRTY_BYTES_MAX = 64 * MIB;
const ROOT = { uid: 0, gid: 0 };
const PLAIN = { fromCache: false, killPriv: false };
const PUNCH_AND_KEEP_SIZE = 3;
/** Data that nobody reads: only runs shorter than this reach the disk. */
const METADATA_BLOCKS_MAX = 16;

interface Made {
  readonly volume: Volume;
  readonly fs: OpenFileSystem;
}

const clock = systemClock();

/** A new volume whose consistency points do not wait for the disk. */
function make(path: string, bytes: number, { keepData }: { readonly keepData: boolean }): Made {
  rmSync(path, { force: true });
  const empty = createFileDevice(path, bytes / BLOCK_BYTES);
  createVolume({ device: empty, clock, random: systemRandom });
  empty.close();
  const file = openFileDevice(path, { writable: true });
  const device: BlockDevice = {
    ...file,
    flush: () => {},
    writeDurable: (vbn, block) => file.write(vbn, 1, block, 0),
    write: (vbn, count, from, offset) => {
      if (keepData || count < METADATA_BLOCKS_MAX) file.write(vbn, count, from, offset);
    },
  };
  const volume = openVolume({ device, clock, random: systemRandom, writable: true, cacheBytesMax: 128 * MIB });
  return { volume, fs: openFileSystem({ volume, clock }) };
}

function settle({ volume }: Made): void {
  if (volume.dirtyBytes > DIRTY_BYTES_MAX) volume.takeCp("dirty");
}

function newFile({ fs }: Made, parent: NodeId, name: string): { readonly handle: Handle; readonly nodeId: NodeId } {
  return fs.create(parent, name as Name, 0o644, 2, ROOT);
}

/** Each with a change of its own, so that no two have the same map. */
function snapshots(path: string, count: number): void {
  const made = make(path, 16 * GIB, { keepData: true });
  const { handle } = newFile(made, ROOT_NODE, "changing");
  const block = new Uint8Array(BLOCK_BYTES);
  for (let i = 0; i < count; i++) {
    made.fs.write(handle, i * BLOCK_BYTES, block, 0, BLOCK_BYTES, PLAIN);
    made.volume.createSnapshot(`snapshot-${i}`);
    made.volume.takeCp("snapshot");
  }
  made.volume.close();
}

function files(path: string, count: number): void {
  const made = make(path, 16 * GIB, { keepData: true });
  const directory = made.fs.makeDirectory(ROOT_NODE, "many" as Name, 0o755, ROOT);
  for (let i = 0; i < count; i++) {
    const { handle, nodeId } = newFile(made, directory.nodeId, `file-${i}`);
    made.fs.release(handle);
    made.fs.forget(nodeId, 1);
    settle(made);
  }
  made.volume.takeCp("sync");
  made.volume.close();
}

/** A volume of `gib` GiB, filled, and a twentieth of it freed block by block, all over it: 4 KiB overwrites a second. */
function fill(path: string, gib: number): void {
  const made = make(path, gib * GIB, { keepData: false });
  const { volume, fs } = made;
  const { handle } = newFile(made, ROOT_NODE, "large");
  const chunk = new Uint8Array(MIB);
  let bytes = 0;
  for (; volume.status().availableBlocks > 2 * (MIB / BLOCK_BYTES); bytes += MIB) {
    fs.write(handle, bytes, chunk, 0, MIB, PLAIN);
    settle(made);
  }
  const blocks = bytes / BLOCK_BYTES;
  let state = 1;
  const anyOffset = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * blocks) * BLOCK_BYTES;
  };
  for (let i = 0; i < blocks / 20; i++) {
    fs.allocate(handle, PUNCH_AND_KEEP_SIZE, anyOffset(), BLOCK_BYTES);
    settle(made);
  }
  volume.takeCp("sync");
  volume.takeCp("sync");
  const count = Math.floor(blocks / 100);
  const beganMs = performance.now();
  for (let i = 0; i < count; i++) {
    fs.write(handle, anyOffset(), chunk, 0, BLOCK_BYTES, PLAIN);
    settle(made);
  }
  volume.takeCp("sync");
  process.stdout.write(String(count / ((performance.now() - beganMs) / 1000)));
  volume.close();
}

const actions: Readonly<Record<string, (path: string, count: number) => void>> = { snapshots, files, fill };
const [, , actionName = "", path = "", count = "0"] = process.argv;
const action = actions[actionName];
if (action === undefined) throw new Error(`there is no action ${actionName}`);
action(path, Number(count));
