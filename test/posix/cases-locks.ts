/** Conformance: locks between processes. */
import { type ConformanceCases, python } from "./case-tools.ts";

export const lockCases: ConformanceCases = {
  "flock excludes and shares between processes, and ends with the file": (root) =>
    python(
      root,
      `
put("f"); a = os.open("f", os.O_RDWR); b = os.open("f", os.O_RDWR); TRY = fcntl.LOCK_NB
fcntl.flock(a, fcntl.LOCK_EX); fails(errno.EAGAIN, fcntl.flock, b, fcntl.LOCK_SH | TRY); done(child(lambda: fails(errno.EAGAIN, fcntl.flock, os.open("f", os.O_RDONLY), fcntl.LOCK_EX | TRY)))
fcntl.flock(a, fcntl.LOCK_SH); fcntl.flock(b, fcntl.LOCK_SH | TRY); fails(errno.EAGAIN, fcntl.flock, b, fcntl.LOCK_EX | TRY); os.close(a); fcntl.flock(b, fcntl.LOCK_EX | TRY)
r, w = os.pipe()
def wait():
    fd = os.open("f", os.O_RDWR); os.write(w, b"1"); fcntl.flock(fd, fcntl.LOCK_EX); os.write(w, b"2")
pid = child(wait); same(os.read(r, 1), b"1"); same(select.select([r], [], [], 0.05)[0], []); fcntl.flock(b, fcntl.LOCK_UN); same(os.read(r, 1), b"2"); done(pid)
`,
    ),

  "fcntl locks ranges between processes, and tells who has them": (root) =>
    python(
      root,
      `
put("f", b"x" * 100); fd = os.open("f", os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20); me = os.getpid()
def other():
    mine = os.open("f", os.O_RDWR); fails(errno.EAGAIN, fcntl.lockf, mine, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 25); fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 20, 0); fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 30)
    found = struct.unpack("hhqqi", fcntl.fcntl(mine, fcntl.F_GETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 25, 0))[:28]); same((found[0], found[2], found[3], found[4]), (fcntl.F_WRLCK, 20, 10, me))
done(child(other)); os.close(os.open("f", os.O_RDONLY)); pid = child(lambda: fcntl.lockf(os.open("f", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)); done(pid)
r, w = os.pipe(); r2, w2 = os.pipe(); put("g")
def hold():
    mine = os.open("g", os.O_RDWR); fcntl.lockf(mine, fcntl.LOCK_EX, 1, 1); os.write(w, b"1"); os.read(r2, 1); fcntl.lockf(mine, fcntl.LOCK_EX, 1, 0); os._exit(0)
g = os.open("g", os.O_RDWR); fcntl.lockf(g, fcntl.LOCK_EX, 1, 0); pid = child(hold); os.read(r, 1); os.write(w2, b"1")
deadline = time.time() + 20
while True:
    try: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1); break
    except OSError: pass
    waiting = any("->" in line and f" {pid} " in line for line in open("/proc/locks"))
    if waiting or time.time() > deadline: break
    time.sleep(0.005)
fails(errno.EDEADLK, fcntl.lockf, g, fcntl.LOCK_EX, 1, 1); fcntl.lockf(g, fcntl.LOCK_UN, 1, 0); done(pid)
OFD_SETLK = 37; lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0); one = os.open("f", os.O_RDWR); two = os.open("f", os.O_RDWR); fcntl.fcntl(one, OFD_SETLK, lock); fails(errno.EAGAIN, fcntl.fcntl, two, OFD_SETLK, lock); os.close(one); fcntl.fcntl(two, OFD_SETLK, lock)
`,
    ),
};
