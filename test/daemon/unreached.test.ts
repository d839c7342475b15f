// A mount that no path leads to any more, while somebody has it as working directory: the main thread's knocks do not arrive, and
// whoever waits for what it does is served all the same.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { inPrivateMounts, skipWithoutPrivateMounts, tidemarkCommand } from "../support/private-mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";
import type { Filled } from "./fill-program.ts";

const skip = skipWithoutPrivateMounts();
const fill = `${process.execPath} ${fileURLToPath(new URL("fill-program.js", import.meta.url))}`;
const TAKEN_MIN = 40 * 2 ** 20;

for (const { how, leave } of [
  { how: "that was unmounted lazily", leave: "umount --internal-only --lazy ../m" },
  { how: "under another one", leave: "mount -t tmpfs none ../m" },
]) {
  test(`in a mount ${how} volumes fill up, snapshots are made, holes are found`, { skip }, async (t) => {
    const folder = temporaryDirectory(t);
    mkdirSync(join(folder, "m"));
    const { code, stdout, stderr } = await inPrivateMounts(
      `tidemark() { ${tidemarkCommand} "$@"; }
      cd ${folder}; tidemark format v.tm --size 64M > /dev/null; tidemark mount v.tm m; cd m
      exec 3> written; echo "before it" >&3
      ${leave}
      echo "in the cache" >&3; cp --sparse=always written copied
      mkdir .snapshot/s; cat .snapshot/s/written copied
      ${fill} write full 4096 1; echo
      cd ..; exec 3>&-; umount m 2> /dev/null || true; tidemark umount --force v.tm > /dev/null 2>&1 || true
      flock v.tm ${tidemarkCommand} check v.tm | grep -o 'is consistent'`,
      { timeoutMs: 60_000 },
    );
    assert.equal(code, 0, stderr);
    const lines = stdout.trim().split("\n");
    const { takenBytes, ...told } = JSON.parse(lines.splice(4, 1)[0] ?? "") as Filled;
    assert(takenBytes > TAKEN_MIN, `${takenBytes} bytes`);
    assert.deepEqual(told, { write: "ENOSPC", fsync: "done", close: "done" });
    assert.deepEqual(lines, ["before it", "in the cache", "before it", "in the cache", "is consistent"]);
  });
}
