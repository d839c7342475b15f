/**
 * Whole-volume verification: proves that what is on the device is a consistent filesystem, with nothing but the device.
 *
 *     fsinfo, both copies
 *       +-- snapshot table                         records, names, counters
 *       |     +-- snapshot, by age  --+
 *       +-- active filesystem       --+--  each: inode file, every inode, every block's checksum, directories,
 *                                          link counts, orphans, attributes;
 *                                          its map == the blocks reached from its root, bit for bit
 *
 * States are checked in order of time, each against the one before (check-walk.ts): what two states share is equal by the
 * checksums of the Merkle tree, and is not read again. So the price is about one read of each distinct block, however many
 * snapshots there are, and one bit of memory for each block and a few bytes for each inode.
 *
 * Nothing is changed and nothing is trusted. A volume may contain anything: every walk ends, recursion is bounded by the
 * height of trees, memory by what is really there, and findings by a number. What the check says of damage:
 *
 * - It looks at the last committed consistency point. On a volume that is mounted for writing, blocks of that state are
 *   given to others two consistency points later: `moved` says that it may have happened, and findings may come from it.
 *   `activeAs` checks nothing that can move: take a snapshot, check, delete it.
 * - The change log is looked at when nobody writes it. One in a file of its own is, when that is given.
 * - One bad fsinfo copy is what a power cut may leave, and the next consistency point writes it: a note, no finding.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError, FsError, UserError } from "../core/errors.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import type { BlockDevice } from "../device/block-device.ts";
import { NAME_BYTES_MAX, reservedBlocksFor } from "../format/constants.ts";
import { type Fsinfo, ROLE_ACTIVE, ROLE_MIRROR } from "../format/fsinfo.ts";
import { decodeLogFileHead, type LogFileHead } from "../format/log-file.ts";
import { SNAPSHOT_MIRROR, type SnapshotRecord } from "../format/snapshot-record.ts";
import { type LogLocation, placeApart, readLog } from "./change-log/frames.ts";
import { isZero } from "./check-record.ts";
import { type Finding, openReport, type Report } from "./check-report.ts";
import { openStateChecker, storeForCheck } from "./check-state.ts";
import { openWalk } from "./check-walk.ts";
import { readFsinfo, readFsinfoCopies } from "./fsinfo-copies.ts";
import { badTableCopies } from "./repair.ts";
import { openSnapshotTable } from "./snapshot-table.ts";

export interface CheckProgress {
  readonly blocksDone: number;
  /** An estimate. */
  readonly blocksTotal: number;
}

export interface CheckOptions {
  /** Read file data too, not only metadata. Default: true. */
  readonly readData?: boolean;
  /**
   * Name of the snapshot to look at in place of the active filesystem, which moves, and is left out with the change log.
   * Default: everything is checked.
   */
  readonly activeAs?: string | undefined;
  /** The file that has the change log, if it is apart. Default: it is not looked at. */
  readonly logFile?: BlockDevice | undefined;
  /** Findings listed at most; the rest is counted. Default: 1000. */
  readonly findingsMax?: number;
  readonly onProgress?: (progress: CheckProgress) => void;
}

export interface CheckReport {
  /** Everything that is wrong. None: the volume is consistent. */
  readonly findings: readonly Finding[];
  /** Findings that are not listed. */
  readonly leftOut: number;
  /** Worth knowing, not wrong. */
  readonly notes: readonly string[];
  /** The consistency point that was checked. */
  readonly cpCount: number;
  readonly statesChecked: number;
  readonly blocksRead: number;
  /** Consistency points were committed meanwhile: findings may come from blocks that were reused. */
  readonly moved: boolean;
}

const FINDINGS_MAX = 1000;
const PROGRESS_BLOCKS = 1024;
/** Attempts at reading fsinfo and the snapshot table of the same consistency point of a volume that moves. */
const TABLE_TRIES_MAX = 16;

/**
 * Verifies a volume. Changes nothing. Throws UserError "corrupt" when there is no fsinfo to begin with, FsError EIO for it, UserError
 * "mismatch" when the log file is that of another volume, or of another time.
 */
export function checkVolume(device: BlockDevice, options: CheckOptions = {}): CheckReport {
  const { readData = true, activeAs, logFile, findingsMax = FINDINGS_MAX, onProgress } = options;
  const report = openReport(findingsMax);
  const notes: string[] = [];
  const { fsinfo, records } = readTable(device, report);
  checkFsinfo(device, fsinfo, report, notes);
  if (activeAs === undefined) checkLog({ device, logFile, fsinfo }, report, notes);
  else if (logFile !== undefined) notes.push("the change log was not looked at: it is being written");
  checkRecords(fsinfo, records, report);

  const { blockCount, reservedBlocks } = fsinfo;
  let reported = 0;
  const walk = openWalk({
    device,
    report,
    firstVbn: reservedBlocks,
    endVbn: blockCount,
    onBlocks(blocksDone): void {
      if (onProgress === undefined || blocksDone - reported < PROGRESS_BLOCKS) return;
      reported = blocksDone;
      onProgress({ blocksDone, blocksTotal: Math.max(blocksDone, fsinfo.usedBlocks) });
    },
  });
  const store = storeForCheck(device, reservedBlocks, blockCount);
  const checker = openStateChecker({
    walk,
    report,
    store,
    blockCount,
    hashSeed: fsinfo.hashSeed,
    generationNext: fsinfo.generationNext,
    readData,
  });
  for (const record of records) checker.check(record.name === activeAs ? { ...record, name: ACTIVE_NAME } : record);
  if (activeAs === undefined) {
    checker.check({
      name: ACTIVE_NAME,
      root: fsinfo.inodeFile,
      activeBlocks: fsinfo.activeBlocks,
      usedInodes: fsinfo.usedInodes,
    });
    const { usedBlocks } = checker;
    if (usedBlocks !== fsinfo.usedBlocks)
      report.add("counter", `fsinfo says that ${fsinfo.usedBlocks} blocks are used, it is ${usedBlocks}`);
  }
  const { metadataLost, blocksRead } = walk;
  if (metadataLost > 0)
    notes.push(
      `blocks of metadata that cannot be read: ${metadataLost}; findings in maps, counters, links and directories may be of what is behind them`,
    );
  return {
    findings: report.findings,
    leftOut: report.leftOut,
    notes,
    cpCount: fsinfo.cpCount,
    statesChecked: records.length + (activeAs === undefined ? 1 : 0),
    blocksRead,
    moved: readFsinfo(device).cpCount !== fsinfo.cpCount,
  };
}

/** What findings call the active filesystem. A snapshot can have this name too: its findings differ in nothing else. */
export const ACTIVE_NAME = "active";

/** Fsinfo and the snapshots of one consistency point, also while the volume moves. */
function readTable(
  device: BlockDevice,
  report: Report,
): { readonly fsinfo: Fsinfo; readonly records: readonly SnapshotRecord[] } {
  for (let tries = 1; ; tries++) {
    const fsinfo = readFsinfo(device);
    try {
      const table = openSnapshotTable(device, fsinfo);
      for (const { vbn, problem } of badTableCopies(device, table))
        report.add("snapshot-table", `a copy of a block of the snapshot table is bad, in block ${vbn}: ${problem}`, {
          vbn,
        });
      return { fsinfo, records: table.records };
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      if (readFsinfo(device).cpCount !== fsinfo.cpCount && tries < TABLE_TRIES_MAX) continue;
      report.add("snapshot-table", `the snapshot table cannot be read: ${error.message}`);
      return { fsinfo, records: [] };
    }
  }
}

function checkFsinfo(device: BlockDevice, fsinfo: Fsinfo, report: Report, notes: string[]): void {
  for (const [index, copy] of readFsinfoCopies(device).entries()) {
    const place = `fsinfo copy ${index + 1}, block ${copy.vbn},`;
    if (copy.fsinfo === undefined)
      notes.push(`${place} does not verify (${copy.problem}); the next consistency point writes it`);
    else if (!sameBytes(copy.fsinfo.uuid, fsinfo.uuid))
      report.add("fsinfo", `${place} is of another volume`, { vbn: copy.vbn });
    else if (copy.fsinfo.cpCount < fsinfo.cpCount)
      notes.push(
        `${place} is of consistency point ${copy.fsinfo.cpCount}, not ${fsinfo.cpCount}; the next one writes it`,
      );
  }
  const expected = reservedBlocksFor(fsinfo.blockCount);
  if (fsinfo.reservedBlocks !== expected)
    report.add(
      "fsinfo",
      `${fsinfo.reservedBlocks} blocks are reserved, a volume of ${fsinfo.blockCount} blocks has ${expected}`,
    );
  if (!isZero(fsinfo.reserved)) report.add("fsinfo", "reserved bytes of fsinfo are not zero");
  if (fsinfo.role !== ROLE_ACTIVE && fsinfo.role !== ROLE_MIRROR)
    report.add("fsinfo", `fsinfo has role ${fsinfo.role}`);
}

interface WhereLogIs {
  readonly device: BlockDevice;
  readonly logFile: BlockDevice | undefined;
  readonly fsinfo: Fsinfo;
}

function checkLog({ device, logFile, fsinfo }: WhereLogIs, report: Report, notes: string[]): void {
  const isApart = !isZero(fsinfo.logUuid);
  if (isApart && logFile === undefined)
    notes.push(
      `the change log was not looked at: it is in a file of its own, with identity ${formatUuid(fsinfo.logUuid)}; ` +
        "to check that too: --log FILE",
    );
  if (!isApart && logFile !== undefined) notes.push("the change log is not in the file that was named");
  const location = isApart ? locationInFile(logFile, fsinfo, report) : { device, place: fsinfo };
  if (location === undefined) return;
  const { frames, damage } = readLog(location);
  const lastSeq = frames.at(-1)?.header.lastSeq ?? fsinfo.logSeq;
  if (damage !== undefined)
    report.add(
      "change-log",
      `the change log is damaged in block ${damage.vbn}${isApart ? " of its file" : ""}: ${damage.message}`,
      isApart ? {} : { vbn: damage.vbn },
    );
  else if (lastSeq > fsinfo.logSeq)
    notes.push(
      `the change log has ${lastSeq - fsinfo.logSeq} changes since consistency point ${fsinfo.cpCount}; the next mount does them`,
    );
}

/** Where the log is in its file, by the first block of that; undefined: there is none, or it is damaged. */
function locationInFile(file: BlockDevice | undefined, fsinfo: Fsinfo, report: Report): LogLocation | undefined {
  if (file === undefined) return undefined;
  const head = readLogFileHead(file);
  if (head === undefined) {
    report.add("change-log", "block 0 of the file of the change log does not verify: it is no log, or damaged");
    return undefined;
  }
  const { uuid, volumeUuid, blockCount } = head;
  if (!sameBytes(volumeUuid, fsinfo.uuid) || !sameBytes(uuid, fsinfo.logUuid)) {
    throw new UserError(
      "mismatch",
      `the file has change log ${formatUuid(uuid)} of volume ${formatUuid(volumeUuid)}, and this is volume ${formatUuid(fsinfo.uuid)} with log ${formatUuid(fsinfo.logUuid)}`,
      "name another file",
    );
  }
  if (blockCount > file.blockCount)
    report.add(
      "change-log",
      `the file of the change log has been cut to ${file.blockCount} of its ${blockCount} blocks`,
    );
  return { device: file, place: placeApart(fsinfo, Math.min(blockCount, file.blockCount)) };
}

function readLogFileHead(file: BlockDevice): LogFileHead | undefined {
  const block = new Uint8Array(BLOCK_BYTES);
  try {
    file.read(0, 1, block, 0);
  } catch (error) {
    if (!(error instanceof FsError)) throw error;
    return undefined;
  }
  return decodeLogFileHead(block);
}

function checkRecords(fsinfo: Fsinfo, records: readonly SnapshotRecord[], report: Report): void {
  const names = new Set<string>();
  const uuids = new Set<string>();
  let previous = 0;
  const say = (record: SnapshotRecord, what: string): void =>
    report.add("snapshot-table", `snapshot ${JSON.stringify(record.name)} (${record.id}) ${what}`);
  for (const record of records) {
    const bytes = Buffer.byteLength(record.name, "utf8");
    const uuid = Buffer.from(record.uuid).toString("hex");
    if (record.id <= previous) say(record, `has the number of another one`);
    if (record.id >= fsinfo.snapshotIdNext && fsinfo.role === ROLE_ACTIVE)
      say(record, `has a number that is yet to be given: ${fsinfo.snapshotIdNext} is the next`);
    if (
      bytes === 0 ||
      bytes > NAME_BYTES_MAX ||
      record.name === "." ||
      record.name === ".." ||
      record.name.includes("/")
    )
      say(record, "has an impossible name");
    if (names.has(record.name)) say(record, "has the name of another one");
    if (uuids.has(uuid)) say(record, "has the identity of another one");
    if ((record.flags & ~SNAPSHOT_MIRROR) !== 0) say(record, `has unknown flags ${record.flags}`);
    if (record.cpCount > fsinfo.cpCount)
      say(record, `is of consistency point ${record.cpCount}, the volume is at ${fsinfo.cpCount}`);
    if (!isZero(record.reserved)) say(record, "has reserved bytes that are not zero");
    names.add(record.name);
    uuids.add(uuid);
    previous = record.id;
  }
}
