/**
 * Real programs on a real mount: they must see what they would see on any other filesystem of the host. What one of
 * them has written is compared after an unmount and a mount, when nothing can come from a cache.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { mountVolume, shell, skipWithoutMounts, tidemarkOk, unmountVolume } from "../support/mounts.ts";
import { inPrivateMounts, tidemarkCommand } from "../support/private-mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutMounts();

interface Place {
  readonly volume: string;
  readonly mnt: string;
  /** A folder of the host's own filesystem. */
  readonly host: string;
  readonly remount: () => Promise<void>;
}

async function place(t: TestContext): Promise<Place> {
  const root = temporaryDirectory(t);
  const [volume, mnt, host] = [join(root, "v.tide"), join(root, "mnt"), join(root, "host")];
  await shell(`mkdir '${mnt}' '${host}'`);
  await tidemarkOk(["format", volume, "--size", "2G"]);
  await mountVolume(t, volume, mnt);
  return {
    volume,
    mnt,
    host,
    remount: async () => {
      await unmountVolume(mnt);
      await mountVolume(t, volume, mnt);
    },
  };
}

/** Contents, modes, owners, times to the nanosecond, hard links, attributes: rsync names every difference. */
async function assertSameTree(a: string, b: string): Promise<void> {
  const differences = await shell(`rsync -aHAXni --checksum --delete --modify-window=-1 '${a}/' '${b}/'`);
  assert.equal(differences, "", "rsync finds differences");
}

async function assertClean(volume: string): Promise<void> {
  await tidemarkOk(["check", volume]);
}

/** A tree with every kind of thing that a tree can hold. */
const everything = (at: string): string => `
  mkdir -p '${at}/a/b/c' '${at}/empty' && cd '${at}'
  for i in $(seq 1 300); do echo "file $i" > a/f$i; done
  head -c 5000000 /dev/urandom > a/b/large
  head -c 100 /dev/urandom > a/b/inline
  truncate -s 200M a/b/sparse && echo end >> a/b/sparse
  ln a/f1 a/hard && ln a/f1 a/b/hard2
  ln -s ../f1 a/b/soft && ln -s /no/such/place dangling && ln -s "$(printf 'x%.0s' $(seq 1 3000))" long-link
  mkfifo fifo && mknod null c 1 3 && mknod block b 7 9
  setfattr -n user.colour -v blue a/f2 && setfattr -n user.long -v "$(head -c 3000 /dev/zero | tr '\\0' y)" a/f3
  setfattr -n trusted.t -v 1 a
  chmod 4755 a/f5 && chmod 1777 empty && chown 1000:2000 a/f6 && chown -h 5:6 dangling
  touch -d '1961-04-12 06:07:00.123456789' a/f7 && touch -d '2106-02-07 06:28:16.987654321' a/f8
  touch "$(printf 'name\\nwith\\ttabs\\xff and bytes')" "$(printf 'n%.0s' $(seq 1 255))"
  touch -h -d '2001-01-01 00:00:00.000000001' dangling
  touch -d '1999-12-31 23:59:59.5' a/b a
`;

test("tar carries a tree of every kind of file onto the mount and back", { skip }, async (t) => {
  const { volume, mnt, host, remount } = await place(t);
  await shell(everything(join(host, "tree")));
  await shell(
    `cd '${host}' && tar --xattrs --xattrs-include='*' --acls -Scf - tree | tar --xattrs --xattrs-include='*' --acls -C '${mnt}' -xpf -`,
  );
  await assertSameTree(join(host, "tree"), join(mnt, "tree"));
  await remount();
  await assertSameTree(join(host, "tree"), join(mnt, "tree"));
  await unmountVolume(mnt);
  await assertClean(volume);
});

test("rsync -aHAXS copies a tree, and finds nothing to do the second time", { skip }, async (t) => {
  const { volume, mnt, host, remount } = await place(t);
  await shell(everything(join(host, "tree")));
  await shell(`rsync -aHAXS --modify-window=-1 '${host}/tree/' '${mnt}/tree/'`);
  await assertSameTree(join(host, "tree"), join(mnt, "tree"));
  await shell(`cd '${host}/tree' && rm -r a/b/c && mv a/f10 a/f10-moved && echo more >> a/f11 && rm a/f12`);
  await remount();
  await shell(`rsync -aHAXS --modify-window=-1 --delete '${host}/tree/' '${mnt}/tree/'`);
  await assertSameTree(join(host, "tree"), join(mnt, "tree"));
  await unmountVolume(mnt);
  await assertClean(volume);
});

test("git initialises, commits, branches, packs and checks a repository", { skip }, async (t) => {
  const { volume, mnt, remount } = await place(t);
  await shell(`
    cd '${mnt}' && git init -q repo && cd repo
    git config user.name t && git config user.email t@localhost
    for d in 1 2 3 4 5; do mkdir d$d; for i in $(seq 1 100); do seq $i $((i * 3)) > d$d/f$i; done; done
    git add -A && git commit -qm first
    git checkout -qb branch && git mv d1 moved && seq 5 > d2/f1 && git commit -qam second
    git checkout -q - && seq 9 > d3/f3 && git commit -qam third
    git merge -q --no-edit branch
    git gc -q && git fsck --full --strict`);
  await remount();
  assert.equal(await shell(`cd '${mnt}/repo' && git status --porcelain && git fsck --full --strict`), "");
  await shell(`cd '${mnt}' && git clone -q repo clone && diff -r --exclude=.git repo clone`);
  await unmountVolume(mnt);
  await assertClean(volume);
});

test("sqlite3 keeps a database in rollback and in WAL mode, with several writers", { skip }, async (t) => {
  const { volume, mnt, remount } = await place(t);
  for (const mode of ["delete", "wal"]) {
    const file = join(mnt, `${mode}.db`);
    await shell(`sqlite3 '${file}' 'pragma journal_mode=${mode}; create table t(id integer primary key, v text);'`);
    await shell(`
      for w in 1 2 3; do
        ( for i in $(seq 1 30); do sqlite3 -cmd '.timeout 30000' '${file}' "begin immediate; insert into t(v) values('$w-$i'); commit;"; done ) &
      done
      wait`);
    await remount();
    assert.equal(
      (await shell(`sqlite3 '${file}' 'select count(*), count(distinct v) from t; pragma integrity_check;'`)).trim(),
      "90|90\nok",
    );
  }
  await unmountVolume(mnt);
  await assertClean(volume);
});

test("a snapshot has all that was written before the command, and stays as it was", { skip }, async (t) => {
  const { volume, mnt, host } = await place(t);
  await shell(everything(join(host, "tree")));
  await shell(
    `cp -a '${host}/tree' '${mnt}/tree' && head -c 20000000 /dev/urandom > '${mnt}/tree/dirty' && cp '${mnt}/tree/dirty' '${host}/tree/dirty'`,
  );
  await tidemarkOk(["snapshot", "create", volume, "before"]);
  await shell(`rm -rf '${mnt}/tree/a' && echo changed > '${mnt}/tree/dirty'`);
  await shell(`cmp '${host}/tree/dirty' '${mnt}/.snapshot/before/tree/dirty'`);
  await shell(
    `touch -r '${mnt}/.snapshot/before/tree/dirty' '${host}/tree/dirty'; touch -r '${mnt}/.snapshot/before/tree' '${host}/tree'`,
  );
  await assertSameTree(join(host, "tree"), join(mnt, ".snapshot/before/tree"));
  await assert.rejects(shell(`echo x > '${mnt}/.snapshot/before/tree/new'`), /Read-only/);
  assert.equal(await shell(`ls -A '${mnt}'`), "tree\n", ".snapshot is not listed");
  assert.equal(await shell(`ls -A '${mnt}/.snapshot'`), "before\n");
  await tidemarkOk(["snapshot", "restore", volume, "before"]);
  await assertSameTree(join(host, "tree"), join(mnt, "tree"));
  await unmountVolume(mnt);
  await assertClean(volume);
});

test("kill -9 of the daemon loses nothing that was synced, and leaves a clean volume", { skip }, async (t) => {
  const { volume, mnt } = await place(t);
  for (let round = 1; round <= 3; round++) {
    await shell(
      `echo 'synced ${round}' > '${mnt}/kept${round}' && sync '${mnt}/kept${round}' && echo lost > '${mnt}/unsynced${round}'`,
    );
    const { mounts } = JSON.parse(await tidemarkOk(["status", volume, "--json"])) as { mounts: { pid: number }[] };
    process.kill(mounts[0]?.pid ?? assert.fail("no daemon"), "SIGKILL");
    await shell(`while ! umount -l '${mnt}' 2>/dev/null; do sleep 0.05; done`);
    await assertClean(volume);
    await mountVolume(t, volume, mnt);
    assert.equal(
      await shell(`cat '${mnt}'/kept*`),
      Array.from({ length: round }, (_, i) => `synced ${i + 1}\n`).join(""),
    );
  }
  await unmountVolume(mnt);
  await assertClean(volume);
});

test("a filesystem lies in a file of the mount, an overlay lies over the mount, and no swap in it", {
  skip,
}, async (t) => {
  const folder = temporaryDirectory(t);
  const { code, stdout, stderr } = await inPrivateMounts(
    `PATH="$PATH:/usr/sbin:/sbin"; cd ${folder}; mkdir m loop upper over; tidemark() { ${tidemarkCommand} "$@"; }
    tidemark format v.tm --size 512M > /dev/null; tidemark mount v.tm m
    truncate -s 64M m/image; mkfs.ext4 -q m/image; mount -o loop m/image loop
    cp -a /etc/init.d loop/; diff -r /etc/init.d loop/init.d; umount loop; e2fsck -fn m/image > /dev/null 2>&1; echo loop
    mkdir -p m/lower/d; echo below > m/lower/f; echo below > m/lower/d/g; mount -t tmpfs none upper; mkdir upper/u upper/w
    mount -t overlay overlay -o lowerdir=m/lower,upperdir=upper/u,workdir=upper/w over
    cat over/f; echo above > over/f; rm -r over/d; cat over/f m/lower/f m/lower/d/g; ls over; umount over
    head -c 1M /dev/zero > m/swap; chmod 600 m/swap; mkswap m/swap > /dev/null; swapon m/swap 2>&1 | grep -o 'Invalid argument'
    tidemark umount m; tidemark check v.tm | grep -o 'is consistent'`,
  );
  assert.equal(code, 0, stderr);
  assert.deepEqual(stdout.trim().split("\n"), [
    "loop",
    "below",
    "above",
    "below",
    "below",
    "f",
    "Invalid argument",
    "is consistent",
  ]);
});
