/** A directory that is read while it changes: each name that is there all the time comes once, and none comes that never was. */
import assert from "node:assert/strict";
import { type FileSystem, type Handle, listedName } from "../../src/fs/file-system.ts";
import { nodeAt } from "../support/fs-paths.ts";
import type { Model, ModelNode } from "../support/model-fs.ts";
import { modelNodeAt } from "../support/model-fs.ts";

export interface Listing {
  /** To be called after each operation: names come and go. */
  notice(): void;
  /** Reads so many names more. True: that was all of them. */
  read(count: number): boolean;
}

/** Undefined: there is no such directory. */
export function openListing(fs: FileSystem, model: Model, path: string): Listing | undefined {
  const node: ModelNode | undefined = modelNodeAt(model, path);
  if (node?.kind !== "directory") return undefined;
  const { handle }: { readonly handle: Handle } = fs.openDirectory(nodeAt(fs, path));
  const always = new Set(node.entries.keys());
  const ever = new Set(always);
  const seen = new Map<string, number>();
  let cookie = 0;

  function notice(): void {
    for (const name of always) if (!(node as ModelNode).entries.has(name)) always.delete(name);
    for (const name of (node as ModelNode).entries.keys()) ever.add(name);
  }

  return {
    notice,
    read(count): boolean {
      let taken = 0;
      let isFull = false;
      fs.readDirectory(handle, cookie, { plus: false }, (names, start, end, _ino, _type, next) => {
        const name = listedName(names, start, end);
        isFull = taken === count;
        if (isFull) return false;
        taken += 1;
        cookie = next;
        if (name !== "." && name !== "..") seen.set(name, (seen.get(name) ?? 0) + 1);
        return true;
      });
      if (isFull) return false;
      fs.releaseDirectory(handle);
      for (const name of always) assert.equal(seen.get(name), 1, `times that ${name} was listed in ${path}`);
      for (const name of seen.keys()) assert(ever.has(name), `${name} was listed in ${path} and never was there`);
      return true;
    },
  };
}
