/**
 * Shell scripts in a mount namespace of their own, where the machine can be given what it lacks: helpers in /sbin, a
 * /dev/fuse that everybody may open, a configuration of fuse. Nothing of it is seen outside, and all mounts go with it.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { mountImpossible, type RunOptions, type RunResult, run, tidemarkPath } from "./mounts.ts";

/** A copy of the mounts of other tests would keep them alive after they have been unmounted outside. */
export const dropOthers = "umount --lazy --all --types fuse.tidemark 2>/dev/null || true";

/** The command as scripts call it. */
export const tidemarkCommand = `${process.execPath} ${tidemarkPath}`;

/** Why there can be no such namespace here; false: there can. On CI there must. */
export function skipWithoutPrivateMounts(...programs: readonly string[]): string | false {
  const why = mountImpossible() ?? missing(["unshare", "setpriv", ...programs]) ?? namespaceProblem();
  if (why === undefined) return false;
  assert.notEqual(process.env["CI"], "true", `${why}, and on CI that is a failure`);
  return why;
}

function missing(programs: readonly string[]): string | undefined {
  const absent = programs.find((program) => !succeeds("/bin/sh", ["-c", `command -v ${program}`]));
  return absent === undefined ? undefined : `there is no program ${absent} here`;
}

function namespaceProblem(): string | undefined {
  return succeeds("unshare", ["-m", "mount", "--make-rprivate", "/"])
    ? undefined
    : "no mount namespace can be made here";
}

function succeeds(program: string, args: readonly string[]): boolean {
  try {
    execFileSync(program, [...args], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Runs a script in a new namespace; what its last command ends with is its exit code. */
export function inPrivateMounts(script: string, options: RunOptions = {}): Promise<RunResult> {
  return run(
    "unshare",
    ["-m", "/bin/bash", "-c", `set -eu; mount --make-rprivate /; ${dropOthers}; ${script}`],
    options,
  );
}

/** A line for such a script: `folder` must be the test's own. /dev/fuse is then open to everybody. */
export function openFuseDevice(folder: string): string {
  return `[ -e ${folder}/fuse-device ] || mknod -m 666 ${folder}/fuse-device c 10 229; mount --bind ${folder}/fuse-device /dev/fuse;`;
}

/** A line for such a script: the helpers of mount(8), as `make install` makes them, are in /sbin. */
export function installHelpers(folder: string): string {
  const sbin = join(folder, "sbin");
  mkdirSync(sbin);
  for (const helper of ["mount", "umount"]) {
    const template = readFileSync(join(sources(), `src/daemon/install/${helper}.fuse.tidemark.in`), "utf8");
    const path = join(sbin, `${helper}.fuse.tidemark`);
    const made = template.replace("@NODE@", process.execPath).replace("@LIB@/dist/command/main.js", tidemarkPath);
    writeFileSync(path, made);
    chmodSync(path, 0o755);
    symlinkSync(`${helper}.fuse.tidemark`, join(sbin, `${helper}.tidemark`));
  }
  return `mount -t overlay -o lowerdir=${sbin}:$(realpath /sbin) overlay $(realpath /sbin);`;
}

/** The top of the repository, from wherever the tests were built to. */
export function sources(): string {
  const here = fileURLToPath(new URL("../../../", import.meta.url));
  try {
    readFileSync(join(here, "Makefile"));
    return here;
  } catch {
    return process.cwd();
  }
}
