import assert from "node:assert/strict";
import { test } from "node:test";
import { FsError } from "../../src/core/errors.ts";
import { gate } from "../../src/daemon/gate.ts";
import type { Caller, FileSystem, Handle, Name, NodeId } from "../../src/fs/file-system.ts";

const node = 17 as NodeId;
const caller: Caller = { uid: 0, gid: 0 };

/** A filesystem whose operations fail as told. */
function failing(errors: (FsError | undefined)[]): { readonly fileSystem: FileSystem; readonly calls: () => number } {
  let calls = 0;
  const operation = (): never => {
    calls += 1;
    const error = errors.shift();
    if (error !== undefined) throw error;
    return "done" as never;
  };
  const fileSystem = new Proxy({} as FileSystem, {
    get: () => operation,
    ownKeys: () => ["unlink", "setAttributes", "read", "write", "lookup", "fsync"],
    getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true }),
  });
  return { fileSystem, calls: () => calls };
}

const gone = (): FsError => new FsError("ESTALE", "gone");
const full = (): FsError => new FsError("ENOSPC", "full");

test("a change that finds no space is tried again as long as space can be made", () => {
  const { fileSystem, calls } = failing([full(), full()]);
  let made = 0;
  const gated = gate(fileSystem, { makeSpace: () => (made += 1) > 0 });
  assert.equal(gated.fileSystem.unlink(node, "a" as Name), "done");
  assert.equal(calls(), 3);
  assert.equal(made, 2);
});

test("ENOSPC comes out when no space can be made, and when making it does not help", () => {
  const hopeless = failing([full()]);
  assert.throws(() => gate(hopeless.fileSystem, { makeSpace: () => false }).fileSystem.unlink(node, "a" as Name), {
    code: "ENOSPC",
  });
  assert.equal(hopeless.calls(), 1);
  const endless = failing([full(), full(), full(), full(), full()]);
  assert.throws(() => gate(endless.fileSystem, { makeSpace: () => true }).fileSystem.unlink(node, "a" as Name), {
    code: "ENOSPC",
  });
  assert.equal(endless.calls(), 3);
});

test("other errors are passed on at once", () => {
  const { fileSystem, calls } = failing([new FsError("EEXIST", "there")]);
  assert.throws(() => gate(fileSystem, { makeSpace: () => true }).fileSystem.unlink(node, "a" as Name), {
    code: "EEXIST",
  });
  assert.equal(calls(), 1);
});

test("when it is shut, changes are refused with EIO and reads go on", () => {
  const gated = gate(failing([]).fileSystem, { makeSpace: () => false });
  gated.shut("the disk is gone");
  assert.throws(() => gated.fileSystem.unlink(node, "a" as Name), { code: "EIO", message: /the disk is gone/ });
  assert.throws(() => gated.fileSystem.fsync(1 as Handle), { code: "EIO" });
  assert.equal(gated.fileSystem.lookup(node, "a" as Name), "done");
});

test("times written back to a file that is gone are no error, but a chmod of it is", () => {
  const now = { seconds: 1, nanoseconds: 0 };
  const writeBack = gate(failing([gone()]).fileSystem, { makeSpace: () => false }).fileSystem;
  assert.equal(writeBack.setAttributes(node, { mtime: now, ctime: now }, caller).attributesValidMs, 0);
  const chmod = gate(failing([gone()]).fileSystem, { makeSpace: () => false }).fileSystem;
  assert.throws(() => chmod.setAttributes(node, { mode: 0o600 }, caller), { code: "ESTALE" });
});
