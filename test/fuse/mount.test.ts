import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { type TestContext, test } from "node:test";
import { UserError } from "../../src/core/errors.ts";
import { type Name, ROOT_NODE } from "../../src/fs/file-system.ts";
import { sendReply } from "../../src/fuse/kernel/loop.ts";
import { invalidateEntry, invalidateInode } from "../../src/fuse/kernel/notify.ts";
import { mount, mountTable, unmount } from "../../src/fuse/mount.ts";
import { isMounted, lineOf, run, shell, skipWithoutMounts } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";
import { type MemoryMountOptions, mountMemory } from "./memory-mount.ts";
import { counter } from "./server-worker.ts";

const skip = skipWithoutMounts();
const timeout = 60_000;

/** A script of Python in the mount: `os`, `sys` and `check(condition, what)` are there. */
async function python(directory: string, script: string): Promise<string> {
  const prelude = `
import ctypes, errno, os, stat, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(ok, *what):
    if not ok: sys.exit("failed: " + " ".join(map(repr, what)))
def fails(code, f, *args, **more):
    try: f(*args, **more)
    except OSError as e: check(e.errno == code, f.__name__, args, errno.errorcode[e.errno])
    else: sys.exit("no error: " + repr((f.__name__, args)))
def renameat2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) != 0:
        e = ctypes.get_errno(); raise OSError(e, os.strerror(e))
`;
  const { code, stdout, stderr } = await run("python3", ["-c", prelude + script], { cwd: directory });
  assert.equal(code, 0, stderr + stdout);
  return stdout;
}

function mountTest(
  name: string,
  how: MemoryMountOptions,
  body: (mounted: Awaited<ReturnType<typeof mountMemory>>, t: TestContext) => Promise<void>,
): void {
  test(name, { skip, timeout }, async (t) => {
    await body(await mountMemory(t, how), t);
  });
}

mountTest("a tree is packed, unpacked and compares equal; nothing stays open", {}, async (mounted) => {
  const { directory: at, shared, log } = mounted;
  await shell(`
    mkdir -p ${at}/a/b; cp -a /usr/include/linux ${at}/a/b/; diff -r /usr/include/linux ${at}/a/b/linux
    tar -C ${at}/a -cf ${at}/b.tar b; mkdir ${at}/again; tar -C ${at}/again -xf ${at}/b.tar; diff -r ${at}/a/b ${at}/again/b
    rm -r ${at}/a ${at}/again ${at}/b.tar; test -z "$(ls -A ${at})"`);
  await mounted.unmount();
  assert.equal(shared[counter.nodes], 1, "inodes are left over");
  assert.equal(shared[counter.handles], 0, "handles are left over");
  assert.deepEqual(log, []);
});

mountTest("times keep their nanoseconds before 1970 and after 2038", {}, async ({ directory }) => {
  await python(
    directory,
    `
for s, n in [(0, 1), (-1, 999999999), (-2208988800, 5), (4102444800, 123456789), (17179869184, 7), (-62135596800, 0)]:
    open("f", "w").close()
    os.utime("f", ns=(s * 10**9 + n, (s + 1) * 10**9 + n))
    fd = os.open(".", os.O_RDONLY)
    st = os.stat("f")
    check(st.st_atime_ns == s * 10**9 + n, "atime", s, n, st.st_atime_ns)
    check(st.st_mtime_ns == (s + 1) * 10**9 + n, "mtime", s, n, st.st_mtime_ns)
    os.close(fd)
`,
  );
  // And from the server itself, when the kernel has forgotten what it was told.
  await shell(`echo 2 > /proc/sys/vm/drop_caches; test "$(stat -c %.9X f)" = -62135596800.000000000`, {
    cwd: directory,
  });
});

mountTest("touch -m leaves atime alone, and statx shows the birth time", {}, async ({ directory }) => {
  await shell(
    `touch -a -d @1000.5 f; touch -m -d @2000.25 f; test "$(stat -c '%.9X %.9Y' f)" = '1000.500000000 2000.250000000'
     born=$(stat -c %W f); now=$(date +%s); test "$born" -gt 0; test $((now - born)) -lt 100`,
    { cwd: directory },
  );
});

mountTest("rename knows its flags, and refuses what cannot be", {}, async ({ directory }) => {
  await python(
    directory,
    `
for name in "ab": open(name, "w").write(name)
fails(errno.EEXIST, renameat2, "a", "b", 1)
renameat2("a", "c", 1)
check(os.listdir(".") != [] and open("c").read() == "a", "noreplace")
os.mkdir("d"); open("d/x", "w").write("x")
renameat2("c", "d", 2)
check(os.path.isdir("c") and open("d").read() == "a" and open("c/x").read() == "x", "exchange")
fails(errno.ENOENT, renameat2, "d", "nowhere", 2)
fails(errno.EINVAL, renameat2, "d", "e", 4)
fails(errno.EINVAL, os.rename, "c", "c/sub")
fails(errno.EISDIR, os.rename, "b", "c")
os.rename("b", "d"); check(open("d").read() == "b", "replace")
fails(errno.ENAMETOOLONG, open, "n" * 256, "w"); open("n" * 255, "w").close()
`,
  );
});

mountTest("a file without a name gets one by linkat, and one that lost it stays readable", {}, async (mounted) => {
  await python(
    mounted.directory,
    `
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(fd, b"unnamed")
check(os.fstat(fd).st_nlink == 0 and os.listdir(".") == [], "no name yet")
check(libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"named", 0x400) == 0, "linkat", ctypes.get_errno())
check(open("named").read() == "unnamed" and os.stat("named").st_nlink == 1, "named")
check(stat.S_IMODE(os.stat("named").st_mode) == 0o640, "mode")
os.unlink("named")
check(os.pread(fd, 100, 0) == b"unnamed" and os.fstat(fd).st_nlink == 0, "unlinked")
os.ftruncate(fd, 3); check(os.fstat(fd).st_size == 3, "truncated")
os.close(fd)
os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))
`,
  );
  await mounted.unmount();
  assert.equal(mounted.shared[counter.nodes], 1, "an orphan is left over");
});

mountTest("xattrs are set, probed for their length, listed and removed", {}, async ({ directory }) => {
  await python(
    directory,
    `
open("f", "w").close()
os.setxattr("f", "user.a", b"x" * 1000, os.XATTR_CREATE)
fails(errno.EEXIST, os.setxattr, "f", "user.a", b"", os.XATTR_CREATE)
fails(errno.ENODATA, os.setxattr, "f", "user.b", b"", os.XATTR_REPLACE)
os.setxattr("f", "user.empty", b"")
os.setxattr("f", "trusted.big", bytes(range(256)) * 256)
check(libc.getxattr(b"f", b"user.a", None, 0) == 1000, "probe")
buffer = ctypes.create_string_buffer(10)
check(libc.getxattr(b"f", b"user.a", buffer, 10) == -1 and ctypes.get_errno() == errno.ERANGE, "short")
check(libc.listxattr(b"f", None, 0) == 30, libc.listxattr(b"f", None, 0))
check(libc.listxattr(b"f", buffer, 10) == -1 and ctypes.get_errno() == errno.ERANGE, "short list")
check(sorted(os.listxattr("f")) == ["trusted.big", "user.a", "user.empty"], os.listxattr("f"))
check(os.getxattr("f", "trusted.big") == bytes(range(256)) * 256, "64 KiB")
check(os.getxattr("f", "user.empty") == b"", "empty")
os.removexattr("f", "user.a"); fails(errno.ENODATA, os.getxattr, "f", "user.a")
fails(errno.ENODATA, os.removexattr, "f", "user.a")
fails(errno.EOPNOTSUPP, os.setxattr, "f", "system.nfs4_acl", b"x")
`,
  );
});

mountTest("special files, links of both kinds and names of any bytes", {}, async ({ directory }) => {
  await python(
    directory,
    `
os.mkfifo("fifo", 0o600); os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
os.mknod("disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
check(os.stat("disk").st_rdev == os.makedev(259, 70000), "rdev")
open("null", "w").write("gone")
os.symlink("x" * 4000, "long"); check(os.readlink("long") == "x" * 4000, "long symlink")
odd = bytes(set(range(1, 256)) - {47}); open(odd, "w").write("odd")
check(odd in os.listdir(b".") and open(odd).read() == "odd", "odd name")
os.link(odd, "hard"); check(os.stat(odd).st_ino == os.stat("hard").st_ino and os.stat("hard").st_nlink == 2, "hard link")
fails(errno.EEXIST, os.link, "hard", "fifo"); fails(errno.EPERM, os.link, ".", "dot")
os.mkdir("d"); fails(errno.ENOTEMPTY, os.rmdir, ".." + "/" + os.path.basename(os.getcwd())) if False else None
check(os.stat("d").st_nlink == 2 and os.stat(".").st_nlink == 3, "link counts of directories")
`,
  );
});

mountTest("owners, modes, umask and set-user-id are the caller's and the kernel's business", {}, async (mounted) => {
  await python(
    mounted.directory,
    `
os.chmod(".", 0o777)
os.umask(0o027); open("masked", "w").close(); check(stat.S_IMODE(os.stat("masked").st_mode) == 0o640, "umask")
open("secret", "w").close(); os.chmod("secret", 0o600)
capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
changes = ("write", "truncate", "open", "chown")
for how in changes:
    open(how, "w").write("data"); os.chown(how, 1234, 1235); os.chmod(how, 0o6777)
    os.setxattr(how, "security.capability", capability)
check(stat.S_IMODE(os.stat("write").st_mode) == 0o6777, "set")
pid = os.fork()
if pid == 0:
    os.setgroups([]); os.setgid(1235); os.setuid(1234)
    open("mine", "w").close(); st = os.stat("mine"); check((st.st_uid, st.st_gid) == (1234, 1235), "owner")
    fails(errno.EACCES, open, "secret")
    fd = os.open("write", os.O_WRONLY); os.write(fd, b"x"); os.close(fd)
    os.truncate("truncate", 1)
    os.close(os.open("open", os.O_WRONLY | os.O_TRUNC))
    os._exit(0)
check(os.waitpid(pid, 0)[1] == 0, "child")
os.chown("chown", 0, 0)
for how in changes:
    check(stat.S_IMODE(os.stat(how).st_mode) == 0o777, how, oct(os.stat(how).st_mode))
    fails(errno.ENODATA, os.getxattr, how, "security.capability")
os.mkdir("team"); os.chown("team", 0, 77); os.chmod("team", 0o2775); os.chown("team", 5, 77)
check(stat.S_IMODE(os.stat("team").st_mode) == 0o2775, "a directory keeps its bits")
`,
  );
});

mountTest("what is written through a mapping arrives, and reads and writes see it", {}, async ({ directory }) => {
  await python(
    directory,
    `
import mmap
fd = os.open("f", os.O_CREAT | os.O_RDWR); os.ftruncate(fd, 1 << 20)
with mmap.mmap(fd, 1 << 20) as m:
    m[500000:500004] = b"here"; check(os.pread(fd, 4, 500000) == b"here", "read")
    os.pwrite(fd, b"there", 4094); check(m[4094:4099] == b"there", "mapped"); m.flush()
os.close(fd)
open("/proc/sys/vm/drop_caches", "w").write("3")
check(open("f", "rb").read()[500000:500004] == b"here", "after the cache was dropped")
`,
  );
});

mountTest("a file handle opens its file again when the kernel has forgotten it", {}, async ({ directory }) => {
  await python(
    directory,
    `
os.mkdir("d"); open("d/f", "w").write("data"); os.link("d/f", "kept")
handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128)); mount_id = ctypes.c_int()
check(libc.name_to_handle_at(-100, b"d/f", handle, ctypes.byref(mount_id), 0) == 0, ctypes.get_errno())
open("/proc/sys/vm/drop_caches", "w").write("2")
root = os.open(".", os.O_RDONLY)
fd = libc.open_by_handle_at(root, handle, os.O_RDONLY)
check(fd >= 0 and os.read(fd, 10) == b"data", ctypes.get_errno())
`,
  );
});

mountTest("10,000 entries are read while they are removed: none twice, none missed", {}, async ({ directory }) => {
  const script = `
names = set("n%05d" % i for i in range(10000))
for n in names: os.close(os.open(n, os.O_CREAT | os.O_WRONLY))
check(set(os.listdir(".")) == names, "all there")
seen = []
with os.scandir(".") as it:
    for e in it:
        seen.append(e.name); e.stat()
        if len(seen) % 2: os.unlink(e.name)
check(len(seen) == len(set(seen)) == 10000, len(seen), len(set(seen)))
check(len(os.listdir(".")) == 5000, "half are left")
for n in os.listdir("."): os.unlink(n)
check(os.listdir(".") == [], "none is left")
`;
  await python(directory, script);
});

mountTest("reads and writes arrive a mebibyte at a time, on page boundaries", {}, async (mounted) => {
  const { directory, shared } = mounted;
  await shell(
    `head -c 33554432 /dev/urandom > big; sum=$(md5sum < big); sync big; echo 3 > /proc/sys/vm/drop_caches
     test "$sum" = "$(md5sum < big)"`,
    { cwd: directory },
  );
  assert.equal(shared[counter.readBytesMax], 1024 * 1024, "through the cache, by read-ahead");
  await shell(
    `dd if=/dev/zero of=direct bs=1M count=8 oflag=direct 2>&1; dd if=direct of=/dev/null bs=1M iflag=direct 2>&1`,
    { cwd: directory },
  );
  assert.equal(shared[counter.writeBytesMax], 1024 * 1024);
  assert.equal(shared[counter.readBytesMax], 1024 * 1024);
  assert.equal(shared[counter.misaligned], 0);
});

mountTest("fallocate, sparse files and appending through the write-back cache", {}, async ({ directory }) => {
  await python(
    directory,
    `
fd = os.open("sparse", os.O_CREAT | os.O_RDWR)
os.pwrite(fd, b"a" * 65536, 0); os.pwrite(fd, b"b" * 65536, 1 << 30); os.fsync(fd)
check(os.lseek(fd, 0, os.SEEK_HOLE) == 65536, "hole"); check(os.lseek(fd, 65536, os.SEEK_DATA) == 1 << 30, "data")
fails(errno.ENXIO, os.lseek, fd, (1 << 30) + 65536, os.SEEK_DATA)
check(libc.fallocate64(fd, 3, ctypes.c_int64(0), ctypes.c_int64(65536)) == 0, "punch")
check(os.pread(fd, 4, 0) == b"\\0" * 4 and os.lseek(fd, 0, os.SEEK_DATA) == 1 << 30, "punched")
os.posix_fallocate(fd, 1 << 31, 4096); check(os.fstat(fd).st_size == (1 << 31) + 4096, "extended")
check(libc.fallocate64(fd, 32, ctypes.c_int64(0), ctypes.c_int64(65536)) == -1 and ctypes.get_errno() == errno.EOPNOTSUPP, "insert")
os.ftruncate(fd, 1 << 42); os.pwrite(fd, b"far", (1 << 42) - 3); check(os.fstat(fd).st_size == 1 << 42, "4 TiB")
for i in range(100):
    f = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND); os.write(f, b"%03d\\n" % i); os.close(f)
check(open("log").read() == "".join("%03d\\n" % i for i in range(100)), "appended")
check(os.statvfs(".").f_namemax == 255 and os.statvfs(".").f_bsize == 4096, "statvfs")
`,
  );
});

const seekDirty = `
fd = os.open("f", os.O_CREAT | os.O_RDWR); os.ftruncate(fd, 1 << 20)
os.pwrite(fd, b"x" * 65536, 524288)
other = os.open("f", os.O_RDONLY)
`;

mountTest("SEEK_DATA finds what is written and not yet passed on by the kernel", {}, async ({ directory }) => {
  await python(
    directory,
    `${seekDirty}
for f in (other, fd):
    check(os.lseek(f, 0, os.SEEK_DATA) == 524288, "data"); check(os.lseek(f, 524288, os.SEEK_HOLE) == 589824, "hole")
os.pwrite(fd, b"y" * 100, 2 << 20)
check(os.lseek(other, 600000, os.SEEK_DATA) == 2 << 20, "data beyond the size that the server knew")
os.close(fd)
check(os.lseek(other, 0, os.SEEK_DATA) == 524288, "data, when nobody writes")
`,
  );
});

mountTest("SEEK_DATA is refused when what is dirty cannot be flushed", { flushes: false }, async ({ directory }) => {
  await python(
    directory,
    `${seekDirty}
fails(errno.EINVAL, os.lseek, other, 0, os.SEEK_DATA)
os.close(fd)
check(os.lseek(other, 0, os.SEEK_DATA) == 524288, "data, when nobody writes")
`,
  );
});

mountTest(
  "sync -f has handed every dirty page over before a request that follows",
  { writeDelayMs: 2 },
  async (mounted) => {
    const { directory, shared } = mounted;
    await python(
      directory,
      `
files = [open("f%d" % i, "wb", buffering=0) for i in range(1000)]
for f in files: f.write(b"x" * 65536)
check(os.system("sync -f .") == 0, "sync")
os.path.exists("mark")
os._exit(0)
`,
    );
    assert.equal(shared[counter.markKiB], 64000);
  },
);

mountTest(
  "fsync waits until its reply is let go, and others go on meanwhile",
  { holdsFsync: true },
  async (mounted) => {
    const { directory, descriptor } = mounted;
    let isSynced = false;
    const syncing = shell("echo data > f; sync f", { cwd: directory }).then(() => (isSynced = true));
    const reply = await mounted.held();
    await shell("test data = $(cat f); mkdir d; rmdir d", { cwd: directory });
    assert.equal(isSynced, false);
    sendReply(descriptor, reply);
    await syncing;
    sendReply(descriptor, reply); // once too often: nobody waits for it
  },
);

mountTest("a knock wakes the server, which stops when told to", {}, async (mounted) => {
  const { directory, shared, ended } = mounted;
  for (let wakes = 1; wakes <= 2; wakes++) {
    await mounted.knock(1);
    await statfs(directory); // its reply comes when the server has done with the knock
    assert.equal(shared[counter.wakes], wakes);
  }
  assert((shared[counter.requests] ?? 0) >= 4, "INIT, two knocks and what followed the first");
  // The server may see the word before the knock, which is then never answered.
  const knocking = mounted.knock(2).catch(() => {});
  assert.equal(await ended, "stopped");
  await unmount(directory, { force: true, lazy: true });
  await knocking;
});

mountTest(
  "a bug is EIO for who asked, a line in the log, and the end of the server",
  { bugIn: "removeDirectory" },
  async (mounted) => {
    const { code, stderr } = await run("/bin/sh", ["-c", "mkdir d; rmdir d"], { cwd: mounted.directory });
    assert.notEqual(code, 0);
    assert.match(stderr, /Input\/output error/);
    assert.match(await mounted.ended, /a planted bug/);
    assert.match(mounted.log.join("\n"), /^RMDIR of node 1:.*a planted bug/);
  },
);

mountTest("the kernel drops what it is told to drop", {}, async ({ directory, descriptor }) => {
  await shell("echo a > f; cat f", { cwd: directory });
  assert.equal(await invalidateInode(descriptor, ROOT_NODE, { offset: -1, lengthBytes: 0 }), true);
  assert.equal(await invalidateEntry(descriptor, ROOT_NODE, "f" as Name), true);
  assert.equal(await invalidateEntry(descriptor, ROOT_NODE, "unknown" as Name), false);
  await shell("test a = $(cat f)", { cwd: directory });
});

mountTest(
  "read-only is read-only, and shows in the mount table",
  { readOnly: true, options: ["noatime"] },
  async (mounted) => {
    const { directory } = mounted;
    const { stderr } = await run("touch", [`${directory}/f`]);
    assert.match(stderr, /Read-only file system/);
    const row = mountTable().find((each) => each.directory === directory);
    assert.equal(row?.type, "fuse.tidemark");
    assert.equal(row.source, "/volumes/a volume.tidemark");
    assert.match(readFileSync("/proc/self/mounts", "utf8"), new RegExp(`${directory} fuse.tidemark ro,.*noatime`));
  },
);

mountTest("a second mount in the same place and a busy unmount are refused with the reason", {}, async (mounted, t) => {
  const { directory } = mounted;
  await assert.rejects(mount({ source: "v", directory }), (error: unknown) => {
    assert(error instanceof UserError);
    assert.equal(error.failure, "in-use");
    assert.match(error.message, /mounted there already/);
    return true;
  });
  const holder = spawn("/bin/sh", ["-c", "echo inside; exec sleep 50"], {
    cwd: directory,
    stdio: ["ignore", "pipe", "ignore"],
  });
  t.after(() => holder.kill("SIGKILL"));
  await lineOf(holder.stdout, /inside/);
  await assert.rejects(unmount(directory), (error: unknown) => {
    assert(error instanceof UserError);
    assert.equal(error.failure, "in-use");
    assert.match(error.message, /busy/);
    return true;
  });
  await unmount(directory, { lazy: true });
  assert.equal(isMounted(directory), false);
  holder.kill("SIGKILL");
  assert.equal(await mounted.ended, "unmounted");
});

test("what cannot be mounted or unmounted is refused with the reason", { skip, timeout }, async (t) => {
  const folder = temporaryDirectory(t);
  await shell(`touch ${folder}/file`);
  const refusals: [options: Parameters<typeof mount>[0], failure: string, pattern: RegExp][] = [
    [{ source: "v", directory: `${folder}/none` }, "failed", /no such directory/],
    [{ source: "v", directory: `${folder}/file` }, "failed", /not a directory/],
    [{ source: "v", directory: `${folder}/file/below` }, "failed", /not a directory/],
    [{ source: "v", directory: folder, options: ["fd=5"] }, "usage", /fd=5/],
    [{ source: "v", directory: folder, options: ["noatime,fd=5"] }, "usage", /more than one/],
    [{ source: "v", directory: folder, options: ["nonsense"] }, "failed", /cannot mount/],
  ];
  for (const [options, failure, pattern] of refusals) {
    await assert.rejects(mount(options), (error: unknown) => {
      assert(error instanceof UserError, String(error));
      assert.equal(error.failure, failure);
      assert.match(error.message, pattern);
      return true;
    });
  }
  await assert.rejects(unmount(folder), /nothing of Tidemark is mounted/);
});
