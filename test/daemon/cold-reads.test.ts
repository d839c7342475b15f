// Reads of a volume that is in nobody's memory: many at a time, beside changes of all kinds, and at the end of the mount.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { mountVolume, shell, skipWithoutMounts, tidemark, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();
const FILE_MIB = 24;
const LONG_FILE_MIB = 96;

/** Takes the pages of the volume file out of the host's memory, where its filesystem can do that. */
function evict(volume: string): Promise<string> {
  return shell(`dd of=${volume} oflag=nocache conv=notrunc,fdatasync count=0 status=none`);
}

/** How much of a file is in memory. */
async function residentMib(path: string): Promise<number> {
  return Number(await shell(`fincore -b -n -o RES ${path}`)) / 2 ** 20;
}

test("cold reads at many places at a time are right, beside writes, snapshots and consistency points", {
  skip,
}, async (t) => {
  const folder = temporaryDirectory(t);
  const [volume, dir, whole] = [join(folder, "v.tm"), join(folder, "mnt"), join(folder, "whole")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "128M"]);
  await mountVolume(t, volume, dir);
  await shell(`head -c ${FILE_MIB}M /dev/urandom > ${whole}; cp ${whole} ${dir}/file; cp ${whole} ${dir}/other`);
  for (let round = 0; round < 3; round++) {
    await unmountVolume(dir);
    await evict(volume);
    await mountVolume(t, volume, dir);
    const parts = Array.from({ length: FILE_MIB / 2 }, (_, i) => `${2 * i}M`);
    await shell(
      `for at in ${parts.join(" ")}; do cmp -n 2097152 -i $at ${whole} ${dir}/file & echo $! >> ${folder}/pids; done
      head -c 1M /dev/urandom > ${folder}/new; dd if=${folder}/new of=${dir}/other bs=4k seek=$((RANDOM)) conv=notrunc,fsync status=none
      mv ${dir}/other ${dir}/other2; mv ${dir}/other2 ${dir}/other
      while read -r pid; do wait $pid; done < ${folder}/pids; rm ${folder}/pids`.replace(
        "$((RANDOM))",
        String(100 * round),
      ),
    );
    await Promise.all([
      tidemarkOk(["snapshot", "create", volume, `s${round}`]),
      shell(`cmp ${whole} ${dir}/file`),
      shell(`cat ${dir}/other > /dev/null`),
    ]);
  }
  await shell(`for s in s0 s1 s2; do cmp ${whole} ${dir}/.snapshot/$s/file; done`);
  await unmountVolume(dir);
  assert.equal((await tidemark(["check", volume])).code, 0);
});

test("a file that is read from end to end is in the kernel's memory once", { skip }, async (t) => {
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "256M"]);
  await mountVolume(t, volume, dir);
  await shell(`head -c ${LONG_FILE_MIB}M /dev/zero > ${dir}/file`);
  await unmountVolume(dir);
  await evict(volume);
  const notEvictedMib = await residentMib(volume);
  await mountVolume(t, volume, dir);
  await shell(`cat ${dir}/file > /dev/null`);
  assert.equal(await residentMib(`${dir}/file`), LONG_FILE_MIB);
  assert((await residentMib(volume)) <= notEvictedMib + LONG_FILE_MIB / 2);
  await unmountVolume(dir);
});

test("a forced unmount ends under cold reads, and who reads is told", { skip }, async (t) => {
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "128M"]);
  await mountVolume(t, volume, dir);
  await shell(`head -c ${FILE_MIB}M /dev/urandom > ${dir}/file`);
  await unmountVolume(dir);
  await evict(volume);
  await mountVolume(t, volume, dir);
  const reading = shell(
    `for i in 1 2 3 4; do while cat ${dir}/file > /dev/null; do dd of=${volume} oflag=nocache count=0 conv=notrunc status=none
      dd if=${dir}/file iflag=nocache count=0 status=none; echo $i; done 2> /dev/null & done; wait`,
  );
  await shell(`until cat ${dir}/file > ${folder}/copy; do :; done`);
  await tidemarkOk(["umount", "--force", dir]);
  await reading;
  assert.equal((await tidemark(["check", volume])).code, 0);
});
