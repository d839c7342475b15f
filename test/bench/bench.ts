/**
 * `make bench`: Tidemark and its peers side by side on this machine, in one table of medians and ratios.
 *
 * All peers are mounted at once, each on an image file of its own; each row is measured for one peer after the other before
 * the next row begins, and the order turns from round to round: so what else the machine does meets all alike. Before a
 * row is timed, what was written before is on disk, and the caches are dropped where the row is cold. Interrupted, it tells
 * what it has measured so far.
 *
 *     make bench                    everything but the directories of a million files: about an hour
 *     make bench FULL=1             these too
 *     make bench QUICK=1            small sizes, one round, under three minutes
 *     ROWS=git,untar PEERS=tidemark,btrfs ROUNDS=5 JSON=result.json DIRECTORY=/mnt/disk
 *     BUILDS=before=/other/dist/command/main.js     other builds of Tidemark, as peers
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, release, tmpdir, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { isMounted, makePeer, otherBuild, type Peer, type Place, peerNames } from "./peers.ts";
import { command, killCommands, resetPeak, shell, usageOf } from "./processes.ts";
import { rows as plainRows, type Row, type Session, type Sizes } from "./rows.ts";
import { scaleRows } from "./scale-rows.ts";
import { linesOf, type Measured, tableOf } from "./table.ts";

const GIB = 2 ** 30;
const TREE = "/usr/include";

const fullSizes: Sizes = {
  fileMib: 1024,
  randomReads: 10_000,
  overwrites: 30_000,
  appends: 1000,
  smallFiles: 5000,
  directoryFiles: 50_000,
  millionFiles: 1_000_000,
  mirrorMib: 1024,
  mirrorFiles: 10_000,
  probeMs: 2000,
  probeRounds: 3,
  tree: TREE,
};
const quickSizes: Sizes = {
  fileMib: 128,
  randomReads: 1500,
  overwrites: 3000,
  appends: 100,
  smallFiles: 500,
  directoryFiles: 1000,
  millionFiles: 0,
  mirrorMib: 64,
  mirrorFiles: 500,
  probeMs: 500,
  probeRounds: 1,
  tree: `${TREE}/linux`,
};

const environment = process.env;
const isQuick = isSet("QUICK");
const rounds = Number(environment["ROUNDS"] ?? (isQuick ? 1 : 3));
const sizes = isQuick ? quickSizes : fullSizes;
const place: Place = {
  work: mkdtempSync(join(resolve(environment["DIRECTORY"] ?? tmpdir()), "tidemark-bench-")),
  imageBytes: (isQuick ? 2 : 8) * GIB,
  fileCountMax: isSet("FULL") ? sizes.millionFiles : sizes.directoryFiles,
};
const wantedRows = listOf("ROWS");
const wantedPeers = listOf("PEERS");

let stopping = false;
let canDropCaches: boolean | undefined;
process.on("SIGINT", () => stop());
process.on("SIGTERM", () => stop());

function stop(): void {
  stopping = true;
  killCommands();
}

const sessions: Session[] = [];
const results: Measured[] = [];
try {
  await bench();
} catch (error) {
  if (!stopping) throw error;
} finally {
  if (stopping) process.exitCode = 130;
  say("unmounting and removing what was made");
  for (const { peer } of sessions) {
    await peer.streams?.removeDestination().catch(() => {});
    await peer.cleanUp();
  }
  rmSync(place.work, { recursive: true, force: true });
}

async function bench(): Promise<void> {
  const chosen = [...plainRows, ...scaleRows].filter(
    (row) =>
      (row.isLong !== true || isSet("FULL")) &&
      (wantedRows === undefined || wantedRows.some((want) => row.name.includes(want))),
  );
  const archive = join(place.work, "tree.tar");
  await shell('tar -C "$1" -cf "$2" .', [sizes.tree, archive]);
  for (const peer of await availablePeers()) {
    say(`format and mount ${peer.name}`);
    try {
      await peer.format();
      await peer.mount();
      sessions.push({ peer, sizes, archive, oldestCount: 1, takenCount: 0, sentCount: 0 });
    } catch (error) {
      await peer.cleanUp();
      if (stopping) return;
      say(`without ${peer.name}: ${(error as Error).message}`);
    }
  }
  for (let round = 0; round < rounds; round++) {
    for (const row of chosen) await runRow(row, round);
  }
  const peers = sessions.map(({ peer }) => peer.name);
  const lines = linesOf(chosen, peers, results);
  const condition = await describe();
  process.stdout.write(`${condition}\n\n${tableOf(lines, peers)}\n`);
  const json = environment["JSON"];
  if (json !== undefined) writeFileSync(json, `${JSON.stringify({ condition, rounds, sizes, lines, results })}\n`);
}

async function runRow(row: Row, round: number): Promise<void> {
  const order = [...sessions.slice(round % sessions.length), ...sessions.slice(0, round % sessions.length)];
  for (const session of order) {
    if (stopping) return;
    const { name } = session.peer;
    if (row.without?.[name] !== undefined) {
      if (round === 0) say(`${row.name}: without ${name}, which ${row.without[name]}`);
      continue;
    }
    if (!canDo(row, session.peer)) continue;
    try {
      results.push(await measure(row, session, round));
    } catch (error) {
      if (stopping) return;
      say(`${row.name}: ${name} failed: ${(error as Error).message}`);
    }
  }
}

function canDo({ needs, only }: Row, { name, streams }: Peer): boolean {
  if (only !== undefined && only !== name) return false;
  return needs === undefined || (needs === "streams" ? streams !== undefined : streams?.snapshots !== undefined);
}

async function measure(row: Row, session: Session, round: number): Promise<Measured> {
  const { peer } = session;
  if (!isMounted(peer.directory)) throw new Error("it is not mounted any more");
  await row.prepare?.(session);
  await shell('sync -f "$1"; if [ -e "$2" ]; then sync "$2"; fi', [peer.directory, peer.image]);
  if (row.isCold === true) {
    await peer.unmount();
    await dropCaches(peer);
    await peer.mount();
  }
  const pid = peer.pid();
  resetPeak(pid);
  const before = usageOf(pid);
  const values = await row.measure(session);
  const after = usageOf(pid);
  const cpuSeconds = after.cpuSeconds - before.cpuSeconds;
  const shown = values.map((value) => value.toPrecision(4)).join(" ");
  say(`round ${round + 1}: ${row.name}: ${peer.name} ${shown}, CPU ${cpuSeconds.toFixed(2)} s`);
  return { row: row.name, peer: peer.name, round, values, cpuSeconds, peakMib: after.peakMib };
}

/** Where the host's caches cannot be dropped, those of the image file are: the next best, and the same for all. */
async function dropCaches({ image }: Peer): Promise<void> {
  if (canDropCaches !== false) {
    try {
      writeFileSync("/proc/sys/vm/drop_caches", "3");
      canDropCaches = true;
      return;
    } catch {
      canDropCaches = false;
      say("the host's caches cannot be dropped: those of the image files are");
    }
  }
  await command("dd", [`of=${image}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
}

async function availablePeers(): Promise<readonly Peer[]> {
  const peers: Peer[] = [];
  const others = Object.entries(Object.fromEntries((listOf("BUILDS") ?? []).map((build) => build.split("=", 2))));
  const all = [
    ...peerNames.map((name) => () => makePeer(name, place)),
    ...others.map(
      ([name, path]) =>
        () =>
          otherBuild(name, resolve(String(path)), place),
    ),
  ];
  for (const make of all) {
    const peer = make();
    const isWanted = wantedPeers === undefined || wantedPeers.includes(peer.name);
    if (!isWanted && !others.some(([name]) => name === peer.name)) continue;
    const problem = await peer.problem();
    if (problem === undefined) peers.push(peer);
    else say(`without ${peer.name}: ${problem}`);
  }
  return peers;
}

/** The condition under which all was measured. */
async function describe(): Promise<string> {
  const host = (await command("stat", ["-f", "-c", "%T", place.work])).trim();
  const [cpu] = cpus();
  const load = readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).join(" ");
  const caches = canDropCaches === false ? "the image's pages" : "the host's caches";
  return [
    `Medians of ${rounds} interleaved rounds; in brackets how many times better Tidemark did than that peer.`,
    `${cpus().length} x ${cpu?.model ?? "?"}, ${Math.round(totalmem() / GIB)} GiB, Linux ${release()}, Node ${process.version};`,
    `sparse image files of ${place.imageBytes / GIB} GiB on ${host}; cold: remounted, ${caches} dropped; load at the end ${load}.`,
    `Sizes: ${JSON.stringify(sizes)}`,
  ].join("\n");
}

function isSet(name: string): boolean {
  return !["", "0", undefined].includes(environment[name]);
}

function listOf(name: string): readonly string[] | undefined {
  const text = environment[name];
  return text === undefined || text === "" ? undefined : text.split(",");
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
