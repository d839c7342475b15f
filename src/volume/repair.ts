/**
 * What has a second copy can be put right: fsinfo, and the blocks of the snapshot table. All else has one, and what is bad there
 * is only told of.
 *
 * A repair writes in place what should be there already, so nothing that refers to it changes, and a crash in the middle
 * leaves the other copy.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { checksum } from "../core/checksum.ts";
import { FsError } from "../core/errors.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { readFsinfo, readFsinfoCopies, repairFsinfo } from "./fsinfo-copies.ts";
import { openSnapshotTable, type SnapshotTable, type TableCopy } from "./snapshot-table.ts";

/** A copy that was bad. */
export interface BadCopy {
  readonly what: "fsinfo" | "snapshot-table";
  readonly vbn: number;
  readonly problem: string;
}

/**
 * Puts right all copies of the last committed consistency point. Nobody else may be writing fsinfo or the table meanwhile.
 * Throws CorruptionError, UserError "corrupt" where both copies are bad, FsError EIO.
 */
export function repairCopies(device: BlockDevice): readonly BadCopy[] {
  const fsinfo = readFsinfo(device);
  const badCopies: BadCopy[] = [];
  for (const { vbn, fsinfo: found, problem } of readFsinfoCopies(device)) {
    if (problem !== undefined) badCopies.push({ what: "fsinfo", vbn, problem });
    else if (found?.cpCount !== fsinfo.cpCount) {
      badCopies.push({ what: "fsinfo", vbn, problem: `it is of consistency point ${found?.cpCount}` });
    }
  }
  repairFsinfo(device);
  const bytes = new Uint8Array(BLOCK_BYTES);
  const table = openSnapshotTable(device, fsinfo);
  for (const { vbn, problem } of badTableCopies(device, table, (copy) => {
    device.read(copy.otherVbn, 1, bytes, 0);
    device.writeDurable(copy.vbn, bytes);
  }))
    badCopies.push({ what: "snapshot-table", vbn, problem });
  return badCopies;
}

/** The copies of blocks of the table that are bad; the other copy of each is good. Throws CorruptionError where both are bad. */
export function badTableCopies(
  device: BlockDevice,
  table: SnapshotTable,
  onBad: (copy: TableCopy) => void = () => {},
): readonly { readonly vbn: number; readonly problem: string }[] {
  const bad: { readonly vbn: number; readonly problem: string }[] = [];
  for (const copy of table.copies()) {
    const problem = problemOf(device, copy);
    if (problem === undefined) continue;
    bad.push({ vbn: copy.vbn, problem });
    onBad(copy);
  }
  return bad;
}

function problemOf(device: BlockDevice, { vbn, expected }: TableCopy): string | undefined {
  const bytes = new Uint8Array(BLOCK_BYTES);
  try {
    device.read(vbn, 1, bytes, 0);
  } catch (error) {
    if (error instanceof FsError) return "it cannot be read";
    throw error;
  }
  return checksum(bytes) === expected ? undefined : "its checksum is not what its parent expects";
}
