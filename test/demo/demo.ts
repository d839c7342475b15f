/**
 * The main job of Tidemark, told step by step on real mounts: a volume is mounted and filled, snapshotted, mirrored to
 * another host (a network namespace with an address of its own), changed while the mirror follows, cut off with kill -9
 * in the middle of writing, and restored from image files. After each step what is there is compared with what must be;
 * the exit code is 0 only if every comparison held.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { hostFor, type RemoteHost } from "./remote-host.ts";

const tidemarkPath = fileURLToPath(new URL("../../command/main.js", import.meta.url));
const STEP_MS_MAX = 60_000;
/** A real tree of some thousand files that every machine with Node has: npm itself. */
const REAL_TREE = join(dirname(process.execPath), "../lib/node_modules/npm");
const FALLBACK_TREE = fileURLToPath(new URL("../../../node_modules", import.meta.url));

const started: ChildProcess[] = [];
const mounted: string[] = [];
const beganMs = performance.now();

async function demo(work: string): Promise<void> {
  const at = (name: string): string => join(work, name);
  const [volume, mirror, restored] = [at("home.tide"), at("mirror.tide"), at("restored.tide")];
  const [home, copy, back] = [at("home"), at("mirror"), at("restored")];
  await run("mkdir", [home, copy, back]);

  say("A volume: a whole filesystem in one file, mounted as a real directory.");
  await tidemark("format", volume, "--size", "1G", "--label", "demo");
  await mount(volume, home);
  const tree = await run("test", ["-d", REAL_TREE]).then(
    () => REAL_TREE,
    () => FALLBACK_TREE,
  );
  await shell(`tar -C '${tree}' -cf - . | (mkdir '${home}/tree' && tar -C '${home}/tree' -xpf -)`);
  const files = await shell(`find '${home}/tree' -type f | wc -l`);
  await same(tree, join(home, "tree"));
  tell(`${files.trim()} files unpacked from ${tree}, and they compare equal`);

  say("A snapshot: the copy of a root, whatever the size.");
  await tidemark("snapshot", "create", volume, "monday");
  await shell(`cp -a '${home}/tree' '${at("monday")}'`);
  await tidemark("snapshot", "list", volume);

  const host = await hostFor(STEP_MS_MAX);
  try {
    await mirrorAndFollow(host, { volume, mirror, home, copy, key: at("mirror.key") });
  } finally {
    await host.remove();
  }

  say("Image files: all of monday, and what has changed up to tuesday.");
  await tidemark("snapshot", "create", volume, "tuesday");
  await shell(`cp -a '${home}' '${at("tuesday")}'`);
  await tidemark("image", "send", volume, "monday", "--output", at("monday.image"));
  await tidemark("image", "send", volume, "tuesday", "--base", "monday", "--output", at("tuesday.image"));
  await tidemark("image", "verify", at("monday.image"), at("tuesday.image"));

  say("kill -9 of the daemon while it is writing.");
  const status = JSON.parse(await tidemarkOutput("status", volume, "--json")) as { mounts: { pid: number }[] };
  const writer = spawn("sh", ["-c", `i=0; while :; do i=$((i+1)); echo $i > '${home}/busy' || exit; done`], {
    stdio: "ignore",
  });
  started.push(writer);
  await new Promise((resolve) => {
    setTimeout(resolve, 500);
  });
  process.kill(status.mounts[0]?.pid as number, "SIGKILL");
  await stop(writer);
  await run("umount", ["-l", home]);
  await tidemark("check", volume);
  await mount(volume, home);
  await same(at("tuesday"), home, "--exclude=busy");
  tell("the volume mounts, checks clean, and has everything that the last snapshot has");
  await unmount(home);

  say("The host is gone: restore from the image files.");
  await tidemark("image", "receive", restored, at("monday.image"), at("tuesday.image"));
  await tidemark("check", restored);
  await mount(restored, back);
  await same(at("tuesday"), back);
  await same(at("monday"), join(back, ".snapshot/monday/tree"));
  tell("both snapshots are back and compare equal");
  await unmount(back);
}

interface Mirrored {
  readonly volume: string;
  readonly mirror: string;
  readonly home: string;
  readonly copy: string;
  readonly key: string;
}

async function mirrorAndFollow(host: RemoteHost, { volume, mirror, home, copy, key }: Mirrored): Promise<void> {
  say(`A live mirror on another host (${host.description}), readable while it is updated.`);
  await tidemark("mirror", "key", key);
  const listen = `${host.address}:7070`;
  const serve = background(host.command(["mirror", "serve", mirror, "--listen", listen, "--key", key], tidemarkPath));
  const sidecar = background([
    process.execPath,
    tidemarkPath,
    "mirror",
    "run",
    volume,
    "--to",
    listen,
    "--key",
    key,
    "--interval",
    "500ms",
  ]);
  await until("the mirror has its first state", () =>
    shell(`test -s '${mirror}' && node '${tidemarkPath}' status '${mirror}' --json`),
  );
  await mount(mirror, copy, "--read-only");
  await until("the mirror equals the source", () => same(home, copy));
  tell("diff -r finds no difference");

  for (let round = 1; round <= 3; round++) {
    await shell(`
      rm -rf '${home}/tree/docs' '${home}/tree/man'
      mkdir -p '${home}/round${round}'
      head -c 3000000 /dev/urandom > '${home}/round${round}/random'
      cp -a '${home}/tree' '${home}/round${round}/tree'
      find '${home}/tree' -name '*.js' | head -${round * 20} | while read -r f; do echo "// round ${round}" >> "$f"; done`);
    await until(`the mirror has followed change ${round}`, () => same(home, copy));
  }
  tell("three rounds of changes followed, each equal");
  await tidemark("mirror", "status", volume);
  await stop(sidecar);
  await stop(serve);
  await unmount(copy);
}

/** Fails with the differences, as diff names them. */
async function same(a: string, b: string, ...more: readonly string[]): Promise<void> {
  await run("diff", ["-r", "--no-dereference", ...more, a, b]);
}

async function mount(volume: string, directory: string, ...more: readonly string[]): Promise<void> {
  mounted.push(directory);
  await tidemark("mount", volume, directory, ...more);
}

async function unmount(directory: string): Promise<void> {
  await tidemark("umount", directory);
  mounted.splice(mounted.indexOf(directory), 1);
}

/** Repeats a check until it holds; its last complaint is the error. */
async function until(what: string, check: () => Promise<unknown>): Promise<void> {
  const deadline = performance.now() + STEP_MS_MAX;
  for (;;) {
    try {
      await check();
      return;
    } catch (error) {
      if (performance.now() > deadline)
        throw new Error(`waited in vain until ${what}: ${(error as Error).message}`, { cause: error });
      await new Promise((resolve) => {
        setTimeout(resolve, 100);
      });
    }
  }
}

async function tidemark(...args: readonly string[]): Promise<void> {
  process.stdout.write(`  $ tidemark ${args.join(" ")}\n`);
  const output = await tidemarkOutput(...args);
  if (output.trim() !== "") process.stdout.write(output.replaceAll(/^/gm, "    ").trimEnd().concat("\n"));
}

function tidemarkOutput(...args: readonly string[]): Promise<string> {
  return run(process.execPath, [tidemarkPath, ...args]);
}

function shell(script: string): Promise<string> {
  return run("/bin/sh", ["-euc", script]);
}

/** Runs a program; rejects with what it printed when it does not end with 0. */
function run(file: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(file, [...args], { timeout: STEP_MS_MAX, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else
        reject(
          new Error(`${file} ${args.join(" ").slice(0, 200)}\n${stdout.slice(0, 2000)}${stderr.slice(0, 2000)}`, {
            cause: error,
          }),
        );
    });
  });
}

function background([file, ...args]: readonly string[]): ChildProcess {
  const child = spawn(file as string, args, { stdio: ["ignore", "ignore", "inherit"] });
  started.push(child);
  return child;
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) {
      resolve();
      return;
    }
    child.once("exit", () => resolve());
    child.kill("SIGTERM");
  });
}

function say(text: string): void {
  process.stdout.write(`\n${((performance.now() - beganMs) / 1000).toFixed(1).padStart(5)} s  ${text}\n`);
}

function tell(text: string): void {
  process.stdout.write(`    ${text}\n`);
}

async function cleanUp(work: string): Promise<void> {
  for (const child of started) if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  for (const directory of mounted) {
    if (readFileSync("/proc/self/mountinfo", "utf8").includes(` ${directory} `))
      await run("umount", ["-l", directory]).catch(() => {});
  }
  rmSync(work, { recursive: true, force: true });
}

if (process.getuid?.() !== 0) {
  process.stderr.write("The demo mounts filesystems and needs to be root: sudo make demo\n");
  process.exitCode = 1;
} else {
  const work = mkdtempSync(join(tmpdir(), "tidemark-demo-"));
  try {
    await demo(work);
    say("Every comparison held.");
  } catch (error) {
    process.stderr.write(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  } finally {
    await cleanUp(work);
  }
}
