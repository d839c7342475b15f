/** Conformance: the contents of files. */
import { type ConformanceCases, python } from "./case-tools.ts";

export const dataCases: ConformanceCases = {
  "a file is sparse up to the largest size that ext4 has, and no longer": (root) =>
    python(
      root,
      `
end = (1 << 44) - 4096
fd = os.open("f", os.O_RDWR | os.O_CREAT); os.pwrite(fd, b"last", end - 4); os.pwrite(fd, b"first", 0); os.pwrite(fd, b"middle", 1 << 40); os.fsync(fd)
st = os.fstat(fd); same(st.st_size, end); check(st.st_blocks < 256, st.st_blocks)
same(os.pread(fd, 9, end - 4), b"last"); same(os.pread(fd, 6, 1 << 40), b"middle"); same(os.pread(fd, 4, 1 << 39), bytes(4)); same(os.pread(fd, 9, end), b"")
fails(errno.EFBIG, os.ftruncate, fd, end + 1); fails(errno.EFBIG, os.truncate, "f", 1 << 50); fails(errno.EFBIG, os.posix_fallocate, fd, end, 4096)
fails(errno.EINVAL, os.ftruncate, fd, -1); fails(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
os.ftruncate(fd, 3); same(get("f"), b"fir"); os.ftruncate(fd, end); same(os.pread(fd, 9, 0), b"fir" + bytes(6))
`,
    ),

  "a file that was cut reads as zeros where it grows again": (root) =>
    python(
      root,
      `
for size in (1, 100, 127, 128, 129, 4095, 4096, 4097, 70000, 2097152 + 5):
    for cut in {0, 1, size // 2, size - 1}:
        fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_TRUNC); os.write(fd, b"x" * size)
        os.ftruncate(fd, cut); os.ftruncate(fd, size + 5000); data = os.pread(fd, size + 9000, 0)
        check(data == b"x" * cut + bytes(size + 5000 - cut), size, cut)
        os.pwrite(fd, b"end", size + 9000); data = os.pread(fd, size + 9999, 0); check(data[cut:] == bytes(size + 9000 - cut) + b"end", size, cut); os.close(fd)
`,
    ),

  "holes and data are found, also in what has not been written back": (root) =>
    python(
      root,
      `
fd = os.open("f", os.O_RDWR | os.O_CREAT); os.pwrite(fd, b"a" * 4096, 1 << 20); os.ftruncate(fd, 4 << 20)
for synced in (False, True):
    same(os.lseek(fd, 0, os.SEEK_HOLE), 0); same(os.lseek(fd, 0, os.SEEK_DATA), 1 << 20); same(os.lseek(fd, 1 << 20, os.SEEK_HOLE), (1 << 20) + 4096)
    same(os.lseek(fd, (1 << 20) + 7, os.SEEK_DATA), (1 << 20) + 7)
    fails(errno.ENXIO, os.lseek, fd, 2 << 20, os.SEEK_DATA); same(os.lseek(fd, 2 << 20, os.SEEK_HOLE), 2 << 20)
    fails(errno.ENXIO, os.lseek, fd, 4 << 20, os.SEEK_HOLE); fails(errno.ENXIO, os.lseek, fd, 5 << 20, os.SEEK_DATA)
    os.fsync(fd)
put("dense", b"d" * 100); fd = os.open("dense", os.O_RDONLY); same(os.lseek(fd, 0, os.SEEK_HOLE), 100); same(os.lseek(fd, 50, os.SEEK_DATA), 50)
`,
    ),

  "fallocate extends, keeps the size, punches and zeroes": (root) =>
    python(
      root,
      `
fallocate = lambda mode, at, length: call("fallocate", fd, mode, ctypes.c_long(at), ctypes.c_long(length))
fd = os.open("f", os.O_RDWR | os.O_CREAT); fallocate(0, 0, 10000); same(os.fstat(fd).st_size, 10000); same(os.pread(fd, 10000, 0), bytes(10000))
fallocate(1, 0, 50000); same(os.fstat(fd).st_size, 10000)
os.pwrite(fd, b"x" * 40000, 0); fallocate(3, 5000, 10000)
same(os.pread(fd, 40000, 0), b"x" * 5000 + bytes(10000) + b"x" * 25000); same(os.lseek(fd, 0, os.SEEK_HOLE), 8192)
fallocate(3, 39000, 100000); same(os.fstat(fd).st_size, 40000); same(os.pread(fd, 9999, 39000), bytes(1000))
fallocate(16, 20000, 30000); same(os.fstat(fd).st_size, 50000); same(os.pread(fd, 30000, 20000), bytes(30000)); fallocate(17, 0, 90000); same(os.pread(fd, 60000, 0), bytes(50000))
fails(errno.EOPNOTSUPP, fallocate, 2, 0, 10); fails(errno.EINVAL, fallocate, 0, -1, 10); fails(errno.EINVAL, fallocate, 0, 0, 0); fails(errno.EFBIG, fallocate, 0, 1 << 62, 1 << 61)
os.posix_fallocate(fd, 60000, 1); same(os.fstat(fd).st_size, 60001)
before = os.fstat(fd); time.sleep(0.02); fallocate(3, 0, 10); after = os.fstat(fd); check(after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns, "times")
fails(errno.EBADF, lambda: call("fallocate", os.open("f", os.O_RDONLY), 0, ctypes.c_long(0), ctypes.c_long(9)))
`,
    ),

  "copy_file_range copies what was written, within one file and between two": (root) =>
    python(
      root,
      `
data = os.urandom(3 << 20); a = os.open("a", os.O_RDWR | os.O_CREAT); os.write(a, data); b = os.open("b", os.O_RDWR | os.O_CREAT)
def copy(src, dst, n, at, to):
    left = n
    while left > 0 and (some := os.copy_file_range(src, dst, left, at + n - left, to + n - left)) > 0: left -= some
    return n - left
same(copy(a, b, 9 << 20, 0, 0), 3 << 20); check(os.pread(b, 4 << 20, 0) == data)
same(copy(a, b, 1000001, 77, 12345), 1000001); check(os.pread(b, 4 << 20, 0) == data[:12345] + data[77:1000078] + data[1012346:])
os.pwrite(b, b"dirty", 5); same(copy(b, a, 10, 0, 5 << 20), 10); same(os.pread(a, 99, 5 << 20), data[:5] + b"dirty"); same(os.pread(a, 9, 4 << 20), bytes(9))
same(copy(a, a, 4096, 0, 100000), 4096); check(os.pread(a, 4096, 100000) == data[:4096])
fails(errno.EINVAL, os.copy_file_range, a, a, 100, 0, 50); fails(errno.EBADF, os.copy_file_range, a, os.open("b", os.O_RDONLY), 9)
with mmap.mmap(b, 4096) as m:
    m[0:4] = b"mmap"; copy(b, a, 4096, 0, 0); same(os.pread(a, 4, 0), b"mmap"); os.pwrite(a, b"back", 0); copy(a, b, 4, 0, 0); same(m[0:4], b"back")
same(os.copy_file_range(a, b, 0), 0); same(os.copy_file_range(a, b, 10, 1 << 40, 0), 0)
`,
    ),

  "direct I/O and the page cache see one file": (root) =>
    python(
      root,
      `
fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT); buffered = os.open("f", os.O_RDWR)
page = mmap.mmap(-1, 65536); page[:] = b"d" * 65536; same(os.pwritev(fd, [page], 0), 65536); same(os.pread(buffered, 3, 65533), b"ddd")
os.pwrite(buffered, b"buffered", 4090); same(os.preadv(fd, [page], 0), 65536); same(page[4088:4100], b"ddbuffereddd")
page[:] = b"e" * 65536; os.pwritev(fd, [page], 4096); same(os.pread(buffered, 4, 4096), b"eeee")
same(os.fstat(fd).st_size, 69632); same(os.preadv(fd, [page], 65536), 4096); same(os.preadv(fd, [page], 1 << 20), 0)
with mmap.mmap(buffered, 69632) as m: page[:] = b"g" * 65536; os.pwritev(fd, [page], 0); same(m[0:4], b"gggg"); m[8:12] = b"mmap"; os.preadv(fd, [page], 0); same(page[8:12], b"mmap")
os.ftruncate(buffered, 0); os.pwrite(buffered, b"end", 1 << 20); same(os.preadv(fd, [page], 0), 65536); same(page[:], bytes(65536))  # a hole before what the kernel has yet to write back
`,
    ),

  "a shared mapping is one file with reads, writes, children and truncation": (root) =>
    python(
      root,
      `
fd = os.open("f", os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 3 * 4096); m = mmap.mmap(fd, 3 * 4096)
m[100:105] = b"hello"; same(os.pread(fd, 5, 100), b"hello"); os.pwrite(fd, b"there", 4094); same(m[4094:4099], b"there")
def write(): m[5000:5005] = b"child"
done(child(write)); same(m[5000:5005], b"child"); same(os.pread(fd, 5, 5000), b"child")
m.flush(); os.fsync(fd); same(get("f")[5000:5005], b"child")
os.ftruncate(fd, 4096 + 10); same(m[4096 + 10:8192], bytes(4086), "zeros behind the end"); os.ftruncate(fd, 3 * 4096); same(m[4096:4106], os.pread(fd, 10, 4096)); same(m[8192:8197], bytes(5))
os.ftruncate(fd, 4096)
def beyond():
    import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); signal.signal(signal.SIGBUS, signal.SIG_DFL); m[8192]
same(os.waitpid(child(beyond), 0)[1] & 127, signal.SIGBUS)
private = mmap.mmap(fd, 4096, mmap.MAP_PRIVATE); private[0:3] = b"own"; same(os.pread(fd, 3, 0), bytes(3))
before = os.stat("f").st_mtime_ns; time.sleep(0.02); m[0:3] = b"new"; m.flush(); os.close(fd); check(os.stat("f").st_mtime_ns > before, "mtime")
m.close(); os.unlink("f")
fd = os.open("g", os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 4096); m = mmap.mmap(fd, 4096); os.close(fd); os.unlink("g"); m[0:3] = b"use"; same(m[0:3], b"use")
`,
    ),

  "appending processes lose nothing": (root) =>
    python(
      root,
      `
def writer(n):
    fd = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for i in range(500): os.write(fd, b"%d %03d " % (n, i) + b"." * (i % 97) + b"\\n")
for pid in [child(lambda n=n: writer(n)) for n in range(4)]: done(pid)
lines = get("f").splitlines(); same(len(lines), 2000)
for n in range(4): same([int(l.split()[1]) for l in lines if l.startswith(b"%d " % n)], list(range(500)))
check(all(len(l) == 6 + int(l.split()[1]) % 97 for l in lines), "torn")
fd = os.open("f", os.O_RDWR | os.O_APPEND); size = os.fstat(fd).st_size; os.pwrite(fd, b"tail", 0); same(os.pread(fd, 9, size), b"tail", "pwrite with O_APPEND appends, as Linux does")
`,
    ),

  "vectors, sendfile, splice and two readers at their own places": (root) =>
    python(
      root,
      `
fd = os.open("f", os.O_RDWR | os.O_CREAT); same(os.writev(fd, [b"abc", b"", b"defg" * 2000]), 8003); same(os.lseek(fd, 0, os.SEEK_CUR), 8003)
a, b = bytearray(5), bytearray(3); same(os.preadv(fd, [a, b], 1), 8); same(bytes(a + b), b"bcdefgde")
out = os.open("g", os.O_RDWR | os.O_CREAT); same(os.sendfile(out, fd, 0, 8003), 8003); same(get("g"), get("f"))
r, w = os.pipe(); same(os.splice(fd, w, 4000, offset_src=3), 4000); same(os.splice(r, out, 4000, offset_dst=8003), 4000); same(get("g")[8003:], get("f")[3:4003])
one = os.open("f", os.O_RDONLY); two = os.dup(one); os.read(one, 10); same(os.lseek(two, 0, os.SEEK_CUR), 10); other = os.open("f", os.O_RDONLY); same(os.read(other, 3), b"abc")
same(os.lseek(fd, -3, os.SEEK_END), 8000); fails(errno.ESPIPE, os.lseek, r, 0, os.SEEK_SET)
for f in (os.fsync, os.fdatasync): f(fd)
call("syncfs", fd); call("sync_file_range", fd, ctypes.c_long(0), ctypes.c_long(0), 7); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
import resource; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); same(os.pwrite(fd, b"x" * 5000, 8000), 1000); fails(errno.EFBIG, os.pwrite, fd, b"x", 9000); fails(errno.EFBIG, os.ftruncate, fd, 9001)
`,
    ),

  "O_TRUNC and creation over a file empty it for all who have it open": (root) =>
    python(
      root,
      `
put("f", b"x" * 10000); fd = os.open("f", os.O_RDWR); os.pwrite(fd, b"dirty", 9000); os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)); same(os.fstat(fd).st_size, 0); same(os.pread(fd, 9, 0), b"")
os.pwrite(fd, b"tail", 5000); same(get("f"), bytes(5000) + b"tail"); ino = os.stat("f").st_ino; open("f", "w").close(); same(os.stat("f").st_ino, ino)
before = os.stat("f"); time.sleep(0.02); open("f", "w").close(); check(os.stat("f").st_mtime_ns > before.st_mtime_ns, "an empty file is truncated, too")
os.chmod("f", 0o444); as_user(1000, 1000, lambda: fails(errno.EACCES, os.open, "f", os.O_RDONLY | os.O_TRUNC))
`,
    ),
};
