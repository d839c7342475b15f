/** Reading a filesystem with damage in it: every answer is the right one or an error. */
import assert from "node:assert/strict";
import { CorruptionError, FsError } from "../../src/core/errors.ts";
import { type Entry, type FileSystem, listedName, ROOT_NODE } from "../../src/fs/file-system.ts";
import { asName, readSparse } from "../support/fs-paths.ts";
import { linkCountOf, type Model, type ModelNode } from "../support/model-fs.ts";
import { firstDifference, type SparseBytes, sparseBytes } from "../support/sparse-bytes.ts";

const TWO_32 = 2 ** 32;

export function compareDamaged(fs: FileSystem, model: Model): void {
  const visit = (node: ModelNode, entry: Entry, path: string): void => {
    const { ino, mode, uid, gid, mtime, ctime, linkCount, sizeBytes } = entry.attributes;
    assert.deepEqual(
      { ino: ino % TWO_32, mode, uid, gid, mtime, ctime, linkCount },
      {
        ino: node.ino,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        ctime: node.ctime,
        linkCount: linkCountOf(node),
      },
      `attributes of ${path} on a damaged disk`,
    );
    for (const [name, value] of node.xattrs) {
      const found = orError(() => Buffer.from(fs.getXattr(entry.nodeId, asName(name))).toString("latin1"));
      if (found !== undefined) assert.equal(found, value, `attribute ${name} of ${path} on a damaged disk`);
    }
    if (node.kind === "directory") {
      const listed = orError(() => names(fs, entry));
      if (listed !== undefined) {
        assert.deepEqual(listed.toSorted(), [...node.entries.keys()].toSorted(), `names in ${path} on a damaged disk`);
      }
      for (const [name, child] of node.entries) {
        const found = orError(() => fs.lookup(entry.nodeId, asName(name)));
        if (found !== undefined) visit(child, found, `${path}/${name}`);
      }
      return;
    }
    assert.equal(sizeBytes, node.data.length, `size of ${path} on a damaged disk`);
    const data = node.kind === "special" ? undefined : orError(() => contents(fs, node, entry));
    if (data !== undefined)
      assert.equal(firstDifference(data, node.data), undefined, `contents of ${path} on a damaged disk`);
  };
  const root = orError(() => fs.lookup(ROOT_NODE, asName(".")));
  if (root !== undefined) visit(model.root, root, "");
}

function contents(fs: FileSystem, node: ModelNode, { nodeId }: Entry): SparseBytes {
  if (node.kind === "symlink") return sparseBytes(fs.readLink(nodeId));
  const { handle } = fs.open(nodeId, 0);
  try {
    return readSparse(fs, handle, node.data.length);
  } finally {
    fs.release(handle);
  }
}

function names(fs: FileSystem, { nodeId }: Entry): string[] {
  const found: string[] = [];
  const { handle } = fs.openDirectory(nodeId);
  try {
    fs.readDirectory(handle, 0, { plus: false }, (bytes, start, end) => {
      const name = listedName(bytes, start, end);
      if (name !== "." && name !== "..") found.push(name);
      return true;
    });
  } finally {
    fs.releaseDirectory(handle);
  }
  return found;
}

/** Undefined: the answer was an error, as it may be. ENOENT may not. */
function orError<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof CorruptionError || (error instanceof FsError && error.code === "EIO")) return undefined;
    throw error;
  }
}
