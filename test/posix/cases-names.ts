/** Conformance: names, links, directories. */
import { type ConformanceCases, python } from "./case-tools.ts";

export const nameCases: ConformanceCases = {
  "names are any bytes but zero and slash, up to 255 of them": (root) =>
    python(
      root,
      String.raw`
names = [bytes([b]) * n for b in range(1, 256) if b not in b"./" for n in (1, 255)] + [b"\xff\xfe", b"...", b".a"]
for name in names: put(name)
same(sorted(os.listdir(b".")), sorted(names))
fails(errno.ENAMETOOLONG, os.mkdir, b"n" * 256)
fails(errno.ENAMETOOLONG, os.stat, b"n" * 256)
fails(errno.ENAMETOOLONG, os.rename, b"a", b"n" * 256)
fails(errno.ENOENT, os.stat, b"")
same(os.pathconf(".", "PC_NAME_MAX"), 255)
`,
    ),

  "a name that was looked for in vain can be made in every way": (root) =>
    python(
      root,
      `
put("f"); os.mkdir("d")
makers = {
    "made": lambda n: put(n), "dir": lambda n: os.mkdir(n), "soft": lambda n: os.symlink("f", n), "hard": lambda n: os.link("f", n),
    "fifo": lambda n: os.mkfifo(n), "moved": lambda n: os.rename("d", n),
}
for name, make in makers.items():
    for again in range(2): fails(errno.ENOENT, os.lstat, name); fails(errno.ENOENT, os.open, name, os.O_RDWR)
    make(name); os.lstat(name); check(name in os.listdir("."), name)
os.unlink("made"); fails(errno.ENOENT, os.stat, "made"); put("made"); os.stat("made")
os.rename("made", "left"); fails(errno.ENOENT, os.stat, "made"); os.rename("left", "made"); os.stat("made"); fails(errno.ENOENT, os.stat, "left")
os.rmdir("dir"); fails(errno.ENOENT, os.stat, "dir/x"); os.mkdir("dir"); fails(errno.ENOENT, os.stat, "dir/x"); put("dir/x"); os.stat("dir/x")
`,
    ),

  "a path has fewer than 4096 bytes, a symbolic link up to 4095": (root) =>
    python(
      root,
      `
at = os.open(".", os.O_RDONLY)
for i in range(30):
    os.mkdir("d" * 250, dir_fd=at); at = os.open("d" * 250, os.O_RDONLY, dir_fd=at)
os.close(os.open("deep", os.O_CREAT | os.O_WRONLY, dir_fd=at))
check("deep" in os.listdir(at), "7500 bytes deep, reached step by step")
fails(errno.ENAMETOOLONG, os.stat, "/".join(["d" * 250] * 17))
for n in (1, 127, 128, 129, 4095):
    os.symlink("t" * n, f"l{n}"); same(os.readlink(f"l{n}"), "t" * n); same(os.lstat(f"l{n}").st_size, n)
fails(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "l")
fails(errno.ENOENT, os.symlink, "", "l")
`,
    ),

  "links that lead in a circle, or through too many others, are ELOOP": (root) =>
    python(
      root,
      `
os.symlink("a", "b"); os.symlink("b", "a"); fails(errno.ELOOP, os.stat, "a"); fails(errno.ELOOP, open, "a/x")
put("l0")
for i in range(45): os.symlink(f"l{i}", f"l{i+1}")
os.stat("l40"); fails(errno.ELOOP, os.stat, "l41")
fails(errno.ELOOP, os.open, "l1", os.O_RDONLY | os.O_NOFOLLOW)
fd = os.open("l1", os.O_PATH | os.O_NOFOLLOW); same(os.readlink("", dir_fd=fd), "l0")
`,
    ),

  "opening tells what is wrong": (root) =>
    python(
      root,
      `
put("f"); os.mkdir("d"); os.symlink("nowhere", "s")
fails(errno.EEXIST, os.open, "f", os.O_CREAT | os.O_EXCL | os.O_RDWR)
fails(errno.EEXIST, os.open, "s", os.O_CREAT | os.O_EXCL | os.O_RDWR)
fails(errno.ENOTDIR, os.open, "f", os.O_DIRECTORY)
fails(errno.EISDIR, os.open, "d", os.O_WRONLY); fails(errno.EISDIR, os.open, "d", os.O_CREAT | os.O_RDWR)
fails(errno.ENOENT, os.open, "x", os.O_RDONLY); fails(errno.ENOENT, os.open, "x/y", os.O_CREAT | os.O_RDWR)
fails(errno.ENOTDIR, os.open, "f/y", os.O_RDONLY); fails(errno.ENOTDIR, os.stat, "f/")
os.close(os.open("s", os.O_CREAT | os.O_RDWR)); os.stat("nowhere")
fails(errno.EISDIR, os.read, os.open("d", os.O_RDONLY), 10)
fails(errno.EBADF, os.write, os.open("f", os.O_RDONLY), b"x"); fails(errno.EBADF, os.read, os.open("f", os.O_WRONLY), 1)
`,
    ),

  "rename moves, replaces, refuses, and leaves open files what they are": (root) =>
    python(
      root,
      `
put("a", b"A"); put("b", b"B"); fd = os.open("b", os.O_RDONLY); ino = os.stat("a").st_ino
os.rename("a", "b"); same(get("b"), b"A"); same(os.stat("b").st_ino, ino); same(os.read(fd, 9), b"B"); same(os.fstat(fd).st_nlink, 0)
os.makedirs("d/e"); os.mkdir("empty"); os.mkdir("full"); put("full/x")
fails(errno.EINVAL, os.rename, "d", "d/e/f"); fails(errno.ENOTEMPTY, os.rename, "d", "full")
fails(errno.ENOTDIR, os.rename, "d", "b"); fails(errno.EISDIR, os.rename, "b", "d"); fails(errno.ENOENT, os.rename, "x", "y")
os.rename("d", "empty"); same(os.listdir("empty"), ["e"]); fails(errno.ENOENT, os.stat, "d")
links = os.stat(".").st_nlink; os.rename("empty/e", "e"); same(os.stat(".").st_nlink, links + 1); same(os.stat("empty").st_nlink, 2)
same(os.stat("e/..").st_ino, os.stat(".").st_ino)
os.link("b", "c"); os.rename("b", "c"); check(os.path.exists("b") and os.path.exists("c"), "two names of one file stay")
`,
    ),

  "renameat2 keeps from replacing, and exchanges": (root) =>
    python(
      root,
      `
put("f", b"F"); os.mkdir("d"); put("d/x"); put("g", b"G")
rename = lambda a, b, flags: call("renameat2", -100, a, -100, b, flags)
fails(errno.EEXIST, rename, b"f", b"g", 1); rename(b"f", b"h", 1); same(get("h"), b"F")
rename(b"h", b"d", 2); same(get("d"), b"F"); same(os.listdir("h"), ["x"])
fails(errno.ENOENT, rename, b"h", b"nowhere", 2); fails(errno.EINVAL, rename, b"h", b"g", 3)
os.mkdir("h/s"); fails(errno.EINVAL, rename, b"h/s", b"h", 2)
os.mkdir("p"); put("p/q", b"Q"); before = os.stat("h").st_nlink
rename(b"h/s", b"p/q", 2); same(get("h/s"), b"Q"); same(os.stat("h").st_nlink, before - 1); same(os.stat("p").st_nlink, 3)
same(os.stat("p/q/..").st_ino, os.stat("p").st_ino)
`,
    ),

  "hard links are counted, and a removed file that is open goes on": (root) =>
    python(
      root,
      `
put("f", b"data"); os.mkdir("d")
for i in range(300): os.link("f", f"l{i}")
same(os.stat("f").st_nlink, 301); same(os.stat("l7").st_ino, os.stat("f").st_ino)
fails(errno.EPERM, os.link, "d", "e"); fails(errno.EEXIST, os.link, "f", "l1"); fails(errno.ENOENT, os.link, "x", "y")
os.symlink("f", "s"); os.link("s", "s2", follow_symlinks=False); same(os.readlink("s2"), "f"); same(os.lstat("s").st_nlink, 2)
fd = os.open("f", os.O_RDWR)
for name in ["f"] + [f"l{i}" for i in range(300)]: os.unlink(name)
same(os.fstat(fd).st_nlink, 0); os.pwrite(fd, b"more", 4); os.fsync(fd); same(os.pread(fd, 9, 0), b"datamore")
os.ftruncate(fd, 2); os.fchmod(fd, 0o600); same(os.fstat(fd).st_size, 2); os.setxattr(fd, "user.a", b"1"); same(os.getxattr(fd, "user.a"), b"1")
fails(errno.ENOENT, link_open, fd, b"back")
fails(errno.EISDIR, os.unlink, "d"); fails(errno.ENOTDIR, os.rmdir, "s")
`,
    ),

  "a file without a name (O_TMPFILE) gets one by linkat, or none": (root) =>
    python(
      root,
      `
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640); os.write(fd, b"hello"); same(os.fstat(fd).st_nlink, 0); same(os.listdir("."), [])
link_open(fd, b"named"); same(get("named"), b"hello"); same(os.fstat(fd).st_nlink, 1); same(mode("named"), 0o640)
fails(errno.EEXIST, link_open, fd, b"named")
os.write(fd, b" you"); os.close(fd); same(get("named"), b"hello you")
fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o640); fails(errno.ENOENT, link_open, fd, b"no")
fails(errno.EINVAL, os.open, ".", os.O_TMPFILE | os.O_RDONLY)
`,
    ),

  "devices, pipes and sockets are what they are": (root) =>
    python(
      root,
      `
os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3)); os.mknod("b", stat.S_IFBLK | 0o600, os.makedev(259, 1048575)); os.mkfifo("p"); os.mknod("f", stat.S_IFREG | 0o600)
same((os.major(os.stat("b").st_rdev), os.minor(os.stat("b").st_rdev)), (259, 1048575)); check(stat.S_ISBLK(os.stat("b").st_mode))
check(stat.S_ISREG(os.stat("f").st_mode)); same(os.stat("null").st_rdev, os.makedev(1, 3))
pid = child(lambda: open("p", "wb").write(b"through the pipe")); same(get("p"), b"through the pipe"); done(pid)
server = socket.socket(socket.AF_UNIX); server.bind("s"); server.listen(); check(stat.S_ISSOCK(os.stat("s").st_mode))
pid = child(lambda: (lambda c: (c.connect("s"), c.sendall(b"hi")))(socket.socket(socket.AF_UNIX))); same(server.accept()[0].recv(9), b"hi"); done(pid)
fails(errno.ENXIO, os.open, "s", os.O_RDONLY); fails(errno.ENXIO, os.open, "p", os.O_WRONLY | os.O_NONBLOCK)
fails(errno.EEXIST, os.mkfifo, "f"); os.rename("p", "q"); os.unlink("q")
types = {e.name: stat.S_IFMT(os.lstat(e.name).st_mode) for e in os.scandir(".")}; same(types["s"], stat.S_IFSOCK)
as_user(1000, 1000, lambda: fails(errno.EACCES, os.mknod, "no", stat.S_IFCHR | 0o600, 259))
`,
    ),

  "reading a directory while it changes loses nothing that stays and shows nothing twice": (root) =>
    python(
      root,
      `
os.mkdir("d"); stay = {f"stay{i:05}" for i in range(4000)}; go = {f"go{i:05}" for i in range(4000)}
for name in stay | go: os.mknod("d/" + name)
seen = []; scan = os.scandir("d"); gone = sorted(go); added = 0
for n, entry in enumerate(scan):
    seen.append(entry.name)
    if n % 2 == 0 and gone: os.unlink("d/" + gone.pop())
    if n % 3 == 0 and added < 3000: os.mknod(f"d/new{added}"); added += 1
same(len(seen), len(set(seen)), "twice"); check(stay <= set(seen), "lost", len(stay - set(seen)))
check(set(seen) <= stay | go | {f"new{i}" for i in range(added)}, "invented")
same(set(os.listdir("d")), stay | set(gone) | {f"new{i}" for i in range(added)})
def reader():
    for _ in range(20):
        names = os.listdir("d"); same(len(names), len(set(names))); check(stay <= set(names), "lost in parallel")
pids = [child(reader) for _ in range(2)]
for i in range(1500): os.rename(f"d/new{i}", f"d/moved{i}"); os.mknod(f"d/extra{i}")
for pid in pids: done(pid)
import shutil; shutil.rmtree("d"); same(os.listdir("."), [])
`,
    ),

  "what is told of a directory by telldir leads back there": (root) =>
    python(
      root,
      `
for i in range(1000): os.mknod(f"f{i}")
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p; libc.telldir.restype = ctypes.c_long
d = ctypes.c_void_p(libc.opendir(b"."))
def next_name():
    entry = libc.readdir(d)
    return ctypes.string_at(entry + 19) if entry else None
places = []
while True:
    at = libc.telldir(d); name = next_name()
    if name is None: break
    places.append((at, name))
same(len(places), 1002)
for at, name in places[::-37]: libc.seekdir(d, ctypes.c_long(at)); same(next_name(), name)
os.mknod("late"); libc.rewinddir(d); names = set()
while (name := next_name()) is not None: names.add(name)
check(b"late" in names, "rewinddir shows what is new"); same(len(names), 1003)
`,
    ),

  "a directory that is gone is gone, also for who is in it": (root) =>
    python(
      root,
      `
os.mkdir("d"); fd = os.open("d", os.O_RDONLY); os.chdir("d"); os.rmdir("../d")
fails(errno.ENOENT, os.getcwd); fails(errno.ENOENT, open, "x", "w"); fails(errno.ENOENT, os.mkdir, "x"); same(os.listdir(fd), []); same(os.fstat(fd).st_nlink, 0)
os.chdir("/")
`,
    ),

  "rmdir removes empty directories only, and the counts are right": (root) =>
    python(
      root,
      `
os.makedirs("d/a"); os.makedirs("d/b"); put("d/f"); same(os.stat("d").st_nlink, 4)
fails(errno.ENOTEMPTY, os.rmdir, "d"); fails(errno.EINVAL, os.rmdir, "d/a/."); fails(errno.ENOTEMPTY, os.rmdir, "d/a/.."); fails(errno.EEXIST, os.mkdir, "d")
os.rmdir("d/a"); same(os.stat("d").st_nlink, 3); os.unlink("d/f"); os.rmdir("d/b"); os.rmdir("d"); fails(errno.ENOENT, os.rmdir, "d")
`,
    ),

  "inode numbers stay the same, and a file handle opens its file again, when the kernel has forgotten it": (root) =>
    python(
      root,
      `
os.makedirs("d/e"); put("d/e/f", b"data"); os.link("d/e/f", "g")
before = {p: os.stat(p).st_ino for p in ("d", "d/e", "d/e/f")}
def handle_of(path):
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128)); mount_id = ctypes.c_int()
    call("name_to_handle_at", -100, path, handle, ctypes.byref(mount_id), 0); return handle
file, folder = handle_of(b"d/e/f"), handle_of(b"d/e")
put("x"); gone = handle_of(b"x"); os.unlink("x")
root = os.open(".", os.O_RDONLY); os.sync()
with open("/proc/sys/vm/drop_caches", "w") as drop: drop.write("2")
fd = call("open_by_handle_at", root, file, os.O_RDONLY); same(os.read(fd, 9), b"data")
fd = call("open_by_handle_at", root, folder, os.O_RDONLY | os.O_DIRECTORY); same(os.listdir(fd), ["f"])
fails(errno.ESTALE, call, "open_by_handle_at", root, gone, os.O_RDONLY)
same({p: os.stat(p).st_ino for p in before}, before); same(os.stat("g").st_ino, before["d/e/f"])
`,
    ),

  "programs are told of changes (inotify)": (root) =>
    python(
      root,
      `
os.mkdir("d"); fd = call("inotify_init1", os.O_NONBLOCK); call("inotify_add_watch", fd, b"d", 0xfff)
put("d/a", b"x"); os.rename("d/a", "d/b"); os.unlink("d/b")
data = os.read(fd, 65536); seen = set()
while data:
    _, bits, _, n = struct.unpack("iIII", data[:16]); seen.add(bits & 0xfff); data = data[16 + n:]
check({0x100, 0x2, 0x8, 0x40, 0x80, 0x200} <= seen, seen)
`,
    ),
};
