/** A disk that takes everything into memory, and can be made to fail where that goes on: a loop device over a file in a small tmpfs. */
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { basename, join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { run, runOk } from "./mounts.ts";

export interface FullDisk {
  /** The device. */
  readonly disk: string;
  /** The file behind it. */
  readonly file: string;
  /** From now on nothing that is new reaches the file. */
  readonly fill: () => Promise<void>;
  /** Resolves when the device has been asked to write so many bytes, and has done so or has failed. */
  readonly wrote: (bytes: number) => Promise<void>;
  /** Only the file is left, and takes everything. */
  readonly detach: () => Promise<void>;
}

export async function fullDisk(
  t: TestContext,
  folder: string,
  { sizeBytes, hostMib }: { readonly sizeBytes: number; readonly hostMib: number },
): Promise<FullDisk> {
  const host = join(folder, "host");
  const [file, filler] = [join(host, "disk"), join(host, "filler")];
  mkdirSync(host);
  await runOk("mount", ["-t", "tmpfs", "-o", `size=${hostMib}M`, "none", host]); // goes with the folder
  closeSync(openSync(file, "w"));
  truncateSync(file, sizeBytes);
  const disk = (await runOk("losetup", ["--find", "--show", file])).trim();
  let isAttached = true;
  const detach = async (): Promise<void> => {
    if (isAttached) await runOk("losetup", ["--detach", disk]);
    isAttached = false;
    rmSync(filler, { force: true });
  };
  t.after(detach);
  const sectorsBefore = sectorsWritten(disk);
  return {
    disk,
    file,
    async fill(): Promise<void> {
      await run("dd", ["if=/dev/zero", `of=${filler}`, "bs=64k"]);
    },
    async wrote(bytes): Promise<void> {
      while ((sectorsWritten(disk) - sectorsBefore) * 512 < bytes) await delay(1);
    },
    detach,
  };
}

function sectorsWritten(disk: string): number {
  return Number(
    readFileSync(`/sys/block/${basename(disk)}/stat`, "latin1")
      .trim()
      .split(/ +/)[6],
  );
}
