// The daemon, from outside: real mounts, accessed by child processes alone.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { totalmem } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { InterruptedError } from "../../src/cli/interrupt.ts";
import { configOf } from "../../src/cli/mount-config.ts";
import { parseMountOptions } from "../../src/cli/mount-options.ts";
import { UserError } from "../../src/core/errors.ts";
import { startInBackground } from "../../src/daemon/background.ts";
import { socketPath } from "../../src/daemon/control-paths.ts";
import { listenForControl } from "../../src/daemon/control-socket.ts";
import { mountDevice } from "../../src/fuse/mount.ts";
import { identityOf } from "../../src/mirror/socket-directory.ts";
import {
  isMounted,
  lineOf,
  mountVolume,
  type RunResult,
  run,
  shell,
  skipWithoutMounts,
  startTidemark,
  tidemark,
  tidemarkOk,
  tidemarkPath,
  unmountAfter,
  unmountVolume,
} from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();

/** What the kernel is told of a mount, in a file that it has for it; undefined: this kernel has no such file. */
function backingDevice(dir: string, name: string): number | undefined {
  const file = `/sys/class/bdi/${mountDevice(dir)}/${name}`;
  return existsSync(file) ? Number(readFileSync(file, "utf8")) : undefined;
}

interface MountStatus {
  readonly pid: number;
  readonly mode: string;
  readonly state: string;
  readonly mountPoint: string;
  readonly heldReplies: number;
  readonly details: { readonly cpCount: number };
}

/** A formatted volume and two directories to mount it on. */
async function volumeFor(t: TestContext): Promise<{ volume: string; dir: string; other: string; folder: string }> {
  const folder = temporaryDirectory(t);
  const [volume, dir, other] = [join(folder, "v.tm"), join(folder, "mnt"), join(folder, "other")];
  mkdirSync(dir);
  mkdirSync(other);
  unmountAfter(t, dir);
  unmountAfter(t, other);
  await tidemarkOk(["format", volume, "--size", "256M"]);
  return { volume, dir, other, folder };
}

async function statuses(volume: string): Promise<readonly MountStatus[]> {
  return (JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { mounts: MountStatus[] }).mounts;
}

/** The process that serves the volume for writing. */
async function daemonOf(volume: string): Promise<number> {
  const pid = (await statuses(volume)).find(({ mode }) => mode === "write")?.pid;
  assert(pid !== undefined, "no daemon");
  return pid;
}

/** Resolves when the process is gone. */
async function gone(pid: number): Promise<void> {
  await shell(`for i in $(seq 200); do [ -e /proc/${pid} ] || exit 0; sleep 0.05; done; exit 1`);
}

test("the kernel reads ahead a request, and keeps dirty pages enough to write in large ones", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  assert.equal(backingDevice(dir, "read_ahead_kb"), 1024);
  const allBytesMax = (totalmem() * Number(readFileSync("/proc/sys/vm/dirty_ratio", "utf8"))) / 100;
  const dirtyBytesMax = ((backingDevice(dir, "max_ratio_fine") ?? Number.NaN) / 1e6) * allBytesMax;
  const wanted = Math.min(256 << 20, totalmem() / 16, 60 << 20); // of 256 MiB, 62 are a quarter of what is available
  if (!Number.isNaN(dirtyBytesMax))
    assert(dirtyBytesMax > wanted && dirtyBytesMax < 64 << 20, `${dirtyBytesMax} bytes`);
});

test("what is written is there after unmounting and mounting again, and the volume checks clean", {
  skip,
}, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  await shell(
    `mkdir ${dir}/a && echo one > ${dir}/a/b && ln -s b ${dir}/a/c && head -c 3000000 /dev/urandom > ${dir}/big`,
  );
  const sum = await shell(`cd ${dir} && sha256sum a/b a/c big`);
  await unmountVolume(dir);
  assert.equal(existsSync(join(dir, "a")), false);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
  await mountVolume(t, volume, dir);
  assert.equal(await shell(`cd ${dir} && sha256sum a/b a/c big`), sum);
  await unmountVolume(dir);
});

test("status tells of the mount, with a volume and without", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  assert.deepEqual(await statuses(volume), []);
  await mountVolume(t, volume, dir);
  const [mount] = await statuses(volume);
  assert.equal(mount?.mountPoint, dir);
  assert.equal(mount?.mode, "write");
  assert.equal(mount?.state, "serving");
  assert.equal(mount?.heldReplies, 0);
  const line = (await tidemarkOk(["status"])).split("\n").find((one) => one.includes(volume));
  assert.match(line ?? "", /write +serving/);
  await unmountVolume(dir);
  assert.deepEqual(await statuses(volume), []);
});

test("a daemon that is stopped keeps nobody waiting for long, and is cut off by force", { skip }, async (t) => {
  const { volume, dir, other, folder } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const pid = (await statuses(volume))[0]?.pid ?? assert.fail("no daemon");
  process.kill(pid, "SIGSTOP");
  try {
    const asked = [["status"], ["status", volume], ["umount", volume], ["umount", dir]];
    for (const isFull of [false, true]) {
      if (isFull) await connectWhilePossible(socketPath(identityOf(volume) ?? assert.fail("no volume"), undefined));
      const [all, ...others] = await Promise.all(asked.map((args) => tidemark(args)));
      assert.equal(all?.code, 0, all?.stderr);
      assert.match(all?.stderr ?? "", /a daemon does not answer/);
      for (const { code, stderr } of others) {
        assert.equal(code, 14);
        assert.match(stderr, /the daemon of .* does not answer/);
      }
    }
    // A mount whose daemon is dead, while another daemon of the host is stopped.
    const dead = join(folder, "dead.tm");
    await tidemarkOk(["format", dead, "--size", "64M"]);
    await mountVolume(t, dead, other);
    process.kill(await daemonOf(dead), "SIGKILL");
    await tidemarkOk(["umount", other]);
    await tidemarkOk(["umount", dir, "--force"]);
    assert(!isMounted(dir));
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await gone(pid);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

/** As many as have asked a daemon that is stopped, one after the other: the kernel keeps those that went away, too. */
async function connectWhilePossible(path: string): Promise<void> {
  for (let refusal = ""; refusal !== "EAGAIN"; ) {
    const socket = connect(path);
    refusal = await new Promise<string>((resolve) => {
      socket.once("connect", () => resolve(""));
      socket.once("error", ({ code = "" }: NodeJS.ErrnoException) => resolve(code));
    });
    socket.destroy();
  }
}

test("a daemon that ends in a failure while it is asked for its status keeps nobody from that of others", async (t) => {
  const { volume } = await volumeFor(t);
  const path = socketPath(identityOf(volume) ?? assert.fail("no volume"), undefined);
  const daemon = await listenForControl(path, () => Promise.reject(new UserError("failed", "the volume has failed")));
  t.after(() => daemon.close());
  await tidemarkOk(["status"]);
});

test("a volume is mounted for writing once: mount, format, check in", { skip }, async (t) => {
  const { volume, dir, other } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const second = await tidemark(["mount", volume, other]);
  assert.equal(second.code, 11, second.stderr);
  assert(!isMounted(other));
  const formatted = await tidemark(["format", volume, "--size", "256M", "--force"]);
  assert.equal(formatted.code, 11, formatted.stderr);
  assert.match(formatted.stderr, /is mounted on/);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
  await shell(`echo still > ${dir}/here`);
  assert.equal((await tidemark(["umount", other])).code, 10);
});

test("a snapshot has everything written before the command, and restore goes back to it", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  await shell(
    `cd ${dir}; echo before > file; mkdir d; for i in $(seq 200); do echo $i > d/$i; done; head -c 20000000 /dev/urandom > big`,
  );
  const sum = await shell(`cd ${dir} && find . -type f | sort | xargs sha256sum`);
  assert.equal((await run("ls", [`${dir}/.snapshot/one`])).code, 2, "there is no such snapshot yet");
  await tidemarkOk(["snapshot", "create", volume, "one"]);
  assert.equal(await shell(`cd ${dir}/.snapshot/one && find . -type f | sort | xargs sha256sum`), sum);
  await shell(
    `cd ${dir}; echo after > file; rm -r d; mkdir d; echo new > d/new; echo x > extra; rm big; cat file d/new extra`,
  );
  assert.equal(await shell(`cat ${dir}/.snapshot/one/file`), "before\n");
  await tidemarkOk(["snapshot", "create", volume, "two"]);
  assert.equal((await run("ls", [`${dir}/big`, `${dir}/d/1`])).code, 2, "looked for in vain");
  await tidemarkOk(["snapshot", "restore", volume, "one"]);
  assert.equal(await shell(`cd ${dir} && find . -type f | sort | xargs sha256sum`), sum, "no cache of what was");
  assert.equal(await shell(`ls ${dir}/.snapshot`), "one\ntwo\n");
  await shell(`echo go on > ${dir}/extra`);
  await tidemarkOk(["snapshot", "delete", volume, "one"]);
  assert.equal((await run("ls", [`${dir}/.snapshot/one`])).code, 2);
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

test("after kill -9, what was synced is there, and a mount takes the place of the dead one", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir, ["-o", "cp-interval=1h"]);
  for (let round = 0; round < 3; round += 1) {
    await shell(`cd ${dir}; echo ${round} > kept-${round}; sync kept-${round}; echo lost > maybe-${round}`);
    const pid = await daemonOf(volume);
    process.kill(pid, "SIGKILL");
    await gone(pid);
    assert.notEqual((await run("ls", [dir])).code, 0, "the dead mount answers ENOTCONN");
    assert.match(await tidemarkOk(["check", volume]), /is consistent/);
    await tidemarkOk(["mount", volume, dir, "-o", "cp-interval=1h"]);
    assert.equal(await shell(`cat ${dir}/kept-*`), Array.from({ length: round + 1 }, (_, i) => `${i}\n`).join(""));
  }
  process.kill(await daemonOf(volume), "SIGKILL");
  await tidemarkOk(["umount", dir]); // also what a dead daemon has left
  assert(!isMounted(dir));
});

test("sync takes a consistency point, and none when nothing has changed", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir, ["-o", "cp-interval=1h"]);
  await shell(`echo x > ${dir}/x`);
  const first = JSON.parse(await tidemarkOk(["sync", volume, "--json"])) as { cpCount: number };
  const second = JSON.parse(await tidemarkOk(["sync", volume, "--json"])) as { cpCount: number };
  assert.equal(second.cpCount, first.cpCount);
  process.kill(await daemonOf(volume), "SIGKILL");
  await tidemarkOk(["umount", dir]);
  await mountVolume(t, volume, dir);
  assert.equal(await shell(`cat ${dir}/x`), "x\n");
});

test("consistency points are taken at the interval", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir, ["-o", "cp-interval=100ms"]);
  const before = (await statuses(volume))[0]?.details.cpCount ?? 0;
  await shell(`echo x > ${dir}/x`);
  for (let tries = 0; tries < 100; tries += 1) {
    if (((await statuses(volume))[0]?.details.cpCount ?? 0) > before) return;
  }
  assert.fail("no consistency point");
});

test("a busy mount is not unmounted, and who uses it is named; --force cuts it off", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const user = shell(`cd ${dir}; echo in; exec sleep 60`).catch(() => {});
  t.after(() => user);
  await shell(
    `for i in $(seq 200); do ls -l /proc/[0-9]*/cwd 2>/dev/null | grep -q ' ${dir}$' && exit 0; sleep 0.05; done; exit 1`,
  );
  const busy = await tidemark(["umount", dir]);
  assert.equal(busy.code, 11, busy.stderr);
  assert.match(busy.stderr, /sleep \(\d+\)/);
  const pid = /sleep \((\d+)\)/.exec(busy.stderr)?.[1] ?? "";
  await shell(`echo kept > ${dir}/kept`);
  await tidemarkOk(["umount", dir, "--force"]);
  assert(!isMounted(dir));
  process.kill(Number(pid), "SIGTERM");
  await mountVolume(t, volume, dir);
  assert.equal(await shell(`cat ${dir}/kept`), "kept\n");
});

test("in the foreground it logs, and SIGTERM unmounts cleanly", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  const child = startTidemark(t, ["mount", volume, dir, "--foreground"]);
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  assert(child.stderr !== null);
  await lineOf(child.stderr, /is mounted on/);
  await shell(`echo x > ${dir}/x`);
  child.kill("SIGTERM");
  assert.equal(await ended, 0);
  assert(!isMounted(dir));
  await mountVolume(t, volume, dir);
  assert.equal(await shell(`cat ${dir}/x`), "x\n");
});

test("SIGTERM waits for who uses the mount; a second one cuts it off, even if umount(8) gets it too", {
  skip,
}, async (t) => {
  const { volume, dir, folder } = await volumeFor(t);
  // The first two times it is ended by the signal that a service manager sends to all that it finds.
  const umount = `#!/bin/sh\nif mkdir ${folder}/1 || mkdir ${folder}/2; then kill $$; fi\nexec /bin/umount "$@"\n`;
  writeFileSync(join(folder, "umount"), umount, { mode: 0o755 });
  const env = { ...process.env, PATH: `${folder}:${process.env["PATH"]}` };
  for (const signals of [1, 2]) {
    const child = startTidemark(t, ["mount", volume, dir, "--foreground"], signals === 1 ? process.env : env);
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    assert(child.stderr !== null);
    await lineOf(child.stderr, /is mounted on/);
    const user = spawn("sh", ["-c", "echo in; read line"], { cwd: dir, stdio: ["pipe", "pipe", "ignore"] });
    t.after(() => user.kill("SIGKILL"));
    await lineOf(user.stdout, /in/);
    child.kill("SIGTERM");
    await lineOf(child.stderr, signals === 1 ? /is in use, by sh .*waited for/ : /cannot unmount/);
    assert(isMounted(dir));
    await shell(`echo ${signals} > ${dir}/kept`);
    if (signals === 1) user.stdin.end();
    else child.kill("SIGTERM");
    assert.equal(await ended, 0);
    assert(!isMounted(dir));
    await mountVolume(t, volume, dir);
    assert.equal(await shell(`cat ${dir}/kept`), `${signals}\n`);
    await unmountVolume(dir);
  }
});

test("a log that cannot be written is refused before anything is mounted", { skip }, async (t) => {
  const { volume, dir, folder } = await volumeFor(t);
  const { code, stderr } = await tidemark(["mount", volume, dir, "--daemon-log", join(folder, "none", "log")]);
  assert.match(stderr, /cannot write the log .*none\/log: ENOENT/);
  assert.equal(code, 1);
  const into = await tidemark(["mount", volume, dir, "--daemon-log", volume]);
  assert.match(into.stderr, /cannot write the log .*v.tm: it is there, and no text/);
  assert.equal(into.code, 1);
  assert.deepEqual(await statuses(volume), []);
  // What a power cut leaves of a log whose end had not been written yet.
  const log = join(folder, "log");
  writeFileSync(log, "2026-01-01T00:00:00.000Z tidemark: v.tm is mounted\n\0\0\0");
  await mountVolume(t, volume, dir, ["--daemon-log", log]);
  assert.match(readFileSync(log, "utf8"), /\0.*v.tm is mounted on/);
  await unmountVolume(dir);
});

test("umount(8) behind the daemon's back ends it cleanly too", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const pid = await daemonOf(volume);
  await shell(`echo x > ${dir}/x; umount ${dir}`);
  await gone(pid);
  assert.deepEqual(await statuses(volume), []);
  await mountVolume(t, volume, dir);
  assert.equal(await shell(`cat ${dir}/x`), "x\n");
});

test("a read-only mount follows the writer from one consistency point to the next", { skip }, async (t) => {
  const { volume, dir, other } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  await mountVolume(t, volume, other, ["--read-only"]);
  assert.equal((await run("sh", ["-c", `echo x > ${other}/x`])).code !== 0, true);
  for (let round = 0; round < 5; round += 1) {
    await shell(`echo ${round} > ${dir}/file; mkdir ${dir}/d${round}`);
    await tidemarkOk(["sync", volume]);
    await shell(
      `for i in $(seq 100); do [ "$(cat ${other}/file)" = ${round} ] && [ -d ${other}/d${round} ] && exit 0; sleep 0.05; done; exit 1`,
    );
  }
  await tidemarkOk(["umount", other]);
  await tidemarkOk(["umount", volume]);
  assert(!isMounted(dir));
});

test("a snapshot can be mounted by its name, and stays as it was", { skip }, async (t) => {
  const { volume, dir, other } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  await shell(`echo before > ${dir}/file`);
  await tidemarkOk(["snapshot", "create", volume, "one"]);
  await mountVolume(t, volume, other, ["--snapshot", "one"]);
  await shell(`echo after > ${dir}/file`);
  await tidemarkOk(["sync", volume]);
  assert.equal(await shell(`cat ${other}/file`), "before\n");
  const missing = await tidemark(["mount", volume, other, "--snapshot", "none"]);
  assert.notEqual(missing.code, 0);
  const ambiguous = await tidemark(["umount", volume]);
  assert.equal(ambiguous.code, 2, ambiguous.stderr);
});

test("many programs at once sync and lose nothing, while snapshots come and go", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const writers = Array.from({ length: 4 }, (_, n) =>
    shell(`mkdir ${dir}/${n}; for i in $(seq 40); do echo $i > ${dir}/${n}/$i; sync ${dir}/${n}/$i; done`),
  );
  for (let n = 0; n < 5; n += 1) await tidemarkOk(["snapshot", "create", volume, `s${n}`]);
  for (let n = 0; n < 5; n += 1) await tidemarkOk(["snapshot", "delete", volume, `s${n}`]);
  await Promise.all(writers);
  process.kill(await daemonOf(volume), "SIGKILL");
  await tidemarkOk(["umount", dir]);
  await mountVolume(t, volume, dir);
  assert.equal((await shell(`cat ${dir}/?/* | sort -n | uniq -c | awk '{ print $1 }' | sort -u`)).trim(), "4");
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

test("a full volume says ENOSPC, and takes writes again after a deletion", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const filled = await run("dd", ["if=/dev/zero", `of=${dir}/fill`, "bs=1M", "count=400", "conv=fsync"]);
  assert.notEqual(filled.code, 0);
  assert.match(filled.stderr, /No space left/);
  await shell(`rm ${dir}/fill; dd if=/dev/zero of=${dir}/again bs=1M count=150 conv=fsync`);
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

test("when the host's disk is full, the volume fails: changes get EIO, the rest is read, what was synced stays", {
  skip,
}, async (t) => {
  const { dir, other: host } = await volumeFor(t);
  await shell(`mount -t tmpfs -o size=30M none ${host}`);
  const volume = join(host, "v.tm");
  await tidemarkOk(["format", volume, "--size", "256M"]);
  await mountVolume(t, volume, dir);
  await shell(`echo kept > ${dir}/kept; sync ${dir}/kept`);
  const filled = await run("dd", ["if=/dev/urandom", `of=${dir}/fill`, "bs=1M", "count=60", "conv=fsync"]);
  assert.notEqual(filled.code, 0);
  const [mount] = await statuses(volume);
  assert.equal(mount?.state, "failed");
  assert.equal(await shell(`cat ${dir}/kept`), "kept\n");
  assert.match((await run("touch", [`${dir}/new`])).stderr, /Input\/output error/);
  assert.equal((await tidemark(["sync", volume])).code, 1);
  assert.equal((await tidemark(["umount", dir])).code, 1, "what was lost is not passed over");
  assert(!isMounted(dir));
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
  await mountVolume(t, volume, dir, ["--read-only"]);
  assert.equal(await shell(`cat ${dir}/kept`), "kept\n");
  await unmountVolume(dir);
});

test("a client that stays connected does not keep the daemon alive", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const pid = await daemonOf(volume);
  const idle = connect(socketPath(identityOf(volume) ?? assert.fail("no volume"), undefined));
  t.after(() => idle.destroy());
  await new Promise((resolve) => idle.once("connect", resolve));
  await unmountVolume(dir);
  await gone(pid);
});

test("the control socket is for its owner, and answers hostile input with a refusal", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const path = socketPath(identityOf(volume) ?? assert.fail("no volume"), undefined);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(dirname(path)).mode & 0o077, 0);
  const pid = await daemonOf(volume);
  for (const hostile of ["\n", "{}\n", '{"verb":"__proto__"}\n', `${"x".repeat(2 << 20)}\n`]) {
    assert.match(await answerTo(path, hostile), /"type":"error"/);
  }
  assert.equal(await daemonOf(volume), pid);
});

test("others than its owner do not reach the control socket, and who could lay one there is not believed", {
  skip,
}, async (t) => {
  const { volume, dir, folder } = await volumeFor(t);
  await mountVolume(t, volume, dir);
  const path = socketPath(identityOf(volume) ?? assert.fail("no volume"), undefined);
  const nobody = 65534;
  const asNobody = (args: readonly string[], env: Record<string, string> = {}): Promise<RunResult> =>
    run("setpriv", [`--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups", process.execPath, ...args], { env });
  const program = "require('net').connect(process.argv[1]).on('error', (error) => console.log(error.code))";
  assert.equal((await asNobody(["-e", program, path])).stdout, "EACCES\n");
  const sockets = join(folder, "tidemark");
  mkdirSync(sockets, { mode: 0o700 });
  chmodSync(folder, 0o755);
  const status = (): Promise<RunResult> => asNobody([tidemarkPath, "status"], { XDG_RUNTIME_DIR: folder });
  for (const { owner, mode } of [
    { owner: 0, mode: 0o755 },
    { owner: nobody, mode: 0o777 },
    { owner: nobody, mode: 0o720 },
  ]) {
    chownSync(sockets, owner, owner);
    chmodSync(sockets, mode);
    const { code, stderr } = await status();
    assert.equal(code, 1, `of ${owner}, ${mode.toString(8)}`);
    assert.match(stderr, /tidemark belongs to someone else or is open to others/);
  }
  chmodSync(sockets, 0o700);
  assert.equal((await status()).code, 0);
});

/** The first line that comes back. */
function answerTo(path: string, request: string): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect(path);
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes("\n")) socket.destroy();
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(text));
    socket.end(request);
  });
}

test("who is interrupted while mounting has no mount, whenever that was", { skip }, async (t) => {
  const { volume, dir } = await volumeFor(t);
  unmountAfter(t, dir);
  const settings = parseMountOptions([], { given: {} });
  const config = configOf({
    volume,
    dir,
    transport: "kernel",
    settings,
    daemonLog: undefined,
    foreground: false,
  });
  const interrupted = AbortSignal.abort(new InterruptedError("interrupted by SIGINT"));
  await assert.rejects(startInBackground(config, interrupted), { name: "InterruptedError" });
  assert(!isMounted(dir));
  assert.equal((await tidemark(["check", volume])).code, 0);
});
