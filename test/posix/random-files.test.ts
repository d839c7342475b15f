/** Random operations on a mount, compared with the host byte by byte, and once more after a new mount. */
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { mountVolume, runOk, shell, skipWithoutMounts, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const programPath = fileURLToPath(new URL("./random-files.js", import.meta.url));

test("a mount and the host have the same bytes after random operations", { skip: skipWithoutMounts() }, async (t) => {
  const root = temporaryDirectory(t);
  const [volume, mnt, host] = [join(root, "v.tide"), join(root, "mnt"), join(root, "host")];
  await shell(`mkdir '${mnt}' '${host}'`);
  await tidemarkOk(["format", volume, "--size", "1G"]);
  await mountVolume(t, volume, mnt);
  for (const seed of [1, 2]) {
    const places = [`${mnt}/${seed}`, `${host}/${seed}`] as const;
    await shell(`mkdir '${places[0]}' '${places[1]}'`);
    await runOk(process.execPath, [programPath, ...places, String(seed), "1500"], { timeoutMs: 120_000 });
  }
  await tidemarkOk(["snapshot", "create", volume, "then"]);
  await unmountVolume(mnt);
  await mountVolume(t, volume, mnt);
  await shell(`diff -r '${host}' '${mnt}' && diff -r '${host}' '${mnt}/.snapshot/then'`);
  await unmountVolume(mnt);
  await tidemarkOk(["check", volume]);
});
