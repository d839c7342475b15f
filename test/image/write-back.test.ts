// What is received goes to the disk meanwhile: in large pieces, one flush at a time, and never as an error of its own.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { openWriteBack } from "../../src/image/targets/write-back.ts";
import { temporaryDirectory } from "../support/temp.ts";

const MIB = 1 << 20;

test("one flush at a time, and the end waits for it", async (t) => {
  const path = join(temporaryDirectory(t), "file");
  writeFileSync(path, "contents");
  const ends: (() => void)[] = [];
  let begun: (() => void) | undefined;
  const flush = async (file: FileHandle): Promise<void> => {
    await file.datasync();
    const ended = new Promise<void>((resolve) => ends.push(resolve));
    begun?.();
    await ended;
  };
  const writeBack = openWriteBack(path, flush);
  writeBack.wrote(127 * MIB);
  const first = new Promise<void>((resolve) => {
    begun = resolve;
  });
  writeBack.wrote(MIB);
  await first;
  for (let i = 0; i < 300; i += 1) writeBack.wrote(MIB);
  assert.equal(ends.length, 1);

  let hasEnded = false;
  const end = writeBack.end().then(() => {
    hasEnded = true;
  });
  await new Promise(setImmediate);
  assert.ok(!hasEnded);
  ends[0]?.();
  await end;
  assert.equal(ends.length, 1);
});

test("a file that cannot be opened or flushed is left to the flush of the volume", async (t) => {
  const path = join(temporaryDirectory(t), "file");
  let flushes = 0;
  const flush = async (): Promise<void> => {
    flushes += 1;
    throw new Error("EIO");
  };
  for (const isThere of [false, true]) {
    if (isThere) writeFileSync(path, "contents");
    const writeBack = openWriteBack(path, flush);
    writeBack.wrote(128 * MIB);
    await new Promise(setImmediate);
    writeBack.wrote(128 * MIB);
    await writeBack.end();
    assert.equal(flushes, isThere ? 1 : 0);
  }
});
