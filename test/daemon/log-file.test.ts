import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { openLogFile } from "../../src/daemon/log-file.ts";
import { temporaryDirectory } from "../support/temp.ts";

const UUID = new Uint8Array(16).fill(1);

test("a file with anything in it that is no change log is not made one, wherever in it that is", (t) => {
  const path = join(temporaryDirectory(t), "log");
  for (const at of [0, 4095, 4096, 65_536, (1 << 21) - 1]) {
    const before = Buffer.alloc(1 << 21);
    before[at] = 1;
    writeFileSync(path, before);
    assert.throws(
      () => openLogFile(path, UUID),
      (error) => error instanceof UserError && error.failure === "mismatch" && /is not empty/.test(error.message),
      `byte ${at}`,
    );
    assert(readFileSync(path).equals(before));
  }
});

test("zeros become a change log as far as it is used, which is opened again by its volume only, once at a time", (t) => {
  const path = join(temporaryDirectory(t), "log");
  const before = Buffer.alloc((1 << 26) + 8192);
  before[1 << 26] = 1; // behind it
  writeFileSync(path, before);
  const made = openLogFile(path, UUID);
  made.device.close();
  assert.equal(made.device.blockCount, 1 << 14);
  assert.equal(readFileSync(path)[1 << 26], 1);
  const again = openLogFile(path, UUID);
  again.device.close();
  assert.deepEqual(again.uuid, made.uuid);
  const held = openLogFile(path, UUID);
  assert.throws(
    () => openLogFile(path, UUID), // of a copy of the volume
    (error) =>
      error instanceof UserError && error.failure === "in-use" && /change log .* is in use/.test(error.message),
  );
  held.device.close();
  assert.throws(() => openLogFile(path, new Uint8Array(16).fill(2)), /is the change log of volume/);
});
