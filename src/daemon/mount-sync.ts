/**
 * Brings what applications have written out of the kernel's write-back cache into the filesystem.
 *
 * `sync` and `syncfs` are no use: newer kernels exempt FUSE from data integrity, and they return when the writing back has
 * been thought of (6.18), file by file, some of them later. But closing any descriptor of a file makes the kernel write back all
 * pages of that file, and wait for it. So each file that may have dirty pages is opened and closed once; and these are
 * the files that somebody has open for writing, for whoever has closed one has had its pages written back.
 *
 * A file is opened by its node, for it may have got another name meanwhile, and has one name of many: a name that
 * begins with `nodePrefix` is that of the node whose number follows, for the daemon's own user only (fuse/kernel/dispatch.ts).
 * The kernel is made to forget that name afterwards: a file that it knows by any name is in use, and would not be freed when
 * it has been deleted.
 *
 * A child does that, for a thread of this process must not wait for its own mount (knock.ts).
 */
import type { Name, NodeId } from "../fs/file-system.ts";
import { run } from "../fuse/mount.ts";

export interface DirtyFiles {
  /** Where the mount can be reached; undefined: only by who is in it. */
  readonly place: string | undefined;
  readonly nodePrefix: string;
  readonly nodes: readonly NodeId[];
  /** Has the pages of a file written back and dropped. */
  readonly drop: (node: NodeId) => Promise<unknown>;
  /** Has the kernel forget a name in the root. */
  readonly forget: (name: Name) => Promise<unknown>;
}

/** Opened by one child: a command line has a limit. */
const NODES_AT_ONCE = 1024;
/** Says which it could not open. */
const OPEN_EACH = 'for node; do { true < "$0$node"; } 2> /dev/null || echo "$node" >&2; done';

/**
 * Resolves when everything written to these files before the call has reached the filesystem. Those that cannot be opened
 * lose their cached pages: an ordinary user's daemon may not, and there may be no way to any; those that are gone are in no snapshot.
 */
export async function syncFiles({ place, nodePrefix, nodes, drop, forget }: DirtyFiles): Promise<void> {
  if (place === undefined) {
    for (const node of nodes) await drop(node);
    return;
  }
  for (let first = 0; first < nodes.length; first += NODES_AT_ONCE) {
    const some = nodes.slice(first, first + NODES_AT_ONCE).map(String);
    const { errors } = await run("sh", ["-c", OPEN_EACH, `${place}/${nodePrefix}`, ...some]);
    for (const node of some) await forget(`${nodePrefix}${node}` as Name);
    const closed = new Set(errors.split("; ").map(Number));
    for (const node of nodes) if (closed.has(node)) await drop(node);
  }
}
