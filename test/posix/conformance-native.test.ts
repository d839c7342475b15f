// The list of conformance.ts on a mount by the transport fuse-native: all of it but what libfuse 2.9 cannot do.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { mountVolume, runOk, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { skipWithoutNative } from "../support/native.ts";
import { temporaryDirectory } from "../support/temp.ts";
import { type CaseResult, conformanceCases, type Exceptions } from "./conformance.ts";

const noCaller = "libfuse 2.9 knows who asks, fuse-native does not pass it on: new files belong to the daemon's user";
const noAcl = "libfuse 2.9 does not ask the kernel to enforce access lists, so they are refused";

const exceptions: Exceptions = {
  "names are any bytes but zero and slash, up to 255 of them": "fuse-native passes names as text: UTF-8 only",
  "renameat2 keeps from replacing, and exchanges": "libfuse 2.9 has no flags of rename",
  "a file without a name (O_TMPFILE) gets one by linkat, or none": "libfuse 2.9 has no O_TMPFILE",
  "a directory that is gone is gone, also for who is in it": "libfuse 2.9 goes by paths, and it has none any more",
  "inode numbers stay the same, and a file handle opens its file again, when the kernel has forgotten it":
    "libfuse 2.9 makes node ids of its own, and forgets them",
  "holes and data are found, also in what has not been written back": "libfuse 2.9 has no lseek: all is data",
  "fallocate extends, keeps the size, punches and zeroes": "fuse-native does not pass fallocate on",
  "times have nanoseconds, from long before 1970 to long after 2038": "fuse-native shows milliseconds since 1970",
  "statx knows when a file was born": "libfuse 2.9 has no statx",
  "writing, truncating and a new owner take set-user-id, set-group-id and capabilities away": "it needs fallocate",
  "permissions hold for owner, group and others, in files and on the way to them": noCaller,
  "new files get owner, mode, umask, and group and set-group-id from the directory": noCaller,
  "an access list and the mode are one, as setfacl, chmod and getfacl see them": noAcl,
  "an access list is enforced": noAcl,
  "a default access list is inherited, and comes before the umask": noAcl,
  "extended attributes have their sizes, flags, names and namespaces":
    "who asks is not known, so names of trusted.* are shown to everybody; their values are not",
};

test("the transport fuse-native does what the list says, but for the exceptions", {
  skip: skipWithoutNative(),
}, async (t) => {
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "1G"]);
  await mountVolume(t, volume, dir, ["--transport", "fuse-native"]);
  const program = fileURLToPath(new URL("conformance.js", import.meta.url));
  const lines = (await runOk(process.execPath, [program, dir], { timeoutMs: 300_000 })).trim().split("\n");
  const results = lines.map((line) => JSON.parse(line) as CaseResult);
  assert.deepEqual(
    results.map(({ name }) => name),
    Object.keys(conformanceCases),
  );
  const unexpected = results.filter(({ name, error }) => (error === null) === name in exceptions);
  assert.deepEqual(unexpected, [], "not as the table of exceptions has it");
  await unmountVolume(dir);
  assert.match(await tidemarkOk(["check", volume]), /is consistent/);
});
