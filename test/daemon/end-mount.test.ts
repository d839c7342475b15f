// What keeps a mount when its directory is unmounted: copies in other namespaces, bind mounts, processes that use it.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { inPrivateMounts, skipWithoutPrivateMounts, tidemarkCommand } from "../support/private-mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutPrivateMounts();

/** Runs a script in a folder with a volume v.tm, mounted on m; returns its lines and what it wrote to stderr. */
async function withMount(
  folder: string,
  script: string,
  options = "",
): Promise<{ readonly lines: readonly string[]; readonly stderr: string }> {
  const { code, stdout, stderr } = await inPrivateMounts(
    `cd ${folder}; mkdir m b; tidemark() { ${tidemarkCommand} "$@"; }; export XDG_RUNTIME_DIR=${folder}
    tidemark format v.tm --size 64M > /dev/null; tidemark mount v.tm m ${options}; echo one > m/f\n${script}
    tidemark check v.tm | grep -o 'is consistent'`,
  );
  assert.equal(code, 0, stderr);
  return { lines: stdout.trim().split("\n"), stderr };
}

const copyInOtherNamespace = `unshare -m --propagation private sleep 1000 > /dev/null 2>&1 & other=$!
  until [ "$(cat /proc/$other/comm)" = sleep ]; do sleep 0.05; done; copy=/proc/$other/root$PWD/m`;

for (const transport of ["kernel", "fuse-native"] as const) {
  test(`a copy in another namespace is served until it goes: ${transport}`, { skip }, async (t) => {
    const folder = temporaryDirectory(t);
    const { lines, stderr } = await withMount(
      folder,
      `${copyInOtherNamespace}
      tidemark umount m; ls m | wc -l; cat $copy/f; echo two > $copy/g; sync $copy/g
      flock -n v.tm true || echo locked; tidemark sync v.tm > /dev/null; tidemark snapshot create v.tm s > /dev/null
      kill $other; flock v.tm echo unlocked; tidemark mount v.tm m; cat m/g; tidemark umount m`,
      `--transport ${transport}`,
    );
    assert.deepEqual(lines, ["0", "one", "locked", "unlocked", "two", "is consistent"]);
    assert.match(
      stderr,
      /m is unmounted, .*durable; .*v\.tm stays in use by copies of the mount: sleep \(\d+\)\n.*--force/,
    );
  });

  test(`a copy in another namespace is cut off by force: ${transport}`, { skip }, async (t) => {
    const folder = temporaryDirectory(t);
    const { lines } = await withMount(
      folder,
      `${copyInOtherNamespace}
      tidemark umount --json v.tm | grep -o '"sleep'; echo two > $copy/g
      tidemark umount --force v.tm; flock v.tm echo unlocked; cat $copy/g 2> /dev/null || echo cut off
      kill $other; tidemark mount v.tm m; ls m; tidemark umount m`,
      `--transport ${transport}`,
    );
    assert.deepEqual(lines, ['"sleep', "unlocked", "cut off", "f", "g", "is consistent"]);
  });

  test(`a busy mount is cut off by force: ${transport}`, { skip }, async (t) => {
    const folder = temporaryDirectory(t);
    const { lines } = await withMount(
      folder,
      `(cd m; exec sleep 1000 > /dev/null 2>&1) & user=$!
      until [ "$(readlink /proc/$user/cwd)" = $PWD/m ]; do sleep 0.05; done
      exec 7> m/open; echo two >&7; tidemark umount m 2> error || echo $?; grep -o 'in use, by .*sleep' error
      tidemark umount --force m; flock v.tm echo unlocked; ls m | wc -l; ls /proc/$user/cwd/ > /dev/null 2>&1 || echo cut off
      exec 7>&- 2> /dev/null; kill $user; tidemark mount v.tm m; cat m/open; tidemark umount m`,
      `--transport ${transport}`,
    );
    assert.equal(lines[0], "11");
    assert.match(lines[1] ?? "", /^in use, by .*sleep/);
    assert.deepEqual(lines.slice(2), ["unlocked", "0", "cut off", "two", "is consistent"]);
  });
}

test("a bind mount keeps the filesystem, and umount names it", { skip }, async (t) => {
  const folder = temporaryDirectory(t);
  const { lines, stderr } = await withMount(
    folder,
    `mount --bind m b; tidemark umount m; ls m | wc -l; cat b/f; umount b; flock v.tm echo unlocked`,
  );
  assert.deepEqual(lines, ["0", "one", "unlocked", "is consistent"]);
  assert(stderr.includes(`copies of the mount: ${join(folder, "b")}\n`), stderr);
});

/** A shell closes a copy of its descriptor after each command, and closing writes back. */
const writeAndStay = `import os, sys, time
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(f, b"two\\n")
time.sleep(1000)`;

test("a snapshot has what was written to a copy of the mount and not written back yet", { skip }, async (t) => {
  const { lines } = await withMount(
    temporaryDirectory(t),
    `${copyInOtherNamespace}
    tidemark umount m 2> /dev/null
    python3 -c '${writeAndStay}' $copy/g & writer=$!
    until [ "$(stat -c %s $copy/g 2> /dev/null)" = 4 ]; do sleep 0.05; done
    tidemark snapshot create v.tm s > /dev/null; cat $copy/.snapshot/s/g
    kill $writer $other; flock v.tm true`,
  );
  assert.deepEqual(lines, ["two", "is consistent"]);
});

test("a signal to a daemon that only copies of the mount keep cuts them off", { skip }, async (t) => {
  const { lines } = await withMount(
    temporaryDirectory(t),
    `${copyInOtherNamespace}
    tidemark umount m 2> /dev/null; echo two > $copy/g
    kill -TERM $(tidemark status v.tm --json | grep -o '"pid": [0-9]*' | tail -c +8); flock v.tm echo unlocked
    cat $copy/g 2> /dev/null || echo cut off; kill $other; tidemark mount v.tm m; cat m/g; tidemark umount m`,
  );
  assert.deepEqual(lines, ["unlocked", "cut off", "two", "is consistent"]);
});

test("consistency points are taken after the directory was unmounted", { skip }, async (t) => {
  const { lines } = await withMount(
    temporaryDirectory(t),
    `${copyInOtherNamespace}
    tidemark umount m 2> /dev/null; echo two > $copy/g
    until tidemark status v.tm --json | grep -q '"cpLastCause": "timer"'; do sleep 0.2; done; echo taken; kill $other
    flock v.tm true`,
    "-o cp-interval=1s",
  );
  assert.deepEqual(lines, ["taken", "is consistent"]);
});
