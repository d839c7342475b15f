/**
 * Doing again what the change log has and the last consistency point has not: after a crash, when the filesystem is opened
 * for writing, before anybody else can use it.
 *
 * It goes through the operations themselves, with the times and the inode numbers of then, so there is one way only in
 * which a change can come about. The state is the same as then after each frame, but for what no crash brings back: files
 * without a name, access times. A frame's contents of files come after all its changes, as they were when it was made.
 *
 * Blocks that frames refer to lie where the last consistency point has free space: they are withheld before anything is
 * changed. Nothing here can fail but for damage, or a volume that has no space at all: what could be done then could be
 * done now. At the end a consistency point has it all, and the log begins anew. A crash before that: once again.
 */
import { BLOCK_BYTES } from "../core/block.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import {
  birthRecord,
  type ChangeRecord,
  changeKind,
  changeRecord,
  type ExtentRecord,
  extentRecord,
  presentBit,
} from "../format/change-record.ts";
import { FILE_BLOCKS_MAX, FIRST_FREE_INO } from "../format/constants.ts";
import { adoptBlock, writeFile } from "../tree/file-data.ts";
import type { Birth, Inode, InodeFile, Repeating } from "../tree/inode-file.ts";
import type { FoundFrame } from "../volume/change-log/frames.ts";
import type { Volume } from "../volume/volume.ts";
import type { AttributeChanges, Caller, FileSystem, Name, NodeId } from "./file-system.ts";
import { isRegular, O_WRONLY, S_IFDIR, S_IFLNK, S_IFMT } from "./modes.ts";
import type { States } from "./nodes.ts";
import type { OperationClock } from "./operation-clock.ts";

export interface ReplayOptions {
  readonly volume: Volume;
  readonly states: States;
  readonly clock: OperationClock;
  readonly fileSystem: FileSystem;
  readonly reclaimSlice: () => boolean;
}

/** A change as it was described. */
interface Change {
  readonly record: ChangeRecord;
  readonly births: readonly Birth[];
  readonly name: Name;
  readonly intoName: Name;
  readonly value: Uint8Array;
}

interface Extent {
  readonly record: ExtentRecord;
  readonly data: Uint8Array;
}

interface Parsed {
  readonly changes: readonly Change[];
  readonly extents: readonly Extent[];
}

/** Replays the log of a volume, which has one that is not replayed. Throws CorruptionError, FsError EIO, ENOSPC. */
export function replayLog({ volume, states, clock, fileSystem, reclaimSlice }: ReplayOptions): void {
  const frames = volume.log.unreplayed;
  const inodes = states.inodesOf(states.current);
  const parsed = frames.map(parseFrame);
  for (const { extents } of parsed) {
    for (const { record } of extents) if (record.vbn !== 0) volume.logBlocks.withhold(record.vbn, record.blockCount);
  }
  const repeating: Repeating = {
    wanted: [],
    isReplaced: () => false,
  };
  inodes.births.repeating = repeating;
  for (const [i, { changes, extents }] of parsed.entries()) {
    const { firstSeq, lastSeq } = (frames[i] as FoundFrame).header;
    repeating.isReplaced = ({ ino, generation }, index): boolean =>
      extents.some(
        ({ record }) =>
          record.ino === ino &&
          record.generation === generation &&
          index >= record.index &&
          index < record.index + record.blockCount,
      );
    try {
      for (const change of changes) {
        clock.force(change.record.at);
        repeating.wanted = change.births;
        // A file without a name that was freed then, before its number was given to another, may not be freed yet. Now, and not
        // when the number is taken: nobody else changes anything in the middle of an operation.
        for (const { ino } of change.births) while (inodes.get(ino) !== undefined && reclaimSlice());
        apply(fileSystem, states, inodes, change);
      }
      for (const extent of extents) applyExtent(volume, states, inodes, extent);
    } catch (cause) {
      if (!(cause instanceof FsError) && !(cause instanceof CorruptionError)) throw cause;
      throw new CorruptionError(
        `the changes ${firstSeq} to ${lastSeq} of the change log cannot be repeated: ${cause.message}; to give up what only the log has: -o log=discard`,
        { cause },
      );
    }
  }
  clock.force(undefined);
  inodes.births.repeating = undefined;
  const last = frames.at(-1) as FoundFrame;
  volume.log.replayed({ seq: last.header.lastSeq, head: last.head });
  volume.takeCp("recovery");
}

function apply(fs: FileSystem, states: States, inodes: InodeFile, change: Change): void {
  const { record, name, intoName, value } = change;
  const { present } = record;
  const subject = inodes.get(record.ino);
  if (subject === undefined || subject.generation !== record.generation) {
    throw new CorruptionError(`inode ${record.ino} of generation ${record.generation} is not there`);
  }
  const nodeOf = (ino: number): NodeId => states.nodeOf(states.current, ino);
  const node = nodeOf(record.ino);
  switch (record.kind) {
    case changeKind.make: {
      const { mode, rdev, uid, gid, umask } = record;
      const caller: Caller = { uid, gid, umask };
      const type = mode & S_IFMT;
      const made =
        type === S_IFDIR
          ? fs.makeDirectory(node, name, mode, caller)
          : type === S_IFLNK
            ? fs.symlink(node, name, value, caller)
            : fs.makeNode(node, name, mode, rdev, caller);
      fs.forget(made.nodeId, 1);
      return;
    }
    case changeKind.link:
      fs.forget(fs.link(nodeOf(record.intoIno), node, name).nodeId, 1);
      return;
    case changeKind.unlink:
      fs.unlink(node, name);
      return;
    case changeKind.removeDirectory:
      fs.removeDirectory(node, name);
      return;
    case changeKind.rename:
      fs.rename(node, name, nodeOf(record.intoIno), intoName, record.flags);
      return;
    case changeKind.setAttributes:
      fs.setAttributes(node, attributeChanges(record), { uid: 0, gid: 0 });
      return;
    case changeKind.allocate: {
      const { handle } = fs.open(node, O_WRONLY);
      fs.allocate(handle, record.mode, record.offset, record.length, {
        killPriv: (present & presentBit.killPriv) !== 0,
      });
      fs.release(handle);
      return;
    }
    case changeKind.setXattr:
      fs.setXattr(node, name, value, record.flags);
      return;
    case changeKind.removeXattr:
      fs.removeXattr(node, name);
      return;
    default:
      throw new CorruptionError(`a change of kind ${record.kind} is unknown`);
  }
}

function attributeChanges({ present, mode, uid, gid, offset, atime, mtime, ctime }: ChangeRecord): AttributeChanges {
  const has = (bit: number): boolean => (present & bit) !== 0;
  return {
    ...(has(presentBit.mode) ? { mode } : {}),
    ...(has(presentBit.uid) ? { uid } : {}),
    ...(has(presentBit.gid) ? { gid } : {}),
    ...(has(presentBit.size) ? { sizeBytes: offset } : {}),
    ...(has(presentBit.atime) ? { atime } : {}),
    ...(has(presentBit.mtime) ? { mtime } : {}),
    ...(has(presentBit.ctime) ? { ctime } : {}),
    ...(has(presentBit.killPriv) ? { killPriv: true } : {}),
  };
}

/** Contents of a file, as they were when the frame was made. Its length is right already. */
function applyExtent(volume: Volume, states: States, inodes: InodeFile, { record, data }: Extent): void {
  const { ino, generation, index, blockCount, vbn } = record;
  states.begin();
  const inode = inodes.get(ino);
  if (inode === undefined || inode.generation !== generation) {
    throw new CorruptionError(`inode ${ino} of generation ${generation}, which has contents, is not there`);
  }
  if (ino < FIRST_FREE_INO || !isRegular(inode.mode)) throw new CorruptionError(`inode ${ino} is no file of contents`);
  if (vbn === 0) {
    checkWithin(inode, index * BLOCK_BYTES + data.length);
    writeFile(inodes, inode, index * BLOCK_BYTES, data, 0, data.length);
    return;
  }
  checkWithin(inode, (index + blockCount - 1) * BLOCK_BYTES + 1);
  const sums = new DataView(data.buffer, data.byteOffset, data.length);
  for (let i = 0; i < blockCount; i++) {
    volume.logBlocks.claim(vbn + i);
    adoptBlock(inodes, inode, index + i, vbn + i, sums.getUint32(i * 4, true));
  }
}

function checkWithin(inode: Inode, end: number): void {
  const { sizeBytes } = inode.tree;
  if (end > sizeBytes) throw new CorruptionError(`inode ${inode.ino} has ${sizeBytes} bytes, not ${end}`);
}

/** Takes a frame apart. Throws CorruptionError where it is not as it says: its checksum was right, so that is not by chance. */
export function parseFrame({ header, payload }: Pick<FoundFrame, "header" | "payload">): Parsed {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  let at = 0;
  const take = (bytes: number): number => {
    if (at + bytes > payload.length) throw new CorruptionError("a frame of the change log is shorter than its parts");
    at += bytes;
    return at - bytes;
  };
  const changes: Change[] = [];
  for (let i = 0; i < header.changeCount; i++) {
    const record = changeRecord.decode(view, take(changeRecord.size));
    for (const time of [record.at, record.atime, record.mtime, record.ctime]) {
      if (time.nanoseconds >= 1e9) throw new CorruptionError(`a time with ${time.nanoseconds} nanoseconds`);
    }
    const births: Birth[] = [];
    for (let b = 0; b < record.birthCount; b++) births.push(birthRecord.decode(view, take(birthRecord.size)));
    const bytesOf = (length: number): Uint8Array => payload.subarray(take(length), at);
    const name = nameOf(bytesOf(record.nameBytes));
    const intoName = nameOf(bytesOf(record.intoNameBytes));
    changes.push({ record, births, name, intoName, value: bytesOf(record.valueBytes) });
  }
  const extents: Extent[] = [];
  for (let i = 0; i < header.extentCount; i++) {
    const record = extentRecord.decode(view, take(extentRecord.size));
    const { index, blockCount, vbn, dataBytes } = record;
    const start = take(dataBytes);
    const isRight =
      vbn === 0
        ? dataBytes > (blockCount - 1) * BLOCK_BYTES && dataBytes <= blockCount * BLOCK_BYTES
        : dataBytes === blockCount * 4;
    if (blockCount === 0 || !isRight || index + blockCount > FILE_BLOCKS_MAX) {
      throw new CorruptionError(`an extent of ${blockCount} blocks in ${dataBytes} bytes`);
    }
    extents.push({ record, data: payload.subarray(start, at) });
  }
  return { changes, extents };
}

function nameOf(bytes: Uint8Array): Name {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1") as Name;
}
