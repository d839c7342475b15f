/** The orphan file of a state: each slot names an inode that says so itself. */
import { BLOCK_BYTES } from "../core/block.ts";
import { ORPHAN_BLOCKS_MAX, ORPHAN_INO } from "../format/constants.ts";
import type { BlockStore } from "../tree/block-store.ts";
import { blockAt } from "../tree/block-tree.ts";
import type { Inode } from "../tree/inode-file.ts";
import type { InodeTable } from "./check-inodes.ts";
import { readable } from "./check-maps.ts";
import { isMarked, makeMarks } from "./check-marks.ts";
import type { Report } from "./check-report.ts";
import { NO_TREE, type Owner, type TreeRoot, type Walk } from "./check-walk.ts";

const SLOTS_PER_BLOCK = BLOCK_BYTES / 4;

/** Checks all slots; the walk's sets are left as they are. */
export function checkOrphanFile(
  walk: Walk,
  report: Report,
  table: InodeTable,
  { root, sizeBytes }: { readonly root: TreeRoot; readonly sizeBytes: number },
): void {
  let blocks = 0;
  const checkSlots = (first: number, words: Uint32Array): void => {
    for (let i = 0; i < SLOTS_PER_BLOCK; i++) {
      const ino = words[i] as number;
      if (ino === 0) continue;
      const exists = isMarked(table.inUse, ino);
      if (exists && table.orphanSlotOf(ino) === first + i + 1) continue;
      const what = exists ? "not in that slot" : "free";
      report.add("orphan", `slot ${first + i} of the orphan file names inode ${ino}, which is ${what}`, { ino });
    }
  };
  // By a walk: a file that claims to be huge is not read hole by hole.
  const owner: Owner = {
    ino: ORPHAN_INO,
    name: "the orphan file",
    blocksMax: Number.POSITIVE_INFINITY,
    isData: false,
    shrunk: false,
    tailBytes: 0,
    leaf(index, _before, after): void {
      blocks += 1;
      const bytes = walk.read(after, ORPHAN_INO);
      if (bytes !== undefined) checkSlots(index * SLOTS_PER_BLOCK, new Uint32Array(bytes.buffer));
    },
  };
  const { added } = walk;
  walk.added = makeMarks();
  walk.differences(owner, NO_TREE, root);
  walk.added = added;
  if (blocks * BLOCK_BYTES !== sizeBytes || blocks > ORPHAN_BLOCKS_MAX)
    report.add("orphan", `the orphan file has ${blocks} blocks, and is said to have ${sizeBytes} bytes`, {
      ino: ORPHAN_INO,
    });
}

/** The inode that a slot names; 0: none. */
export function orphanAt(store: BlockStore, file: Inode | undefined, slot: number): number {
  if (file === undefined || slot >= (file.tree.sizeBytes / BLOCK_BYTES) * SLOTS_PER_BLOCK) return 0;
  const block = readable(store, () => blockAt(store, file.tree, Math.floor(slot / SLOTS_PER_BLOCK)));
  return block?.words[slot % SLOTS_PER_BLOCK] ?? 0;
}
