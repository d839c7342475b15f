/** The conformance list on a mount of the kernel transport, and what no case can see: what is left after a new mount. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { mountVolume, runOk, shell, skipWithoutMounts, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";
import { type CaseResult, conformanceCases, type Exceptions } from "./conformance.ts";

const skip = skipWithoutMounts();
const programPath = fileURLToPath(new URL("./conformance.js", import.meta.url));
const TIMEOUT_MS = 300_000;

const kernelExceptions: Exceptions = {};

test("a mount of the kernel transport conforms, case by case", { skip }, async (t) => {
  const root = temporaryDirectory(t);
  const [volume, mnt] = [join(root, "v.tide"), join(root, "mnt")];
  await shell(`chmod 755 '${root}' && mkdir '${mnt}'`);
  await tidemarkOk(["format", volume, "--size", "2G"]);
  await mountVolume(t, volume, mnt);
  const output = await runOk(process.execPath, [programPath, mnt], { timeoutMs: TIMEOUT_MS });
  const results = output
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as CaseResult);
  assert.deepEqual(
    results.map(({ name }) => name),
    Object.keys(conformanceCases),
  );
  for (const { name, error } of results) {
    await t.test(name, () => {
      const why = kernelExceptions[name];
      if (why === undefined) assert.equal(error, null, error ?? "");
      else assert.notEqual(error, null, `passes, so it is no exception: ${why}`);
    });
  }
  await unmountVolume(mnt);
  await tidemarkOk(["check", volume]);
});

const HANDLES = `
import ctypes, os, pickle, struct, sys, errno
libc = ctypes.CDLL(None, use_errno=True); os.chdir(sys.argv[1])
def handle_of(path):
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128)); n = ctypes.c_int()
    assert libc.name_to_handle_at(-100, path, handle, ctypes.byref(n), 0) == 0, ctypes.get_errno()
    return handle.raw
if sys.argv[2] == "take":
    os.makedirs("d/e"); open("d/e/f", "w").write("data"); open("gone", "w").close()
    pickle.dump([handle_of(b"d/e/f"), handle_of(b"gone"), os.stat("d/e/f").st_ino], open(sys.argv[3], "wb")); os.unlink("gone")
    open("another", "w").write("may have the number of the one that is gone")
else:
    file, gone, ino = pickle.load(open(sys.argv[3], "rb")); root = os.open(".", os.O_RDONLY)
    fd = libc.open_by_handle_at(root, ctypes.create_string_buffer(file), os.O_RDONLY)
    assert fd >= 0 and os.read(fd, 9) == b"data" and os.fstat(fd).st_ino == ino == os.stat("d/e/f").st_ino, ctypes.get_errno()
    assert libc.open_by_handle_at(root, ctypes.create_string_buffer(gone), os.O_RDONLY) == -1 and ctypes.get_errno() == errno.ESTALE
`;

test("a file handle opens its file again after a new mount, and never another one", { skip }, async (t) => {
  const root = temporaryDirectory(t);
  const [volume, mnt, handles] = [join(root, "v.tide"), join(root, "mnt"), join(root, "handles")];
  await shell(`mkdir '${mnt}'`);
  await tidemarkOk(["format", volume, "--size", "64M"]);
  await mountVolume(t, volume, mnt);
  await runOk("python3", ["-c", HANDLES, mnt, "take", handles]);
  await unmountVolume(mnt);
  await mountVolume(t, volume, mnt);
  await runOk("python3", ["-c", HANDLES, mnt, "open", handles]);
  await unmountVolume(mnt);
});

test("noatime and strictatime are mount options; relatime is what is done without", { skip }, async (t) => {
  const root = temporaryDirectory(t);
  const [volume, mnt] = [join(root, "v.tide"), join(root, "mnt")];
  await shell(`mkdir '${mnt}'`);
  await tidemarkOk(["format", volume, "--size", "64M"]);
  // Read twice: how often did the access time change?
  const changes = `import os, sys, time
os.chdir(sys.argv[1]); open("f", "w").write("x" * 5000); found = [os.stat("f").st_atime_ns]
for _ in range(2): time.sleep(0.03); open("f").read(); found.append(os.stat("f").st_atime_ns)
print(len(set(found)) - 1)`;
  for (const [options, expected] of [
    [[], "1"],
    [["-o", "noatime"], "0"],
    [["-o", "strictatime"], "2"],
  ] as const) {
    await mountVolume(t, volume, mnt, options);
    assert.equal((await runOk("python3", ["-c", changes, mnt])).trim(), expected, options.join(" "));
    await unmountVolume(mnt);
  }
});
