/**
 * Tidemark and its peers, each behind the same interface: a filesystem in one image file of the same size on the same
 * host filesystem, mounted with its own defaults. zfs-fuse gets as much cache as Tidemark may use.
 */
import { once } from "node:events";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import type { SnapshotSummary } from "../../src/daemon/volume-verbs.ts";
import { mirrorStatuses } from "../../src/mirror/status-socket.ts";
import { command, type Daemon, kill, shell, startDaemon, waitForEnd } from "./processes.ts";

export interface Peer {
  readonly name: string;
  /** Where it is mounted. */
  readonly directory: string;
  readonly image: string;
  /** Why it cannot run here; undefined: it can. */
  problem(): Promise<string | undefined>;
  format(): Promise<void>;
  mount(): Promise<void>;
  /** Returns when the filesystem is closed and its server, if it ends with it, is gone. */
  unmount(): Promise<void>;
  /** Makes all that was written durable: a line for the shell. */
  readonly sync: string;
  /** Its server's process; 0: the kernel. */
  pid(): number;
  /** How it makes copies; undefined: it has neither snapshots nor streams. */
  readonly streams: Streams | undefined;
  /** Whatever is left is unmounted and ended. Never throws. */
  cleanUp(): Promise<void>;
}

/** Snapshots, and the means to make and renew a copy, as lines for the shell. */
export interface Streams {
  /** Undefined: it copies the present state. */
  readonly snapshots: Snapshots | undefined;
  /** Writes the stream of a snapshot on standard output; undefined: there is no stream by itself. */
  readonly send: ((name: string, base: string | undefined) => string) | undefined;
  /** Brings the destination, which has the base, to the snapshot, durably. */
  transfer(name: string, base: string | undefined): string;
  /** Prints how many bytes went over in that transfer. */
  size(name: string, base: string | undefined): string;
  /** Makes an empty destination. */
  newDestination(): Promise<void>;
  removeDestination(): Promise<void>;
  /** Processes that keep the destination up to date by themselves; undefined: that takes a snapshot and a transfer each time. */
  readonly mirror?: Mirror;
}

export interface Mirror {
  /** Where the copy is mounted while they run. */
  readonly directory: string;
  /** Returns when the copy is up to date, if they do not run; and then mounts it. */
  start(): Promise<void>;
  /** For good: nothing is held for them any more. */
  stop(): Promise<void>;
}

export interface Snapshots {
  readonly create: (name: string) => string;
  readonly remove: (name: string) => string;
  /** The same by system calls in the mount; where there are none, by the commands. */
  readonly createInPlace?: (name: string) => string;
  readonly removeInPlace?: (name: string) => string;
}

export interface Place {
  /** Working folder on the host filesystem. */
  readonly work: string;
  readonly imageBytes: number;
  /** Files that it must have room for. ext4 reserves all their inodes when it is made, by default fewer than a million of them. */
  readonly fileCountMax: number;
}

const READY_MS_MAX = 60_000;
/** How often the mirror looks whether there is something new. */
const MIRROR_INTERVAL = "100ms";
const ZFS_CACHE_MIB = 256;
/** It has at least so many inodes by default, in the smallest image. */
const EXT4_FILES = 100_000;

export const peerNames = ["tidemark", "btrfs", "zfs-fuse", "fuse2fs", "bindfs", "ext4"] as const;
export type PeerName = (typeof peerNames)[number];

const makers: Readonly<Record<PeerName, (place: Place) => Peer>> = {
  tidemark: (place) => tidemark("tidemark", join(import.meta.dirname, "../../command/main.js"), place),
  btrfs,
  "zfs-fuse": zfsFuse,
  fuse2fs,
  bindfs,
  ext4,
};

export function makePeer(name: PeerName, place: Place): Peer {
  return makers[name](place);
}

/** Another build of Tidemark, to compare two of them in one run. */
export function otherBuild(name: string, mainPath: string, place: Place): Peer {
  return tidemark(name, mainPath, place);
}

function tidemark(name: string, mainPath: string, place: Place): Peer {
  const { image, directory, copy } = placesOf(name, place);
  const tide = `'${process.execPath}' '${mainPath}'`;
  const mirror = tidemarkMirror(name, mainPath, place);
  let daemon: Daemon | undefined;
  const peer: Peer = {
    name,
    directory,
    image,
    problem: () => problemOf(["mount"], "/dev/fuse"),
    async format() {
      await command(process.execPath, [mainPath, "format", image, "--size", String(place.imageBytes), "--force"]);
    },
    async mount() {
      daemon = startDaemon(process.execPath, [mainPath, "mount", image, directory, "--foreground"]);
      await mounted(directory, daemon);
    },
    async unmount() {
      await command("umount", ["-i", directory]);
      if (daemon !== undefined) await waitForEnd(daemon);
      daemon = undefined;
    },
    sync: `${tide} sync '${image}'`,
    pid: () => daemon?.pid ?? 0,
    streams: {
      ...streamed({
        create: (snapshot) => `${tide} snapshot create '${image}' ${snapshot}`,
        createInPlace: (snapshot) => `mkdir '${directory}/.snapshot/${snapshot}'`,
        removeInPlace: (snapshot) => `rmdir '${directory}/.snapshot/${snapshot}'`,
        remove: (snapshot) => `${tide} snapshot delete '${image}' ${snapshot} --force`,
        send: (snapshot, base) =>
          `${tide} image send '${image}' ${snapshot}${base === undefined ? "" : ` --base ${base}`}`,
        receive: `${tide} image receive '${copy}'`,
      }),
      mirror,
      async newDestination() {
        await mirror.stop();
        rmSync(copy, { force: true });
      },
      async removeDestination() {
        await mirror.stop();
        rmSync(copy, { force: true });
      },
    },
    cleanUp: () => cleanUp(directory, daemon),
  };
  return peer;
}

/** The sidecars of both ends, and the mount of the copy. */
function tidemarkMirror(name: string, mainPath: string, place: Place): Mirror {
  const { image, copy, copyDirectory } = placesOf(name, place);
  const key = join(place.work, `${name}.key`);
  let daemons: readonly Daemon[] = [];
  const tide = (...args: readonly string[]): Daemon => startDaemon(process.execPath, [mainPath, ...args]);
  return {
    directory: copyDirectory,
    async start() {
      if (daemons.length > 0) return;
      if (!existsSync(key)) await command(process.execPath, [mainPath, "mirror", "key", key]);
      const address = `127.0.0.1:${await freePort()}`;
      const serving = tide("mirror", "serve", copy, "--listen", address, "--key", key);
      const sending = tide("mirror", "run", image, "--to", address, "--key", key, "--interval", MIRROR_INTERVAL);
      daemons = [sending, serving];
      await until(async () => {
        const ends = await mirrorStatuses(image);
        if (!ends.some(({ phase }) => phase === "in step")) throw new Error("the mirror is not in step");
      }, sending);
      mkdirSync(copyDirectory, { recursive: true });
      const showing = tide("mount", copy, copyDirectory, "--read-only", "--foreground");
      daemons = [...daemons, showing];
      await mounted(copyDirectory, showing);
    },
    async stop() {
      if (daemons.length === 0) return;
      await lazyUnmount(copyDirectory);
      for (const daemon of daemons) {
        kill(daemon, "SIGTERM");
        await waitForEnd(daemon);
      }
      daemons = [];
      const listed = await command(process.execPath, [mainPath, "snapshot", "list", image, "--all", "--json"]);
      const { snapshots } = JSON.parse(listed) as { readonly snapshots: readonly SnapshotSummary[] };
      for (const held of snapshots.filter((snapshot) => snapshot.mirror)) {
        await command(process.execPath, [mainPath, "snapshot", "delete", image, held.name, "--force"]);
      }
    },
  };
}

function btrfs(place: Place): Peer {
  const { image, directory, copy, copyDirectory } = placesOf("btrfs", place);
  // The tree that is worked in is the top of the filesystem; its snapshots lie in a folder of it, as is usual.
  const snapshots = join(directory, ".snapshots");
  return {
    ...inKernel("btrfs", place, "btrfs", ["mkfs.btrfs", "-q", "-f"]),
    problem: () => problemOf(["mkfs.btrfs", "btrfs", "mount"], "/dev/loop-control", "btrfs"),
    async format() {
      newImage(image, place);
      await command("mkfs.btrfs", ["-q", "-f", image]);
    },
    streams: {
      ...streamed({
        create: (snapshot) =>
          `mkdir -p '${snapshots}'; btrfs -q subvolume snapshot -r '${directory}' '${snapshots}/${snapshot}'`,
        remove: (snapshot) => `btrfs -q subvolume delete -c '${snapshots}/${snapshot}'`,
        send: (snapshot, base) =>
          `btrfs -q send ${base === undefined ? "" : `-p '${snapshots}/${base}'`} '${snapshots}/${snapshot}'`,
        receive: `btrfs -q receive '${copyDirectory}' && sync -f '${copyDirectory}' && sync '${copy}'`,
      }),
      async newDestination() {
        await lazyUnmount(copyDirectory);
        newImage(copy, place);
        await command("mkfs.btrfs", ["-q", "-f", copy]);
        mkdirSync(copyDirectory, { recursive: true });
        await command("mount", ["-o", "loop", copy, copyDirectory]);
      },
      async removeDestination() {
        await lazyUnmount(copyDirectory);
        rmSync(copy, { force: true });
      },
    },
    async cleanUp() {
      await lazyUnmount(copyDirectory);
      await lazyUnmount(directory);
    },
  };
}

/** The floor, and what rsync copies from: its copy is a folder of the host. */
function ext4(place: Place): Peer {
  const { directory, copyDirectory } = placesOf("ext4", place);
  const report = join(place.work, "rsync-report");
  const removeDestination = async (): Promise<void> => rmSync(copyDirectory, { recursive: true, force: true });
  return {
    ...inKernel("ext4", place, "ext4", mkfsExt4(place)),
    streams: {
      snapshots: undefined,
      send: undefined,
      transfer: () =>
        `rsync -a --delete --stats '${directory}/mirror/' '${copyDirectory}' > '${report}' && sync -f '${copyDirectory}'`,
      size: () => `sed -n 's/^Total bytes sent: //p' '${report}' | tr -d ,`,
      async newDestination() {
        await removeDestination();
      },
      removeDestination,
    },
  };
}

async function formatAs([program, ...options]: readonly [string, ...string[]], image: string): Promise<void> {
  await command(program, [...options, image]);
}

function mkfsExt4({ fileCountMax }: Place): readonly [string, ...string[]] {
  return ["mkfs.ext4", "-q", "-F", ...(fileCountMax > EXT4_FILES ? ["-N", String(2 * fileCountMax)] : [])];
}

function inKernel(name: string, place: Place, type: string, format: readonly [string, ...string[]]): Peer {
  const { image, directory } = placesOf(name, place);
  return {
    name,
    directory,
    image,
    problem: () => problemOf([format[0], "mount"], "/dev/loop-control", type),
    async format() {
      newImage(image, place);
      await formatAs(format, image);
    },
    async mount() {
      await command("mount", ["-t", type, "-o", "loop", image, directory]);
    },
    async unmount() {
      await command("umount", [directory]);
    },
    sync: `sync -f '${directory}'`,
    pid: () => 0,
    streams: undefined,
    cleanUp: () => cleanUp(directory, undefined),
  };
}

function fuse2fs(place: Place): Peer {
  const { image, directory } = placesOf("fuse2fs", place);
  let daemon: Daemon | undefined;
  return {
    name: "fuse2fs",
    directory,
    image,
    problem: () => problemOf(["fuse2fs", "mkfs.ext4"], "/dev/fuse"),
    async format() {
      newImage(image, place);
      await formatAs(mkfsExt4(place), image);
    },
    async mount() {
      daemon = startDaemon("fuse2fs", [image, directory, "-f", "-o", "allow_other"]);
      await mounted(directory, daemon);
    },
    async unmount() {
      await command("umount", [directory]);
      if (daemon !== undefined) await waitForEnd(daemon);
      daemon = undefined;
    },
    sync: `sync -f '${directory}'`,
    pid: () => daemon?.pid ?? 0,
    streams: undefined,
    cleanUp: () => cleanUp(directory, daemon),
  };
}

/** ext4 on a loop device, seen through bindfs: what a filesystem pays for being served by FUSE alone. */
function bindfs(place: Place): Peer {
  const { image, directory, below } = placesOf("bindfs", place);
  let daemon: Daemon | undefined;
  return {
    name: "bindfs",
    directory,
    image,
    problem: () => problemOf(["bindfs", "mkfs.ext4"], "/dev/fuse", "ext4"),
    async format() {
      newImage(image, place);
      mkdirSync(below, { recursive: true });
      await formatAs(mkfsExt4(place), image);
    },
    async mount() {
      await command("mount", ["-o", "loop", image, below]);
      daemon = startDaemon("bindfs", ["-f", below, directory]);
      await mounted(directory, daemon);
    },
    async unmount() {
      await command("umount", [directory]);
      if (daemon !== undefined) await waitForEnd(daemon);
      daemon = undefined;
      await command("umount", [below]);
    },
    sync: `sync -f '${directory}'`,
    pid: () => daemon?.pid ?? 0,
    streams: undefined,
    async cleanUp() {
      await cleanUp(directory, daemon);
      await lazyUnmount(below);
    },
  };
}

/** One daemon serves all pools; exporting and importing a pool empties its cache as a remount does. */
function zfsFuse(place: Place): Peer {
  const { directory, copyDirectory } = placesOf("zfs-fuse", place);
  const pool = `bench${process.pid}`;
  const copyPool = `${pool}copy`;
  const copyFolder = join(place.work, "zfs-copy"); // import looks at every file of a folder
  const imageFolder = join(place.work, "zfs-pool");
  const pooled = join(imageFolder, "image");
  let daemon: Daemon | undefined;
  let isFormatted = false;
  const make = async (name: string, file: string, folder: string): Promise<void> => {
    newImage(file, place);
    await command("zpool", ["create", "-f", "-o", "cachefile=none", "-m", folder, name, file]);
  };
  return {
    name: "zfs-fuse",
    directory,
    image: pooled,
    async problem() {
      const other = isRunning("zfs-fuse") ? "a zfs-fuse that is not ours is running" : undefined;
      return other ?? problemOf(["zfs-fuse", "zpool", "zfs"], "/dev/fuse");
    },
    async format() {
      if (daemon === undefined) {
        daemon = startDaemon("zfs-fuse", ["-n", "--no-kstat-mount", "-m", String(ZFS_CACHE_MIB)]);
        await until(() => shell("zpool list"), daemon);
      } else if (isFormatted) await command("zpool", ["destroy", "-f", pool]).catch(() => "");
      mkdirSync(imageFolder, { recursive: true });
      await make(pool, pooled, directory);
      isFormatted = true;
      await command("zpool", ["export", pool]);
    },
    async mount() {
      await command("zpool", ["import", "-o", "cachefile=none", "-d", imageFolder, pool]);
    },
    async unmount() {
      await command("zpool", ["export", pool]);
    },
    sync: `sync -f '${directory}'`,
    pid: () => daemon?.pid ?? 0,
    streams: {
      ...streamed({
        create: (snapshot) => `zfs snapshot ${pool}@${snapshot}`,
        remove: (snapshot) => `zfs destroy ${pool}@${snapshot}`,
        send: (snapshot, base) => `zfs send ${base === undefined ? "" : `-i @${base}`} ${pool}@${snapshot}`,
        receive: `zfs receive -F ${copyPool}/copy && sync '${copyFolder}/image'`,
      }),
      async newDestination() {
        await command("zpool", ["destroy", "-f", copyPool]).catch(() => "");
        mkdirSync(copyFolder, { recursive: true });
        await make(copyPool, join(copyFolder, "image"), copyDirectory);
      },
      async removeDestination() {
        await command("zpool", ["destroy", "-f", copyPool]).catch(() => "");
        rmSync(copyFolder, { recursive: true, force: true });
      },
    },
    async cleanUp() {
      if (daemon !== undefined) {
        for (const each of [pool, copyPool]) await command("zpool", ["destroy", "-f", each]).catch(() => "");
        kill(daemon, "SIGTERM");
        await waitForEnd(daemon);
        daemon = undefined;
      }
      await lazyUnmount(directory);
      await lazyUnmount(copyDirectory);
    },
  };
}

interface StreamLines extends Snapshots {
  readonly send: (name: string, base: string | undefined) => string;
  readonly receive: string;
}

function streamed({
  send,
  receive,
  ...snapshots
}: StreamLines): Pick<Streams, "snapshots" | "send" | "transfer" | "size"> {
  return {
    snapshots,
    send,
    transfer: (name, base) => `${send(name, base)} | (${receive})`,
    size: (name, base) => `${send(name, base)} | wc -c`,
  };
}

function placesOf(name: string, { work }: Place) {
  const directory = join(work, name);
  mkdirSync(directory, { recursive: true });
  return {
    directory,
    image: join(work, `${name}.image`),
    below: join(work, `${name}-below`),
    copy: join(work, `${name}-copy.image`),
    copyDirectory: join(work, `${name}-copy`),
  };
}

/** Sparse, as volumes usually are: the host gives blocks when they are first written, to all alike. */
function newImage(image: string, { imageBytes }: Place): void {
  rmSync(image, { force: true });
  writeFileSync(image, "");
  truncateSync(image, imageBytes);
}

async function problemOf(programs: readonly string[], device: string, type?: string): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "only root can mount it";
  try {
    accessSync(device, constants.R_OK | constants.W_OK);
  } catch {
    return `there is no usable ${device}`;
  }
  for (const program of programs) {
    try {
      await shell('command -v "$1"', [program]);
    } catch {
      return `there is no program ${program}`;
    }
  }
  if (type === undefined) return undefined;
  // A module that can be loaded is loaded by mount(8) later.
  const known = readFileSync("/proc/filesystems", "utf8")
    .split("\n")
    .some((line) => line.trim().endsWith(type));
  return known ? undefined : `the kernel has no ${type}`;
}

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

function isRunning(program: string): boolean {
  return readdirSync("/proc").some((entry) => {
    try {
      return /^\d+$/.test(entry) && readFileSync(`/proc/${entry}/comm`, "utf8").trim() === program;
    } catch {
      return false;
    }
  });
}

export function isMounted(directory: string): boolean {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[4] === directory);
}

async function mounted(directory: string, daemon: Daemon): Promise<void> {
  await until(async () => {
    if (!isMounted(directory)) throw new Error(`${directory} is not mounted`);
    await command("stat", ["-f", directory]);
  }, daemon);
}

async function until(check: () => Promise<unknown>, daemon: Daemon): Promise<void> {
  let isOver = false;
  void daemon.ended.then(() => {
    isOver = true;
  });
  for (const beganMs = performance.now(); ; ) {
    try {
      await check();
      return;
    } catch (cause) {
      if (isOver || performance.now() - beganMs > READY_MS_MAX) {
        throw new Error(`${(cause as Error).message}; ${daemon.complaint()}`, { cause });
      }
      await new Promise((settle) => {
        setTimeout(settle, 5);
      });
    }
  }
}

async function lazyUnmount(directory: string): Promise<void> {
  for (let tries = 0; tries < 3 && isMounted(directory); tries++) {
    await command("umount", ["-i", ...(tries === 0 ? [] : ["-l"]), directory]).catch(() => "");
  }
}

async function cleanUp(directory: string, daemon: Daemon | undefined): Promise<void> {
  await lazyUnmount(directory);
  if (daemon === undefined) return;
  kill(daemon, "SIGTERM");
  await waitForEnd(daemon);
}
