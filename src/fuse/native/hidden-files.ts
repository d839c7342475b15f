/**
 * Files that are deleted while they are open. libfuse knows files by path, so it cannot delete such a file: it renames
 * it to .fuse_hiddenNNN in the same directory, goes on using it under that name, and deletes that when it is closed.
 *
 * No such name reaches the filesystem. The rename is taken for what it is, a removal: the name goes, the node stays, an
 * orphan kept by a lookup, and the hidden name leads to it in this table alone. The number in the name is never used
 * twice in a mount, so the name without its directory is key enough, also when the directory is renamed or removed.
 *
 *     unlink(a), open      rename(a, .fuse_hidden1)             --> unlink(a) at the next request
 *     rename(b, a), open   rename(a, .fuse_hidden1), rename(b, a) --> rename(b, a), which replaces a in one step
 *
 * The two begin alike, so the removal is put off to the next request, which tells: a file that is replaced by a rename is
 * there at every moment, also after a crash. Between the two nobody can see the name: a look at it is a next request.
 */
import { shaped } from "../../core/shaped.ts";
import type { FileSystem, NodeId } from "../../fs/file-system.ts";

/** As libfuse 2.9 makes them: the number of its node and a counter. */
const HIDDEN = /^\.fuse_hidden[0-9a-f]{16,}$/;

export function isHiddenName(name: string): boolean {
  return HIDDEN.test(name);
}

export interface HiddenFiles {
  /** The node of a hidden name. */
  find(name: string): NodeId | undefined;
  /** Takes the counted lookup of `node` over. */
  hide(name: string, node: NodeId, path: string): void;
  /** The path whose removal is due; it is not any more. */
  takeDue(): string | undefined;
  readonly due: string | undefined;
  /** Gives the node back: nobody has it open any more. */
  drop(node: NodeId): void;
  readonly count: number;
}

export function hiddenFiles(fs: FileSystem): HiddenFiles {
  const nodes = new Map<string, NodeId>();
  let due: string | undefined;
  return shaped({
    find: (name) => nodes.get(name),
    hide(name, node, path): void {
      nodes.set(name, node);
      due = path;
    },
    takeDue(): string | undefined {
      const path = due;
      due = undefined;
      return path;
    },
    get due() {
      return due;
    },
    drop(node): void {
      for (const [name, hidden] of nodes) {
        if (hidden !== node) continue;
        nodes.delete(name);
        fs.forget(node, 1);
      }
    },
    get count() {
      return nodes.size;
    },
  });
}
