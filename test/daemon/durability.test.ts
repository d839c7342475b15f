// What has been said to be durable is there after kill -9, without any consistency point in between: the change log has it.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { DaemonStatus } from "../../src/daemon/daemon-status.ts";
import { mountVolume, run, shell, skipWithoutMounts, tidemark, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { skipWithoutNative } from "../support/native.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();

async function volumeFor(t: TestContext): Promise<{ readonly volume: string; readonly dir: string }> {
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "256M"]);
  return { volume, dir };
}

async function statusOf(volume: string): Promise<DaemonStatus> {
  const { mounts } = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { mounts: readonly DaemonStatus[] };
  assert(mounts[0] !== undefined, "no daemon");
  return mounts[0];
}

/** Kills the daemon, and mounts again. */
async function crash(t: TestContext, volume: string, dir: string): Promise<void> {
  const { pid } = await statusOf(volume);
  process.kill(pid, "SIGKILL");
  await shell(`for i in $(seq 200); do [ -e /proc/${pid} ] || exit 0; sleep 0.05; done; exit 1`);
  await mountVolume(t, volume, dir);
}

/** The log is open once a consistency point has been committed. */
const OPENS_LOG = "touch first && sync first";

test("what fsync, fdatasync and O_SYNC have returned for is there after kill -9", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir, ["-o", "cp-interval=1h"]);
  await shell(OPENS_LOG, { cwd: dir });
  const before = await statusOf(volume);
  await shell(
    `set -e
    mkdir d; echo one > d/one; sync d/one d
    echo two > two; sync --data two
    dd if=/dev/urandom of=large bs=1M count=20 conv=fsync status=none
    dd if=/dev/zero of=synchronous bs=1000 count=7 oflag=sync status=none
    ln -s target link; ln two hard; mv d/one d/moved; setfattr -n user.note -v text two; chmod 600 two; rm first
    sync .
    sha256sum large > ../sum`,
    { cwd: dir },
  );
  const after = await statusOf(volume);
  assert.equal(after.cpsCommitted, before.cpsCommitted, "no consistency point was needed");
  assert((after.details?.logUsedBlocks ?? 0) > 0);
  const { answers, frames, writes } = after.logCounts ?? assert.fail("a mount for writing has a log");
  assert(answers >= 10, `five calls of fsync, and of the writes that are synchronous one each: ${answers}`);
  assert(frames >= writes && writes > 0, `${writes} writes of ${frames} frames`);
  assert.match(
    await tidemarkOk(["status", volume]),
    new RegExp(`log +${answers} calls in ${writes} writes of ${frames} frames`),
  );
  await crash(t, volume, dir);
  const found = await shell(
    `set -e
    sha256sum --check --quiet ../sum
    cat d/moved two hard; stat -c '%n %s %a %h' synchronous two; readlink link; getfattr --only-values -n user.note two; ls`,
    { cwd: dir },
  );
  assert.equal(
    found,
    "one\ntwo\ntwo\nsynchronous 7000 644 1\ntwo 4 600 2\ntarget\ntextd\nhard\nlarge\nlink\nsynchronous\ntwo\n",
  );
  await unmountVolume(dir);
  const checked = await tidemark(["check", volume]);
  assert.equal(checked.code, 0, checked.stdout);
  assert.doesNotMatch(checked.stdout, /change log has/);
});

test("with durability=op every change is durable when the call returns", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir, ["-o", "cp-interval=1h,durability=op"]);
  await shell(OPENS_LOG, { cwd: dir });
  for (let round = 0; round < 3; round++) {
    await shell(
      `mkdir d${round}; echo ${round} > d${round}/file; echo more >> d${round}/file; mv d${round} e${round}`,
      {
        cwd: dir,
      },
    );
    await crash(t, volume, dir);
    assert.equal(await shell(`cat e${round}/file`, { cwd: dir }), `${round}\nmore\n`);
    await unmountVolume(dir);
    await mountVolume(t, volume, dir, ["-o", "cp-interval=1h,durability=op"]);
    await shell(`touch open${round}`, { cwd: dir });
  }
});

test("a command on a volume that is not mounted does not forget what a crash has left in the log", {
  skip,
}, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir, ["-o", "cp-interval=1h"]);
  await shell(`${OPENS_LOG} && echo kept > file && sync file .`, { cwd: dir });
  const { pid } = await statusOf(volume);
  process.kill(pid, "SIGKILL");
  await run("umount", ["--lazy", dir]);
  const left = await tidemark(["check", volume]);
  assert.match(left.stdout, /the change log has [0-9]+ changes/);
  await tidemarkOk(["snapshot", "create", volume, "after"]);
  await mountVolume(t, volume, dir, ["--snapshot", "after"]);
  assert.equal(await shell("cat file", { cwd: dir }), "kept\n");
});

test("fsync through fuse-native is durable by the log too", {
  skip: skip === false ? skipWithoutNative() : skip,
}, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir, ["--transport", "fuse-native", "-o", "cp-interval=1h"]);
  await shell(OPENS_LOG, { cwd: dir });
  const before = await statusOf(volume);
  await shell("echo kept > file; sync file", { cwd: dir });
  assert.equal((await statusOf(volume)).cpsCommitted, before.cpsCommitted);
  await crash(t, volume, dir);
  assert.equal(await shell("cat file", { cwd: dir }), "kept\n");
});

test("a log that is filled again and again has consistency points of its own, and nobody waits for the timer", {
  skip,
}, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir, ["-o", "cp-interval=1h"]);
  // 256 MiB have a log of 8 MiB: 3000 changes of 8 KiB are three times as much.
  await shell("dd if=/dev/zero of=file bs=4096 count=3000 oflag=sync status=none", { cwd: dir });
  const { cpCauses } = await statusOf(volume);
  assert((cpCauses.log ?? 0) >= 2, JSON.stringify(cpCauses));
  await crash(t, volume, dir);
  assert.equal(await shell("stat -c %s file", { cwd: dir }), `${3000 * 4096}\n`);
});

test("a log in a file of its own: used, asked for after a crash, not needed after unmounting, not given to another volume", {
  skip,
}, async (t) => {
  const { volume, dir } = await volumeFor(t);
  const log = join(dir, "../log");
  const options = ["--cp-interval", "1h", "--log", log];
  await mountVolume(t, volume, dir, options);
  await shell(`${OPENS_LOG} && echo kept > file && sync file .`, { cwd: dir });
  process.kill((await statusOf(volume)).pid, "SIGKILL");
  await run("umount", ["--lazy", dir]);
  const refused = await tidemark(["mount", volume, dir]);
  assert.equal(refused.code, 13);
  assert.match(refused.stderr, /-o log=FILE/);
  const looked = [[], ["--log", log], ["-o", `log=${volume}`]].map((more) => tidemark(["check", volume, ...more]));
  const [unlooked, clean, noLog] = await Promise.all(looked);
  assert.equal(unlooked?.code, 0);
  assert.match(unlooked.stdout, /note: the change log was not looked at.*--log FILE/);
  assert.equal(clean?.code, 0);
  assert.match(clean.stdout, /note: the change log has [0-9]+ changes since/);
  assert.equal(noLog?.code, 3);
  assert.match(noLog.stdout, /change-log: block 0 .* does not verify/);
  const scrubbed = await tidemark(["scrub", volume, "--log", volume]);
  assert.equal(scrubbed.code, 3);
  assert.match(scrubbed.stdout, /change-log: block 0 .* does not verify/);
  assert.equal((await tidemark(["check", volume, "-o", "noatime"])).code, 2);
  assert.match((await tidemark(["check", volume, "-o", `log=${log}.not`])).stderr, /there is no file .*log\.not/);
  await mountVolume(t, volume, dir, ["-o", `log=${log}`]);
  assert.equal(await shell("cat file", { cwd: dir }), "kept\n");
  await unmountVolume(dir);
  await mountVolume(t, volume, dir);
  assert.equal(await shell("cat file", { cwd: dir }), "kept\n");
  await unmountVolume(dir);
  const other = join(dir, "../other.tm");
  await tidemarkOk(["format", other, "--size", "16M"]);
  const foreign = await tidemark(["mount", other, dir, ...options]);
  assert.equal(foreign.code, 13);
  assert.match(foreign.stderr, /is the change log of volume/);
});
