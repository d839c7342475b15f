import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { UserError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import { createFileDevice, openFileDevice } from "../../src/device/file-device.ts";
import { inspectImage } from "../../src/image/inspect.ts";
import { openReadOnly } from "../../src/image/open-state.ts";
import { openReceiver } from "../../src/image/receive.ts";
import { receiveImages } from "../../src/image/receive-images.ts";
import { sendImage } from "../../src/image/send-image.ts";
import { openFileSink } from "../../src/image/targets/file.ts";
import { openPipeSink, readPipe } from "../../src/image/targets/pipe.ts";
import { openVolumeFile } from "../../src/image/targets/volume-file.ts";
import { verifyFile, verifyImages } from "../../src/image/verify.ts";
import { openVolume } from "../../src/volume/open.ts";
import { fullDisk } from "../support/full-disk.ts";
import { runOk, skipWithoutMounts } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";
import { assertFaithful, clock, makeSource, type Source } from "./histories.ts";

/** Path of a compiled file of the room, for child processes. */
function module(name: string): string {
  return fileURLToPath(new URL(`../../src/image/${name}.js`, import.meta.url));
}

/** A process that sends a and b to its standard output, and one that receives them from its standard input, as JavaScript. */
function programs({ volume, copy }: { readonly volume: string; readonly copy: string }): readonly [string, string] {
  return [
    `import { sendImage } from ${JSON.stringify(module("send-image"))};
    await sendImage({ volume: ${JSON.stringify(volume)}, snapshots: ["a", "b"] });`,
    `import { receiveImages } from ${JSON.stringify(module("receive-images"))};
    await receiveImages({ volume: ${JSON.stringify(copy)}, files: [], clock: { now: () => ({ seconds: 1, nanoseconds: 0 }) } });`,
  ];
}

interface Files {
  readonly path: string;
  readonly volume: string;
  readonly source: Source;
  /** Path of a file in the folder. */
  readonly at: (name: string) => string;
}

/** A volume file with snapshots a, b and c, and a folder for the rest. */
function setUp(t: TestContext): Files {
  const path = temporaryDirectory(t);
  const source = makeSource({ seed: 21, blockCount: 2048 });
  for (const name of ["a", "b", "c"]) {
    source.change(15);
    source.snapshot(name);
  }
  const volume = join(path, "source.tide");
  save(volume, source);
  return { path, volume, source, at: (name) => join(path, name) };
}

/** Writes the source, as it is now, to a volume file. */
function save(volume: string, { device: from }: Source): void {
  rmSync(volume, { force: true });
  const device = createFileDevice(volume, 2048);
  const bytes = new Uint8Array(2048 * BLOCK_BYTES);
  from.read(0, 2048, bytes, 0);
  device.write(0, 2048, bytes, 0);
  device.close();
}

async function sendChain({ volume, at }: Files): Promise<string[]> {
  const files = [at("a.image"), at("b.image"), at("c.image")];
  await sendImage({ volume, snapshots: ["a"], output: files[0] });
  await sendImage({ volume, snapshots: ["b"], base: "a", output: files[1] });
  await sendImage({ volume, snapshots: ["c"], base: "b", output: files[2] });
  return files;
}

const fails = (failure: string, pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof UserError, String(error));
  assert.equal(error.failure, failure, error.message);
  assert.match(error.message, pattern);
  return true;
};

function assertReceived(path: string, source: Source): void {
  const device = openFileDevice(path, { writable: false });
  assertFaithful(source.device, device);
  device.close();
}

test("a chain of files makes the volume, and says what it did", async (t) => {
  const files = setUp(t);
  const chain = await sendChain(files);
  assert.ok(!readdirSync(files.path).some((name) => name.endsWith(".part")));
  const volume = files.at("copy.tide");
  const phases = new Set<string>();
  const { images } = await receiveImages({
    volume,
    files: chain,
    clock,
    onProgress: ({ phase, file }) => phases.add(`${phase} ${file}`),
  });
  assert.deepEqual(
    images.map(({ top }) => top.name),
    ["a", "b", "c"],
  );
  assert.equal(phases.size, 6);
  assertReceived(volume, files.source);
  await assert.rejects(
    receiveImages({ volume, files: chain, clock }),
    fails("mismatch", /a\.image is a full image, but there is a volume already/),
  );
  await assert.rejects(
    receiveImages({ volume, files: chain.slice(2), clock }),
    fails("mismatch", /brings snapshot "c", which is there/),
  );
});

test("a chain is refused as a whole: broken file or link, the volume is untouched and a new one is not made", async (t) => {
  const files = setUp(t);
  const [a, b, c] = (await sendChain(files)) as [string, string, string];
  const volume = files.at("copy.tide");
  const refused = async (list: string[], failure: string, pattern: RegExp): Promise<void> => {
    const before = existsSync(volume) ? readFileSync(volume) : undefined;
    await assert.rejects(receiveImages({ volume, files: list, clock }), fails(failure, pattern));
    assert.deepEqual(existsSync(volume) ? readFileSync(volume) : undefined, before);
  };
  await refused([a, c, b], "mismatch", /c\.image needs snapshot .* as its base, but after .*a\.image there is/);
  await refused([b], "mismatch", /b\.image is an increment to snapshot .*, but no volume is there/);
  const cut = files.at("cut.image");
  writeFileSync(cut, readFileSync(c).subarray(0, -5));
  await refused(
    [a, b, cut],
    "corrupt",
    /image .*cut\.image: the image stream ends after \d+ bytes, within frame \d+ of \d+/,
  );
  await receiveImages({ volume, files: [a], clock });
  await refused([b, cut], "corrupt", /cut short/);
  await refused([c], "mismatch", /c\.image needs snapshot/);
  await refused([files.at("nothing")], "failed", /no such file/);
  const flipped = files.at("flipped.image");
  const bytes = readFileSync(b);
  bytes[bytes.length - 400] = (bytes[bytes.length - 400] as number) ^ 4;
  writeFileSync(flipped, bytes);
  await refused([flipped], "corrupt", /body of frame \d+ has checksum 0x\w+, expected 0x\w+/);
  await receiveImages({ volume, files: [b, c], clock });
  assertReceived(volume, files.source);
});

test("an ordinary copy keeps its own snapshots: a stream with which they would go is refused unless it is said that they may", async (t) => {
  const files = setUp(t);
  const [a, b, c] = (await sendChain(files)) as [string, string, string];
  const volume = files.at("copy.tide");
  await receiveImages({ volume, files: [a], clock });
  const device = openFileDevice(volume, { writable: true });
  const copy = openVolume({ device, clock, random: prng(1), writable: true });
  for (const name of ["mine", "too"]) copy.createSnapshot(name);
  copy.takeCp("snapshot");
  device.close();
  const before = readFileSync(volume);
  const isRefusal = fails("mismatch", /copy\.tide has snapshots that the source of the image has not.*"mine", "too"$/);
  await assert.rejects(receiveImages({ volume, files: [b, c], clock }), isRefusal);
  const opened = openVolumeFile(volume); // as a pipe is received into
  assert.throws(() => openReceiver(opened, { clock, keepSnapshots: true }).push(readFileSync(b)), isRefusal);
  opened.close();
  assert.deepEqual(readFileSync(volume), before);
  const { images } = await receiveImages({ volume, files: [b, c], clock, dropSnapshots: true });
  assert.deepEqual(
    images.map(({ dropped }) => dropped),
    [["mine", "too"], []],
  );
  assertReceived(volume, files.source);
});

test("what one file of a chain brings and a later one drops is nobody's loss", async (t) => {
  const files = setUp(t);
  const { source } = files;
  const [a, b] = (await sendChain(files)) as [string, string, string];
  const volume = files.at("copy.tide");
  source.drop("b");
  source.change(5);
  source.snapshot("d");
  save(files.volume, source);
  const [late, last] = [files.at("late.image"), files.at("last.image")];
  await sendImage({ volume: files.volume, snapshots: ["c"], base: "a", output: late });
  await sendImage({ volume: files.volume, snapshots: ["d"], base: "c", output: last });
  const more = files.at("more.tide");
  await receiveImages({ volume: more, files: [a, b], clock });
  await assert.rejects(receiveImages({ volume: more, files: [late], clock }), fails("mismatch", /has not.*: "b"$/));
  await receiveImages({ volume, files: [a, late, last], clock });
  assertReceived(volume, source);
});

test("verify finds broken files and broken links without a volume", async (t) => {
  const files = setUp(t);
  const [a, b, c] = (await sendChain(files)) as [string, string, string];
  const good = await verifyImages({ files: [a, b, c] });
  assert.equal(good.findings, 0);
  assert.deepEqual(
    good.files.map(({ summary }) => summary?.kind),
    ["full", "incremental", "incremental"],
  );
  assert.equal(good.needs, null);
  const alone = await verifyImages({ files: [c] });
  assert.equal(alone.findings, 0);
  assert.equal(alone.needs?.name, "b");
  const both = files.at("both");
  writeFileSync(both, Buffer.concat([readFileSync(a), readFileSync(b)]));
  const { files: joined } = await verifyImages({ files: [both] });
  assert.match(joined[0]?.problem ?? "", /goes on after its trailer: of several images each is a file/);
  await assert.rejects(verifyFile(both), { failure: "corrupt", hint: "" }, "nothing is to be made again");
  const gap = await verifyImages({ files: [a, c] });
  assert.equal(gap.findings, 1);
  assert.match(gap.chainProblem ?? "", /needs snapshot/);
  for (const order of [
    [a, b, a],
    [b, a, b],
  ]) {
    const { findings, chainProblem } = await verifyImages({ files: order });
    assert.equal(findings, 1);
    assert.match(chainProblem ?? "", /a\.image is a full image, but there is a volume already: .*b\.image/);
  }
  truncateSync(b, 3000);
  writeFileSync(files.at("junk"), "not an image at all, but long enough to have a frame header");
  const bad = await verifyImages({ files: [a, b, files.at("junk")] });
  assert.equal(bad.findings, 2);
  assert.deepEqual(
    bad.files.map(({ problem }) => problem === undefined),
    [true, false, false],
  );
  assert.match(bad.files[2]?.problem ?? "", /frame magic missing/);
});

test("inspect tells what a file is from its ends", async (t) => {
  const files = setUp(t);
  const [, b] = (await sendChain(files)) as [string, string];
  const found = await inspectImage(b);
  assert.equal(found.kind, "incremental");
  assert.deepEqual(
    found.tops.map(({ name }) => name),
    ["b"],
  );
  assert.deepEqual(
    found.held.map(({ name }) => name),
    ["a", "b", "c"],
  );
  assert.equal(found.volume.label, "history");
  assert.equal(found.hasTrailer, true);
  assert.equal(found.streamBytes, readFileSync(b).length);
  assert.equal(found.base?.cpCount, files.source.volume.findSnapshot("a")?.cpCount);
  assert.equal(found.base?.name, "a");
  assert.doesNotThrow(() => JSON.stringify(found));
  truncateSync(b, found.streamBytes - 1);
  assert.equal((await inspectImage(b)).hasTrailer, false);
  truncateSync(b, 100);
  await assert.rejects(inspectImage(b), fails("corrupt", /ends within its header/));
  await assert.rejects(inspectImage(files.path), fails("usage", /is a directory/));
});

test("files are not overwritten unasked, and a refused sending leaves none", async (t) => {
  const { volume, at, path } = setUp(t);
  writeFileSync(at("x"), "precious");
  await assert.rejects(sendImage({ volume, snapshots: ["a"], output: at("x") }), fails("failed", /exists already/));
  assert.equal(readFileSync(at("x"), "utf8"), "precious");
  await sendImage({ volume, snapshots: ["a"], output: at("x"), force: true });
  assert.equal((await inspectImage(at("x"))).kind, "full");
  await assert.rejects(
    sendImage({ volume, snapshots: ["z"], output: at("y") }),
    fails("failed", /has no snapshot "z"/),
  );
  await assert.rejects(
    sendImage({ volume, snapshots: ["a"], base: "active", output: at("y") }),
    fails("failed", /only a snapshot can be/),
  );
  await assert.rejects(
    sendImage({ volume, snapshots: ["a"], base: "b", output: at("y") }),
    fails("mismatch", /not newer/),
  );
  await assert.rejects(
    sendImage({ volume, snapshots: ["a"], output: at("no/such/folder") }),
    fails("failed", /no such file/),
  );
  const controller = new AbortController();
  controller.abort(new Error("interrupted"));
  await assert.rejects(
    sendImage({ volume, snapshots: ["a"], output: at("y"), signal: controller.signal }),
    /interrupted/,
  );
  assert.deepEqual(readdirSync(path).toSorted(), ["source.tide", "x"]);
  await sendImage({ volume, snapshots: ["a"], output: "/dev/null" });
});

test("a disk is written over by force only", { skip: skipWithoutMounts() }, async (t) => {
  const files = setUp(t);
  const volume = files.at("source.tide");
  const { disk } = await fullDisk(t, temporaryDirectory(t), { sizeBytes: 64 << 20, hostMib: 80 });
  await assert.rejects(
    sendImage({ volume, snapshots: ["a"], output: disk }),
    fails("failed", /is a disk, or part of one/),
  );
  assert.equal(
    readFileSync(disk).findIndex((byte) => byte !== 0),
    -1,
  );
  const { bytes } = await sendImage({ volume, snapshots: ["a"], output: disk, force: true });
  const image = files.at("image");
  writeFileSync(image, readFileSync(disk).subarray(0, bytes));
  await verifyFile(image);
});

test("receiving spares what is not a volume, and volumes in use", async (t) => {
  const files = setUp(t);
  const [a, b] = (await sendChain(files)) as [string, string];
  writeFileSync(files.at("text"), "precious");
  await assert.rejects(
    receiveImages({ volume: files.at("text"), files: [a], clock }),
    fails("failed", /is not a Tidemark volume/),
  );
  assert.equal(readFileSync(files.at("text"), "utf8"), "precious");
  writeFileSync(files.at("empty"), "");
  await receiveImages({ volume: files.at("empty"), files: [a], clock });
  assertReceived(files.at("empty"), files.source);
  await receiveImages({ volume: files.at("text"), files: [a, b], clock, force: true });
  assertReceived(files.at("text"), files.source);

  const holder = spawn("flock", ["--exclusive", files.at("empty"), "cat"], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => holder.kill());
  holder.stdin.write("locked\n");
  await new Promise((resolve) => holder.stdout.once("data", resolve)); // cat runs, so the lock is held
  await assert.rejects(receiveImages({ volume: files.at("empty"), files: [b], clock }), fails("in-use", /in use/));
});

test("a stream goes through a pipe from process to process", async (t) => {
  const { volume, at, source } = setUp(t);
  const [send, receive] = programs({ volume, copy: at("copy") });
  const pipeline = 'set -o pipefail; "$0" --input-type=module -e "$1" | "$0" --input-type=module -e "$2"';
  await runOk("bash", ["-c", pipeline, process.execPath, send, receive]);
  assertReceived(at("copy"), source);
});

test("what the shell has redirected goes on where it stands", async (t) => {
  const { volume, at, source } = setUp(t);
  const [send, receive] = programs({ volume, copy: at("copy") });
  const lines = `{ echo before; "$0" --input-type=module -e "$1"; } > "$3"
    { read -r word; [ "$word" = before ]; "$0" --input-type=module -e "$2"; } < "$3"`;
  await runOk("bash", ["-e", "-c", lines, process.execPath, send, receive, at("stream")]);
  assertReceived(at("copy"), source);
});

test("a reader that goes away is a clear error, and a terminal is refused", async () => {
  const gone = new PassThrough();
  const sink = openPipeSink(gone);
  gone.destroy(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
  await assert.rejects(sink.write(new Uint8Array(10)), fails("failed", /cannot write the image stream/));
  assert.throws(
    () => openPipeSink(Object.assign(new PassThrough(), { isTTY: true })),
    fails("usage", /not for a terminal/),
  );
  assert.throws(() => readPipe({ fd: 0, isTTY: true }), fails("usage", /from a terminal/));
});

test("an image that is named is read twice, and so is no pipe", async (t) => {
  const files = setUp(t);
  const receiving = receiveImages({ volume: files.at("copy"), files: ["/dev/null"], clock });
  await assert.rejects(receiving, fails("usage", /\/dev\/null is not a file: images that are named are read twice/));
  assert.ok(!existsSync(files.at("copy")));
});

test("a pipe that breaks off leaves no volume behind", async (t) => {
  const files = setUp(t);
  const [a] = (await sendChain(files)) as [string];
  const script = `import { receiveImages } from ${JSON.stringify(module("receive-images"))};
    try { await receiveImages({ volume: ${JSON.stringify(files.at("copy"))}, files: [], clock: { now: () => ({ seconds: 1, nanoseconds: 0 }) } }); }
    catch (error) { console.log(error.failure, error.message); }`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.end(readFileSync(a).subarray(0, 30_000));
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  await new Promise((resolve) => child.once("close", resolve));
  assert.match(said, /^corrupt image standard input: the image stream ends after 30000 bytes/);
  assert.ok(!existsSync(files.at("copy")));
});

test("the volume that was sent from is open to its owner all the while", async (t) => {
  const { volume, at } = setUp(t);
  const before = readFileSync(volume);
  await sendImage({ volume, snapshots: ["c"], output: at("c") });
  assert.deepEqual(readFileSync(volume), before);
  const device = openFileDevice(volume, { writable: false });
  assert.equal(openReadOnly(device).snapshots().length, 3);
  device.close();
});

test("a FIFO that is named is written when somebody reads it, and read when somebody writes", async (t) => {
  const files = setUp(t);
  const fifo = files.at("fifo");
  await runOk("mkfifo", [fifo]);
  const verifying = verifyImages({ files: [fifo] });
  await sendImage({ volume: files.volume, snapshots: ["b"], output: fifo });
  const { findings, files: verified } = await verifying;
  assert.equal(findings, 0, verified[0]?.problem);
  const reader = runOk("sh", ["-c", 'cat "$0" > "$1"', fifo, files.at("copy")]);
  await sendImage({ volume: files.volume, snapshots: ["b"], output: fifo });
  await reader;
  assert.equal((await verifyImages({ files: [files.at("copy")] })).findings, 0);
  const writer = runOk("sh", ["-c", 'cat "$1" > "$0"', fifo, files.at("copy")]);
  assert.equal((await verifyImages({ files: [fifo] })).findings, 0);
  await writer;
});

test("a file that cannot get its name leaves nothing behind", async (t) => {
  const path = temporaryDirectory(t);
  const sink = await openFileSink(join(path, "image"));
  await sink.write(new Uint8Array(10));
  mkdirSync(join(path, "image"));
  await assert.rejects(sink.finish(), fails("failed", /image/));
  await sink.abandon();
  assert.deepEqual(readdirSync(path), ["image"]);
});

test("a volume is not replaced by its own image, whatever it is called", async (t) => {
  const files = setUp(t);
  const before = readFileSync(files.volume);
  linkSync(files.volume, files.at("link"));
  for (const output of [files.volume, files.at("link")]) {
    const sending = sendImage({ volume: files.volume, snapshots: ["b"], output, force: true });
    await assert.rejects(sending, fails("usage", /is the volume that is to be sent/));
  }
  assert(before.equals(readFileSync(files.volume)));
});
