// A volume that is damaged while it is mounted: what programs get, and what the log and the status say.
import assert from "node:assert/strict";
import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { mountVolume, run, shell, skipWithoutMounts, tidemark, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();
const BLOCK_BYTES = 4096;
const MARK = "block seven hundred of this file";

interface Mount {
  readonly state: string;
  readonly lastError: string;
  readonly lastErrorAt: string;
  readonly damage: {
    readonly checksum: number;
    readonly places: readonly { readonly path?: string; readonly vbn?: number; readonly ino?: number }[];
  };
}

test("a bad block in use: EIO for its page alone, a line in the log, counts in the status", { skip }, async (t) => {
  const folder = temporaryDirectory(t);
  const [volume, dir, log] = [join(folder, "v.tm"), join(folder, "mnt"), join(folder, "log")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "64M"]);
  await mountVolume(t, volume, dir);
  const whole = join(folder, "whole");
  await shell(`head -c 4194304 /dev/urandom > ${whole}; printf '${MARK}' | dd of=${whole} bs=4096 seek=700 conv=notrunc;
    mkdir ${dir}/d; cp ${whole} ${dir}/d/file`);
  await unmountVolume(dir);

  const at = readFileSync(volume).indexOf(MARK);
  const vbn = at / BLOCK_BYTES;
  assert(Number.isInteger(vbn), `the marked block is at byte ${at}`);
  const descriptor = openSync(volume, "r+");
  writeSync(descriptor, "X", at + 100);
  closeSync(descriptor);

  await mountVolume(t, volume, dir, ["--daemon-log", log]);
  const plain = await run("cat", [`${dir}/d/file`]);
  assert.notEqual(plain.code, 0);
  assert.match(plain.stderr, /Input\/output error/);
  const copy = join(folder, "copy");
  const skipping = await run("dd", [`if=${dir}/d/file`, `of=${copy}`, "bs=4096", "conv=noerror,sync"]);
  assert.match(skipping.stderr, /Input\/output error/);
  const differing = await run("cmp", ["-l", copy, whole]);
  const bytes = differing.stdout.trim().split("\n");
  assert(
    bytes.every((line) => Math.floor((Number(line.trim().split(/\s+/)[0]) - 1) / BLOCK_BYTES) === 700),
    "only the bad block is missing",
  );

  const status = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { mounts: readonly Mount[] };
  const mount = status.mounts[0] ?? assert.fail("not mounted");
  assert.equal(mount.state, "serving");
  assert.equal(mount.damage.checksum, 1);
  assert.equal(mount.damage.places.length, 1);
  assert.equal(mount.damage.places[0]?.path, "/d/file");
  assert.equal(mount.damage.places[0]?.vbn, vbn);
  assert.match(mount.lastError, /^damage: read of /);
  assert.equal(new Date(mount.lastErrorAt).toISOString(), mount.lastErrorAt);
  const shown = await tidemarkOk(["status", volume]);
  assert.match(
    shown,
    new RegExp(`damage met +places: 1 with a wrong checksum, 0 that.*\\n +read of /d/file: block ${vbn} `),
  );
  assert.match(shown, new RegExp(`last error +\\d+ s ago, at ${mount.lastErrorAt}: damage: read of /d/file: `));
  const lines = readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => line.includes("damage"));
  assert.equal(lines.length, 1, lines.join("\n"));
  assert.match(lines[0] ?? "", new RegExp(`read of /d/file: block ${vbn} has checksum`));

  const check = await tidemark(["check", volume, "--json"]);
  assert.equal(check.code, 3, check.stderr);
  assert.match(check.stdout, /"path": "\/d\/file"/);
  await shell(
    `dd if=${whole} of=${dir}/d/file bs=4096 skip=700 seek=700 count=1 conv=notrunc; cmp ${whole} ${dir}/d/file`,
  );
  await unmountVolume(dir);
  assert.equal((await tidemark(["check", volume])).code, 0);
});
