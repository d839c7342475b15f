/** Conformance: who may do what, and what stat shows. */
import { type ConformanceCases, python, shellIn } from "./case-tools.ts";

/** Python: an access list as the kernel takes it. */
const ACL = `
OWNER, USER, GROUP, NAMED, MASK, OTHER, NO = 1, 2, 4, 8, 16, 32, 0xffffffff
def acl(*entries): return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *(e + (NO,) if len(e) == 2 else e)) for e in entries)
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
`;

export const attributeCases: ConformanceCases = {
  "times have nanoseconds, from long before 1970 to long after 2038": (root) =>
    python(
      root,
      `
put("f"); os.mkdir("d"); os.symlink("f", "s"); os.mkfifo("p")
for at in (-(1 << 31) + 1, -1, 0, 1, (1 << 31) + 5, 1 << 32, 9000000000):
    for ns in (0, 1, 123456789, 999999999):
        for name in ("f", "d", "s", "p"):
            ctime = os.lstat(name).st_ctime_ns; os.utime(name, ns=(at * 10**9 + ns, (at + 7) * 10**9 + ns), follow_symlinks=False); st = os.lstat(name)
            same((st.st_atime_ns, st.st_mtime_ns), (at * 10**9 + ns, (at + 7) * 10**9 + ns), name); check(st.st_ctime_ns >= ctime and abs(st.st_ctime - time.time()) < 60)
OMIT, NOW = (1 << 30) - 2, (1 << 30) - 1
set_times = lambda *t: call("utimensat", -100, b"f", struct.pack("qqqq", *t), 0)
os.utime("f", (5, 6)); set_times(0, OMIT, 77, 8); same((os.stat("f").st_atime, os.stat("f").st_mtime_ns), (5, 77 * 10**9 + 8)); set_times(9, 9, 0, OMIT); same(os.stat("f").st_mtime_ns, 77 * 10**9 + 8)
set_times(0, NOW, 0, NOW); check(abs(os.stat("f").st_mtime - time.time()) < 60); fails(errno.EINVAL, set_times, 0, 10**9, 0, 0)
os.chmod("f", 0o666)
def user():
    set_times(0, NOW, 0, NOW); fails(errno.EPERM, set_times, 1, 1, 1, 1)
as_user(1000, 1000, user)
fd = os.open("f", os.O_RDWR); os.write(fd, b"x"); os.utime(fd, ns=(1, 2)); os.close(fd); same(os.stat("f").st_mtime_ns, 2, "closing does not change a time that was set")
`,
    ),

  "each change sets the times that it should, and no others": (root) =>
    python(
      root,
      `
put("f", b"x"); os.mkdir("d"); put("d/x"); put("g")
def changes(path, f, *expected):
    for p in (path,): os.utime(p, ns=(10**18, 10**18))
    before = os.lstat(path); time.sleep(0.012); f(); after = os.lstat(path)
    same({n for n in ("atime", "mtime", "ctime") if getattr(before, f"st_{n}_ns") != getattr(after, f"st_{n}_ns")}, set(expected), path)
changes("f", lambda: os.chmod("f", 0o600), "ctime"); changes("f", lambda: os.chown("f", 1, 1), "ctime"); changes("f", lambda: os.link("f", "l"), "ctime")
changes("f", lambda: os.unlink("l"), "ctime"); changes("f", lambda: os.setxattr("f", "user.a", b"1"), "ctime"); changes("f", lambda: os.removexattr("f", "user.a"), "ctime")
changes("f", lambda: os.rename("f", "f2") or os.rename("f2", "f"), "ctime"); changes("f", lambda: os.truncate("f", 5), "mtime", "ctime")
def write():
    fd = os.open("f", os.O_WRONLY); os.write(fd, b"y"); os.close(fd)
changes("f", write, "mtime", "ctime"); changes("f", lambda: os.close(os.open("f", os.O_RDWR | os.O_CREAT)))
for f in (lambda: put("d/n"), lambda: os.unlink("d/n"), lambda: os.mkdir("d/m"), lambda: os.rmdir("d/m"), lambda: os.symlink("x", "d/s"), lambda: os.rename("d/s", "d/t"), lambda: os.link("g", "d/l"), lambda: os.mkfifo("d/p"), lambda: os.rename("d/p", "p")):
    changes("d", f, "mtime", "ctime")
changes("d", lambda: put("d/x", b"more")); changes("d", lambda: os.stat("d/x"))
`,
    ),

  "reading sets the access time as relatime says": (root) =>
    python(
      root,
      `
for size in (5, 5000):
    put("f", b"x" * size); now = os.stat("f"); time.sleep(0.03); get("f"); read = os.stat("f")
    check(read.st_atime_ns > now.st_mtime_ns, "read after it was written", size); time.sleep(0.03); get("f"); same(os.stat("f").st_atime_ns, read.st_atime_ns, "and not again")
    os.utime("f", ns=(10**18, 10**18)); get("f"); check(os.stat("f").st_atime > time.time() - 60, "old")
    os.utime("f", ns=(10**18, 10**18)); fd = os.open("f", os.O_RDONLY | os.O_NOATIME); os.read(fd, 9); os.close(fd); same(os.stat("f").st_atime_ns, 10**18)
    same(os.stat("f").st_ctime_ns >= read.st_ctime_ns, True)
os.mkdir("d"); put("d/x"); time.sleep(0.03); before = os.stat("d").st_mtime_ns; os.listdir("d"); check(os.stat("d").st_atime_ns > before, "a directory")
`,
    ),

  "statx knows when a file was born": (root) =>
    python(
      root,
      `
start = time.time(); put("f", b"x")
def statx(path):
    buffer = ctypes.create_string_buffer(256); call("statx", -100, path, 0x100, 0xfff, buffer); return buffer.raw
raw = statx(b"f"); mask, = struct.unpack_from("<I", raw, 0); check(mask & 0x800, "no birth time"); seconds, ns = struct.unpack_from("<qI", raw, 80); check(start - 1 <= seconds + ns / 1e9 <= time.time() + 1)
time.sleep(0.01); put("f", b"more"); os.utime("f", (1, 1)); os.rename("f", "g"); same(struct.unpack_from("<qI", statx(b"g"), 80), (seconds, ns))
`,
    ),

  "writing, truncating and a new owner take set-user-id, set-group-id and capabilities away": (root) =>
    python(
      root,
      `
capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
def mapped():
    fd = os.open("f", os.O_RDWR); m = mmap.mmap(fd, 4); m.close(); os.write(fd, b"x")
def fallocate():
    call("fallocate", os.open("f", os.O_RDWR), 3, ctypes.c_long(0), ctypes.c_long(2))
def copy():
    os.copy_file_range(os.open("src", os.O_RDONLY), os.open("f", os.O_RDWR), 4, 0, 0)
put("src", b"1234", 0o644)
ways = {"write": lambda: os.write(os.open("f", os.O_WRONLY), b"x"), "append": lambda: os.write(os.open("f", os.O_WRONLY | os.O_APPEND), b"x"), "truncate": lambda: os.truncate("f", 1), "ftruncate": lambda: os.ftruncate(os.open("f", os.O_RDWR), 9),
    "O_TRUNC": lambda: os.open("f", os.O_WRONLY | os.O_TRUNC), "creat": lambda: os.open("f", os.O_WRONLY | os.O_TRUNC | os.O_CREAT), "map": mapped, "fallocate": fallocate, "copy": copy, "direct": lambda: os.pwritev(os.open("f", os.O_WRONLY | os.O_DIRECT), [mmap.mmap(-1, 4096)], 0)}
for how, change in ways.items():
    for before, after in ((0o6777, 0o777), (0o6767, None)): # without group execute, filesystems differ in set-group-id
        put("f", b"data"); os.chown("f", 0, 0); os.chmod("f", before); os.setxattr("f", "security.capability", capability); same(mode("f"), before)
        as_user(1000, 1000, change)
        check(mode("f") & 0o4000 == 0, how, oct(mode("f")))
        if after is not None: same(mode("f"), after, how)
        fails(errno.ENODATA, os.getxattr, "f", "security.capability")
put("f", b"data", 0o6755); os.write(os.open("f", os.O_WRONLY), b"x"); same(mode("f"), 0o6755, "root may")
for owner in ((1, -1), (-1, 1), (2, 2)):
    put("f", b"data", 0o6755); os.setxattr("f", "security.capability", capability); os.chown("f", *owner); same(mode("f"), 0o755, owner); fails(errno.ENODATA, os.getxattr, "f", "security.capability")
os.mkdir("d"); os.chmod("d", 0o6755); os.chown("d", 3, 3); same(mode("d"), 0o6755)
put("f", b"", 0o755); os.chown("f", 1000, 5); as_user(1000, 1000, lambda: os.chmod("f", 0o2755)); same(mode("f"), 0o755, "no set-group-id of a group one is not in")
`,
    ),

  "permissions hold for owner, group and others, in files and on the way to them": (root) =>
    python(
      root,
      `
put("f", b"x", 0o640); os.chown("f", 1000, 2000); os.mkdir("d"); put("d/f", b"y", 0o644); os.chmod("d", 0o644); os.chmod(".", 0o755)
as_user(1000, 1, lambda: open("f", "r+").close()); as_user(1, 2000, lambda: open("f").close()); as_user(1, 1, lambda: open("f").close(), (2000,))
as_user(1, 2000, lambda: fails(errno.EACCES, open, "f", "r+")); as_user(1, 1, lambda: fails(errno.EACCES, open, "f"))
as_user(1, 1, lambda: (fails(errno.EACCES, os.stat, "d/f"), same(os.listdir("d"), ["f"]), same(os.access("d", os.R_OK), True), same(os.access("d", os.X_OK), False)))
as_user(1, 1, lambda: (fails(errno.EACCES, open, "new", "w"), fails(errno.EACCES, os.unlink, "f"), fails(errno.EPERM, os.chmod, "f", 0o777), fails(errno.EPERM, os.chown, "f", 1, 1)))
os.mkdir("sticky"); os.chmod("sticky", 0o1777); put("sticky/a"); os.chown("sticky/a", 5, 5)
as_user(6, 6, lambda: (fails(errno.EPERM, os.unlink, "sticky/a"), fails(errno.EPERM, os.rename, "sticky/a", "sticky/b"), put("sticky/mine"), os.unlink("sticky/mine")))
as_user(5, 5, lambda: os.unlink("sticky/a"))
put("run", b"#!/bin/sh\\nexit 0\\n", 0o644); fails(errno.EACCES, os.execv, "./run", ["run"]); os.chmod("run", 0o755); same(os.spawnv(os.P_WAIT, "./run", ["run"]), 0)
os.chown("f", 7, -1); same((os.stat("f").st_uid, os.stat("f").st_gid), (7, 2000)); os.symlink("f", "s"); os.lchown("s", 8, 9); same((os.lstat("s").st_uid, os.stat("f").st_uid), (8, 7))
`,
    ),

  "new files get owner, mode, umask, and group and set-group-id from the directory": (root) =>
    python(
      root,
      `
os.chmod(".", 0o777); os.mkdir("team"); os.chown("team", 0, 77); os.chmod("team", 0o2777)
def make():
    os.umask(0o027); open("mine", "w").close(); os.mkdir("dir"); os.mkfifo("pipe"); os.close(os.open("x", os.O_CREAT | os.O_WRONLY, 0o7777)); os.mkdir("team/d"); open("team/f", "w").close()
    os.close(os.open("team/x", os.O_CREAT | os.O_WRONLY, 0o2777))
as_user(1000, 1001, make)
same([mode(p) for p in ("mine", "dir", "pipe", "x")], [0o640, 0o750, 0o640, 0o7750]); same((os.stat("mine").st_uid, os.stat("mine").st_gid), (1000, 1001))
same((mode("team/d"), os.stat("team/d").st_gid, os.stat("team/f").st_gid), (0o2750, 77, 77)); same(mode("team/x") & 0o2000, 0o2000 if mode("team/x") & 0o10 == 0 else 0)
`,
    ),

  "an access list and the mode are one, as setfacl, chmod and getfacl see them": (root) =>
    python(
      root,
      `${ACL}
put("f", b"", 0o644); long = acl((OWNER, 7), (USER, 6, 1000), (GROUP, 5), (NAMED, 4, 2000), (MASK, 6), (OTHER, 1))
fails(errno.ENODATA, os.getxattr, "f", ACCESS); os.setxattr("f", ACCESS, long); same(mode("f"), 0o761); same(os.getxattr("f", ACCESS), long); check(ACCESS in os.listxattr("f"))
os.chmod("f", 0o640); same(os.getxattr("f", ACCESS), acl((OWNER, 6), (USER, 6, 1000), (GROUP, 5), (NAMED, 4, 2000), (MASK, 4), (OTHER, 0)))
os.setxattr("f", ACCESS, acl((OWNER, 6), (GROUP, 4), (OTHER, 4))); same(mode("f"), 0o644); fails(errno.ENODATA, os.getxattr, "f", ACCESS)
os.setxattr("f", ACCESS, long); os.removexattr("f", ACCESS); os.removexattr("f", ACCESS); fails(errno.ENODATA, os.getxattr, "f", ACCESS)
for bad in (acl((OWNER, 7)), acl((OWNER, 7), (USER, 7, 5), (GROUP, 7), (OTHER, 0)), acl((GROUP, 7), (OWNER, 7), (OTHER, 0)), b"\\2\\0"): fails(errno.EINVAL, os.setxattr, "f", ACCESS, bad)
fails(errno.EACCES, os.setxattr, "f", DEFAULT, long); as_user(1000, 1000, lambda: fails(errno.EPERM, os.setxattr, "f", ACCESS, long)); os.symlink("f", "s"); fails(errno.EOPNOTSUPP, os.setxattr, "s", ACCESS, long, follow_symlinks=False)
os.chown("f", 5, 555); os.chmod("f", 0o2775); as_user(5, 7, lambda: os.setxattr("f", ACCESS, long)); same(mode("f"), 0o761, "set-group-id of a foreign group goes")
`,
    ),

  "an access list is enforced": (root) =>
    python(
      root,
      `${ACL}
os.chmod(".", 0o755); put("f", b"x", 0o600); os.setxattr("f", ACCESS, acl((OWNER, 6), (USER, 6, 1000), (USER, 0, 1001), (GROUP, 0), (NAMED, 4, 2000), (MASK, 6), (OTHER, 4)))
as_user(1000, 1, lambda: open("f", "r+").close()); as_user(1001, 2000, lambda: fails(errno.EACCES, open, "f")); as_user(9, 2000, lambda: (open("f").close(), fails(errno.EACCES, open, "f", "r+")))
as_user(9, 9, lambda: open("f").close()); 
os.chmod("f", 0o640); as_user(1000, 1, lambda: (open("f").close(), fails(errno.EACCES, open, "f", "r+")))
os.mkdir("d", 0o700); put("d/f", b"x", 0o644); os.setxattr("d", ACCESS, acl((OWNER, 7), (USER, 7, 1000), (GROUP, 0), (MASK, 7), (OTHER, 0))); as_user(1000, 1000, lambda: (os.stat("d/f"), put("d/new"))); as_user(1001, 1000, lambda: fails(errno.EACCES, os.stat, "d/f"))
`,
    ),

  "a default access list is inherited, and comes before the umask": (root) =>
    python(
      root,
      `${ACL}
os.umask(0o077); os.mkdir("d"); default = acl((OWNER, 7), (USER, 7, 1000), (GROUP, 5), (MASK, 7), (OTHER, 1)); os.setxattr("d", DEFAULT, default); same(mode("d"), 0o700)
os.close(os.open("d/f", os.O_CREAT | os.O_WRONLY, 0o666)); same(mode("d/f"), 0o660); same(os.getxattr("d/f", ACCESS), acl((OWNER, 6), (USER, 7, 1000), (GROUP, 5), (MASK, 6), (OTHER, 0))); fails(errno.ENODATA, os.getxattr, "d/f", DEFAULT)
os.mkdir("d/s"); same(mode("d/s"), 0o771); same(os.getxattr("d/s", DEFAULT), default); os.mkdir("d/s/t"); same(os.getxattr("d/s/t", DEFAULT), default)
os.mkfifo("d/p", 0o640); same(mode("d/p"), 0o640); os.symlink("x", "d/l"); same(mode("d/l"), 0o777); fails(errno.EOPNOTSUPP, os.getxattr, "d/l", ACCESS, follow_symlinks=False)
fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o666); link_open(fd, b"d/t"); same(mode("d/t"), 0o660); same(os.getxattr("d/t", ACCESS), os.getxattr("d/f", ACCESS))
os.setxattr("d", DEFAULT, acl((OWNER, 6), (GROUP, 4), (OTHER, 4))); put("plain"); os.close(os.open("d/m", os.O_CREAT | os.O_WRONLY, 0o666)); same(mode("d/m"), 0o644); fails(errno.ENODATA, os.getxattr, "d/m", ACCESS)
os.removexattr("d", DEFAULT); os.close(os.open("d/u", os.O_CREAT | os.O_WRONLY, 0o666)); same(mode("d/u"), 0o600)
`,
    ),

  "setfacl, cp -a and rsync -A carry access lists": (root) => {
    const script = `
      mkdir a && touch a/f && mkdir a/d
      setfacl -m u:1000:rwx,g:2000:r a/f && setfacl -d -m u:1000:rx,o::- a/d && setfacl -m m::r a/f
      cp -a a b && rsync -aA a/ c/
      for x in a b c; do (cd $x && getfacl -n d f > ../$x.acl); done
      cmp a.acl b.acl && cmp a.acl c.acl && rsync -aAni a/ c/ > again && test ! -s again
      setfacl -b a/f && setfacl -k a/d && ! getfacl -s a/f | grep . && ! getfacl -s a/d | grep .`;
    shellIn(root, script);
  },

  "extended attributes have their sizes, flags, names and namespaces": (root) =>
    python(
      root,
      `
put("f"); os.mkdir("d"); os.symlink("f", "s"); os.setxattr("f", "user.a", b"1", os.XATTR_CREATE); fails(errno.EEXIST, os.setxattr, "f", "user.a", b"2", os.XATTR_CREATE); fails(errno.ENODATA, os.setxattr, "f", "user.b", b"2", os.XATTR_REPLACE)
os.setxattr("f", "user.a", b"new", os.XATTR_REPLACE); os.setxattr("f", "user.empty", b""); os.setxattr("d", "trusted.t", b"\\0\\xff"); same(os.getxattr("f", "user.a"), b"new"); same(os.getxattr("f", "user.empty"), b""); same(sorted(os.listxattr("f")), ["user.a", "user.empty"])
for n in (1, 100, 255, 1000, 2000): os.setxattr("f", "user.big", b"v" * n); same(os.getxattr("f", "user.big"), b"v" * n)
os.setxattr("f", "user.a/../b", b"1"); same(os.getxattr("f", "user.a/../b"), b"1"); same("user.a/../b" in os.listxattr("f"), True); os.removexattr("f", "user.a/../b"); fails(errno.ENODATA, os.getxattr, "f", "user.a/../b"); name = "user." + "n" * 250; os.setxattr("f", name, b"long"); same(os.getxattr("f", name), b"long"); fails(errno.ERANGE, os.setxattr, "f", name + "n", b""); fails(errno.E2BIG, os.setxattr, "f", "user.x", b"v" * 65537)
os.removexattr("f", "user.big"); fails(errno.ENODATA, os.getxattr, "f", "user.big"); fails(errno.ENODATA, os.removexattr, "f", "user.big"); fails(errno.EOPNOTSUPP, os.setxattr, "f", "other.x", b""); fails(errno.EOPNOTSUPP, os.setxattr, "f", "plain", b"")
fails(errno.EPERM, os.setxattr, "s", "user.a", b"1", follow_symlinks=False); os.setxattr("s", "trusted.a", b"1", follow_symlinks=False); same(os.getxattr("s", "trusted.a", follow_symlinks=False), b"1")
os.chmod("f", 0o644); as_user(1000, 1000, lambda: (same(os.getxattr("f", "user.a"), b"new"), fails(errno.EACCES, os.setxattr, "f", "user.a", b"2"), fails(errno.EPERM, os.setxattr, "d", "trusted.u", b"1"), same(os.listxattr("d"), [])))
small = ctypes.create_string_buffer(2); fails(errno.ERANGE, call, "getxattr", b"f", b"user.a", small, 2); same(call("getxattr", b"f", b"user.a", small, 0), 3)
`,
    ),

  "statfs adds up": (root) =>
    python(
      root,
      `
before = os.statvfs("."); check(before.f_bfree <= before.f_blocks and before.f_bavail <= before.f_bfree and before.f_ffree <= before.f_files and before.f_namemax == 255 and before.f_frsize > 0)
fd = os.open("f", os.O_RDWR | os.O_CREAT); os.write(fd, os.urandom(1 << 20) * 16); os.fsync(fd); after = os.statvfs(".")
used = (before.f_bfree - after.f_bfree) * after.f_frsize; check((15 << 20) < used < (64 << 20), used); os.close(fd); check(os.stat("f").st_blocks * 512 >= 16 << 20, os.stat("f").st_blocks)
`,
    ),
};
