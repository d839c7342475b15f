// The bound of --memory, as the kernel counts what the daemon holds.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { mountVolume, shell, skipWithoutMounts, tidemark, tidemarkOk } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();
/** Node, its compiled code, and garbage that is not collected yet. */
const PROGRAM_MIB = 150;

test("a daemon holds no more than --memory and the program itself, whatever is done on the mount", {
  skip,
}, async (t) => {
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "2G"]);
  await mountVolume(t, volume, dir, ["--memory", "32M"]);
  const status = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { mounts: { pid: number }[] };
  const pid = status.mounts[0]?.pid as number;
  // Thousands of new inodes, blocks written here and there, a large file written and read, the inodes read again.
  await shell(`mkdir '${dir}/many' && cd '${dir}/many' && seq 40000 | xargs touch`, { timeoutMs: 300_000 });
  await shell(
    `fio --name=f --filename='${dir}/random' --rw=randwrite --bs=4k --size=128m --fallocate=none --output=/dev/null`,
    {
      timeoutMs: 300_000,
    },
  );
  await shell(
    `dd if=/dev/zero of='${dir}/large' bs=1M count=256 2>/dev/null && cmp -n 268435456 '${dir}/large' /dev/zero`,
    {
      timeoutMs: 300_000,
    },
  );
  await shell(`find '${dir}/many' -type f -size +0 | wc -l`, { timeoutMs: 300_000 });
  const peakKib = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  t.diagnostic(`peak ${Math.round(peakKib / 1024)} MiB`);
  assert(peakKib / 1024 < 32 + PROGRAM_MIB, `the daemon held ${Math.round(peakKib / 1024)} MiB`);
});

test("too little memory is refused", async () => {
  const { code, stderr } = await tidemark(["mount", "/nowhere", "/nowhere", "--memory", "1M"]);
  assert.equal(code, 2);
  assert.match(stderr, /1M of memory is too little/);
});
