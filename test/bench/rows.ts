/**
 * What is measured, a row each. A row makes what it needs if it is not there, untimed, so that any one can be run alone; what
 * it leaves behind serves the next.
 *
 * Rates count from the first call to the last, fsync included where the name says so. "cold": the filesystem has been
 * unmounted, the caches of the host dropped, and mounted again.
 */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Peer, Snapshots, Streams } from "./peers.ts";
import { command, secondsOf, shell } from "./processes.ts";

export interface Sizes {
  readonly fileMib: number;
  readonly randomReads: number;
  readonly overwrites: number;
  readonly appends: number;
  readonly smallFiles: number;
  readonly directoryFiles: number;
  readonly millionFiles: number;
  readonly mirrorMib: number;
  readonly mirrorFiles: number;
  /** For so long latencies are taken. */
  readonly probeMs: number;
  /** Latencies while something else goes on, which vary most, are taken so often. */
  readonly probeRounds: number;
  /** A folder to pack: the files of a real project. */
  readonly tree: string;
}

/** A peer in the course of a benchmark. */
export interface Session {
  readonly peer: Peer;
  readonly sizes: Sizes;
  /** Of the tree, on the host. */
  readonly archive: string;
  /** The oldest and the newest snapshot that were taken to be sent. */
  oldestCount: number;
  takenCount: number;
  /** The newest one that the destination has; 0: it has none. */
  sentCount: number;
}

export interface Value {
  readonly label: string;
  readonly unit: "MB/s" | "/s" | "s" | "ms" | "MB" | "x";
  /** Ratios to be reached, by peer: so many times as fast, or as little. */
  readonly goals?: Readonly<Record<string, number>>;
}

export interface Row {
  readonly name: string;
  readonly values: readonly Value[];
  readonly isCold?: true;
  /** Peers that do not have them are left out. */
  readonly needs?: "snapshots" | "streams";
  /** The one peer it is of. */
  readonly only?: string;
  /** Not in a quick run. */
  readonly isLong?: true;
  /** Peers that cannot do it, or not in any reasonable time. */
  readonly without?: Readonly<Record<string, string>>;
  readonly prepare?: (session: Session) => Promise<void>;
  readonly measure: (session: Session) => Promise<readonly number[]>;
}

const workPath = join(import.meta.dirname, "work.js");
/** stat(2) of each file in the order of creation. Node asks for birth times too, which the kernel never has cached. */
const STAT_EACH = [
  "-MTime::HiRes=time",
  "-e",
  'my ($d, $n) = @ARGV; chdir $d; my $t = time; stat sprintf "f%07d", $_ or die for 0 .. $n - 1; print time - $t',
];
const PROCESS_COUNT = 4;
const QUEUE_DEPTH = 16;
const SHOWN_MS_MAX = 30_000;

/** The ratio that is the aim where no other is named: ahead. */
const AHEAD_OF_FUSE = { "zfs-fuse": 1, fuse2fs: 1, bindfs: 1 };
const AHEAD_OF_TWO = { "zfs-fuse": 1, bindfs: 1 };

export const rows: readonly Row[] = [
  sequential("write", "1m", { btrfs: 1, "zfs-fuse": 1.8 }),
  sequential("write", "4k", { btrfs: 1, "zfs-fuse": 8 }),
  sequential("read", "1m", { btrfs: 0.8, "zfs-fuse": 2 }),
  sequential("read", "4k", { btrfs: 0.8, "zfs-fuse": 2 }),
  randomRead(1),
  randomRead(QUEUE_DEPTH),
  {
    name: "random overwrite 4 KiB + fsync",
    values: [{ label: "", unit: "/s", goals: { btrfs: 1, "zfs-fuse": 3 } }],
    prepare: haveFile,
    async measure({ peer, sizes }) {
      const more = [`--number_ios=${sizes.overwrites}`, "--randrepeat=0", "--norandommap"];
      return [await fio(peer, "data", "randwrite", "4k", sizes.fileMib, more, "iops")];
    },
  },
  {
    name: "append 4 KiB + fsync",
    values: [{ label: "", unit: "/s", goals: { btrfs: 2, "zfs-fuse": 1 } }],
    measure: async (session) => [
      session.sizes.appends / (await work(session, "append", "", session.sizes.appends, "log")),
    ],
  },
  {
    name: "create 4 KiB",
    values: [{ label: "", unit: "/s", goals: AHEAD_OF_FUSE }],
    prepare: (session) => emptyFolder(session, "small"),
    measure: async (session) => [await rateOf(session, "create", "small", session.sizes.smallFiles)],
  },
  {
    name: "rename",
    values: [{ label: "", unit: "/s", goals: AHEAD_OF_FUSE }],
    prepare: haveSmall,
    measure: async (session) => [await rateOf(session, "rename", "small", session.sizes.smallFiles)],
  },
  {
    name: "unlink",
    values: [{ label: "", unit: "/s", goals: AHEAD_OF_FUSE }],
    prepare: haveSmall,
    async measure(session) {
      const renamed = existsSync(join(session.peer.directory, "small", "fx0000000"));
      return [await rateOf(session, "unlink", "small", session.sizes.smallFiles, renamed ? "fx" : "f")];
    },
  },
  ...directory("directory", ({ directoryFiles }) => directoryFiles, {}),
  {
    name: "untar",
    values: [{ label: "", unit: "s", goals: { ...AHEAD_OF_TWO, btrfs: 1 / 2.5 } }],
    prepare: (session) => emptyFolder(session, "tree"),
    measure: async ({ peer, archive }) => [await secondsOf('tar -C "$1/tree" -xf "$2"', [peer.directory, archive])],
  },
  {
    name: "git init, add, commit",
    values: [{ label: "", unit: "s", goals: AHEAD_OF_TWO }],
    async prepare(session) {
      await haveTree(session);
      await shell('rm -rf "$1/tree/.git"', [session.peer.directory]);
    },
    measure: async ({ peer }) => [await git(peer, "git init -q && git add -A && git commit -q -m all")],
  },
  {
    name: "git status, cold",
    values: [{ label: "", unit: "s", goals: AHEAD_OF_TWO }],
    isCold: true,
    async prepare(session) {
      await haveTree(session);
      if (existsSync(join(session.peer.directory, "tree/.git"))) return;
      await git(session.peer, "git init -q && git add -A && git commit -q -m all");
    },
    measure: async ({ peer }) => [await git(peer, "git status --porcelain")],
  },
  {
    name: "rm -rf",
    values: [{ label: "", unit: "s", goals: AHEAD_OF_TWO }],
    prepare: haveTree,
    measure: async ({ peer }) => [await secondsOf('rm -rf "$1/tree"', [peer.directory])],
  },
  {
    name: "four processes: create, stat, unlink",
    values: [{ label: "", unit: "/s", goals: AHEAD_OF_TWO }],
    prepare: (session) => emptyFolder(session, "shared"),
    async measure(session) {
      const count = Math.ceil(session.sizes.smallFiles / PROCESS_COUNT);
      const each = Array.from({ length: PROCESS_COUNT }, (_, i) => work(session, "mixed", "shared", count, `p${i}`));
      return [(PROCESS_COUNT * count) / Math.max(...(await Promise.all(each)))];
    },
  },
  ...snapshot("by the command", ({ create, remove }) => ({ create, remove })),
  ...snapshot("in the mount", ({ create, remove, createInPlace, removeInPlace }) => ({
    create: createInPlace ?? create,
    remove: removeInPlace ?? remove,
  })),
  {
    name: "full image",
    values: [
      { label: "send and receive", unit: "s", goals: { btrfs: 1, "zfs-fuse": 1 } },
      { label: "size", unit: "MB" },
      { label: "send alone", unit: "s", goals: { btrfs: 1, "zfs-fuse": 1 } },
    ],
    needs: "streams",
    prepare: haveMirrored,
    async measure(session) {
      const { send } = streamsOf(session.peer);
      const name = snapshotName(session.takenCount);
      const alone = send === undefined ? [] : [await secondsOf(`${send(name, undefined)} | cat > /dev/null`, [])];
      return [...(await transfer(session)), ...alone];
    },
  },
  increment("1 % of the blocks", changeBlocks),
  increment("100 files", makeFiles),
  increment("nothing", async () => {}),
  {
    name: "mirror: begun, with a full copy",
    values: [{ label: "", unit: "s", goals: { btrfs: 1, "zfs-fuse": 1 } }],
    needs: "streams",
    prepare: haveMirrored,
    async measure(session) {
      const { mirror } = streamsOf(session.peer);
      if (mirror === undefined) return (await transfer(session)).slice(0, 1);
      const beganMs = performance.now();
      await mirror.start();
      const seconds = (performance.now() - beganMs) / 1000;
      await mirror.stop();
      return [seconds];
    },
  },
  mirrored("1 % of the blocks, until they are there", changeBlocks),
  mirrored("100 files, until they are there", makeFiles),
  ...directory("million", ({ millionFiles }) => millionFiles, { fuse2fs: "would take most of an hour" }),
];

function sequential(direction: "read" | "write", blockSize: "1m" | "4k", goals: Readonly<Record<string, number>>): Row {
  const size = blockSize === "1m" ? "1 MiB" : "4 KiB";
  if (direction === "read") {
    return {
      name: `sequential read ${size}, cold`,
      values: [{ label: "", unit: "MB/s", goals }],
      isCold: true,
      prepare: haveFile,
      measure: async ({ peer, sizes }) => [await fio(peer, "data", "read", blockSize, sizes.fileMib, [], "bytes")],
    };
  }
  return {
    name: `sequential write ${size} + fsync`,
    values: [{ label: "", unit: "MB/s", goals }],
    prepare: async ({ peer }) => {
      rmSync(join(peer.directory, "written"), { force: true });
    },
    async measure({ peer, sizes }) {
      const rate = await fio(peer, "written", "write", blockSize, sizes.fileMib, [], "bytes");
      rmSync(join(peer.directory, "written"));
      return [rate];
    },
  };
}

function randomRead(depth: number): Row {
  return {
    name: `random read 4 KiB, cold, ${depth} at a time`,
    values: [{ label: "", unit: "/s", goals: { bindfs: 0.9, "zfs-fuse": 1.3 } }],
    isCold: true,
    prepare: haveFile,
    async measure({ peer, sizes }) {
      const each = Math.ceil((sizes.randomReads * Math.min(depth, 4)) / depth);
      const more = [`--number_ios=${each}`, `--numjobs=${depth}`, "--thread", "--group_reporting", "--norandommap"];
      return [await fio(peer, "data", "randread", "4k", sizes.fileMib, more, "iops")];
    },
  };
}

/** Many files in one directory: created, listed and looked up cold, removed as rm does. */
function directory(name: string, countOf: (sizes: Sizes) => number, without: Readonly<Record<string, string>>): Row[] {
  const goals = AHEAD_OF_FUSE;
  const have = async (session: Session): Promise<void> => {
    if (existsSync(join(session.peer.directory, name))) return;
    await emptyFolder(session, name);
    await work(session, "create-empty", name, countOf(session.sizes));
  };
  const row = (what: string, action: string, more: Partial<Row>): Row => ({
    name: `${name}: ${what}`,
    values: [{ label: "", unit: "/s", goals }],
    without,
    ...(name === "million" ? { isLong: true as const } : {}),
    prepare: have,
    measure: async (session) => [await rateOf(session, action, name, countOf(session.sizes))],
    ...more,
  });
  return [
    row("create empty", "create-empty", { prepare: (session) => emptyFolder(session, name) }),
    row("readdir, cold", "readdir", { isCold: true }),
    row("stat, cold", "", {
      isCold: true,
      async measure({ peer, sizes }) {
        const count = countOf(sizes);
        return [count / Number(await command("perl", [...STAT_EACH, join(peer.directory, name), String(count)]))];
      },
    }),
    row("readdir and stat, cold", "", {
      isCold: true,
      measure: async ({ peer, sizes }) => [
        countOf(sizes) / (await secondsOf('find "$1" -size +1', [join(peer.directory, name)])),
      ],
    }),
    row("unlink as listed", "unlink-listed", {
      async measure(session) {
        const rate = await rateOf(session, "unlink-listed", name, countOf(session.sizes));
        rmSync(join(session.peer.directory, name), { recursive: true });
        return [rate];
      },
    }),
  ];
}

/** One is created and deleted while nothing else happens. */
function snapshot(way: string, of: (snapshots: Snapshots) => Pick<Snapshots, "create" | "remove">): readonly Row[] {
  const linesOf = ({ peer }: Session): Pick<Snapshots, "create" | "remove"> => of(snapshotsOf(peer));
  return [
    {
      name: `snapshot create ${way}, idle`,
      values: [{ label: "", unit: "s", goals: { btrfs: 1 } }],
      needs: "snapshots",
      prepare: async (session) => {
        await haveSmall(session);
        await shell(`${linesOf(session).remove("idle")} 2>/dev/null || true`);
      },
      measure: async (session) => [await secondsOf(linesOf(session).create("idle"), [])],
    },
    {
      name: `snapshot delete ${way}`,
      values: [{ label: "", unit: "s" }],
      needs: "snapshots",
      prepare: async (session) => void (await shell(`${linesOf(session).create("idle")} 2>/dev/null || true`)),
      measure: async (session) => [await secondsOf(linesOf(session).remove("idle"), [])],
    },
  ];
}

function increment(what: string, change: (session: Session) => Promise<unknown>): Row {
  const goals = { btrfs: 1 };
  return {
    name: `increment of ${what}`,
    values: [
      { label: "send and receive", unit: "s", goals },
      { label: "size", unit: "MB", goals },
    ],
    needs: "streams",
    async prepare(session) {
      await haveCopy(session);
      await change(session);
      await takeSnapshot(session);
    },
    measure: transfer,
  };
}

/** From the last change until the copy shows it. */
function mirrored(what: string, change: (session: Session) => Promise<unknown>): Row {
  return {
    name: `mirror: ${what}`,
    values: [{ label: "", unit: "s", goals: { btrfs: 1, "zfs-fuse": 1 } }],
    needs: "streams",
    async prepare(session) {
      const { mirror } = streamsOf(session.peer);
      if (mirror === undefined) return haveCopy(session);
      await haveMirrored(session);
      await mirror.start();
    },
    async measure(session) {
      const { peer } = session;
      const { mirror } = streamsOf(peer);
      const last = join("mirror", `last${session.takenCount}`);
      await change(session);
      const beganMs = performance.now();
      writeFileSync(join(peer.directory, last), "");
      if (mirror === undefined) {
        await takeSnapshot(session);
        await transfer(session);
      } else await shows(mirror.directory, last);
      const seconds = (performance.now() - beganMs) / 1000;
      await mirror?.stop();
      return [seconds];
    },
  };
}

async function shows(copy: string, file: string): Promise<void> {
  const endMs = performance.now() + SHOWN_MS_MAX;
  while (!existsSync(join(copy, file))) {
    if (performance.now() > endMs) throw new Error(`the copy does not show ${file}`);
    await new Promise((settle) => {
      setTimeout(settle, 1);
    });
  }
}

function changeBlocks(session: Session): Promise<number> {
  return work(session, "scatter", "mirror", session.sizes.mirrorMib * 256, "large");
}

function makeFiles(session: Session): Promise<number> {
  return work(session, "create", "mirror/small", 100);
}

/** A destination that is up to date. */
async function haveCopy(session: Session): Promise<void> {
  if (session.sentCount === 0) await haveMirrored(session);
  else await takeSnapshot(session); // what other rows have changed meanwhile goes over first
  await transfer(session);
}

/** The files to be copied and no others, the snapshot of them, and an empty destination. */
async function haveMirrored(session: Session): Promise<void> {
  const { peer, sizes } = session;
  await shell('rm -rf "$1"/*', [peer.directory]);
  await emptyFolder(session, "mirror");
  await work(session, "fill", "mirror", sizes.mirrorMib, "large");
  await emptyFolder(session, "mirror/small");
  await work(session, "create", "mirror/small", sizes.mirrorFiles);
  await streamsOf(peer).newDestination();
  session.sentCount = 0;
  // A mirror has all snapshots, and who keeps those of other rows has less room.
  const { snapshots } = streamsOf(peer);
  for (; session.oldestCount <= session.takenCount; session.oldestCount += 1) {
    if (snapshots !== undefined) await shell(snapshots.remove(snapshotName(session.oldestCount)));
  }
  await takeSnapshot(session);
}

async function takeSnapshot(session: Session): Promise<void> {
  const { snapshots } = streamsOf(session.peer);
  session.takenCount += 1;
  if (snapshots !== undefined) await shell(snapshots.create(snapshotName(session.takenCount)));
}

/** Sends what the destination has not got of the newest snapshot: seconds, and megabytes that went over. */
async function transfer(session: Session): Promise<readonly number[]> {
  const streams = streamsOf(session.peer);
  const name = snapshotName(session.takenCount);
  const base = session.sentCount === 0 ? undefined : snapshotName(session.sentCount);
  const seconds = await secondsOf(streams.transfer(name, base), []);
  const bytes = Number(await shell(streams.size(name, base)));
  session.sentCount = session.takenCount;
  return [seconds, bytes / 1e6];
}

function snapshotName(count: number): string {
  return `s${count}`;
}

function streamsOf({ name, streams }: Peer): Streams {
  if (streams === undefined) throw new Error(`${name} makes no copies`);
  return streams;
}

function snapshotsOf(peer: Peer): Snapshots {
  const { snapshots } = streamsOf(peer);
  if (snapshots === undefined) throw new Error(`${peer.name} has no snapshots`);
  return snapshots;
}

async function haveFile(session: Session): Promise<void> {
  if (!existsSync(join(session.peer.directory, "data"))) await work(session, "fill", "", session.sizes.fileMib, "data");
}

async function haveSmall(session: Session): Promise<void> {
  if (existsSync(join(session.peer.directory, "small", "f0000000"))) return;
  if (existsSync(join(session.peer.directory, "small", "fx0000000"))) return;
  await emptyFolder(session, "small");
  await work(session, "create", "small", session.sizes.smallFiles);
}

async function haveTree({ peer, archive }: Session): Promise<void> {
  if (existsSync(join(peer.directory, "tree"))) return;
  await shell('mkdir "$1/tree" && tar -C "$1/tree" -xf "$2"', [peer.directory, archive]);
}

async function emptyFolder({ peer }: Session, folder: string): Promise<void> {
  await shell('rm -rf "$1" && mkdir "$1"', [join(peer.directory, folder)]);
}

async function work({ peer }: Session, action: string, folder: string, count: number, prefix = "f"): Promise<number> {
  const where = join(peer.directory, folder);
  return Number(await command(process.execPath, [workPath, action, where, String(count), prefix]));
}

async function rateOf(session: Session, action: string, folder: string, count: number, prefix = "f"): Promise<number> {
  return count / (await work(session, action, folder, count, prefix));
}

async function git(peer: Peer, line: string): Promise<number> {
  const environment = {
    HOME: peer.directory,
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_AUTHOR_NAME: "bench",
    GIT_AUTHOR_EMAIL: "bench@localhost",
    GIT_COMMITTER_NAME: "bench",
    GIT_COMMITTER_EMAIL: "bench@localhost",
  };
  return secondsOf(line, [], { directory: join(peer.directory, "tree"), environment });
}

/** MB/s or operations a second, by fio's own clock; writing ends with fsync. */
async function fio(
  peer: Peer,
  file: string,
  pattern: string,
  blockSize: string,
  fileMib: number,
  more: readonly string[],
  what: "bytes" | "iops",
): Promise<number> {
  const isWrite = pattern.endsWith("write");
  const output = await command("fio", [
    "--name=bench",
    `--filename=${join(peer.directory, file)}`,
    `--rw=${pattern}`,
    `--bs=${blockSize}`,
    `--size=${fileMib}m`,
    "--ioengine=psync",
    "--fallocate=none",
    "--output-format=json",
    ...(isWrite ? ["--end_fsync=1"] : []),
    ...more,
  ]);
  const report = JSON.parse(output.slice(output.indexOf("{"))) as FioReport;
  const [job] = report.jobs;
  if (job === undefined || job.error !== 0) throw new Error(`fio failed: ${job?.error}`);
  const side = isWrite ? job.write : job.read;
  return (what === "bytes" ? side.io_bytes / 1e6 : side.total_ios) / (side.runtime / 1000);
}

interface FioSide {
  readonly io_bytes: number;
  readonly total_ios: number;
  readonly runtime: number;
}

interface FioReport {
  readonly jobs: readonly { readonly error: number; readonly read: FioSide; readonly write: FioSide }[];
}
