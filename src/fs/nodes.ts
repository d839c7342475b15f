/**
 * Node ids, and the states that they lead to.
 *
 *     node id = state number * 2^32 + ino
 *
 *     node 1                     root of the current state, whichever that is
 *     node 2                     its virtual directory .snapshot (ino 2 is never a file of the user)
 *     node of a directory + 2^52 that directory's .snapshot
 *     state 0, 3, 7 ...          the active filesystem: a new number whenever the volume replaces it
 *     state 1, 2, 5 ...          snapshots, numbered when they are first looked up
 *     state 4, 6 ...             views: a snapshot from one of its directories downwards, as DIR/.snapshot/NAME shows it
 *
 * A view is a state of its own because the kernel lets a directory have one place only: were the same nodes found below
 * /.snapshot/NAME and below DIR/.snapshot/NAME, each lookup of the one would move them away from the other.
 *
 * On a following mount directories are in no state of their own: their nodes are those of state 0, which is whichever is
 * current, as the root's is everywhere. So a shell stays in a directory while the mirror moves on, and sees what is new. A
 * file is in the state in which it was last seen to change: what has not changed keeps its node, and with it the kernel's
 * pages; what has gets another one, and an open file goes on in its own state.
 *
 * A state ends in one of three ways. A restore replaces the active filesystem: what was looked up in it is ESTALE. A
 * snapshot is deleted: ESTALE too. A following mount moves on: the old state goes on being read, its blocks are verified
 * like all others, and one that has been given to something else answers ESTALE. Old states are dropped when the kernel
 * has forgotten all of their nodes, or when there are too many.
 *
 * Invariant: the number of a state is not used for another one while the kernel knows a node of it; a state that ended
 * stays in the table, without its inodes, until then.
 */
import type { Time } from "../core/clock.ts";
import { type Counts, counts } from "../core/counts.ts";
import { CorruptionError, FsError } from "../core/errors.ts";
import { TWO_32, U32_MAX } from "../core/numbers.ts";
import { shaped } from "../core/shaped.ts";
import { sameBytes } from "../core/uuid.ts";
import { FIRST_FREE_INO, ROOT_INO } from "../format/constants.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import type { BlockStore } from "../tree/block-store.ts";
import type { Inode, InodeFile } from "../tree/inode-file.ts";
import type { Volume } from "../volume/volume.ts";
import { type NodeId, ROOT_NODE } from "./file-system.ts";
import { isDirectory } from "./modes.ts";

/** One state of the filesystem that nodes can be in. */
export interface State {
  readonly number: number;
  /** Undefined: the state has ended, and all its nodes are stale. */
  inodes: InodeFile | undefined;
  readonly writable: boolean;
  /** The snapshot it is; 0: an active filesystem. */
  readonly snapshotId: number;
  /** What stands in the high word of st_ino. */
  readonly inoHigh: number;
  /** The directory whose ".." is not in this state: the root, or where a view begins. */
  readonly topIno: number;
  /** Lookups that the kernel has not forgotten. */
  lookupCount: number;
  handleCount: number;
  /**
   * How often each inode is in use, by ino, where files can be deleted: lookups that the kernel has not forgotten, and open
   * handles. A deleted file stays what it is, and its number its own, until this is 0.
   */
  readonly uses: Counts;
}

export interface States {
  readonly current: State;
  /** To be called at the start of every operation: moves to what the volume shows now, and lets blocks be reused. */
  begin(): void;
  /** The state of a node. Throws FsError ESTALE when it has ended. */
  of(node: NodeId): State;
  /** The inodes of a state. Throws FsError ESTALE when it has ended. */
  inodesOf(state: State): InodeFile;
  /** An inode of a state. Throws FsError ESTALE when it is free. */
  inode(state: State, ino: number): Inode;
  /** The same, which must be a directory: FsError ENOTDIR. */
  directory(state: State, ino: number): Inode;
  ofSnapshot(record: SnapshotRecord): State;
  /** The snapshot from the directory `ino` downwards. */
  viewOf(record: SnapshotRecord, ino: number): State;
  /** The state that the node of an inode seen in `state` belongs to, when the kernel is about to be told of it. */
  homeOf(state: State, inode: Inode): State;
  nodeOf(state: State, ino: number): NodeId;
  /** The kernel has been told of a node. */
  lookedUp(state: State, ino: number): void;
  /** It forgets lookups of it. */
  forget(node: NodeId, count: number): void;
  opened(state: State, ino: number): void;
  released(state: State, ino: number): void;
  /** Whether the operation that has just failed can be done again: the mirror had moved on, and so has the current state. */
  movedUnder(error: unknown): boolean;
  /** What the caller of the operation that has just failed is to see. */
  answerTo(error: unknown): unknown;
}

export interface StatesOptions {
  readonly volume: Volume;
  readonly readOnly: boolean;
  readonly following: boolean;
  readonly snapshot?: SnapshotRecord | undefined;
  /** A writable active filesystem has become current. */
  readonly becameCurrent: (state: State) => void;
  /** Nobody uses an inode of the current state any more. */
  readonly becameUnused: (ino: number) => void;
}

export const SNAPSHOTS_NODE = 2 as NodeId;

const STATE_NUMBER_END = 2 ** 20;
/** Above the node ids of all states. */
const SNAPSHOTS_NODES = STATE_NUMBER_END * TWO_32;
/** Views that there can be at once. Beyond, a directory of a snapshot is found where it was found last. */
const VIEWS_MAX = 2 ** 19;
/** Views kept although the kernel has forgotten them. */
const RESTING_VIEWS_MAX = 1024;
/** What nothing is counted in. */
const NO_USES: Counts = counts();
/** Old states of a following mount that are kept: with and without open files. */
const OLD_STATES_MAX = 64;
const OLD_OPEN_STATES_MAX = 1024;

export function inoOf(node: NodeId): number {
  return node >>> 0; // a small integer to V8 too, which a remainder is not
}

/** Is it a virtual directory .snapshot? */
export function isSnapshotsNode(node: NodeId): boolean {
  return node === SNAPSHOTS_NODE || node >= SNAPSHOTS_NODES;
}

/** The directory .snapshot of a directory. */
export function snapshotsNodeOf(directory: NodeId): NodeId {
  return directory === ROOT_NODE ? SNAPSHOTS_NODE : ((directory + SNAPSHOTS_NODES) as NodeId);
}

/** The directory that a .snapshot is in. */
export function directoryOf(snapshots: NodeId): NodeId {
  return snapshots === SNAPSHOTS_NODE ? ROOT_NODE : ((snapshots - SNAPSHOTS_NODES) as NodeId);
}

/**
 * What stands in the high word of st_ino in a snapshot: st_ino stays below 2^52, where it is exact. Snapshots that are
 * a million apart share one.
 */
export function inoHighOf(record: SnapshotRecord): number {
  return ((record.id - 1) % (STATE_NUMBER_END - 1)) + 1;
}

export function openStates(options: StatesOptions): States {
  const { volume, following, snapshot } = options;
  const byNumber = new Map<number, State>();
  const bySnapshot = new Map<number, State>();
  /** Views by the number of their snapshot and the inode where they begin. */
  const views = new Map<number, Map<number, State>>();
  let viewCount = 0;
  /** Views that were forgotten, the one longest ago first. */
  const resting = new Set<State>();
  /** Ended or left behind, oldest first. */
  let old: State[] = [];
  let stores: readonly BlockStore[] = [];
  /** Following: what stands for the current state in the nodes of directories. */
  const moving: State = {
    number: 0,
    inodes: undefined,
    writable: false,
    snapshotId: 0,
    inoHigh: 0,
    topIno: ROOT_INO,
    lookupCount: 0,
    handleCount: 0,
    uses: NO_USES,
  };
  /** Following: the generation of each directory that the kernel knows, and the state that each of its files is in. */
  const generations = new Map<number, number>();
  const homes = new Map<number, State>();
  if (following) byNumber.set(moving.number, moving);
  let numberNext = 0;
  let touched: State | undefined;
  let stateCount = volume.stateCount;
  let current = snapshot === undefined ? activeState() : snapshotState(snapshot, 0);

  function newState(fields: Pick<State, "inodes" | "writable" | "snapshotId" | "inoHigh" | "topIno">): State {
    while (byNumber.has(numberNext)) numberNext = (numberNext + 1) % STATE_NUMBER_END;
    const { inodes, writable, snapshotId, inoHigh, topIno } = fields;
    const number = numberNext;
    numberNext = (numberNext + 1) % STATE_NUMBER_END;
    const uses = writable ? counts() : NO_USES;
    const state = { number, inodes, writable, snapshotId, inoHigh, topIno, lookupCount: 0, handleCount: 0, uses };
    byNumber.set(number, state);
    if (topIno === ROOT_INO) collectStores(); // a view has the store of its snapshot
    return state;
  }

  /** A view that the kernel has forgotten is kept for a while: it may be asked for again. */
  function rest(view: State): void {
    resting.delete(view);
    resting.add(view);
    if (resting.size <= RESTING_VIEWS_MAX) return;
    const [oldest] = resting;
    if (oldest === undefined) return;
    resting.delete(oldest);
    if (oldest.lookupCount > 0 || oldest.handleCount > 0 || oldest.inodes === undefined) return; // in use again, or ended
    dropView(oldest);
    oldest.inodes = undefined;
    byNumber.delete(oldest.number);
  }

  function activeState(): State {
    const writable = volume.writable && !options.readOnly;
    return newState({ inodes: volume.active, writable, snapshotId: 0, inoHigh: 0, topIno: ROOT_INO });
  }

  function snapshotState(record: SnapshotRecord, inoHigh: number): State {
    const inodes = volume.openSnapshot(record);
    return newState({ inodes, writable: false, snapshotId: record.id, inoHigh, topIno: ROOT_INO });
  }

  function ofSnapshot(record: SnapshotRecord): State {
    let state = bySnapshot.get(record.id);
    if (state === undefined) {
      state = snapshotState(record, inoHighOf(record));
      bySnapshot.set(record.id, state);
    }
    return state;
  }

  function viewOf(record: SnapshotRecord, topIno: number): State {
    const whole = ofSnapshot(record);
    if (topIno === ROOT_INO) return whole;
    const known = views.get(record.id)?.get(topIno);
    if (known !== undefined) return known;
    if (viewCount >= VIEWS_MAX) return whole;
    const { inodes, writable, snapshotId, inoHigh } = whole;
    const view = newState({ inodes, writable, snapshotId, inoHigh, topIno });
    const siblings = views.get(record.id) ?? new Map<number, State>();
    views.set(record.id, siblings);
    siblings.set(topIno, view);
    viewCount += 1;
    return view;
  }

  /** Lets a new view be made in its place. */
  function dropView(view: State): void {
    const siblings = views.get(view.snapshotId);
    if (siblings?.get(view.topIno) !== view) return;
    siblings.delete(view.topIno);
    if (siblings.size === 0) views.delete(view.snapshotId);
    viewCount -= 1;
  }

  function collectStores(): void {
    const found = new Set<BlockStore>();
    for (const state of byNumber.values()) if (state.inodes !== undefined) found.add(state.inodes.store);
    stores = [...found];
  }

  /** The volume shows another state now. */
  function move(): void {
    stateCount = volume.stateCount;
    if (snapshot !== undefined) return;
    const left = current;
    current = activeState();
    old.push(left);
    if (!following) end(left);
    dropOld();
    if (current.writable) options.becameCurrent(current);
  }

  function end(state: State): void {
    state.inodes = undefined;
    state.uses.clear();
    if (state.topIno !== ROOT_INO) {
      dropView(state);
      return;
    }
    if (state.snapshotId !== 0) bySnapshot.delete(state.snapshotId);
    collectStores();
  }

  function dropOld(): void {
    let open = 0;
    let idle = 0;
    for (let i = old.length - 1; i >= 0; i--) {
      const state = old[i] as State;
      if (state.inodes === undefined) continue;
      const tooMany = state.handleCount > 0 ? ++open > OLD_OPEN_STATES_MAX : ++idle > OLD_STATES_MAX;
      if (tooMany) end(state);
    }
    for (const state of old) sweep(state);
  }

  /** Takes a state that nobody can name any more out of the table. */
  function sweep(state: State): void {
    if (state === current || state === moving || state.lookupCount > 0 || state.handleCount > 0) return;
    const isView = state.topIno !== ROOT_INO;
    if (!isView && state.snapshotId !== 0 && state.inodes !== undefined) return; // found again by its name
    if (isView && state.inodes !== undefined) {
      rest(state);
      return;
    }
    if (!byNumber.delete(state.number)) return;
    state.inodes = undefined;
    old = old.filter((other) => other !== state);
    collectStores();
  }

  function use(state: State, ino: number): void {
    if (state.writable && state.inodes !== undefined) state.uses.add(ino, 1);
  }

  function unuse(state: State, ino: number, count: number): void {
    if (state.uses.of(ino) === 0 || state.uses.take(ino, count) > 0) return;
    if (state === current) options.becameUnused(ino);
  }

  function inodesOf(state: State): InodeFile {
    touched = state;
    if (state.snapshotId !== 0 && state.inodes !== undefined && !hasSnapshot(volume, state.snapshotId)) {
      end(state);
      if (state !== current) old.push(state);
    }
    if (state.inodes === undefined) throw new FsError("ESTALE", "this state of the filesystem is gone");
    return state.inodes;
  }

  function inode(state: State, ino: number): Inode {
    const inodes = inodesOf(state);
    const found = ino >= FIRST_FREE_INO || ino === ROOT_INO ? inodes.get(ino) : undefined;
    if (found === undefined) throw new FsError("ESTALE", `inode ${ino} is free`);
    if (following && state === current && (generations.get(ino) ?? found.generation) !== found.generation) {
      throw new FsError("ESTALE", `directory ${ino} has been deleted, and its number used again`);
    }
    return found;
  }

  function homeOf(state: State, seen: Inode): State {
    if (!following || state.snapshotId !== 0) return state;
    const { ino } = seen;
    if (isDirectory(seen.mode)) {
      generations.set(ino, seen.generation);
      return moving;
    }
    generations.delete(ino);
    const last = homes.get(ino);
    if (last !== undefined && last !== state && isUnchanged(last, seen)) return last;
    if (state === current) homes.set(ino, state);
    return state;
  }

  return shaped({
    get current(): State {
      return current;
    },
    begin(): void {
      if (volume.stateCount !== stateCount) move();
      touched = undefined;
      for (const store of stores) store.beginOperation();
    },
    of(node): State {
      if (node === ROOT_NODE) return current;
      const number = Math.floor(node / TWO_32);
      if (number === current.number || (following && number === 0)) return current;
      const state = byNumber.get(number);
      if (state === undefined) throw new FsError("ESTALE", `node ${node} is of no state that is known`);
      return state;
    },
    inodesOf,
    inode,
    directory(state, ino): Inode {
      const found = inode(state, ino);
      if (!isDirectory(found.mode)) throw new FsError("ENOTDIR", `inode ${ino} is not a directory`);
      return found;
    },
    ofSnapshot,
    viewOf,
    homeOf,
    nodeOf(state, ino): NodeId {
      if (ino === ROOT_INO && state.snapshotId === current.snapshotId) return ROOT_NODE;
      return (state.number * TWO_32 + ino) as NodeId;
    },
    lookedUp(state, ino): void {
      if (ino === ROOT_INO && state.snapshotId === current.snapshotId) return; // node 1 is never forgotten
      state.lookupCount += 1;
      use(state, ino);
    },
    forget(known, count): void {
      const node = isSnapshotsNode(known) ? directoryOf(known) : known; // looking up .snapshot counts for its directory
      if (node === ROOT_NODE) return;
      const number = Math.floor(node / TWO_32);
      if (following) {
        if (number === 0) generations.delete(inoOf(node));
        else if (homes.get(inoOf(node))?.number === number) homes.delete(inoOf(node));
      }
      const state = byNumber.get(number);
      if (state === undefined) return;
      state.lookupCount = Math.max(0, state.lookupCount - count);
      unuse(state, inoOf(node), count);
      sweep(state);
    },
    opened(state, ino): void {
      state.handleCount += 1;
      use(state, ino);
    },
    released(state, ino): void {
      state.handleCount -= 1;
      unuse(state, ino, 1);
      sweep(state);
    },
    // The mirror may have moved on and given our blocks to something else before we noticed.
    movedUnder: (error) => following && error instanceof CorruptionError && touched === current && volume.follow(),
    answerTo(error): unknown {
      if (!following || !(error instanceof CorruptionError) || touched === undefined) return error;
      if (touched === current && volume.stateCount === stateCount) return error;
      return new FsError("ESTALE", "the mirror has moved on and reused a block of this state", { cause: error });
    },
  });
}

/** Whether a file is the same in another state: then that state's node of it will do, and the kernel keeps its pages. */
function isUnchanged({ inodes }: State, seen: Inode): boolean {
  try {
    const known = inodes?.get(seen.ino);
    return known !== undefined && isSameInode(known, seen);
  } catch (error) {
    if (error instanceof CorruptionError) return false; // a block of that state has been used again
    throw error;
  }
}

/** Every change of a file's contents, attributes or extended attributes shows in one of these. */
function isSameInode(a: Inode, b: Inode): boolean {
  return (
    a.generation === b.generation &&
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.linkCount === b.linkCount &&
    a.tree.sizeBytes === b.tree.sizeBytes &&
    a.tree.blockCount === b.tree.blockCount &&
    a.xattrIno === b.xattrIno &&
    isSameTime(a.atime, b.atime) &&
    isSameTime(a.mtime, b.mtime) &&
    isSameTime(a.ctime, b.ctime) &&
    sameBytes(a.tree.pointers, b.tree.pointers)
  );
}

function isSameTime(a: Time, b: Time): boolean {
  return a.seconds === b.seconds && a.nanoseconds === b.nanoseconds;
}

/** Is there a snapshot of this number? They are in order of their numbers. */
function hasSnapshot(volume: Volume, id: number): boolean {
  const records = volume.snapshots();
  let low = 0;
  let high = records.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((records[middle]?.id ?? U32_MAX) < id) low = middle + 1;
    else high = middle;
  }
  return records[low]?.id === id;
}
