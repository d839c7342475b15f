import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { logFileOf, parseMountOptions } from "../../src/cli/mount-options.ts";
import { formatAge, formatBytes, formatCount, parseInterval, parseSize } from "../../src/cli/options.ts";
import { UserError } from "../../src/core/errors.ts";

const isUsage = (error: unknown): boolean =>
  error instanceof UserError && error.failure === "usage" && error.hint !== "";

test("sizes are powers of 1024, with or without a unit", () => {
  const cases: Readonly<Record<string, number>> = {
    "4096": 4096,
    "1K": 1024,
    "512M": 512 * 1024 ** 2,
    "1.5G": 1.5 * 1024 ** 3,
    "10GiB": 10 * 1024 ** 3,
    "2t": 2 * 1024 ** 4,
  };
  for (const [text, bytes] of Object.entries(cases)) assert.equal(parseSize(text), bytes, text);
  for (const text of ["", "0", "-1", "G", "1X", "1e9", "1 000", "0x10", "NaN", "9999999T"]) {
    assert.throws(() => parseSize(text), isUsage, text);
  }
});

test("one is not several", () => {
  assert.deepEqual(
    [0, 1, 2].map((count) => formatCount(count, "finding")),
    ["0 findings", "1 finding", "2 findings"],
  );
  assert.equal(formatCount(2, "copy", "copies"), "2 copies");
});

test("intervals have a unit, or are of seconds", () => {
  assert.equal(parseInterval("500ms"), 500);
  assert.equal(parseInterval("1s"), 1000);
  assert.equal(parseInterval("2"), 2000);
  assert.equal(parseInterval("1.5m"), 90_000);
  for (const text of ["", "0", "-1s", "1d", "s", "25h", "1 hour"])
    assert.throws(() => parseInterval(text), isUsage, text);
});

test("no text whatever is taken for a size that is not a whole number of bytes above 0", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        assert(Number.isSafeInteger(parseSize(text)) && parseSize(text) > 0);
      } catch (error) {
        assert(isUsage(error), String(error));
      }
    }),
  );
});

test("sizes are shown in the unit that reads best", () => {
  assert.equal(formatBytes(0), "0 B");
  assert.equal(formatBytes(1023), "1023 B");
  assert.equal(formatBytes(1536), "1.5 KiB");
  assert.equal(formatBytes(3 * 1024 ** 4), "3.0 TiB");
});

test("ages are shown in whole units", () => {
  const cases = { "0 s": -5, "59 s": 59_999, "1 min": 60_000, "59 min": 3_599_000, "1 h": 3_600_000, "2 d": 2e8 };
  for (const [text, ms] of Object.entries(cases)) assert.equal(formatAge(ms), text);
});

test("mount options are ours or the kernel's, and unknown ones are refused by name", () => {
  const settings = parseMountOptions(["ro,cp-interval=1s", "memory=64M,nosuid,noatime,defaults"]);
  assert.equal(settings.readOnly, true);
  assert.equal(settings.cpIntervalMs, 1000);
  assert.equal(settings.memoryBytesMax, 64 << 20);
  assert.deepEqual(settings.kernelOptions, ["nosuid"]);
  assert.equal(settings.accessTimes, "noatime");
  assert.equal(parseMountOptions(["snapdir=visible"]).snapshotDirectories, "visible");
  assert.throws(() => parseMountOptions(["memory=1M"]), isUsage, "too little to work with");
  assert.equal(parseMountOptions(["ro,rw"]).readOnly, false, "the last one counts");
  for (const option of ["fd=3", "allow_root", "cp-interval", "ro=1", "sparkle", "snapdir=there", "remount"]) {
    assert.throws(
      () => parseMountOptions([option]),
      (error) => isUsage(error) && String(error).includes(option),
      option,
    );
  }
});

test("options with a value have names of their own, which count more than -o", () => {
  const given = { log: "/fast/a,b", durability: "op", "cp-interval": "1m", memory: "64M", sleep: "deep" };
  const more = { snapshot: "monday", snapdir: "none", transport: "fuse-native" };
  const settings = parseMountOptions(["log=discard,memory=32M,noatime"], { given: { ...given, ...more } });
  assert.deepEqual(settings, {
    readOnly: false,
    snapshot: "monday",
    durability: "op",
    changeLog: { kind: "file", path: "/fast/a,b" },
    processorSleep: "deep",
    cpIntervalMs: 60_000,
    memoryBytesMax: 64 << 20,
    accessTimes: "noatime",
    snapshotDirectories: "none",
    transport: "fuse-native",
    kernelOptions: [],
  });
  for (const wrong of [{ log: "" }, { snapshot: "" }, { durability: "never" }, { memory: "many" }]) {
    assert.throws(() => parseMountOptions([], { given: wrong }), isUsage, JSON.stringify(wrong));
  }
});

test("a command that only looks takes the file of the log, by either name, and no other option", () => {
  const log = "/fast/a,b";
  assert.equal(logFileOf({ log, options: undefined }), log);
  assert.equal(logFileOf({ log: undefined, options: `log=${log}` }), log);
  assert.equal(logFileOf({ log: undefined, options: undefined }), undefined);
  assert.equal(logFileOf({ log, options: "log=other" }), log);
  for (const wrong of [
    { log: "discard" },
    { log: "" },
    { options: "ro" },
    { options: "log=discard" },
    { options: "" },
    { log, options: "ro" },
  ]) {
    assert.throws(() => logFileOf({ log: undefined, options: undefined, ...wrong }), isUsage, JSON.stringify(wrong));
  }
});

test("what fstab says to others is passed over, and what the mount table has when remounting", () => {
  const fstab = "defaults,_netdev,nofail,auto,noauto,user,users,x-systemd.automount,comment=mine,allow_other";
  assert.deepEqual(parseMountOptions([fstab]).kernelOptions, ["allow_other"]);
  const mounted = "remount,ro,user_id=0,group_id=0,max_read=4096,uhelper=fuse.tidemark";
  assert.equal(parseMountOptions([mounted], { remount: true }).readOnly, true);
  assert.throws(() => parseMountOptions(["remount,sparkle"], { remount: true }), isUsage);
  assert.deepEqual(parseMountOptions(["sparkle,noatime,x=y"], { sloppy: true }).accessTimes, "noatime");
});
