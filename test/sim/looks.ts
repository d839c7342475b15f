/**
 * Looking at disks that are mostly alike. What a look finds follows from the blocks that it reads, so what it finds on the next
 * disk that has the very same ones is known. Blocks in memory are never changed, only replaced: the same object, the same contents.
 */
import { BLOCK_BYTES } from "../../src/core/block.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import type { MemoryDevice } from "../support/devices.ts";

/** What the disks of the host have: that of the volume, and the other one that the change log can be on. */
export interface Image {
  readonly disk: MemoryDevice;
  readonly log: MemoryDevice;
}

export interface Looks<Found> {
  /**
   * What `see` finds, which may look at nothing but the devices that it is given, and `about`. `isBeside`: blocks of the disk
   * that cannot make a difference.
   */
  look(
    image: Image,
    about: string,
    see: (disk: BlockDevice, log: BlockDevice) => Found,
    isBeside?: (vbn: number) => boolean,
  ): Found;
  /** How often that was known. */
  readonly known: number;
}

interface Look<Found> {
  readonly about: string;
  readonly disk: Reads;
  readonly log: Reads;
  readonly found: Found;
}

/** Blocks and what stood there. */
interface Reads {
  readonly vbns: number[];
  readonly blocks: (Uint8Array | undefined)[];
}

const LOOKS_MAX = 24;

export function openLooks<Found>(): Looks<Found> {
  const looks: Look<Found>[] = [];
  let known = 0;
  return {
    look(image, about, see, isBeside = (): boolean => false): Found {
      const before = looks.findIndex(
        (look) => look.about === about && isSame(look.disk, image.disk) && isSame(look.log, image.log),
      );
      if (before >= 0) {
        known += 1;
        const [look] = looks.splice(before, 1) as [Look<Found>];
        looks.unshift(look);
        return look.found;
      }
      const disk: Reads = { vbns: [], blocks: [] };
      const log: Reads = { vbns: [], blocks: [] };
      const found = see(recording(image.disk, disk, isBeside), recording(image.log, log, isBeside));
      looks.unshift({ about, disk, log, found });
      looks.length = Math.min(looks.length, LOOKS_MAX);
      return found;
    },
    get known(): number {
      return known;
    },
  };
}

function isSame({ vbns, blocks }: Reads, image: MemoryDevice): boolean {
  for (let i = vbns.length - 1; i >= 0; i--) if (image.peek(vbns[i] as number) !== blocks[i]) return false;
  return true;
}

/** Notes what is read that was not written before. */
function recording(image: MemoryDevice, { vbns, blocks }: Reads, isBeside: (vbn: number) => boolean): BlockDevice {
  const seen = new Set<number>();
  const written = (vbn: number, count: number): void => {
    for (let next = vbn; next < vbn + count; next++) seen.add(next);
  };
  return {
    blockCount: image.blockCount,
    read(vbn, count, into, offset): void {
      for (let next = vbn; next < vbn + count; next++) {
        if (seen.has(next)) continue;
        seen.add(next);
        if (isBeside(next)) continue;
        vbns.push(next);
        blocks.push(image.peek(next));
      }
      image.read(vbn, count, into, offset);
    },
    write(vbn, count, from, offset): void {
      written(vbn, count);
      image.write(vbn, count, from, offset);
    },
    writeGather(vbn, buffers): void {
      let next = vbn;
      for (const buffer of buffers) {
        const count = buffer.length / BLOCK_BYTES;
        written(next, count);
        image.write(next, count, buffer, 0);
        next += count;
      }
    },
    flush: () => image.flush(),
    writeDurable(vbn, bytes): void {
      written(vbn, bytes.length / BLOCK_BYTES);
      image.writeDurable(vbn, bytes);
    },
    discard: (vbn, count) => image.discard(vbn, count),
    close: () => image.close(),
  };
}
