// Under a mount, the disk of the host fills up, or does not write, flush or read any more: what is said, that nothing goes on as
// if all were well, and that everything acknowledged is there once the disk is good again.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fullDisk } from "../support/full-disk.ts";
import {
  isMounted,
  mountVolume,
  run,
  runOk,
  shell,
  skipWithoutMounts,
  tidemark,
  tidemarkOk,
  unmountVolume,
} from "../support/mounts.ts";
import { skipWithoutNbd } from "../support/nbd.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();
const withoutDisk = await skipWithoutNbd();
const READY_MS_MAX = 30_000;

interface Mount {
  readonly state: string;
  readonly failure?: string;
  readonly damage: { readonly unreadable: number; readonly places: readonly { readonly path?: string }[] };
}

async function mountOf(volume: string): Promise<Mount> {
  const { mounts } = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { mounts: readonly Mount[] };
  return mounts[0] ?? assert.fail("not mounted");
}

interface Bench {
  readonly volume: string;
  readonly dir: string;
  readonly log: string;
  readonly sum: string;
}

/** Mounted, with a file of 5 MB in a consistency point. */
async function prepare(t: TestContext, folder: string, volume: string): Promise<Bench> {
  const [dir, log] = [join(folder, "mnt"), join(folder, "log")];
  mkdirSync(dir);
  await mountVolume(t, volume, dir, ["--daemon-log", log]);
  await shell(`head -c 5000000 /dev/urandom > ${dir}/kept`);
  await tidemarkOk(["sync", volume]);
  return { volume, dir, log, sum: await runOk("sha256sum", [`${dir}/kept`]) };
}

interface Writer {
  /** How many lines were durable when it was told that one could not be made so. */
  readonly acknowledged: Promise<number>;
  readonly first: Promise<unknown>;
}

/** Appends lines to a file, each made durable before it says so outside, until that fails. */
function startWriter(t: TestContext, path: string): Writer {
  const script = `i=0; while echo line $i >> ${path} && sync ${path}; do echo $i; i=$((i+1)); done 2>/dev/null`;
  const child = spawn("/bin/sh", ["-c", script], { stdio: ["ignore", "pipe", "inherit"], timeout: READY_MS_MAX });
  t.after(() => child.kill("SIGKILL"));
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  return {
    acknowledged: once(child, "close").then(() => said.split("\n").length - 1),
    first: once(child.stdout, "data"),
  };
}

/** Read-only, with the cause in the status and in the log; what was there is read, and nothing is taken. */
async function assertFailed({ volume, dir, log, sum }: Bench, cause: RegExp): Promise<void> {
  const { state, failure } = await mountOf(volume);
  assert.equal(state, "failed");
  assert.match(failure ?? "", cause);
  assert.match(await tidemarkOk(["status", volume]), /state +read-only until it is mounted again: /);
  const lines = readFileSync(log, "utf8").split("\n");
  assert(
    lines.some((line) => /has failed, and is read-only/.test(line) && cause.test(line)),
    lines.join("\n"),
  );
  assert.match((await run("mkdir", [`${dir}/refused`])).stderr, /Input\/output error/);
  assert.equal(await runOk("sha256sum", [`${dir}/kept`]), sum);
}

/** On a good disk again: all that was acknowledged, and a clean check. */
async function assertKept(t: TestContext, { volume, dir, sum }: Bench, acknowledged: number): Promise<void> {
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
  await mountVolume(t, volume, dir);
  assert.equal(await runOk("sha256sum", [`${dir}/kept`]), sum);
  const lines = (await runOk("cat", [`${dir}/lines`])).split("\n");
  assert.deepEqual(
    lines.slice(0, acknowledged),
    Array.from({ length: acknowledged }, (_, i) => `line ${i}`),
  );
  await shell(`echo on > ${dir}/goes; sync ${dir}/goes`);
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
}

test("ext4 fills up under a sparse volume: what the log took before and after that is kept", { skip }, async (t) => {
  const folder = temporaryDirectory(t);
  const host = join(folder, "host");
  mkdirSync(host);
  await shell(`truncate -s 64M ${folder}/disk; mkfs.ext4 -q ${folder}/disk; mount -o loop ${folder}/disk ${host}`);
  const volume = join(host, "v.tm");
  await tidemarkOk(["format", volume, "--size", "200M"]);
  const bench = await prepare(t, folder, volume);
  const writer = startWriter(t, `${bench.dir}/lines`);
  await writer.first;
  const filler = await run("dd", ["if=/dev/zero", `of=${host}/filler`, "bs=64k"]);
  assert.match(filler.stderr, /No space left on device/);
  await shell(`head -c 4096 /dev/zero >> ${host}/filler || true`);
  // What does not go to the log but to blocks that the host has yet to find.
  const dd = await run("dd", ["if=/dev/urandom", `of=${bench.dir}/lost`, "bs=1M", "count=8", "conv=fsync"]);
  assert.notEqual(dd.code, 0);
  assert.notEqual((await tidemark(["sync", volume])).code, 0);
  const acknowledged = await writer.acknowledged;
  assert(acknowledged > 0);
  await assertFailed(bench, /No space left on device|no space left on device|ENOSPC/);
  await tidemark(["umount", bench.dir, "--force"]);
  rmSync(join(host, "filler"));
  await assertKept(t, bench, acknowledged);
});

test("a disk that fails where it was told to begin: the first fsync after that hears of it, and what was durable before is kept", {
  skip,
}, async (t) => {
  const folder = temporaryDirectory(t);
  const { disk, file, fill, wrote, detach } = await fullDisk(t, folder, { sizeBytes: 64 << 20, hostMib: 16 });
  await tidemarkOk(["format", disk, "--size", "64M"]);
  const bench = await prepare(t, folder, disk);
  await fill();
  // Straight to the block file, in long runs. Nobody flushes, and the log thread has not opened it yet.
  await runOk("dd", ["if=/dev/urandom", `of=${bench.dir}/lost`, "bs=1M", "count=8", "oflag=direct"]);
  await wrote(5_000_000 + (4 << 20));
  assert.notEqual((await run("sync", [`${bench.dir}/lost`])).code, 0);
  await assertFailed(bench, /Input\/output error|EIO|i\/o error/);
  await tidemark(["umount", bench.dir, "--force"]);
  await detach();
  assert.match(await tidemarkOk(["check", file]), /is consistent/);
  await mountVolume(t, file, bench.dir);
  assert.equal(await runOk("sha256sum", [`${bench.dir}/kept`]), bench.sum);
  await unmountVolume(bench.dir);
});

/** A block file behind a server that can be told to fail. */
interface FailingDisk {
  readonly volume: string;
  /** The file itself. */
  readonly file: string;
  fail(): void;
  heal(): void;
  /** Nothing of it is in memory any more. */
  replug(): Promise<void>;
  unplug(): Promise<void>;
}

/** What of it fails with EIO when it is told to. */
type Failing = "pread" | "pwrite" | "flush";

async function failingDisk(t: TestContext, folder: string, failing: Failing): Promise<FailingDisk> {
  const [file, cable, trigger] = [join(folder, "v.tm"), join(folder, "cable"), join(folder, "fails")];
  mkdirSync(cable);
  await tidemarkOk(["format", file, "--size", "32M"]);
  let fuse: ChildProcess | undefined;
  const plug = async (): Promise<void> => {
    // The server runs as long as the mount that has started it.
    fuse = spawn(
      "nbdfuse",
      [cable, "--command", "nbdkit", "-s", "--exit-with-parent", ...serverArguments(failing, file, trigger)],
      {
        stdio: "ignore",
      },
    );
    for (const endMs = performance.now() + READY_MS_MAX; !isMounted(cable); ) {
      assert(performance.now() < endMs, "the disk is not there");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const unplug = async (): Promise<void> => {
    if (fuse === undefined) return;
    const gone = once(fuse, "exit");
    await runOk("umount", [cable]);
    await gone;
    fuse = undefined;
  };
  t.after(() => fuse?.kill("SIGKILL"));
  await plug();
  return {
    volume: `${cable}/nbd`,
    file,
    fail: () => writeFileSync(trigger, ""),
    heal: () => rmSync(trigger),
    async replug(): Promise<void> {
      await unplug();
      await plug();
    },
    unplug,
  };
}

function serverArguments(failing: Failing, file: string, trigger: string): readonly string[] {
  if (failing !== "flush")
    return ["--filter=error", "file", file, `error-${failing}-rate=100%`, `error-${failing}-file=${trigger}`];
  const dd = "iflag=count_bytes,skip_bytes,fullblock oflag=seek_bytes status=none";
  return [
    "eval",
    `get_size=stat -c %s ${file}`,
    `pread=dd if=${file} bs=64k skip=$4 count=$3 ${dd}`,
    `pwrite=dd of=${file} bs=64k seek=$4 count=$3 conv=notrunc ${dd}`,
    "can_write=exit 0",
    "can_flush=exit 0",
    `flush=if [ -e ${trigger} ]; then echo EIO the cable is loose >&2; exit 1; fi`,
  ];
}

for (const failing of ["pwrite", "flush"] as const) {
  test(`a disk that answers each ${failing} with EIO: read-only with the cause, and nothing acknowledged is lost`, {
    skip: withoutDisk,
  }, async (t) => {
    const folder = temporaryDirectory(t);
    const disk = await failingDisk(t, folder, failing);
    const bench = await prepare(t, folder, disk.volume);
    const writer = startWriter(t, `${bench.dir}/lines`);
    await writer.first;
    disk.fail();
    const acknowledged = await writer.acknowledged;
    assert.notEqual((await tidemark(["sync", bench.volume])).code, 0);
    await assertFailed(bench, /Input\/output error|EIO|i\/o error/);
    await tidemark(["umount", bench.dir, "--force"]);
    await disk.unplug();
    assert(acknowledged > 0);
    await assertKept(t, { ...bench, volume: disk.file }, acknowledged);
  });
}

test("a disk that answers reads with EIO: so does what needs them, the rest goes on, and all is read when it can be", {
  skip: withoutDisk,
}, async (t) => {
  const folder = temporaryDirectory(t);
  const disk = await failingDisk(t, folder, "pread");
  const { volume, dir, sum } = await prepare(t, folder, disk.volume);
  await unmountVolume(dir);
  await disk.replug();
  await mountVolume(t, volume, dir);
  await shell(`echo old > ${dir}/old; sync ${dir}/old; stat ${dir}/kept`); // the maps and the inodes are in memory
  disk.fail();
  const read = await run("cat", [`${dir}/kept`]);
  assert.match(read.stderr, /Input\/output error/);
  const { state, damage } = await mountOf(volume);
  assert.equal(state, "serving");
  assert(damage.unreadable > 0);
  assert.equal(damage.places[0]?.path, "/kept");
  await shell(`echo new > ${dir}/new; sync ${dir}/new`);
  disk.heal();
  assert.equal(await runOk("sha256sum", [`${dir}/kept`]), sum);
  assert.equal(await runOk("cat", [`${dir}/new`]), "new\n");
  await unmountVolume(dir);
  await disk.unplug();
  assert.match(await tidemarkOk(["check", disk.file]), /is consistent/);
});
