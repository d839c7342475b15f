// Snapshots made, renamed and deleted with mkdir, rename and rmdir in the .snapshot of the root: on a real mount.
import assert from "node:assert/strict";
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { mountVolume, run, shell, skipWithoutMounts, tidemark, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();

async function mounted(t: TestContext, options: string): Promise<{ readonly volume: string; readonly dir: string }> {
  const folder = temporaryDirectory(t);
  chmodSync(folder, 0o755); // ordinary users come in too
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "256M"]);
  await mountVolume(t, volume, dir, ["-o", options]);
  return { volume, dir };
}

async function names(volume: string): Promise<readonly string[]> {
  const list = JSON.parse(await tidemarkOk(["snapshot", "list", volume, "--json"])) as {
    readonly snapshots: readonly { readonly name: string }[];
  };
  return list.snapshots.map(({ name }) => name);
}

/** What the system call in a line of Python answers. */
async function errnoOf(dir: string, line: string): Promise<string> {
  const script = `import os, errno, sys
try: ${line}
except OSError as e: print(errno.errorcode[e.errno])
else: print("done")`;
  const { stdout, stderr } = await run("python3", ["-c", script], { cwd: dir });
  return stdout.trim() || stderr;
}

test("mkdir makes a snapshot with all that was written before, rename renames it, rmdir deletes it", {
  skip,
}, async (t) => {
  const { volume, dir } = await mounted(t, "cp-interval=1h");
  await shell("mkdir d; seq 100000 > d/numbers; mkdir .snapshot/one; echo more >> d/numbers; seq 7 > later", {
    cwd: dir,
  });
  assert.deepEqual(await names(volume), ["one"]);
  assert.equal(
    await shell("ls .snapshot/one; seq 100000 | cmp - .snapshot/one/d/numbers; stat -c %F .snapshot/one", { cwd: dir }),
    "d\ndirectory\n",
  );
  await shell("mkdir '.snapshot/zwei ü'; mv .snapshot/one .snapshot/eins; ls .snapshot/eins/d", { cwd: dir });
  assert.deepEqual(await names(volume), ["eins", "zwei ü"]);
  assert.equal(await shell("ls .snapshot", { cwd: dir }), "eins\nzwei ü\n");
  await shell("exec 3< .snapshot/eins/d/numbers; rmdir .snapshot/eins; ! ls .snapshot/eins 2> /dev/null", { cwd: dir });
  assert.deepEqual(await names(volume), ["zwei ü"]);
  await unmountVolume(dir);
  assert.equal((await tidemark(["check", volume])).code, 0);
});

for (const how of ["os.truncate('f', 0)", "os.remove('f')"]) {
  test(`a snapshot does not hold what ${how} has left behind`, { skip }, async (t) => {
    const { volume, dir } = await mounted(t, "cp-interval=1h");
    // Blocks far apart, each below an indirect block of its own: 80 MiB, and a thousand slices.
    const script = `
import os
f = os.open('f', os.O_CREAT | os.O_WRONLY)
for i in range(10000): os.pwrite(f, b'x', i << 21)
os.close(f)
os.mkdir('.snapshot/before')
${how}
os.mkdir('.snapshot/after')`;
    const { code, stderr } = await run("python3", ["-c", script], { cwd: dir });
    assert.equal(code, 0, stderr);
    const { snapshots } = JSON.parse(await tidemarkOk(["snapshot", "list", volume, "--json"])) as {
      readonly snapshots: readonly { readonly name: string; readonly activeBlocks: number }[];
    };
    const [before, after] = snapshots.map(({ activeBlocks }) => activeBlocks) as [number, number];
    assert(before > 20_000 && after < 100, `${before} and ${after} blocks are held`);
  });
}

test("a file that was open for writing when a snapshot was taken is freed when both are gone", { skip }, async (t) => {
  const { volume, dir } = await mounted(t, "cp-interval=1h");
  const usedInodes = async (): Promise<number> => {
    await tidemarkOk(["sync", volume]);
    const status = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { volume: { usedInodes: number } };
    return status.volume.usedInodes;
  };
  const before = await usedInodes();
  await shell("exec 3> file; seq 100000 >&3; mkdir .snapshot/one; exec 3>&-; rm file; rmdir .snapshot/one", {
    cwd: dir,
  });
  assert.equal(await usedInodes(), before);
});

test("a snapshot has every page that was written before it was asked for, and no other write waits for ever", {
  skip,
}, async (t) => {
  const { dir } = await mounted(t, "cp-interval=1h");
  // Pages far apart, each a request of its own when it is written back; the files stay open, so that closing writes none back.
  const script = `
import os, mmap
page = 4096
parent = os.getpid()
stop = os.fork()
if stop == 0:
    beside = open('beside', 'wb')
    while os.getppid() == parent and not os.path.exists('stop'): beside.seek(0); beside.write(os.urandom(1 << 20)); beside.flush()
    os._exit(0)
f = open('scattered', 'w+b'); f.truncate(6000 * page)
m = open('mapped', 'w+b'); m.truncate(2000 * page); view = mmap.mmap(m.fileno(), 0)
for round in range(4):
    mark = b'%08d' % round
    for i in range(0, 6000, 2): os.pwrite(f.fileno(), mark, i * page)
    for i in range(0, 2000, 2): view[i * page : i * page + 8] = mark
    os.mkdir('.snapshot/s%d' % round)
for round in range(4):
    mark = b'%08d' % round
    for name, count in (('scattered', 6000), ('mapped', 2000)):
        seen = open('.snapshot/s%d/%s' % (round, name), 'rb').read()
        missing = [i for i in range(0, count, 2) if seen[i * page : i * page + 8] != mark]
        assert not missing, (round, name, len(missing), missing[:3])
open('stop', 'w')
os.waitpid(stop, 0)`;
  const { code, stderr } = await run("python3", ["-c", script], { cwd: dir });
  assert.equal(code, 0, stderr);
  await unmountVolume(dir);
});

test("what cannot be is refused with its reason, and changes nothing", { skip }, async (t) => {
  const { volume, dir } = await mounted(t, "cp-interval=1h");
  await shell("mkdir d; echo x > d/f; mkdir .snapshot/one .snapshot/two; chmod 777 d", { cwd: dir });
  const refused: readonly (readonly [line: string, errno: string])[] = [
    ["os.mkdir('.snapshot/one')", "EEXIST"],
    ["os.rename('.snapshot/one', '.snapshot/two')", "EEXIST"],
    ["os.rename('.snapshot/one', 'one')", "EROFS"],
    ["os.rename('d', '.snapshot/d')", "EROFS"],
    ["os.rmdir('.snapshot/three')", "ENOENT"],
    ["os.rmdir('.snapshot/one/d')", "EROFS"],
    ["os.mkdir(b'.snapshot/\\xff')", "EILSEQ"],
    ["os.mkdir('d/.snapshot/three')", "EROFS"],
    ["os.rmdir('d/.snapshot/one')", "EROFS"],
    ["open('.snapshot/file', 'w')", "EROFS"],
    ["os.rmdir('.snapshot')", "EPERM"],
  ];
  for (const [line, errno] of refused) assert.equal(await errnoOf(dir, line), errno, line);
  const asNobody = "os.setgroups([]); os.setgid(65534); os.setuid(65534); os.chdir('.');";
  assert.equal(await errnoOf(dir, `${asNobody} os.mkdir('.snapshot/three')`), "EACCES");
  assert.equal(await errnoOf(dir, `${asNobody} os.rmdir('.snapshot/one')`), "EACCES");
  assert.deepEqual(await names(volume), ["one", "two"]);
  await unmountVolume(dir);
  await mountVolume(t, volume, dir, ["--read-only"]);
  assert.equal(await errnoOf(dir, "os.mkdir('.snapshot/three')"), "EROFS");
  assert.equal(await errnoOf(dir, "os.rmdir('.snapshot/one')"), "EROFS");
  await unmountVolume(dir);
});

test("where .snapshot is listed it is read-only: what removes all that it finds deletes no snapshot", {
  skip,
}, async (t) => {
  for (const snapdir of ["root", "visible"]) {
    const { volume, dir } = await mounted(t, `snapdir=${snapdir}`);
    await tidemarkOk(["snapshot", "create", volume, "empty"]);
    await shell("mkdir d; echo x > d/f", { cwd: dir });
    await tidemarkOk(["snapshot", "create", volume, "full"]);
    assert.equal(await errnoOf(dir, "os.mkdir('.snapshot/three')"), "EROFS");
    await run("find", [dir, "-mindepth", "1", "-delete"]);
    await run("rm", ["-rf", join(dir, ".snapshot/empty"), join(dir, ".snapshot/full")]);
    assert.deepEqual(await names(volume), ["empty", "full"]);
    assert.equal(await shell("cat .snapshot/full/d/f; ls", { cwd: dir }), "x\n");
    await unmountVolume(dir);
  }
});

test("snapshots come and go beside writers, each whole", { skip }, async (t) => {
  const { volume, dir } = await mounted(t, "cp-interval=200ms");
  await shell(
    `parent=$$; (i=0; while [ ! -e stop ] && kill -0 $parent; do i=$((i + 1)); echo $i > a.new; mv a.new a; echo $i > b.new; mv b.new b; done) & writer=$!
    for i in $(seq 60); do
      mkdir .snapshot/s$i
      [ $i -lt 6 ] || rmdir .snapshot/s$((i - 5))
    done
    touch stop; wait $writer
    for s in .snapshot/*; do [ $(cat $s/a) -ge $(cat $s/b) ]; [ $(cat $s/a) -le $(($(cat $s/b) + 1)) ]; done`,
    { cwd: dir },
  );
  assert.deepEqual(await names(volume), ["s56", "s57", "s58", "s59", "s60"]);
  await unmountVolume(dir);
  assert.equal((await tidemark(["check", volume])).code, 0);
});
