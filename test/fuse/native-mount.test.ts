// Mounts by the transport fuse-native, from outside: accessed by children alone.
import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { isServed } from "../../src/fuse/kernel/notify.ts";
import {
  isMounted,
  lineOf,
  mountVolume,
  run,
  runOk,
  shell,
  tidemark,
  tidemarkOk,
  tidemarkPath,
  unmountAfter,
  unmountVolume,
} from "../support/mounts.ts";
import { skipWithoutNative } from "../support/native.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutNative();

test("what libfuse has closed, at any moment, is no mount any more", () => {
  const descriptor = openSync("/dev/null", "r+");
  closeSync(descriptor);
  assert.equal(isServed(descriptor), false);
});

interface Place {
  readonly volume: string;
  readonly dir: string;
}

async function mounted(t: TestContext): Promise<Place> {
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "256M"]);
  await mountVolume(t, volume, dir, ["--transport", "fuse-native"]);
  return { volume, dir };
}

interface MountStatus {
  readonly pid: number;
  readonly transport: string;
}

async function statusOf(volume: string): Promise<MountStatus> {
  const { mounts } = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { mounts: MountStatus[] };
  assert(mounts[0] !== undefined, "not mounted");
  return mounts[0];
}

/** In the mount: what must hold, as a program of Python. */
function python(dir: string, program: string): Promise<string> {
  return runOk("python3", ["-c", `import os, errno\nos.chdir(${JSON.stringify(dir)})\n${program}`], { cwd: "/" });
}

async function unmountAndCheck({ volume, dir }: Place): Promise<void> {
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
}

test("what is written is there after unmounting, and the kernel transport reads it", { skip }, async (t) => {
  const place = await mounted(t);
  const { volume, dir } = place;
  assert.equal((await statusOf(volume)).transport, "fuse-native");
  await shell(`cd ${dir} && mkdir a && head -c 3000000 /dev/urandom > a/big && ln -s big a/link && ln a/big a/hard`);
  const sum = await shell(`cd ${dir} && sha256sum a/big a/link a/hard`);
  await unmountAndCheck(place);
  await mountVolume(t, volume, dir);
  assert.equal(await shell(`cd ${dir} && sha256sum a/big a/link a/hard`), sum);
  await unmountAndCheck(place);
});

test("modification times are kept, and one name of a file shows what another changed", { skip }, async (t) => {
  const place = await mounted(t);
  await python(
    place.dir,
    `
open("f", "w").write("x"); os.utime("f", (1000000000.5, 1234567890.25)); s = os.stat("f")
assert (s.st_atime, s.st_mtime) == (1000000000.5, 1234567890.25), s
os.link("f", "g"); assert os.stat("f").st_nlink == os.stat("g").st_nlink == 2 and os.path.samefile("f", "g")
os.stat("f"); open("g", "a").write("more"); assert os.stat("f").st_size == 5; os.unlink("g"); assert os.stat("f").st_nlink == 1
`,
  );
  await unmountAndCheck(place);
});

test("a copy by rsync is complete: a second run finds nothing to do", { skip }, async (t) => {
  const place = await mounted(t);
  const from = temporaryDirectory(t);
  await shell(`cd ${from} && mkdir -p a/b && echo x > a/b/c && ln a/b/c d && ln -s d e && mkfifo f && chmod 4711 d &&
    touch -d 1999-01-01T00:00:00.123 a/b && truncate -s 1M sparse && cp -r ${join(tidemarkPath, "..")} code`);
  await runOk("rsync", ["-aHX", `${from}/`, `${place.dir}/`]);
  assert.equal(await runOk("rsync", ["-aHXni", "--checksum", `${from}/`, `${place.dir}/`]), "");
  await unmountAndCheck(place);
});

test("files deleted or replaced while they are open: no name in listings or snapshots, data until closed", {
  skip,
}, async (t) => {
  const place = await mounted(t);
  const { volume, dir } = place;
  await python(
    dir,
    `
import subprocess
os.mkdir("d"); f = open("d/f", "w+"); f.write("hello"); f.flush(); os.unlink("d/f"); f.seek(0)
assert f.read() == "hello" and os.fstat(f.fileno()).st_nlink == 0 and os.listdir("d") == []
open("d/r", "w").write("old"); old = open("d/r"); open("d/n", "w").write("new"); os.rename("d/n", "d/r")
assert (old.read(), open("d/r").read(), os.listdir("d")) == ("old", "new", ["r"])
os.rename("d", "moved"); f.seek(0); assert f.read() == "hello"
subprocess.run(${JSON.stringify([process.execPath, tidemarkPath, "snapshot", "create", volume, "s"])}, check=True, cwd="/")
assert os.listdir(".snapshot/s/moved") == ["r"], os.listdir(".snapshot/s/moved")
for path in ("moved/r", "x"):
    try: os.rename(path, ".fuse_hidden0000000100000001"); raise AssertionError("renamed")
    except OSError as e: assert e.errno in (errno.EPERM, errno.ENOENT), e
old.close(); f.close(); assert os.listdir("moved") == ["r"]
`,
  );
  await unmountAndCheck(place);
});

test("what was synced survives kill -9; the mount fails at once, also while a child of the daemon waits for it", {
  skip,
}, async (t) => {
  const { volume, dir } = await mounted(t);
  await python(dir, `fd = os.open("kept", os.O_CREAT | os.O_WRONLY); os.write(fd, b"kept"); os.fsync(fd)`);
  const { pid } = await statusOf(volume);
  // The daemon stopped, sync(1) of a snapshot cannot end: it is made to be there when the daemon dies.
  const syncs = Array.from({ length: 4 }, () => tidemark(["snapshot", "create", volume, "s"], { timeoutMs: 20_000 }));
  process.kill(pid, "SIGKILL");
  await Promise.all(syncs);
  const { code, stderr } = await run("timeout", ["10", "stat", join(dir, "kept")]);
  assert.equal(code, 1);
  assert.match(stderr, /not connected/);
  await tidemarkOk(["umount", "--force", dir]);
  assert.equal(isMounted(dir), false);
  await mountVolume(t, volume, dir, ["--transport", "fuse-native"]);
  assert.equal(await shell(`cat ${dir}/kept`), "kept");
  await unmountAndCheck({ volume, dir });
});

test("an unmount by umount(8) ends the daemon; a busy mount is refused", { skip }, async (t) => {
  const { volume, dir } = await mounted(t);
  await shell(`echo x > ${dir}/f`);
  const { pid } = await statusOf(volume);
  const busy = await run("sh", ["-c", `cd ${dir} && exec "$0" "$@"`, process.execPath, tidemarkPath, "umount", dir]);
  assert.equal(busy.code, 11, busy.stderr);
  await runOk("umount", [dir]);
  await shell(`for i in $(seq 200); do [ -e /proc/${pid} ] || exit 0; sleep 0.05; done; exit 1`);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});

test("options of mount(8) hold, and one that libfuse does not know is refused by name", { skip }, async (t) => {
  const { volume, dir } = await mounted(t);
  await shell(`cp /bin/true ${dir}/true && ${dir}/true`);
  await unmountVolume(dir);
  const { code, stderr } = await tidemark(["mount", volume, dir, "-o", "transport=fuse-native,nosymfollow"]);
  assert.equal(code, 2, stderr);
  assert.match(stderr, /nosymfollow/);
  await mountVolume(t, volume, dir, ["-o", "transport=fuse-native,noexec,strictatime"]);
  assert.equal((await run("sh", ["-c", `${dir}/true`])).code, 126);
  await unmountVolume(dir);
  await mountVolume(t, volume, dir, ["--read-only", "--transport", "fuse-native"]);
  assert.match((await run("touch", [join(dir, "x")])).stderr, /Read-only/);
  await unmountVolume(dir);
});

test("a request that meets a bug is answered; an abandoned one is, too", { skip }, async (t) => {
  const dir = mountPoint(t);
  const server = startProgram(t, dir);
  await lineOf(server.stdout, /^ready/);
  assert.match((await run("timeout", ["10", "stat", join(dir, "bug")])).stderr, /Input\/output error/);
  assert.match((await run("timeout", ["10", "stat", join(dir, "none")])).stderr, /No such file/);
  const waiting = run("timeout", ["20", "stat", join(dir, "never")]);
  await lineOf(server.stdout, /^asked/);
  server.kill("SIGUSR1");
  assert.match((await waiting).stderr, /Input\/output error/);
  server.kill("SIGKILL");
  await runOk("umount", ["-l", dir]);
});

test("children of the server do not keep the mount of a killed one alive", { skip }, async (t) => {
  const dir = mountPoint(t);
  const server = startProgram(t, dir);
  const [, child] = (await lineOf(server.stdout, /^ready/)).split(" ");
  t.after(() => process.kill(Number(child), "SIGKILL"));
  server.kill("SIGKILL");
  await once(server, "exit");
  assert.match((await run("timeout", ["10", "stat", join(dir, "none")])).stderr, /not connected/);
  await runOk("umount", ["-l", dir]);
});

/** Hooks run in the order in which they are set: what is mounted must go before the folder does. */
function mountPoint(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "tidemark-test-"));
  unmountAfter(t, dir);
  t.after(() => rmdirSync(dir));
  return dir;
}

/** native-program.ts: a server of a filesystem in memory, with a child that sleeps. */
function startProgram(t: TestContext, dir: string): ChildProcessByStdio<null, Readable, null> {
  const program = fileURLToPath(new URL("native-program.js", import.meta.url));
  const server = spawn(process.execPath, [program, dir], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => server.kill("SIGKILL"));
  return server;
}

test("where the system has no libfuse 2, the one of the package is used", { skip }, async (t) => {
  const { volume, dir } = await mounted(t);
  await unmountVolume(dir);
  const program = `
    umount --lazy --all --types fuse.tidemark 2>/dev/null || true # copies would keep alive what other tests unmount
    for f in $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p | sed -n 's/.*libfuse.so.2 .*=> //p'); do mount --bind /dev/null "$f"; done
    "$0" "$1" mount "$2" "$3" --transport fuse-native; echo x > "$3/f"; "$0" "$1" umount "$3"`;
  await runOk("unshare", ["-m", "sh", "-euc", program, process.execPath, tidemarkPath, volume, dir]);
  await mountVolume(t, volume, dir);
  assert.equal(await shell(`cat ${dir}/f`), "x\n");
  await unmountVolume(dir);
});

test("where mount(8) is missing, fuse-native is taken, with a line that says so", { skip }, async (t) => {
  const { volume, dir } = await mounted(t);
  await unmountVolume(dir);
  const programs = temporaryDirectory(t);
  await shell(`for p in flock umount sync; do ln -s $(command -v $p) ${programs}/$p; done`);
  const { code, stderr } = await tidemark(["mount", volume, dir], { env: { PATH: programs } });
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^there is no program mount: mounting with the transport fuse-native[^\n]*\n$/);
  assert.equal((await statusOf(volume)).transport, "fuse-native");
  await unmountVolume(dir);
});
