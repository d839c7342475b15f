// The command line from outside: help, exit codes, where things are printed, JSON.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { socketPath } from "../../src/daemon/control-paths.ts";
import { daemonLog } from "../../src/daemon/log.ts";
import { openLogFile } from "../../src/daemon/log-file.ts";
import { makeSocketDirectory, removeDeadSocket } from "../../src/mirror/socket-directory.ts";
import { run, tidemark, tidemarkOk, tidemarkPath } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

const commands: readonly string[] = [
  "format",
  "mount",
  "umount",
  "status",
  "sync",
  "check",
  "snapshot create",
  "snapshot delete",
  "snapshot restore",
  "snapshot rename",
  "snapshot list",
  "snapshot diff",
  "image send",
  "image receive",
  "image inspect",
  "image verify",
  "mirror key",
  "mirror serve",
  "mirror run",
  "mirror status",
  "mirror promote",
];

for (const command of commands) {
  test(`the help of ${command} has a sentence, two examples and the exit codes`, async () => {
    const help = await tidemarkOk([...command.split(" "), "--help"]);
    assert.match(help, new RegExp(`^tidemark ${command}`), "usage first");
    assert.match(help, /\n[A-Z][^\n]+\.\n/, "a sentence");
    assert.match(help, /Exit codes: 0 done; 1 failed; 2 usage error/);
    const examples = help
      .slice(help.indexOf("Examples:"))
      .split("\n")
      .filter((line) => line.includes("tidemark "));
    assert(examples.length >= 2, help);
    assert.match(help, /--json/);
  });
}

test("the first help names every command", async () => {
  const help = await tidemarkOk(["--help"]);
  for (const command of commands) assert.match(help, new RegExp(`tidemark ${command.split(" ", 1)[0]}`));
  assert.match(help, /130 interrupted/);
});

test("the version is that of the package", async () => {
  assert.match(await tidemarkOk(["--version"]), /^\d+\.\d+\.\d+\n$/);
});

test("a completion script is printed", async () => {
  assert.match(await tidemarkOk(["completion"]), /tidemark/);
});

const misuse: readonly (readonly string[])[] = [
  [],
  ["explode"],
  ["snapshot"],
  ["snapshot", "explode"],
  ["format"],
  ["format", "v.tm"],
  ["format", "v.tm", "--size"],
  ["format", "v.tm", "--size", "many"],
  ["format", "v.tm", "--size", "1K"],
  ["format", "v.tm", "--size", "1G", "--size", "2G"],
  ["format", "v.tm", "--size", "1G", "--colour", "red"],
  ["format", "v.tm", "w.tm", "--size", "1G"],
  ["mount", "v.tm"],
  ["mount", "v.tm", "m", "-o", "sparkle"],
  ["image", "verify"],
  ["status", "--verbose"],
];

for (const args of misuse) {
  test(`usage error 2, on stderr alone: tidemark ${args.join(" ")}`, async () => {
    const { code, stdout, stderr } = await tidemark(args, { cwd: "/" });
    assert.equal(code, 2, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, /^tidemark: /);
    assert(!stderr.includes("    at "), "no stack");
  });
}

test("a volume that is not there is 10, for every command that needs one", async (t) => {
  const missing = join(temporaryDirectory(t), "missing.tm");
  const lines = [
    ["mount", missing, "/"],
    ["umount", missing],
    ["status", missing],
    ["sync", missing],
    ["check", missing],
    ["snapshot", "create", missing, "a"],
    ["snapshot", "list", missing],
    ["mirror", "status", missing],
    ["image", "send", missing, "a", "--output", "/dev/null"],
  ];
  for (const line of lines) {
    const { code, stderr } = await tidemark(line);
    assert.equal(code, 10, `${line.join(" ")}: ${stderr}`);
  }
});

test("a directory in place of a volume ends each command with a code that its help has", async (t) => {
  const dir = temporaryDirectory(t);
  const key = join(dir, "key");
  await tidemarkOk(["mirror", "key", key]);
  const lines: readonly (readonly [command: string, ...rest: readonly string[]])[] = [
    ["format", dir, "--size", "1M"],
    ["mount", dir, dir],
    ["check", dir],
    ["scrub", dir],
    ["snapshot create", dir, "a"],
    ["snapshot diff", dir, "a"],
    ["image send", dir, "a", "--output", "/dev/null"],
    ["image receive", dir, key],
    ["mirror serve", dir, "--listen", "127.0.0.1:0", "--key", key],
    ["mirror promote", dir],
    ["mirror status", dir],
  ];
  for (const [command, ...rest] of lines) {
    const { code } = await tidemark([...command.split(" "), ...rest]);
    assert.notEqual(code, 0, command);
    const help = await tidemarkOk([...command.split(" "), "--help"]);
    assert.match(help.replaceAll(/\s+/g, " "), new RegExp(`Exit codes: .*\\b${code} `), command);
  }
});

test("what is no volume is 12, and format does not overwrite it unless it is forced", async (t) => {
  const path = join(temporaryDirectory(t), "notes.txt");
  writeFileSync(path, "keep me\n".repeat(1000));
  for (const line of [
    ["status", path],
    ["sync", path],
    ["check", path],
    ["snapshot", "list", path],
    ["mirror", "status", path],
  ]) {
    const { code, stderr } = await tidemark(line);
    assert(stderr.includes(path), stderr);
    assert.equal(code, 12, `${line.join(" ")}: ${stderr}`);
  }
  const refused = await tidemark(["format", path, "--size", "1M"]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /not empty/);
  assert.equal((await run("head", ["-c", "7", path])).stdout, "keep me");
  await tidemarkOk(["format", path, "--size", "1M", "--force"]);
  const again = await tidemark(["format", path, "--size", "1M"]);
  assert.equal(again.code, 1);
  assert.match(again.stderr, /is a volume already/);
});

test("a volume that another process has locked is 11", async (t) => {
  const path = join(temporaryDirectory(t), "v.tm");
  await tidemarkOk(["format", path, "--size", "1M"]);
  const { code, stdout, stderr } = await run("flock", [
    "--exclusive",
    path,
    process.execPath,
    "-e",
    `const { spawnSync } = require("node:child_process");
     const { status, stderr } = spawnSync(process.execPath, [${JSON.stringify(tidemarkPath)}, "snapshot", "create", ${JSON.stringify(path)}, "a"]);
     console.log(status, String(stderr));`,
  ]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^11 tidemark: volume .* is in use/);
});

test("a daemon that goes away without an answer is 14, as the help of each command that asks one says", async (t) => {
  const path = join(temporaryDirectory(t), "v.tm");
  await tidemarkOk(["format", path, "--size", "1M"]);
  makeSocketDirectory();
  const { dev, ino } = statSync(path);
  const daemon = createServer((socket) => socket.once("data", () => socket.destroy()));
  daemon.listen(socketPath({ dev, ino }, undefined));
  t.after(() => daemon.close());
  const lines: readonly (readonly [command: string, ...rest: readonly string[]])[] = [
    ["sync", path],
    ["check", path],
    ["scrub", path],
    ["umount", path],
    ["snapshot create", path, "a"],
    ["snapshot delete", path, "a"],
    ["snapshot restore", path, "a"],
    ["snapshot rename", path, "a", "b"],
    ["snapshot list", path],
    ["snapshot diff", path, "a"],
  ];
  for (const [command, ...rest] of lines) {
    const { code, stderr } = await tidemark([...command.split(" "), ...rest]);
    assert.equal(code, 14, `${command}: ${stderr}`);
    assert.match(await tidemarkOk([...command.split(" "), "--help"]), /14 peer or daemon/, command);
  }
  assert.doesNotMatch(await tidemarkOk(["mirror", "run", "--help"]), /14 peer/, "it tries again");
});

test("a socket that a killed daemon has left goes when somebody asks, and one that has just been made stays", async (t) => {
  const dir = temporaryDirectory(t);
  makeSocketDirectory();
  const [old, young] = ["old", "young"].map((name) => {
    const path = join(dir, name);
    writeFileSync(path, "");
    const { dev, ino } = statSync(path);
    return socketPath({ dev, ino }, undefined);
  }) as [string, string];
  t.after(() => rmSync(young, { force: true }));
  const leave =
    "require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))";
  for (const socket of [old, young]) spawnSync(process.execPath, ["-e", leave, socket]);
  utimesSync(old, 1, 1);
  await tidemarkOk(["status"]);
  assert(!existsSync(old));
  assert(existsSync(young), "between bind and listen a live one refuses too");
});

test("a socket in the place of the one that has refused is put back", async (t) => {
  const dir = temporaryDirectory(t);
  const path = join(dir, "one.sock");
  const server = createServer().listen(path);
  t.after(() => server.close());
  await once(server, "listening");
  utimesSync(path, 1, 1);
  const { ino } = statSync(path);
  removeDeadSocket({ path, ino: ino + 1 });
  assert.deepEqual([statSync(path).ino, readdirSync(dir)], [ino, ["one.sock"]]);
});

test("a change log that cannot be one is refused as such, not as a volume", async (t) => {
  const dir = temporaryDirectory(t);
  const volume = join(dir, "v.tide");
  await tidemarkOk(["format", volume, "--size", "64M"]);
  const { code, stderr } = await tidemark(["check", volume, "--log", dir]);
  assert.equal(code, 1);
  assert.match(stderr, /cannot open the change log .*: it is a directory.*\n {2}name another file/);
  assert.throws(() => openLogFile(dir, new Uint8Array(16)), {
    failure: "failed",
    message: /the change log .* directory/,
  });
});

test("output that cannot be written is an error like any other", { skip: !existsSync("/dev/full") }, async () => {
  for (const line of [["status"], ["--help"]]) {
    const full = openSync("/dev/full", "w");
    const { status, stderr } = spawnSync(process.execPath, [tidemarkPath, ...line], {
      stdio: ["ignore", full, "pipe"],
      encoding: "utf8",
    });
    closeSync(full);
    assert.equal(status, 1);
    assert.match(stderr, /^tidemark: cannot write what is to be told: ENOSPC.*\n$/);
  }
});

test("an error that cannot be told ends with its own code", { skip: !existsSync("/dev/full") }, () => {
  const full = openSync("/dev/full", "w");
  const { status } = spawnSync(process.execPath, [tidemarkPath, "nonsense"], { stdio: ["ignore", "ignore", full] });
  closeSync(full);
  assert.equal(status, 2);
});

test("a FIFO in place of a file that is only for files is refused, and stays as it is", async (t) => {
  const dir = temporaryDirectory(t);
  const fifo = join(dir, "fifo");
  await run("mkfifo", [fifo]);
  const { mode } = statSync(fifo);
  const volume = join(dir, "v.tm");
  await tidemarkOk(["format", volume, "--size", "1M"]);
  for (const line of [
    ["mirror", "key", fifo, "--force"],
    ["mirror", "run", volume, "--to", "127.0.0.1:1", "--key", fifo],
    ["mirror", "serve", join(dir, "m.tm"), "--listen", "127.0.0.1:0", "--key", fifo],
  ]) {
    const { code, stderr } = await tidemark(line);
    assert.equal(code, 1, stderr);
    assert(stderr.includes(fifo), stderr);
  }
  const key = join(dir, "key");
  await tidemarkOk(["mirror", "key", key]);
  for (const line of [
    ["mirror", "run", fifo, "--to", "127.0.0.1:1", "--key", key],
    ["image", "send", fifo, "s"],
    ["snapshot", "list", fifo],
    ["check", fifo],
  ]) {
    const { stderr } = await tidemark(line);
    assert(stderr.includes("it is a FIFO, not a file or a block device"), `${line.join(" ")}: ${stderr}`);
  }
  assert.throws(() => daemonLog(fifo), { failure: "failed", message: /cannot write the log .*: a FIFO/ });
  assert.equal(statSync(fifo).mode, mode);
});

test("too few or too many arguments are counted, and the command's own help is named", async () => {
  const few = await tidemark(["snapshot", "create"]);
  assert.match(few.stderr, /too few arguments: 0 given, 2 needed\n {2}see: tidemark snapshot create --help/);
  const many = await tidemark(["snapshot", "a", "b"]);
  assert.match(many.stderr, /too many arguments: 2 given, 1 taken\n {2}see: tidemark snapshot --help/);
  const other = await tidemark(["mirror", "kex"]);
  assert.match(other.stderr, /there is no such command: did you mean key\?/);
  assert.match((await tidemark(["nonsense"])).stderr, /see: tidemark --help/);
});

test("an option with a wrong value, without one, or that there is not, is named in one line", async () => {
  const lines: readonly (readonly [given: readonly string[], message: string])[] = [
    [["--durability", "foo"], 'there is no durability "foo", but one of "fsync", "op"'],
    [["--durability=foo"], 'there is no durability "foo", but one of "fsync", "op"'],
    [["-o", "durability=foo"], "there is no durability=foo"],
    [["--durability"], "option durability needs a value"],
    [["--read-only=yes"], 'option --read-only takes no "yes"'],
    [["--access-times", "x"], "not known here: access-times"],
  ];
  for (const [given, message] of lines) {
    const { code, stderr } = await tidemark(["mount", "v", "m", ...given]);
    assert.equal(code, 2, stderr);
    assert.equal(stderr.split("\n  ")[0], `tidemark: ${message}`);
    assert.equal(stderr.split("\n").length, 3, "the message, what to do, and nothing more");
  }
});

test("a name with a newline and control sequences in it is a line, and commands no terminal", async (t) => {
  const cwd = temporaryDirectory(t);
  const name = "a\n\u001b[2J\u009bb";
  const shown = "a\\012\\033[2J\\302\\233b";
  const lines: readonly (readonly [args: readonly string[], code: number])[] = [
    [["format", name, "--size", "1M"], 0],
    [["check", name], 0],
    [["mirror", "status", name], 0],
    [["snapshot", "delete", name, name], 1],
    [["status", `${name}c`], 10],
    [["status", `${name}c`, "--debug"], 10],
    [["image", "inspect", name], 12],
    [["mount", name, ".", "-o", name], 2],
    [["status", "v", name], 2],
  ];
  for (const [args, code] of lines) {
    const said = await tidemark(args, { cwd });
    const text = said.stdout + said.stderr;
    assert.equal(said.code, code, text);
    assert.doesNotMatch(text.replaceAll("\n", ""), /\p{Cc}/u);
    if (!args.includes("--debug")) assert(text.split("\n").length <= 3, text);
    if (!args.includes("-o")) assert(text.includes(shown), text);
  }
});

test("an argument that is no UTF-8 is refused: another file would be made", async (t) => {
  const cwd = temporaryDirectory(t);
  const line = `exec "$0" "$1" format "$(printf 'a\\377')" --size 1M`;
  const { code, stderr } = await run("/bin/sh", ["-c", line, process.execPath, tidemarkPath], { cwd });
  assert.equal(code, 2, stderr);
  assert.match(stderr, /not UTF-8: a/);
  assert.deepEqual(readdirSync(cwd), []);
  const helper = `exec "$0" "$1" mount-helper v.tm . -o "log=$(printf 'a\\377')"`;
  const mounted = await run("/bin/sh", ["-c", helper, process.execPath, tidemarkPath], { cwd });
  assert.equal(mounted.code, 1, mounted.stderr);
  assert.match(mounted.stderr, /not UTF-8: log=a/);
});

test("an argument that is empty is refused: as a path it would be the directory that one is in", async (t) => {
  const cwd = temporaryDirectory(t);
  await tidemarkOk(["format", "v.tide", "--size", "64M"], { cwd });
  for (const [name, line] of [
    ["DIR", ["mount", "v.tide", ""]],
    ["VOLUME", ["status", ""]],
    ["VOLUME", ["status", "--", ""]],
    ["FILES", ["image", "verify", "a", ""]],
    ["--output", ["image", "send", "v.tide", "a", "--output", ""]],
    ["--daemon-log", ["mount", "v.tide", ".", "--daemon-log="]],
  ] as const) {
    const { code, stderr } = await tidemark(line, { cwd });
    assert.equal(code, 2, stderr);
    assert.match(stderr, new RegExp(`(argument|option) ${name} is empty`));
  }
});

test("interrupted once, long work that waits for the other end of a pipe ends with 130, and leaves nothing behind", {
  timeout: 60_000,
}, async (t) => {
  const dir = temporaryDirectory(t);
  const fifo = join(dir, "fifo");
  await run("mkfifo", [fifo]);
  const volume = join(dir, "v.tm");
  await tidemarkOk(["format", volume, "--size", "4M"]);
  await tidemarkOk(["snapshot", "create", volume, "s"]);
  const copy = join(dir, "copy.tm");
  writeFileSync(copy, "");
  const before = readdirSync(dir);
  const send = ["image", "send", volume, "s"];
  // Of a redirection the shell opens both ends first, so that none waits, and fills the pipe for who writes. Who reads from it
  // or writes into it then holds the other end itself.
  const lines: readonly (readonly [script: string, args: readonly string[], opens: string])[] = [
    ['exec "$@"', ["image", "verify", fifo], fifo],
    ['exec "$@"', [...send, "--output", fifo], volume],
    ['exec 4<> "$fifo"; exec "$@" < "$fifo" 3> "$fifo" 4>&-', ["image", "receive", copy], copy],
    ['exec 4<> "$fifo"; head -c 65536 /dev/zero >&4; exec "$@" > "$fifo" 3< "$fifo" 4>&-', send, volume],
  ];
  for (const [script, args, opens] of lines) {
    const child = spawn("/bin/sh", ["-c", script, "sh", process.execPath, tidemarkPath, ...args], {
      env: { ...process.env, fifo },
      stdio: ["ignore", "inherit", "pipe"],
    });
    t.after(() => child.kill("SIGKILL"));
    const exited = once(child, "exit");
    await hasOpened(child.pid ?? assert.fail("not started"), opens);
    child.kill("SIGINT");
    assert.deepEqual(await exited, [130, null], args.join(" "));
    assert.deepEqual(readdirSync(dir), before);
    assert.equal(statSync(copy).size, 0);
  }
});

/** Resolves when the process has opened the file. */
async function hasOpened(pid: number, file: string): Promise<void> {
  const descriptors = `/proc/${pid}/fd`;
  while (!readdirSync(descriptors).some((name) => linkAt(join(descriptors, name)) === file)) await delay(5);
}

/** Where it leads; undefined when it is gone. */
function linkAt(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

test("interrupted twice, long work ends also while it waits for who opens the other end of a FIFO", {
  timeout: 20_000,
}, async (t) => {
  const fifo = join(temporaryDirectory(t), "fifo");
  await run("mkfifo", [fifo]);
  const module = new URL("../../src/cli/interrupt.js", import.meta.url).href;
  const program = `import { open } from "node:fs"; import { interruption } from ${JSON.stringify(module)};
    interruption().onabort = () => console.log("aborted");
    open(process.argv[1], "r", () => {});
    console.log("ready");`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, fifo], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  const exited = once(child, "exit");
  await once(child.stdout, "data");
  child.kill("SIGINT");
  await once(child.stdout, "data");
  child.kill("SIGINT");
  assert.deepEqual(await exited, [null, "SIGINT"]);
});

test("snapshots of an unmounted volume are made, listed, renamed, restored, deleted", async (t) => {
  const path = join(temporaryDirectory(t), "v.tm");
  await tidemarkOk(["format", path, "--size", "4M", "--label", "books"]);
  const made = JSON.parse(await tidemarkOk(["snapshot", "create", path, "one", "--json"])) as {
    name: string;
    id: number;
  };
  assert.equal(made.name, "one");
  await tidemarkOk(["snapshot", "create", path, "123"]);
  await tidemarkOk(["snapshot", "rename", path, "123", "two"]);
  const listed = JSON.parse(await tidemarkOk(["snapshot", "list", path, "--unique", "--json"])) as {
    snapshots: { name: string; uniqueBlocks: number }[];
  };
  assert.deepEqual(
    listed.snapshots.map(({ name }) => name),
    ["one", "two"],
  );
  assert.equal(typeof listed.snapshots[0]?.uniqueBlocks, "number");
  assert.match(await tidemarkOk(["snapshot", "list", path]), /^NAME +CREATED +CP +SIZE\none +\d{4}-/);
  await tidemarkOk(["snapshot", "restore", path, "one"]);
  await tidemarkOk(["snapshot", "delete", path, "one"]);
  for (const verb of ["delete", "restore"]) {
    const { code, stderr } = await tidemark(["snapshot", verb, path, "one"]);
    assert.equal(code, 1);
    assert.match(stderr, /there is no snapshot one/);
  }
  const twice = await tidemark(["snapshot", "create", path, "two"]);
  assert.equal(twice.code, 1);
  assert.match(twice.stderr, /exists already/);
  for (const name of ["a/b", "a\nb", "a\u001b[2Jb", "a\u0085b", "a\ufffdb"]) {
    assert.equal((await tidemark(["snapshot", "create", path, name])).code, 2);
    assert.equal((await tidemark(["snapshot", "rename", path, "two", name])).code, 2);
  }
  const bytes = "$1 $2 snapshot create $3 \"$(printf 'a\\377b')\"";
  const invalid = await run("sh", ["-c", bytes, "sh", process.execPath, tidemarkPath, path]);
  assert.equal(invalid.code, 2);
  assert.match(invalid.stderr, /not UTF-8: a\ufffdb/);
  assert.match(await tidemarkOk(["check", path]), /is consistent/);
});

test("--json prints one document for a result, and one line for an error", async (t) => {
  const path = join(temporaryDirectory(t), "v.tm");
  const formatted = JSON.parse(
    await tidemarkOk(["format", path, "--size", "4M", "--label", "books", "--json"]),
  ) as object;
  assert.deepEqual(Object.keys(formatted), ["path", "uuid", "label", "sizeBytes", "blockCount"]);
  const status = JSON.parse(await tidemarkOk(["status", path, "--json"])) as {
    volume: { label: string; blockCount: number };
    mounts: unknown[];
  };
  assert.equal(status.volume.label, "books");
  assert.equal(status.volume.blockCount, 1024);
  assert.deepEqual(status.mounts, []);
  const all = JSON.parse(await tidemarkOk(["status", "--json"])) as { mounts: unknown[] };
  assert(Array.isArray(all.mounts));
  assert.deepEqual(Object.keys(JSON.parse(await tidemarkOk(["sync", path, "--json"])) as object), ["cpCount"]);
  const { code, stdout, stderr } = await tidemark(["snapshot", "delete", path, "x", "--json"]);
  assert.equal(code, 1);
  assert.equal(stdout, "");
  const error = JSON.parse(stderr) as Record<string, unknown>;
  assert.deepEqual([error["type"], error["code"], error["exitCode"]], ["error", "failed", 1]);
  assert(typeof error["hint"] === "string" && error["hint"] !== "");
});

test("a stack is shown with --debug, and not without", async () => {
  const missing = ["sync", "/nowhere/v.tm"];
  assert(!(await tidemark(missing)).stderr.includes("    at "));
  assert.match((await tidemark([...missing, "--debug"])).stderr, / {4}at .*[^]*caused by: /);
});

test("a damaged volume is found by check with 3, and named", async (t) => {
  const path = join(temporaryDirectory(t), "v.tm");
  await tidemarkOk(["format", path, "--size", "4M"]);
  const { code } = await run("dd", ["if=/dev/zero", `of=${path}`, "bs=4096", "seek=49", "count=3", "conv=notrunc"]);
  assert.equal(code, 0);
  const checked = await tidemark(["check", path, "--json"]);
  assert.equal(checked.code, 3, checked.stderr);
  const report = JSON.parse(checked.stdout) as { findings: { kind: string }[] };
  assert(report.findings.length > 0);
});
