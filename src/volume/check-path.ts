/** Paths of inodes for the findings of a check: looked for only when there is a finding, and not forever. */
import { CorruptionError } from "../core/errors.ts";
import { ROOT_INO } from "../format/constants.ts";
import { BEFORE_FIRST_KEY, eachEntry, type NodeFile } from "../tree/directory.ts";
import type { InodeTable } from "./check-inodes.ts";

const DEPTH_MAX = 256;
/** Directory entries looked at for all paths of one state together. */
const ENTRIES_MAX = 2_000_000;

export interface PathFinderOptions {
  readonly table: InodeTable;
  readonly directory: (ino: number) => NodeFile | undefined;
}

/** The path of an inode from the root, or undefined when none is found at a reasonable price. */
export function pathFinder({ table, directory }: PathFinderOptions): (ino: number) => string | undefined {
  const known = new Map<number, string | undefined>();
  let entriesLeft = ENTRIES_MAX;

  function nameIn(parent: number, ino: number): string | undefined {
    const dir = directory(parent);
    if (dir === undefined || entriesLeft <= 0) return undefined;
    let found: string | undefined;
    try {
      eachEntry(dir, BEFORE_FIRST_KEY, (name, child) => {
        entriesLeft -= 1;
        if (child === ino) found = name;
        return found === undefined && entriesLeft > 0;
      });
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
    }
    return found === undefined ? undefined : Buffer.from(found, "latin1").toString("utf8");
  }

  return (start) => {
    if (known.has(start)) return known.get(start);
    const names: string[] = [];
    let ino = table.xattrOwner(start) || start;
    for (let depth = 0; ino !== ROOT_INO && depth < DEPTH_MAX; depth++) {
      const parent = table.namedBy(ino);
      const name = parent === 0 ? undefined : nameIn(parent, ino);
      if (name === undefined) break;
      names.unshift(name);
      ino = parent;
    }
    const path = ino === ROOT_INO ? `/${names.join("/")}` : undefined;
    known.set(start, path);
    return path;
  };
}
