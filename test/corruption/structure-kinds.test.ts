// One table of all kinds of structures. Bits flip in each, anywhere and in every field; holes are punched: it is found and named,
// a reader gets what was written or an error, and what has a second copy is put right. A record that no row has is a mistake, too.
import assert from "node:assert/strict";
import { closeSync, openSync, readdirSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { prng } from "../../src/core/prng.ts";
import { xattrHead } from "../../src/tree/xattr.ts";
import type { MemoryDevice } from "../support/devices.ts";
import { tidemark } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";
import { doubleKinds } from "./double-kinds.ts";
import { blockOf, flipped, harmed, isLayout, type Kind, type Layout, randomHarm } from "./kinds.ts";
import { logKinds } from "./log-kinds.ts";
import { singleKinds } from "./single-kinds.ts";
import { increment, streamKinds } from "./stream-kinds.ts";

/** Bits tried in each kind. */
const FLIPS = 8;

const kinds: readonly Kind[] = [...singleKinds, ...doubleKinds, ...logKinds, ...streamKinds];

for (const { what, promise, device, places, judge } of kinds) {
  test(`bits flipped in ${what} ${promise}`, async () => {
    const random = prng(what.length);
    const all = places();
    for (let i = 0; i < FLIPS + (device === undefined ? 0 : 1); i++) {
      const harm = randomHarm(random, all, { isHole: i === FLIPS });
      try {
        await judge(harm);
      } catch (error) {
        throw new Error(`with ${JSON.stringify(harm)}`, { cause: error });
      }
    }
  });
}

test("each record of src/format is in the table", async () => {
  const tried = new Set<Layout>(kinds.flatMap(({ places }) => places().flatMap(({ of }) => of)));
  const folder = new URL("../../src/format/", import.meta.url);
  const missing: string[] = tried.has(xattrHead) ? [] : ["xattrHead"];
  let count = 1;
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".js"))) {
    const module = (await import(new URL(file, folder).href)) as Record<string, unknown>;
    for (const [name, value] of Object.entries(module)) {
      if (!isLayout(value)) continue;
      count += 1;
      if (!tried.has(value)) missing.push(name);
    }
  }
  assert.deepEqual(missing, []);
  assert(count > 30, `${count} records`);
});

/** One of each part of a volume that is verified in its own way. */
const checked: readonly string[] = [
  "a data block",
  "an indirect block of level 4",
  "an interior node of a directory",
  "the inode of a file",
  "the active map",
  "a data block that only a snapshot has",
  "a copy of a block of the snapshot table",
  "a frame of the change log in its ring",
];

test("the command names the block that is bad, and ends with 3", async (t) => {
  const folder = temporaryDirectory(t);
  await Promise.all(
    checked.map(async (what, i) => {
      const { device, places } = kinds.find((kind) => kind.what === what) ?? assert.fail(what);
      assert(device !== undefined);
      const harm = randomHarm(prng(i), places(), { isHole: false });
      const path = join(folder, String(i));
      writeDevice(path, harmed(device(), harm));
      const { code, stdout, stderr } = await tidemark(["check", path]);
      assert.equal(code, 3, `${what}: ${stderr}`);
      assert.match(stdout, new RegExp(`block ${blockOf(harm)}\\b`), what);
    }),
  );
  const stream = join(folder, "stream");
  const { stream: bytes } = increment();
  writeFileSync(stream, flipped(bytes, { at: bytes.length >> 1, xor: 1, isHole: false }));
  const verify = await tidemark(["image", "verify", stream]);
  assert.equal(verify.code, 3, verify.stderr);
  assert.match(verify.stdout, /frame 1\b/);
});

function writeDevice(path: string, device: MemoryDevice): void {
  const descriptor = openSync(path, "w");
  const block = new Uint8Array(BLOCK_BYTES);
  for (let vbn = 0; vbn < device.blockCount; vbn++) {
    device.read(vbn, 1, block, 0);
    writeSync(descriptor, block);
  }
  closeSync(descriptor);
}
