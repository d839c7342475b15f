/**
 * From paths to nodes. The directories that were walked through last are kept, each with one lookup counted, which is
 * given back when it is dropped. Nothing else is: a name is looked up each time, so that what a file is called is known
 * to the filesystem alone. What changes directories says so: a rename drops what lies below both names, a removal its own.
 * Whatever else may change them (a volume set back, a mount that follows) clears it all.
 *
 * The kernel resolves symbolic links and "..", so a path is names of directories and a last name.
 */
import { FsError } from "../../core/errors.ts";
import { shaped } from "../../core/shaped.ts";
import { type FileSystem, type Name, type NodeId, ROOT_NODE } from "../../fs/file-system.ts";

const DIRECTORIES_MAX = 1024;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;

export interface Place {
  readonly parent: NodeId;
  readonly name: Name;
}

export interface PathWalk {
  /** The directory that a path lies in, valid until the next `trim`, and its last name. Throws as lookup does. */
  place(path: string): Place;
  /** The directory at or below this path is another now, or gone. */
  drop(path: string): void;
  /** Keeps to the bound; to be called between requests. */
  trim(): void;
  clear(): void;
  readonly count: number;
}

export function pathWalk(fs: FileSystem): PathWalk {
  const directories = new Map<string, NodeId>(); // the one used last comes last

  function directory(path: string): NodeId {
    if (path === "") return ROOT_NODE;
    const known = directories.get(path);
    if (known !== undefined) {
      directories.delete(path);
      directories.set(path, known);
      return known;
    }
    const { parent, name } = place(path);
    const { nodeId, attributes } = fs.lookup(parent, name);
    if ((attributes.mode & S_IFMT) !== S_IFDIR) {
      fs.forget(nodeId, 1);
      throw new FsError("ENOTDIR", "a part of the path is no directory");
    }
    directories.set(path, nodeId);
    return nodeId;
  }

  function place(path: string): Place {
    const slash = path.lastIndexOf("/");
    return { parent: directory(path.slice(0, slash)), name: nameOf(path.slice(slash + 1)) };
  }

  function take(path: string): void {
    const node = directories.get(path);
    if (node === undefined) return;
    directories.delete(path);
    fs.forget(node, 1);
  }

  return shaped({
    place,
    drop(path): void {
      const below = `${path}/`;
      for (const known of directories.keys()) if (known === path || known.startsWith(below)) take(known);
    },
    trim(): void {
      for (const oldest of directories.keys()) {
        if (directories.size <= DIRECTORIES_MAX) return;
        take(oldest);
      }
    },
    clear(): void {
      for (const known of directories.keys()) take(known);
    },
    get count(): number {
      return directories.size;
    },
  });
}

const ASCII = /^[\0-\x7f]*$/;

/**
 * The bytes of a name. The binding turns bytes that are no UTF-8 into U+FFFD, and what they were is lost: refused, rather
 * than taken for a name that nobody has given.
 */
export function nameOf(text: string): Name {
  if (ASCII.test(text)) return text as Name;
  if (text.includes("\ufffd")) throw new FsError("EILSEQ", "a name that is no UTF-8");
  return Buffer.from(text, "utf8").toString("latin1") as Name;
}

/** The name as text; bytes that are no UTF-8 become U+FFFD. */
export function textOf(name: Name): string {
  return ASCII.test(name) ? name : Buffer.from(name, "latin1").toString("utf8");
}

export function lastName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
