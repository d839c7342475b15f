/** Which blocks a state on the disk needs, from the planes: what no write may hit. */
import { has } from "../../src/bitset/plane.ts";
import { REGION_BLOCKS } from "../../src/core/block.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { fsinfoVbns } from "../../src/format/constants.ts";
import type { Fsinfo } from "../../src/format/fsinfo.ts";
import { openBlockStore } from "../../src/tree/block-store.ts";
import { eachPointer, treeOfRecord } from "../../src/tree/block-tree.ts";
import { openSnapshotTable } from "../../src/volume/snapshot-table.ts";
import { openPlane, regionCountOf } from "../../src/volume/space/plane.ts";

/** True for the blocks of the state with this fsinfo and of its snapshots, and for those of its snapshot table. */
export function protectedBlocks(device: BlockDevice, fsinfo: Fsinfo): (vbn: number) => boolean {
  const { blockCount, reservedBlocks } = fsinfo;
  const regionCount = regionCountOf(blockCount);
  const sums = Array.from({ length: regionCount }, () => new Uint32Array(REGION_BLOCKS / 32));
  const store = openBlockStore({ device, firstVbn: reservedBlocks, endVbn: blockCount, cacheBytesMax: 1 << 22 });
  for (const root of [fsinfo.inodeFile, ...openSnapshotTable(device, fsinfo).records.map((record) => record.root)]) {
    const plane = openPlane(store, root, blockCount);
    for (const [region, sum] of sums.entries()) {
      store.beginOperation();
      const words = plane.words(region);
      for (let w = 0; w < sum.length; w++) sum[w] = (sum[w] as number) | (words[w] as number);
    }
  }
  const [first, second] = fsinfoVbns(reservedBlocks);
  const area = openBlockStore({ device, firstVbn: first + 1, endVbn: second, cacheBytesMax: 1 << 20 });
  const table = new Set<number>();
  eachPointer(area, treeOfRecord(fsinfo.snapshotTable), (_level, _index, vbn) => {
    table.add(vbn);
    return true;
  });
  return (vbn) =>
    vbn < reservedBlocks
      ? table.has(vbn)
      : has(sums[Math.floor(vbn / REGION_BLOCKS)] as Uint32Array, vbn % REGION_BLOCKS);
}
