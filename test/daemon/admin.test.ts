// Mounting as administrators do it: mount(8), umount(8), fstab, remounting; and what the mount table shows.
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { tidemarkOk } from "../support/mounts.ts";
import {
  inPrivateMounts,
  installHelpers,
  skipWithoutPrivateMounts,
  tidemarkCommand,
} from "../support/private-mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const skip = skipWithoutPrivateMounts("mount", "findmnt");

interface Place {
  readonly folder: string;
  readonly volume: string;
  readonly dir: string;
  readonly helpers: string;
}

async function placeFor(t: TestContext): Promise<Place> {
  const folder = temporaryDirectory(t);
  const [volume, dir] = [join(folder, "v.tm"), join(folder, "mnt")];
  mkdirSync(dir);
  await tidemarkOk(["format", volume, "--size", "64M"]);
  return { folder, volume, dir, helpers: installHelpers(folder) };
}

/** Runs a script with the helpers installed; it must end well and have printed nothing on stderr. */
async function quietly({ helpers }: Place, script: string): Promise<string> {
  const { code, stdout, stderr } = await inPrivateMounts(helpers + script);
  assert.equal(stderr, "", script);
  assert.equal(code, 0, script);
  return stdout;
}

test("mount(8) mounts and umount(8) returns when all is durable, without a word", { skip }, async (t) => {
  const place = await placeFor(t);
  const { volume, dir } = place;
  const out = await quietly(
    place,
    `mount -t fuse.tidemark ${volume} ${dir} -o noatime,nodev,nosuid,allow_other,default_permissions,cp-interval=1h
     findmnt -no SOURCE,FSTYPE ${dir}; findmnt -no OPTIONS ${dir}
     echo kept > ${dir}/f
     umount ${dir}
     flock --nonblock ${volume} echo free
     mount -t fuse.tidemark ${volume} ${dir}; cat ${dir}/f; umount ${dir}`,
  );
  const [first, options, ...rest] = out.split("\n");
  assert.equal(first, `${volume} fuse.tidemark`);
  for (const option of ["rw", "noatime", "nodev", "nosuid", "allow_other", "default_permissions"]) {
    assert((options ?? "").split(",").includes(option), `${option} is not in ${options}`);
  }
  assert.deepEqual(rest, ["free", "kept", ""]);
});

test("a line in fstab is enough, with what fstab lines say", { skip }, async (t) => {
  const place = await placeFor(t);
  const { folder, volume, dir } = place;
  const fstab = join(folder, "fstab");
  const options = "defaults,ro,nofail,_netdev,noauto,user,x-systemd.requires=x.service,snapdir=visible";
  writeFileSync(fstab, `${volume} ${dir} fuse.tidemark ${options} 0 0\n`);
  const out = await quietly(
    place,
    `mount --bind ${fstab} /etc/fstab
     mount ${dir}; findmnt -no SOURCE ${dir}; findmnt -no OPTIONS ${dir}; ls -A ${dir}; umount ${dir}`,
  );
  const [source, shown, ...listed] = out.split("\n");
  assert.equal(source, volume);
  assert.match(shown ?? "", /^ro,/);
  assert.deepEqual(listed, [".snapshot", ""]);
});

test("fstab with the type tidemark, and mount -a, which mounts once", { skip }, async (t) => {
  const place = await placeFor(t);
  const { folder, volume, dir } = place;
  const fstab = join(folder, "fstab");
  writeFileSync(fstab, `${volume} ${dir} fuse.tidemark rw,relatime 0 0\n`);
  const out = await quietly(
    place,
    `mount --bind ${fstab} /etc/fstab
     mount -a; mount -a; grep -c ' ${dir} ' /proc/self/mounts; umount ${dir}
     mount -t tidemark ${volume} ${dir}; findmnt -no FSTYPE ${dir}; umount ${dir}`,
  );
  assert.equal(out, "1\nfuse.tidemark\n");
});

test("remounting makes it read-only and writable again", { skip }, async (t) => {
  const place = await placeFor(t);
  const { volume, dir } = place;
  const out = await quietly(
    place,
    `mount -t fuse.tidemark ${volume} ${dir} -o noatime
     mount -o remount,ro ${dir}; ! touch ${dir}/f 2>/dev/null; findmnt -no OPTIONS ${dir} | cut -d, -f1
     mount -o remount,rw,nosuid ${dir}; touch ${dir}/f; findmnt -no OPTIONS ${dir} | cut -d, -f1,2
     umount ${dir}`,
  );
  assert.equal(out, "ro\nrw,nosuid\n");
  const { code, stderr } = await inPrivateMounts(
    `${place.helpers} mount -t fuse.tidemark ${volume} ${dir} -o ro
     mount -o remount,rw ${dir} || { umount ${dir}; exit 7; }`,
  );
  assert.equal(code, 7);
  assert.match(stderr, /is mounted read-only, and cannot be remounted for writing/);
});

test("what mount(8) asks wrongly is refused by name, with its exit codes", { skip }, async (t) => {
  const place = await placeFor(t);
  const { volume, dir } = place;
  const cases = [
    [`mount -t fuse.tidemark ${volume} ${dir} -o sparkle`, 1, /unknown mount option "sparkle"/],
    [`mount -t fuse.tidemark ${volume} ${dir} -o snapdir=there`, 1, /there is no snapdir=there/],
    [`mount -t fuse.tidemark ${volume}-none ${dir}`, 32, /v\.tm-none/],
    [`mount -t fuse.tidemark ${volume} ${dir}/none`, 32, /no such directory|does not exist/],
    [`mount -t fuse.tidemark ${volume} ${dir} -o snapshot=none`, 32, /there is no snapshot none/],
  ] as const;
  for (const [line, expected, message] of cases) {
    const { code, stderr } = await inPrivateMounts(place.helpers + line);
    assert.equal(code, expected, `${line}: ${stderr}`);
    assert.match(stderr, message);
  }
  await quietly(place, `mount -s -t fuse.tidemark ${volume} ${dir} -o sparkle; umount ${dir}`);
  await quietly(place, `mount -f -t fuse.tidemark ${volume} ${dir}; ! findmnt ${dir}`);
});

test("the source column is the volume as it was given, and unmounting finds its daemon all the same", {
  skip,
}, async (t) => {
  const place = await placeFor(t);
  const { folder, dir } = place;
  const out = await quietly(
    place,
    `cd ${folder}; ${tidemarkCommand} mount ./v.tm mnt; cd /; findmnt -no SOURCE ${dir}
     ${tidemarkCommand} umount ${dir}
     cd ${folder}; ln -s v.tm other.tm; ${tidemarkCommand} mount other.tm mnt; findmnt -no SOURCE ${dir}
     kill -9 $(${tidemarkCommand} status v.tm --json | grep -o '"pid": [0-9]*' | cut -d' ' -f2)
     until ! ls mnt >/dev/null 2>&1; do :; done
     ${tidemarkCommand} mount v.tm mnt; findmnt -no SOURCE ${dir}; ${tidemarkCommand} umount v.tm`,
  );
  assert.equal(out, "./v.tm\nother.tm\nv.tm\n");
});

test("a busy mount says who holds it, to umount(8) too; --force cuts it off", { skip }, async (t) => {
  const place = await placeFor(t);
  const { volume, dir } = place;
  const { code, stdout, stderr } = await inPrivateMounts(
    `${place.helpers} mount -t fuse.tidemark ${volume} ${dir}
     (cd ${dir}; exec sleep 60) & holder=$!
     until [ "$(readlink /proc/$holder/cwd)" = ${dir} ]; do :; done
     umount ${dir} || echo "code $?"
     umount -f ${dir}; ! findmnt ${dir}; kill $holder`,
  );
  assert.equal(code, 0, stderr);
  assert.equal(stdout, "code 32\n");
  assert.match(stderr, /is in use, by (bash|sleep) \(\d+\)/);
});

test("a mount whose daemon died answers ENOTCONN, and umount clears it", { skip }, async (t) => {
  const place = await placeFor(t);
  const { volume, dir } = place;
  const die = `kill -9 $(${tidemarkCommand} status ${volume} --json | grep -o '"pid": [0-9]*' | cut -d' ' -f2)`;
  for (const clear of [`umount ${dir}`, `umount -f ${dir}`, `${tidemarkCommand} umount --force ${dir}`]) {
    const { code, stderr, stdout } = await inPrivateMounts(
      `${place.helpers} mount -t fuse.tidemark ${volume} ${dir}; ${die}
       until ! stat ${dir}/. >/dev/null 2>&1; do :; done
       LC_ALL=C ls ${dir} 2>&1 || true; ${clear}; ! findmnt ${dir}`,
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, /Transport endpoint is not connected/);
    assert.equal(stderr, "", clear);
  }
});

for (const signal of ["TERM", "INT"]) {
  test(`SIG${signal} unmounts the background daemon with a last consistency point`, { skip }, async (t) => {
    const place = await placeFor(t);
    const { volume, dir } = place;
    const out = await quietly(
      place,
      `mount -t fuse.tidemark ${volume} ${dir} -o cp-interval=1h; echo kept > ${dir}/f
       kill -${signal} $(${tidemarkCommand} status ${volume} --json | grep -o '"pid": [0-9]*' | cut -d' ' -f2)
       flock ${volume} true; ! findmnt ${dir}
       ${tidemarkCommand} check ${volume} | grep -o 'is consistent'
       mount -t fuse.tidemark ${volume} ${dir}; cat ${dir}/f; umount ${dir}`,
    );
    assert.equal(out, "is consistent\nkept\n");
  });
}

test("the root of all is nothing to mount on", { skip }, async (t) => {
  const { volume } = await placeFor(t);
  for (const transport of ["kernel", "fuse-native"]) {
    const { code, stderr } = await inPrivateMounts(
      `${tidemarkCommand} mount ${volume} /etc/.. --transport ${transport}`,
    );
    assert.equal(code, 1, stderr);
    assert.match(stderr, /cannot mount on \/: /);
  }
});
