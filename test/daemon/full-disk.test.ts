// Volumes that are full, and hosts that are: who hears of it and when, what still works, and that nothing is lost.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  mountVolume,
  run,
  runOk,
  shell,
  skipWithoutMounts,
  tidemark,
  tidemarkOk,
  unmountVolume,
} from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();
const MIB = 1 << 20;
const replaceProgram = fileURLToPath(new URL("replace-program.js", import.meta.url));

interface Status {
  readonly volume: {
    readonly availableBlocks: number;
    readonly space: { readonly snapshotBlocks: number; readonly holders: readonly { name: string; blocks: number }[] };
  };
  readonly mounts: readonly { readonly pid: number; readonly state: string; readonly failure?: string }[];
}

interface Mounted {
  readonly volume: string;
  readonly dir: string;
  readonly log: string;
  readonly folder: string;
}

async function mounted(
  t: TestContext,
  { size = "200M", host }: { size?: string; host?: string } = {},
): Promise<Mounted> {
  const folder = temporaryDirectory(t);
  const [dir, log] = [join(folder, "mnt"), join(folder, "log")];
  mkdirSync(dir);
  if (host !== undefined) await shell(`mkdir ${folder}/host; mount -t tmpfs -o size=${host} host ${folder}/host`);
  const volume = join(folder, host === undefined ? "v.tm" : "host/v.tm");
  await tidemarkOk(["format", volume, "--size", size]);
  await mountVolume(t, volume, dir, ["--daemon-log", log]);
  return { volume, dir, log, folder };
}

async function statusOf(volume: string): Promise<Status> {
  return JSON.parse(await tidemarkOk(["status", volume, "--json"])) as Status;
}

test("on a nearly full volume ENOSPC comes at the write that does not fit, and what was taken is kept", {
  skip,
}, async (t) => {
  const { volume, dir } = await mounted(t);
  await shell(`dd if=/dev/urandom of=${dir}/big bs=1M count=160 conv=fsync`);
  const dd = await run("dd", ["if=/dev/zero", `of=${dir}/more`, "bs=64k", "count=3000"]);
  assert.equal(dd.code, 1);
  assert.match(dd.stderr, /error writing .*No space left on device/);
  const taken = /(\d+) bytes/.exec(dd.stderr)?.[1];
  assert.equal((await runOk("stat", ["-c", "%s", `${dir}/more`])).trim(), taken);
  await shell(`sync -f ${dir}`); // no page is left behind that does not fit
  const sum = await runOk("sha256sum", [`${dir}/big`]);
  // Everything that makes room works on a volume without any.
  await shell(`: > ${dir}/more; rm ${dir}/more; truncate -s 100M ${dir}/big; sync -f ${dir}`);
  assert((await statusOf(volume)).volume.availableBlocks * 4096 > 50 * MIB);
  await shell(`dd if=/dev/zero of=${dir}/again bs=1M count=50 conv=fsync`);
  assert.notEqual(await runOk("sha256sum", [`${dir}/big`]), sum);
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

test("who deletes a file to make room has that room at once, though the kernel tells later that it is in use no more", {
  skip,
}, async (t) => {
  const { volume, dir } = await mounted(t, { size: "64M" });
  // Before the server waited for it, one in ten failed.
  assert.equal(await runOk(process.execPath, [replaceProgram, dir, "60"]), "0");
  const deleted = await run("python3", ["-c", deletedProgram, dir]);
  assert.equal(deleted.stdout.trim(), "ENOSPC", deleted.stderr);
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

/** A deleted file that is open still: there is no space, and whoever asks hears so. */
const deletedProgram = `
import errno, os, sys
chunk = bytes(1 << 20)
def fill(f):
    try:
        while True: os.write(f, chunk)
    except OSError as e: return errno.errorcode[e.errno]
held = os.open(sys.argv[1] + "/held", os.O_WRONLY | os.O_CREAT)
fill(held)
os.unlink(sys.argv[1] + "/held")
other = os.open(sys.argv[1] + "/other", os.O_WRONLY | os.O_CREAT)
print(fill(other))
`;

test("a file that was opened before the volume filled up hears of it at the write, too; a mapped one at msync", {
  skip,
}, async (t) => {
  const { volume, dir } = await mounted(t);
  const dd = await run("dd", ["if=/dev/zero", `of=${dir}/a`, "bs=1M", "count=400", "conv=fsync"]);
  assert.equal(dd.code, 1);
  assert.match(dd.stderr, /error writing .*No space left on device/);
  await shell(`rm ${dir}/a; sync -f ${dir}; head -c ${400 * MIB} /dev/zero > ${dir}/../source`);
  const copy = await run("cp", ["--reflink=never", `${dir}/../source`, `${dir}/b`]);
  assert.equal(copy.code, 1);
  assert.match(copy.stderr, /error (writing|copying) .*No space left on device/);
  await shell(`rm ${dir}/b`);
  const mapped = await run("python3", ["-c", mapProgram, `${dir}/c`]);
  assert.equal(mapped.stdout.trim(), "msync: ENOSPC", mapped.stderr);
  await shell(`rm ${dir}/c`);
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

/** Writes to more of a sparse file, through a mapping, than fits. */
const mapProgram = `
import errno, mmap, os, sys
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
size = 400 << 20
os.ftruncate(f, size)
m = mmap.mmap(f, size)
for at in range(0, size, 4096): m[at] = 1
try:
    m.flush()
    os.fsync(f)
    print("msync: done")
except OSError as e: print("msync:", errno.errorcode[e.errno])
`;

test("when snapshots hold the space, the status and the log name them", { skip }, async (t) => {
  const { volume, dir, log } = await mounted(t);
  await shell(`dd if=/dev/urandom of=${dir}/one bs=1M count=60 conv=fsync`);
  await tidemarkOk(["snapshot", "create", volume, "monday"]);
  await shell(`rm ${dir}/one; dd if=/dev/urandom of=${dir}/two bs=1M count=100 conv=fsync`);
  await tidemarkOk(["snapshot", "create", volume, "tuesday"]);
  await shell(`rm ${dir}/two; dd if=/dev/urandom of=${dir}/three bs=1M count=24 conv=fsync`);
  const dd = await run("dd", ["if=/dev/urandom", `of=${dir}/four`, "bs=1M", "count=60"]);
  assert.match(dd.stderr, /error writing .*No space left on device/);
  const { space } = (await statusOf(volume)).volume;
  assert(space.snapshotBlocks * 4096 >= 160 * MIB, `${space.snapshotBlocks} blocks`);
  assert.deepEqual(
    space.holders.map(({ name }) => name),
    ["tuesday", "monday"],
  );
  assert(space.holders.every(({ blocks }) => blocks * 4096 >= 60 * MIB));
  assert.match(
    await tidemarkOk(["status", volume]),
    /held by snapshots +16\d\.\d MiB\n +100\.\d MiB by tuesday alone\n +60\.\d MiB by monday alone/,
  );
  const lines = readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => line.includes("is full"));
  assert.equal(lines.length, 1);
  assert.match(
    lines[0] ?? "",
    /snapshots hold 16\d\.\d MiB of it, by itself each: tuesday 100\.\d MiB, monday 60\.\d MiB/,
  );
  await tidemarkOk(["snapshot", "delete", volume, "tuesday"]);
  await shell(`dd if=/dev/urandom of=${dir}/four bs=1M count=60 conv=fsync`);
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

async function assertFailed({ volume, dir, log }: Mounted, cause: RegExp): Promise<void> {
  const [mount] = (await statusOf(volume)).mounts;
  assert.equal(mount?.state, "failed");
  assert.match(mount?.failure ?? "", cause);
  assert.match(await tidemarkOk(["status", volume]), /state +read-only until it is mounted again: /);
  assert(
    readFileSync(log, "utf8")
      .split("\n")
      .some((line) => /has failed, and is read-only/.test(line) && cause.test(line)),
  );
  const refused = await run("mkdir", [`${dir}/refused`]);
  assert.match(refused.stderr, /Input\/output error/);
}

test("the disk of the host fills up under a sparse volume: read-only with the cause, nothing durable is lost", {
  skip,
}, async (t) => {
  const host = await mounted(t, { host: "64M" });
  const { volume, dir, folder } = host;
  await shell(`head -c 10000000 /dev/urandom > ${dir}/kept; sync ${dir}/kept`);
  const sum = await runOk("sha256sum", [`${dir}/kept`]);
  await shell(`head -c ${60 * MIB} /dev/zero > ${folder}/host/filler || true`);
  const dd = await run("dd", ["if=/dev/urandom", `of=${dir}/lost`, "bs=1M", "count=40", "conv=fsync"]);
  assert.equal(dd.code, 1);
  assert.match(dd.stderr, /No space left on device|Input\/output error/);
  const sync = await run("sync", ["-f", dir]);
  assert.equal(sync.code, 1);
  assert.match(readFileSync(host.log, "utf8"), /the disk of the host is full/);
  await assertFailed(host, /No space left on device|no space left on device|ENOSPC/);
  assert.equal(await runOk("sha256sum", [`${dir}/kept`]), sum);
  await tidemark(["umount", dir, "--force"]);
  await shell(`rm ${folder}/host/filler`);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
  await mountVolume(t, volume, dir);
  assert.equal(await runOk("sha256sum", [`${dir}/kept`]), sum);
  await shell(`echo on > ${dir}/goes; sync ${dir}/goes`);
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

test("the host refuses to write: read-only with the cause, nothing durable is lost", { skip }, async (t) => {
  const host = await mounted(t);
  const { volume, dir } = host;
  await shell(`head -c 10000000 /dev/urandom > ${dir}/kept; sync ${dir}/kept`);
  const sum = await runOk("sha256sum", [`${dir}/kept`]);
  const pid = (await statusOf(volume)).mounts[0]?.pid ?? assert.fail("no daemon");
  await runOk("prlimit", ["--pid", String(pid), "--fsize=1:unlimited"]);
  const sync = await run("/bin/sh", ["-c", `echo lost > ${dir}/lost; sync ${dir}/lost`]);
  assert.equal(sync.code, 1, sync.stderr);
  await runOk("prlimit", ["--pid", String(pid), "--fsize=unlimited:unlimited"]); // it has failed for good, and can log
  await shell(`sync -f ${dir} || true`);
  const [mount] = (await statusOf(volume)).mounts;
  assert.equal(mount?.state, "failed");
  assert.match(mount?.failure ?? "", /EFBIG|file too large/);
  assert.equal(await runOk("sha256sum", [`${dir}/kept`]), sum);
  await tidemark(["umount", dir, "--force"]);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
  await mountVolume(t, volume, dir);
  assert.equal(await runOk("sha256sum", [`${dir}/kept`]), sum);
  await unmountVolume(dir);
});
