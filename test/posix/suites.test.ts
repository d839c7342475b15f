/**
 * Large programs, and the test suites of others, on a real mount: each must end there as it ends on the host's own
 * filesystem, and the volume must check clean afterwards. A program that is not installed skips its test; on CI it fails it.
 */
import assert from "node:assert/strict";
import { accessSync, constants, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { mountVolume, run, shell, skipWithoutMounts, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const POSTGRES = "/usr/lib/postgresql/15/bin";
const PATH = [POSTGRES, "/usr/bin", "/usr/sbin", "/bin", process.env["PATH"] ?? ""].join(delimiter);

function skipWithout(...programs: readonly string[]): string | false {
  const missing = programs.find((program) => !PATH.split(delimiter).some((at) => isExecutable(join(at, program))));
  if (missing === undefined) return skipWithoutMounts();
  assert.notEqual(process.env["CI"], "true", `${missing} is not installed, and on CI that is a failure`);
  return `${missing} is not installed`;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

interface Place {
  readonly volume: string;
  readonly mnt: string;
  /** A folder of the host's own filesystem. */
  readonly host: string;
}

async function place(t: TestContext): Promise<Place> {
  const root = temporaryDirectory(t);
  const [volume, mnt, host] = [join(root, "v.tide"), join(root, "mnt"), join(root, "host")];
  await shell(`chmod 755 '${root}' && mkdir '${mnt}' '${host}'`);
  await tidemarkOk(["format", volume, "--size", "4G"]);
  await mountVolume(t, volume, mnt);
  return { volume, mnt, host };
}

async function assertClean({ volume, mnt }: Place): Promise<void> {
  await unmountVolume(mnt);
  await tidemarkOk(["check", volume]);
}

test("PostgreSQL makes a cluster, serves pgbench, is killed, and recovers", {
  skip: skipWithout("initdb", "pg_ctl", "pgbench", "setpriv"),
}, async (t) => {
  const at = await place(t);
  const data = join(at.mnt, "pg");
  const as = "setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/tmp";
  const start = `${as} pg_ctl -D '${data}' -w -t 50 -l '${data}/log' -o "-k '${data}' -c listen_addresses=''" start`;
  const kill = `kill -9 $(head -1 '${data}/postmaster.pid'); while pgrep -F '${data}/postmaster.pid' >/dev/null 2>&1; do sleep 0.1; done`;
  t.after(() =>
    run("/bin/sh", ["-c", `test -e '${data}/postmaster.pid' && kill -9 $(head -1 '${data}/postmaster.pid')`]),
  );
  const env = { PATH };
  await shell(`mkdir '${data}' && chown postgres: '${data}' && chmod 700 '${data}'`);
  await shell(`${as} initdb -D '${data}' -A trust >/dev/null`, { env });
  await shell(start, { env, timeoutMs: 60_000 });
  const psql = (sql: string): Promise<string> => shell(`${as} psql -h '${data}' -d postgres -Atc "${sql}"`, { env });
  await shell(`${as} pgbench -h '${data}' -q -i -s 2 postgres 2>/dev/null`, { env });
  await shell(`${as} pgbench -h '${data}' -c 4 -T 3 postgres >/dev/null`, { env });
  await psql("create table kept as select generate_series(1, 1000) n");
  const sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)";
  const rows = Number(await psql("select count(*) from pgbench_history"));
  assert(rows > 10);
  await shell(kill, { env });
  await shell("sleep 1; " + start, { env, timeoutMs: 60_000 });
  assert.equal((await psql("select sum(n) from kept")).trim(), "500500");
  assert.equal((await psql(sums)).trim(), "t", "the accounts add up");
  assert.equal(
    Number(await psql("select count(*) from pgbench_history")),
    rows,
    "every acknowledged transaction is there",
  );
  await shell(`${as} pg_ctl -D '${data}' -w -m fast stop`, { env });
  await assertClean(at);
});

const PYTHON_TESTS = [
  "test_os",
  "test_posix",
  "test_shutil",
  "test_tempfile",
  "test_pathlib",
  "test_mmap",
  "test_fcntl",
  "test_glob",
  "test_zipfile",
  "test_fileio",
  "test_largefile",
];

/** The names of the tests that fail, sorted. */
async function failuresIn(folder: string): Promise<string> {
  const tests = PYTHON_TESTS.join(" ");
  const { stdout, stderr, code } = await run(
    "/bin/sh",
    ["-c", `cd '${folder}' && TMPDIR='${folder}' /usr/bin/python3.11 -m test --tempdir '${folder}' ${tests}`],
    {
      timeoutMs: 200_000,
    },
  );
  assert(code >= 0, `Python's tests took too long in ${folder}`);
  assert.match(stdout, /Total tests|Result|tests? OK|tests? failed/i, stderr.slice(-2000));
  return [...`${stdout}${stderr}`.matchAll(/^(?:FAIL|ERROR): (\S+ \(\S+\))/gm)]
    .map((found) => found[1] ?? "")
    .toSorted((a, b) => (a < b ? -1 : 1))
    .join("\n");
}

test("Python's own tests of files end as on the host", { skip: skipWithout("python3.11") }, async (t) => {
  const at = await place(t);
  assert.equal(await failuresIn(at.mnt), await failuresIn(at.host));
  await assertClean(at);
});

test("fio finds every block that it has written, through all its engines", { skip: skipWithout("fio") }, async (t) => {
  const at = await place(t);
  for (const engine of [
    "--ioengine=psync",
    "--ioengine=mmap",
    "--ioengine=libaio --direct=1 --iodepth=16",
    "--ioengine=io_uring --iodepth=8",
  ]) {
    for (const pattern of ["write --bs=128k", "randwrite --bs=4k"]) {
      await shell(
        `cd '${at.mnt}' && fio --name=job --size=48M --rw=${pattern} ${engine} --verify=crc32c --do_verify=1 --verify_fatal=1 --end_fsync=1 --output=/dev/null`,
      );
    }
  }
  await assertClean(at);
});

test("dbench, postmark and stress-ng run through without an error", {
  skip: skipWithout("dbench", "postmark", "stress-ng"),
}, async (t) => {
  const at = await place(t);
  await shell(`cd '${at.mnt}' && dbench -D . -t 4 2 >/dev/null`);
  await shell(
    `cd '${at.mnt}' && mkdir pm && printf 'set location pm\\nset number 1000\\nset transactions 2000\\nrun\\nquit\\n' | postmark >/dev/null`,
  );
  const stressors =
    "access chdir chmod chown copy-file dentry dir dirdeep dirmany dup fallocate fcntl file-ioctl filename flock fpunch fstat handle hdd inode-flags inotify io iomix lease link locka lockf lockofd mknod open rename seek symlink sync-file touch utime verity xattr";
  const jobs = stressors
    .split(" ")
    .map((stressor) => `--${stressor} 1`)
    .join(" ");
  await shell(
    `cd '${at.mnt}' && mkdir st && stress-ng --temp-path st --verify --timeout 1s --sequential 0 ${jobs} --hdd-bytes 16m --fallocate-bytes 16m --iomix-bytes 16m --sync-file-bytes 16m --copy-file-bytes 128m 2>&1`,
  );
  await assertClean(at);
});

test("the project itself compiles on the mount to what it compiles to here", {
  skip: skipWithoutMounts(),
}, async (t) => {
  const at = await place(t);
  const project = fileURLToPath(new URL("../../../", import.meta.url));
  await shell(`
    cp -a '${project}/package.json' '${project}/tsconfig.json' '${project}/src' '${at.mnt}/'
    mkdir '${at.mnt}/test' && ln -s '${project}/node_modules' '${at.mnt}/node_modules'
    cd '${at.mnt}' && node_modules/.bin/tsc && diff -r --exclude='*.map' dist/src '${project}/dist/src'`);
  await assertClean(at);
});

/** What the project needs to compile, and what that needs. */
const packages =
  "typescript @typescript/* @types/* undici-types chokidar readdirp koffi lru-cache yargs y18n cliui escalade " +
  "get-caller-file string-width strip-ansi ansi-regex wrap-ansi ansi-styles yargs-parser get-east-asian-width emoji-regex";

test("npm installs the same on the mount as here, and the project compiles with it", {
  skip: skipWithout("npm"),
}, async (t) => {
  const at = await place(t);
  const project = fileURLToPath(new URL("../../../", import.meta.url));
  const { host } = at;
  // Without a registry: each package comes from a tarball, and so do those that it depends on.
  await shell(
    `mkdir tarballs && cd '${project}/node_modules'
    npm pack --silent --ignore-scripts --pack-destination '${host}/tarballs' $(ls -d ${packages} | sed 's|^|./|') > '${host}/names'
    ls -d ${packages} > '${host}/packages'`,
    { cwd: host },
  );
  const lines = (file: string): readonly string[] => readFileSync(join(host, file), "utf8").trim().split("\n");
  const tarballs = lines("names");
  const names = lines("packages");
  assert.equal(tarballs.length, names.length);
  writeFileSync(
    join(host, "package.json"),
    JSON.stringify({
      name: "app",
      type: "module",
      dependencies: Object.fromEntries(names.map((name, i) => [name, `file:../tarballs/${tarballs[i]}`])),
      overrides: Object.fromEntries(names.map((name) => [name, `$${name}`])),
    }),
  );
  await shell(`
    cp -a '${host}/tarballs' '${at.mnt}/'
    for folder in '${host}/app' '${at.mnt}/app'; do
      mkdir "$folder" "$folder/test" && cp -a '${host}/package.json' '${project}/tsconfig.json' '${project}/src' "$folder/" && cd "$folder"
      npm install --offline --omit=optional --ignore-scripts --no-audit --no-fund --cache "$folder/../cache" --loglevel=error
      node_modules/.bin/tsc
    done
    cd '${host}/app' && find . -type f,l -printf '%P %y %m %l\\n' | sort > ../here
    cd '${at.mnt}/app' && find . -type f,l -printf '%P %y %m %l\\n' | sort | diff '${host}/here' -
    diff -r --exclude='*.map' --exclude=.package-lock.json '${host}/app' '${at.mnt}/app'
    rm -r '${at.mnt}/cache' '${at.mnt}/app/node_modules'`);
  await assertClean(at);
});
