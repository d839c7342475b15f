/** What conformance cases are made of: programs that run in the folder of the case, and must end well. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

/** A sentence, and what must hold: it runs in an empty folder of its own, as root, on any filesystem like ext4. */
export type ConformanceCases = Readonly<Record<string, (root: string) => void>>;

const TIMEOUT_MS = 60_000;

/** `check` and `fails` say what should have been; `as_user` runs a function as somebody else, in a child. */
const PRELUDE = `
import ctypes, errno, fcntl, mmap, os, select, signal, socket, stat, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
def check(ok, *what):
    assert ok, what
def same(found, expected, *what):
    assert found == expected, (repr(found)[:300], "instead of", repr(expected)[:300], *what)
def fails(code, f, *args, **how):
    try: found = f(*args, **how)
    except OSError as error: assert error.errno == code, (errno.errorcode[error.errno], "instead of", errno.errorcode[code])
    else: raise AssertionError(("nothing instead of", errno.errorcode[code], found))
def call(name, *args):
    ctypes.set_errno(0)
    found = getattr(libc, name)(*args)
    if found == -1: raise OSError(ctypes.get_errno(), name)
    return found
def link_open(fd, name):
    call("linkat", -100, b"/proc/self/fd/%d" % fd, -100, name, 0x400)
def child(f):
    pid = os.fork()
    if pid == 0:
        try: f(); sys.stdout.flush(); os._exit(0)
        except BaseException:
            import traceback; traceback.print_exc(); sys.stderr.flush(); os._exit(1)
    return pid
def done(pid):
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
def as_user(uid, gid, f, groups=()):
    def run():
        os.setgroups(list(groups)); os.setgid(gid); os.setuid(uid); f()
    done(child(run))
def put(path, data=b"", mode=0o644):
    with open(path, "wb") as file: file.write(data)
    os.chmod(path, mode)
def get(path):
    with open(path, "rb") as file: return file.read()
def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)
os.umask(0o022)
`;

/** Runs a Python program in the folder. What it throws is the error. */
export function python(root: string, program: string): void {
  runIn(root, "python3", ["-c", PRELUDE + program]);
}

/** Runs lines for the shell in the folder, each of which must succeed, and returns what they print. */
export function shellIn(root: string, script: string): string {
  return runIn(root, "/bin/sh", ["-euc", script]);
}

function runIn(root: string, file: string, args: readonly string[]): string {
  try {
    return execFileSync(file, args, {
      cwd: root,
      timeout: TIMEOUT_MS,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    });
  } catch (error) {
    const { stderr, stdout } = error as { readonly stderr?: string; readonly stdout?: string };
    return assert.fail((stderr ?? "") + (stdout ?? "") || String(error));
  }
}
