/**
 * What has been found wrong with the volume while it is in use. Whoever asked gets EIO; here the administrator gets to know
 * the place: path, inode and block. Nothing is looked for, and nothing repaired: that is what a check and a scrub are for.
 *
 * The same place is met again and again (the kernel reads ahead, asks once for a run of pages and then for each), so that each is
 * told, and counted, once. All of it is bounded: behind the last place that is remembered, each error counts.
 */
import { CorruptionError, FsError } from "../core/errors.ts";
import { ROOT_INO } from "../format/constants.ts";
import { BEFORE_FIRST_KEY, eachEntry } from "../tree/directory.ts";
import { DirectoryFile } from "../tree/directory-file.ts";
import type { InodeFile } from "../tree/inode-file.ts";
import type { Volume } from "../volume/volume.ts";
import type { FileSystem, Handle, NodeId } from "./file-system.ts";
import type { Handles } from "./handles.ts";
import { isDirectory } from "./modes.ts";
import { inoOf, isSnapshotsNode, type State, type States } from "./nodes.ts";

export type DamageKind =
  | "checksum" // a block is not what its parent expects
  | "unreadable" // the device answers with an error
  | "structure"; // a block is what it should be, and says what cannot be

/** One thing that is wrong, as it was met first. */
export interface Damage {
  readonly kind: DamageKind;
  readonly message: string;
  /** What was being done, and to which file: not always the one that is damaged, for maps and directories serve many. */
  readonly operation: string;
  readonly ino: number | undefined;
  /** From the root of the mount; undefined: not found at a reasonable price. */
  readonly path: string | undefined;
  readonly vbn: number | undefined;
}

/** How many places of each kind were met. */
export type DamageCounts = Readonly<Record<DamageKind, number>>;

export interface DamageWatch {
  readonly volume: Volume;
  readonly states: States;
  readonly handles: Handles;
  /** Called when a count changes. `first`: the place that was met; undefined: there are too many. */
  readonly onDamage: (counts: DamageCounts, first: Damage | undefined) => void;
}

/** Distinct places that are told of. */
const PLACES_MAX = 1000;
/** Directory entries looked at for the path of one place. */
const ENTRIES_MAX = 200_000;
const DEPTH_MAX = 256;

/** Operations whose first argument is a handle. Of the others it is a node, or there is none. */
const byHandle: ReadonlySet<string> = new Set<keyof FileSystem>([
  "read",
  "write",
  "release",
  "fsync",
  "allocate",
  "copyRange",
  "seek",
  "readDirectory",
  "releaseDirectory",
]);

/** Arguments of any operation. A fixed number of them: nothing is allocated to pass them on. */
type Operation = (a: unknown, b: unknown, c: unknown, d: unknown, e: unknown, f: unknown) => unknown;

/** The same functions; errors that tell of damage are noted on their way out. */
export function watchDamage<F extends object>(functions: F, watch: DamageWatch): F {
  const note = damageNotes(watch);
  const watched: Record<string, unknown> = {};
  for (const [name, operation] of Object.entries(functions)) {
    const run = operation as Operation;
    const watching: Operation = (a, b, c, d, e, f) => {
      try {
        return run(a, b, c, d, e, f);
      } catch (error) {
        note(error, name, a);
        throw error;
      }
    };
    watched[name] = watching;
  }
  return watched as F;
}

function damageNotes({ volume, states, handles, onDamage }: DamageWatch) {
  const counts: Record<DamageKind, number> = { checksum: 0, unreadable: 0, structure: 0 };
  const known = new Set<string>();

  return (error: unknown, operation: string, subject: unknown): void => {
    const kind = kindOf(error);
    if (kind === undefined) return;
    const { message, vbn } = error as CorruptionError | FsError;
    const key = vbn === undefined ? message : `${kind} ${vbn}`;
    if (known.has(key)) return;
    counts[kind] += 1;
    if (known.size >= PLACES_MAX) {
      onDamage({ ...counts }, undefined);
      return;
    }
    known.add(key);
    const place = placeOf(operation, subject);
    onDamage({ ...counts }, { kind, message, operation, ino: place?.ino, path: pathOf(place), vbn });
  };

  function placeOf(operation: string, subject: unknown): Place | undefined {
    if (typeof subject !== "number") return undefined;
    try {
      if (byHandle.has(operation)) {
        const file = handles.get(subject as Handle);
        return file.kind === "snapshots" ? undefined : file;
      }
      const node = subject as NodeId;
      return isSnapshotsNode(node) ? undefined : { state: states.of(node), ino: inoOf(node) };
    } catch (error) {
      if (error instanceof FsError) return undefined;
      throw error;
    }
  }

  function pathOf(place: Place | undefined): string | undefined {
    if (place?.state.inodes === undefined) return undefined;
    const { inodes, snapshotId } = place.state;
    const within = pathFrom(inodes, place.ino);
    if (within === undefined || snapshotId === 0) return within;
    const snapshot = volume.snapshots().find(({ id }) => id === snapshotId);
    return snapshot === undefined ? undefined : `/.snapshot/${snapshot.name}${within === "/" ? "" : within}`;
  }
}

interface Place {
  readonly state: State;
  readonly ino: number;
}

function kindOf(error: unknown): DamageKind | undefined {
  if (error instanceof CorruptionError) return error.vbn === undefined ? "structure" : "checksum";
  return error instanceof FsError && error.vbn !== undefined ? "unreadable" : undefined;
}

/** Upwards by the parents that inodes know, which may be wrong or damaged too. */
function pathFrom(inodes: InodeFile, start: number): string | undefined {
  const names: string[] = [];
  let entriesLeft = ENTRIES_MAX;
  try {
    for (let ino = start; ino !== ROOT_INO; ) {
      const parent = inodes.get(inodes.get(ino)?.parent ?? 0);
      if (parent === undefined || !isDirectory(parent.mode) || names.length === DEPTH_MAX) return undefined;
      let found: string | undefined;
      eachEntry(new DirectoryFile(inodes, parent), BEFORE_FIRST_KEY, (name, child) => {
        entriesLeft -= 1;
        if (child === ino) found = name;
        return found === undefined && entriesLeft > 0;
      });
      if (found === undefined) return undefined;
      names.unshift(Buffer.from(found, "latin1").toString("utf8"));
      ino = parent.ino;
    }
  } catch (error) {
    if (error instanceof CorruptionError || error instanceof FsError) return undefined;
    throw error;
  }
  return `/${names.join("/")}`;
}
