// Mounting without root: through fusermount3, as the user nobody, in a mount namespace with a /dev/fuse open to all.
import assert from "node:assert/strict";
import { chmodSync, chownSync, cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { isSharingAllowed } from "../../src/fuse/kernel/fusermount.ts";
import { type RunResult, tidemarkPath } from "../support/mounts.ts";
import {
  inPrivateMounts,
  openFuseDevice,
  skipWithoutPrivateMounts,
  sources,
  tidemarkCommand,
} from "../support/private-mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutPrivateMounts("fusermount3", "fusermount");
const NOBODY = 65534;

interface Home {
  readonly folder: string;
  readonly home: string;
}

function homeOf(t: TestContext): Home {
  const folder = temporaryDirectory(t);
  chmodSync(folder, 0o755);
  const home = join(folder, "home");
  mkdirSync(home);
  chownSync(home, NOBODY, NOBODY);
  return { folder, home };
}

interface UserScript {
  /** Of root, before and after. */
  readonly before?: string;
  readonly after?: string;
  readonly script: string;
}

/** Runs a script as nobody at home, with `tidemark` as a function and a runtime folder of its own. */
function asUser({ folder, home }: Home, { before = "", script, after = "" }: UserScript): Promise<RunResult> {
  const path = join(folder, "script");
  writeFileSync(path, `set -eu; cd ${home}; umask 022; tidemark() { ${tidemarkCommand} "$@"; }\n${script}\n`);
  const user = `setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups env HOME=${home} XDG_RUNTIME_DIR=${home}`;
  return inPrivateMounts(`${openFuseDevice(folder)} ${before}\n${user} /bin/bash ${path}\n${after}`);
}

async function asUserOk(home: Home, script: UserScript): Promise<string> {
  const { code, stdout, stderr } = await asUser(home, script);
  assert.equal(stderr, "");
  assert.equal(code, 0);
  return stdout;
}

for (const transport of ["kernel", "fuse-native"]) {
  test(`a user formats, mounts, writes, snapshots, unmounts and mounts again: ${transport}`, { skip }, async (t) => {
    const home = homeOf(t);
    const out = await asUserOk(home, {
      script: `mkdir m; tidemark format v.tm --size 64M > /dev/null; tidemark mount v.tm m -o transport=${transport}
      awk '$2 == "${home.home}/m" { print $1, $3, $4 }' /proc/self/mounts
      echo first > m/f; chmod 600 m/f; stat -c '%u %a' m m/f
      tidemark snapshot create v.tm one; echo later > m/f; cat m/.snapshot/one/f
      stat -c %a tidemark; ls tidemark | wc -l
      tidemark umount m; ls m; ls tidemark
      tidemark check v.tm | grep -o 'is consistent'
      tidemark mount ./v.tm m --read-only --transport ${transport}; cat m/f; ! touch m/x 2> /dev/null; tidemark umount m`,
    });
    const [row, ...rest] = out.split("\n");
    assert.match(row ?? "", /^v\.tm fuse\.tidemark rw,nosuid,nodev,/);
    assert.doesNotMatch(row ?? "", /allow_other/, "private, for /etc/fuse.conf does not allow more");
    assert.deepEqual(rest, [`${NOBODY} 755`, `${NOBODY} 600`, "first", "700", "1", "is consistent", "later", ""]);
  });

  test(`a user's busy mount is named and cut off, and what a killed daemon leaves is cleared: ${transport}`, {
    skip,
  }, async (t) => {
    const home = homeOf(t);
    const out = await asUserOk(home, {
      script: `mkdir m; tidemark format v.tm --size 64M > /dev/null; tidemark mount v.tm m --transport ${transport}; echo one > m/f
      (cd m; exec sleep 1000 > /dev/null 2>&1) & sleeper=$!
      until [ "$(readlink /proc/$sleeper/cwd)" = "${home.home}/m" ]; do sleep 0.05; done
      tidemark umount m 2> error || echo $?; grep -o 'is in use, by sleep' error
      echo two > m/g; tidemark umount --force m; flock v.tm echo unlocked; ls m | wc -l
      ls /proc/$sleeper/cwd/ > /dev/null 2>&1 || echo cut off
      kill $sleeper; tidemark mount v.tm m --transport ${transport}; cat m/f m/g; sync m/g
      kill -9 $(tidemark status v.tm --json | grep -o '"pid": [0-9]*' | tail -c +8)
      until LC_ALL=C ls m 2>&1 | grep -o 'not connected'; do sleep 0.05; done
      tidemark umount --force m; tidemark mount v.tm m --transport ${transport}; cat m/g; tidemark umount m
      tidemark check v.tm | grep -o 'is consistent'`,
    });
    const lines = [
      "11",
      "is in use, by sleep",
      "unlocked",
      "0",
      "cut off",
      "one",
      "two",
      "not connected",
      "two",
      "is consistent",
    ];
    assert.deepEqual(out.trim().split("\n"), lines);
  });

  test(`a user's mount outlives the files of the program that serves it: ${transport}`, { skip }, async (t) => {
    const home = homeOf(t);
    const copy = join(home.home, "program");
    cpSync(dirname(tidemarkPath), copy, { recursive: true });
    symlinkSync(join(sources(), "node_modules"), join(home.home, "node_modules"));
    const out = await asUserOk(home, {
      before: `chown -R ${NOBODY} ${copy};`,
      script: `mkdir m; tidemark format v.tm --size 64M > /dev/null
      ${process.execPath} program/main.js mount v.tm m --transport ${transport}; rm -r program
      echo kept > m/f; tidemark snapshot create v.tm one; tidemark check v.tm | grep -o 'is consistent'
      tidemark umount m; ls m; tidemark mount v.tm m --transport ${transport}; cat m/f; tidemark umount m`,
    });
    assert.equal(out, "is consistent\nkept\n");
  });
}

test("others, root too, are kept out unless the administrator allows sharing", { skip }, async (t) => {
  const home = homeOf(t);
  const config = join(home.folder, "fuse.conf");
  const script =
    "mkdir -p m; [ -e v.tm ] || tidemark format v.tm --size 64M > /dev/null; tidemark mount v.tm m; echo x > m/f";
  const after = `cat ${home.home}/m/f 2>/dev/null || echo kept out; umount ${home.home}/m; flock ${home.home}/v.tm true`;
  writeFileSync(config, "# user_allow_other\n");
  const bind = `mount --bind ${config} /etc/fuse.conf`;
  assert.equal(await asUserOk(home, { before: bind, script, after }), "kept out\n");
  const refused = await asUser(home, { before: bind, script: "tidemark mount v.tm m -o allow_other" });
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /allow_other is not allowed.*\n.*user_allow_other/);
  writeFileSync(config, "user_allow_other\n");
  assert.equal(await asUserOk(home, { before: bind, script, after }), "x\n");
});

test("what a user may not do is refused with the reason", { skip }, async (t) => {
  const home = homeOf(t);
  const prepare = "mkdir -p m; [ -e v.tm ] || tidemark format v.tm --size 64M > /dev/null;";
  const cases = [
    ["tidemark mount v.tm m -o suid", 2, /only root can mount with the option suid/],
    ["tidemark mount v.tm /mnt", 1, /cannot mount on \/mnt: .*fusermount3/],
    ["PATH=/nowhere; tidemark mount v.tm m --transport kernel", 1, /fusermount3|cannot lock/],
  ] as const;
  for (const [line, expected, message] of cases) {
    const { code, stderr } = await asUser(home, { script: prepare + line, after: "" });
    assert.equal(code, expected, `${line}: ${stderr}`);
    assert.match(stderr, message);
  }
});

test("a user is told whose mount it is that they cannot unmount", { skip }, async (t) => {
  const home = homeOf(t);
  const [volume, dir] = [join(home.folder, "v.tm"), join(home.folder, "mnt")];
  const { code, stderr } = await asUser(home, {
    before: `mkdir ${dir}; ${tidemarkCommand} format ${volume} --size 64M > /dev/null; ${tidemarkCommand} mount ${volume} ${dir}`,
    script: `status=0; tidemark umount ${dir} || status=$?; echo $status`,
    after: `${tidemarkCommand} umount ${dir}`,
  });
  assert.equal(code, 0, stderr);
  assert.match(stderr, /somebody else has mounted it/);
});

test("sharing is allowed by a line of its own", (t) => {
  const path = join(temporaryDirectory(t), "fuse.conf");
  for (const [text, expected] of [
    ["user_allow_other\n", true],
    ["mount_max = 1000\n  user_allow_other  \n", true],
    ["#user_allow_other\n", false],
    ["user_allow_others\n", false],
    ["", false],
  ] as const) {
    writeFileSync(path, text);
    assert.equal(isSharingAllowed(path), expected, text);
  }
  assert.equal(isSharingAllowed(`${path}-none`), false);
});
