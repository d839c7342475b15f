/**
 * Random operations on a mount and on a folder of the host, compared byte by byte. The mount does each thing in one of
 * the ways that there are (write, mapping, direct I/O, fallocate, copy_file_range ...); the folder does the same by reads
 * and writes alone, so that any filesystem will do for it. Everything follows from the seed.
 *
 * As a program: `node random-files.js MOUNT FOLDER SEED OPERATIONS`.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const PROGRAM = String.raw`
import ctypes, mmap, os, random, stat, sys
mount, host, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True); rng = random.Random(seed)
SIZE_MAX = 3 << 20; names = [f"f{i}" for i in range(12)]; folders = ["", "a/", "b/", "a/c/"]; log = []
for d in (mount, host):
    for f in folders: os.makedirs(f"{d}/{f}", exist_ok=True)
opened = []  # (descriptor on the mount, descriptor on the host, descriptor for direct I/O)
direct = mmap.mmap(-1, 1 << 20)

def say(*what): log.append(what); del log[:-60]
def both(f): return f(mount), f(host)
def fallocate(fd, mode, at, n):
    if libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(n)) != 0: raise OSError(ctypes.get_errno(), "fallocate")
def host_write(fd, data, at):
    while data: n = os.pwrite(fd, data, at); data, at = data[n:], at + n
def host_read(fd, n, at):
    parts = []
    while n > 0 and (part := os.pread(fd, n, at)): parts.append(part); n -= len(part); at += len(part)
    return b"".join(parts)
def place():
    scale = rng.choice((200, 5000, 70000, SIZE_MAX)); return rng.randrange(scale)
def data_of(n): return rng.randbytes(n) if rng.random() < 0.7 else bytes([rng.randrange(256)]) * n
def path(): return rng.choice(folders) + rng.choice(names)
def pick():
    if not opened: do_open()
    return rng.choice(opened)

def do_open():
    if len(opened) > 8: do_close()
    p = path(); flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if rng.random() < 0.1 else 0); say("open", p, flags)
    opened.append((os.open(f"{mount}/{p}", flags, 0o644), os.open(f"{host}/{p}", flags, 0o644), os.open(f"{mount}/{p}", os.O_RDWR | os.O_DIRECT)))
def do_close():
    if opened:
        say("close"); [os.close(fd) for fd in opened.pop(rng.randrange(len(opened)))]
def do_write():
    m, h, x = pick(); at, n = place(), 1 + place() % 300000; data = data_of(n); way = rng.choice(("write", "write", "map", "direct", "vector"))
    if way == "direct": at, n = at & ~4095, max(4096, n & ~4095); data = (data * 2 + bytes(4096))[:n]
    say(way, at, n)
    if way == "map":
        if os.fstat(m).st_size < at + n: os.ftruncate(m, at + n); os.ftruncate(h, at + n)
        first = at & ~4095
        with mmap.mmap(m, at + n - first, offset=first) as view:
            view[at - first : at - first + n] = data
            if rng.random() < 0.3: view.flush()
    elif way == "direct":
        direct[0:n] = data; view = memoryview(direct)[0:n]; assert os.pwritev(x, [view], at) == n; view.release()
    elif way == "vector": assert os.pwritev(m, [data[: n // 3], data[n // 3 :]], at) == n
    else: assert os.pwrite(m, data, at) == n
    host_write(h, data, at)
def do_read():
    m, h, x = pick(); at, n = place(), 1 + place() % 300000; way = rng.choice(("read", "map", "direct")); expected = host_read(h, n, at)
    if way == "direct": at, n = at & ~4095, (n + 4095) & ~4095; expected = host_read(h, n, at)
    say("read", way, at, n)
    if way == "map":
        if not expected: return
        first = at & ~4095
        with mmap.mmap(m, at + len(expected) - first, prot=mmap.PROT_READ, offset=first) as view: found = view[at - first : at - first + len(expected)]
    elif way == "direct":
        view = memoryview(direct)[0:n]; k = os.preadv(x, [view], at); found = bytes(view[:k]); view.release()
    else: found = os.pread(m, n, at)
    assert found == expected, ("read", way, at, n, first_difference(found, expected))
def do_truncate():
    m, h, _ = pick(); n = place(); say("truncate", n); os.ftruncate(m, n); os.ftruncate(h, n)
def do_hole():
    m, h, _ = pick(); at, n = place(), 1 + place() % 300000; mode = rng.choice((3, 16, 17, 0, 1)); say("fallocate", mode, at, n); fallocate(m, mode, at, n)
    size = os.fstat(h).st_size
    if mode in (3, 16, 17) and at < size: host_write(h, bytes(min(n, size - at)), at)
    if mode in (0, 16) and at + n > size: os.ftruncate(h, at + n)
def do_copy():
    m, h, _ = pick(); m2, h2, _ = pick(); at, to, n = place(), place(), 1 + place() % 300000
    if os.path.sameopenfile(m, m2) and at < to + n and to < at + n: return
    say("copy", at, to, n); data = host_read(h, n, at); done = 0
    while done < len(data): k = os.copy_file_range(m, m2, n - done, at + done, to + done); assert k > 0, "copied nothing"; done += k
    host_write(h2, data, to)
def do_append():
    p = path(); data = data_of(1 + place() % 9000); say("append", p, len(data))
    for d in (mount, host):
        with open(f"{d}/{p}", "ab") as f: f.write(data)
def do_seek():
    m, h, _ = pick(); size = os.fstat(h).st_size; at = 0; say("seek")
    while at < size:  # what is said to be a hole must be zeros
        try: data = os.lseek(m, at, os.SEEK_DATA)
        except OSError: data = size
        assert not any(host_read(h, data - at, at)), ("data in a hole", at, data)
        at = os.lseek(m, data, os.SEEK_HOLE) if data < size else size
def do_name():
    p, q = path(), path(); what = rng.choice(("rename", "rename", "link", "unlink", "exchange")); say(what, p, q); results = []
    for d in (mount, host):
        try:
            if what == "rename": os.rename(f"{d}/{p}", f"{d}/{q}")
            elif what == "link": os.link(f"{d}/{p}", f"{d}/{q}")
            elif what == "unlink": os.unlink(f"{d}/{p}")
            else:
                if libc.renameat2(-100, f"{d}/{p}".encode(), -100, f"{d}/{q}".encode(), 2) != 0: raise OSError(ctypes.get_errno(), what)
            results.append(0)
        except OSError as error: results.append(error.errno)
    assert results[0] == results[1], (what, p, q, results)
def do_mode():
    m, h, _ = pick(); mode = rng.randrange(0o1000) | 0o600; say("chmod", mode); os.fchmod(m, mode); os.fchmod(h, mode)
def do_sync():
    m, _, _ = pick(); what = rng.choice(("fsync", "fdatasync", "dontneed")); say(what)
    if what == "dontneed": os.fsync(m); os.posix_fadvise(m, 0, 0, os.POSIX_FADV_DONTNEED)
    else: getattr(os, what)(m)

def first_difference(a, b):
    for i in range(min(len(a), len(b))):
        if a[i] != b[i]: return ("first at", i, "of", len(a), len(b))
    return ("lengths", len(a), len(b))
def compare():
    for f in folders:
        found, expected = both(lambda d: sorted(os.listdir(f"{d}/{f}"))); assert found == expected, ("names", f, found, expected)
        for name in expected:
            a, b = both(lambda d: os.lstat(f"{d}/{f}{name}"))
            if not stat.S_ISREG(b.st_mode): continue
            assert (a.st_mode, a.st_size, a.st_nlink) == (b.st_mode, b.st_size, b.st_nlink), ("stat", f + name, a, b)
            a, b = both(lambda d: open(f"{d}/{f}{name}", "rb").read()); assert a == b, ("contents", f + name, first_difference(a, b))
    for m, h, _ in opened:
        size = os.fstat(h).st_size; assert os.fstat(m).st_size == size; a, b = host_read(m, size + 1, 0), host_read(h, size + 1, 0); assert a == b, ("open file", first_difference(a, b))

actions = [do_open] * 3 + [do_close] * 2 + [do_write] * 12 + [do_read] * 8 + [do_truncate] * 3 + [do_hole] * 4 + [do_copy] * 3 + [do_append] * 2 + [do_seek] * 2 + [do_name] * 4 + [do_mode, do_sync]
at = 0
try:
    for at in range(count):
        rng.choice(actions)()
        if at % 200 == 199: compare()
    compare()
except BaseException as error:
    print(f"operation {at} of seed {seed}:", repr(error)[:1000]); print("\n".join(str(x) for x in log[-15:])); raise SystemExit(1)
`;

/** Throws what was different, and after which operations. Never in a process that serves the mount. */
export function compareRandomly(
  mount: string,
  host: string,
  { seed, operations }: { readonly seed: number; readonly operations: number },
): void {
  const args = ["-c", PROGRAM, mount, host, String(seed), String(operations)];
  const { status, stdout, stderr } = spawnSync("python3", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(stdout === "" ? stderr : stdout);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , mount = "", host = "", seed = "1", operations = "1000"] = process.argv;
  try {
    compareRandomly(mount, host, { seed: Number(seed), operations: Number(operations) });
  } catch (error) {
    process.stdout.write(`${String(error)}\n`);
    process.exitCode = 1;
  }
}
