/** Rows of things that are large: `ROWS=scale`. Most are of Tidemark alone: they are held against limits, not against peers. */
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { command, secondsOf, shell } from "./processes.ts";
import type { Row, Session } from "./rows.ts";
import { median } from "./table.ts";

const workPath = join(import.meta.dirname, "work.js");
const scalePath = join(import.meta.dirname, "scale-work.js");
const mainPath = join(import.meta.dirname, "../../command/main.js");
const TIDE = `'${process.execPath}' '${mainPath}'`;

export const scaleRows: readonly Row[] = [
  ours("format 16 TiB", "s", async (volume) => {
    rmSync(volume, { force: true });
    return secondsOf(`${TIDE} format "$1" --size 16T`, [volume]);
  }),
  ours("mount 16 TiB", "s", async (volume) => {
    if (!existsSync(volume)) await shell(`${TIDE} format "$1" --size 16T`, [volume]);
    return mountSeconds(volume);
  }),
  madeBefore("mount with many files", "files", ({ directoryFiles }) => 4 * directoryFiles, mountSeconds),
  madeBefore("mount with many snapshots", "snapshots", ({ directoryFiles }) => directoryFiles / 5, mountSeconds),
  madeBefore(
    "list many snapshots",
    "snapshots",
    ({ directoryFiles }) => directoryFiles / 5,
    (volume) => secondsOf(`${TIDE} snapshot list "$1" > /dev/null`, [volume]),
  ),
  ours("4 KiB overwrites, 95 % full and fragmented", "/s", async (volume, { sizes }) =>
    Number(await command(process.execPath, [scalePath, "fill", volume, String(Math.ceil(sizes.fileMib / 128))])),
  ),
  {
    name: "scale: slowest create while a large file is deleted",
    values: [{ label: "", unit: "ms" }],
    async prepare({ peer, sizes }) {
      await command(process.execPath, [workPath, "fill", peer.directory, String(4 * sizes.fileMib), "doomed"]);
    },
    measure: async (session) => [await slowestWhile(session, 'rm "$1/doomed"')],
  },
  {
    name: "scale: slowest create while a large file is cut to its half",
    values: [{ label: "", unit: "ms" }],
    async prepare({ peer, sizes }) {
      await command(process.execPath, [workPath, "fill", peer.directory, String(4 * sizes.fileMib), "doomed"]);
    },
    async measure(session) {
      const slowestMs = await slowestWhile(session, `truncate -s ${2 * session.sizes.fileMib}M "$1/doomed"`);
      await shell('rm "$1/doomed"', [session.peer.directory]); // there is not room for everything
      return [slowestMs];
    },
  },
  {
    name: "scale: slowest create while a sparse TiB is deleted",
    values: [{ label: "", unit: "ms" }],
    async prepare({ peer }) {
      const line =
        'truncate -s 1T "$1/doomed"; for i in $(seq 0 1000); do echo x | dd of="$1/doomed" bs=1M seek=$((i * 1000)) conv=notrunc status=none; done';
      await shell(line, [peer.directory]);
    },
    measure: async (session) => [await slowestWhile(session, 'rm "$1/doomed"')],
  },
  {
    name: "scale: create + stat + unlink",
    values: [
      { label: "idle, p50", unit: "ms" },
      { label: "idle, p99", unit: "ms" },
      { label: "while scattered pages are written, p50", unit: "ms" },
      { label: "while scattered pages are written, p99", unit: "ms" },
      { label: "while scattered pages are written, slowest", unit: "ms" },
      { label: "while scattered pages are written, p99 to that of idle", unit: "x" },
      { label: "while these are made durable, p50", unit: "ms" },
      { label: "while these are made durable, p99", unit: "ms" },
      { label: "while these are made durable, slowest", unit: "ms" },
      { label: "while these are made durable, p99 to that of idle", unit: "x" },
    ],
    async prepare({ peer, sizes }) {
      const path = join(peer.directory, "scattered");
      if (!existsSync(path))
        await command(process.execPath, [workPath, "fill", peer.directory, String(4 * sizes.fileMib), "scattered"]);
    },
    measure: latencyWhileWritten,
  },
];

const PROBE_MS_MAX = 120_000;

/**
 * One in sixteen of the pages of a large file are changed by a process that does nothing else, and then made durable, by a
 * consistency point or what the peer has. It is done once to warm up, for whoever compiles what runs often; then the medians count.
 */
async function latencyWhileWritten(session: Session): Promise<readonly number[]> {
  await latencyOnce(session);
  const rounds: (readonly number[])[] = [];
  for (let round = 0; round < session.sizes.probeRounds; round++) rounds.push(await latencyOnce(session));
  return (rounds[0] as readonly number[]).map((_, i) => median(rounds.map((values) => values[i] as number)) ?? 0);
}

async function latencyOnce({ peer, sizes }: Session): Promise<readonly number[]> {
  const stop = join(dirname(peer.image), "probe-end");
  rmSync(stop, { force: true });
  const probe = async (durationMs: number): Promise<Latencies> =>
    JSON.parse(
      await command(process.execPath, [workPath, "latency", peer.directory, String(durationMs), "probe", stop]),
    );
  const idle = (await probe(sizes.probeMs)).tookMs.toSorted((a, b) => a - b);
  const watching = probe(PROBE_MS_MAX);
  await new Promise((settle) => {
    setTimeout(settle, sizes.probeMs / 4);
  });
  const beganAt = nowMs();
  const blocks = 4 * sizes.fileMib * 256;
  await command(process.execPath, [workPath, "scatter-more", peer.directory, String(blocks), "scattered"]);
  const writtenAt = nowMs();
  await shell(peer.sync);
  const endedAt = nowMs();
  writeFileSync(stop, "");
  const { doneAt, tookMs } = await watching;
  const summary = (from: number, until: number): readonly number[] => {
    const during = tookMs
      .filter((ms, i) => (doneAt[i] as number) >= from && (doneAt[i] as number) - ms <= until)
      .toSorted((a, b) => a - b);
    const p99 = at(during, 0.99);
    return [at(during, 0.5), p99, at(during, 1), p99 / at(idle, 0.99)];
  };
  return [at(idle, 0.5), at(idle, 0.99), ...summary(beganAt, writtenAt), ...summary(writtenAt, endedAt)];
}

function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

interface Latencies {
  /** Of each, when it was done, in milliseconds since 1970, and how long it took. */
  readonly doneAt: readonly number[];
  readonly tookMs: readonly number[];
}

function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number;
}

/** A row of Tidemark alone, on a volume that is not the one that is mounted. */
function ours(what: string, unit: "s" | "/s", measure: (volume: string, session: Session) => Promise<number>): Row {
  return {
    name: `scale: ${what}`,
    values: [{ label: "", unit }],
    only: "tidemark",
    measure: async (session) => [await measure(join(dirname(session.peer.image), "scale.image"), session)],
  };
}

function madeBefore(
  what: string,
  action: string,
  countOf: (sizes: Session["sizes"]) => number,
  measure: (volume: string) => Promise<number>,
): Row {
  const pathOf = ({ peer }: Session): string => join(dirname(peer.image), `scale-${action}.image`);
  return {
    name: `scale: ${what}`,
    values: [{ label: "", unit: "s" }],
    only: "tidemark",
    async prepare(session) {
      if (existsSync(pathOf(session))) return;
      await command(process.execPath, [scalePath, action, pathOf(session), String(countOf(session.sizes))]);
    },
    measure: async (session) => [await measure(pathOf(session))],
  };
}

/** In the background, until the mount is served. */
async function mountSeconds(volume: string): Promise<number> {
  const directory = `${volume}-mount`;
  mkdirSync(directory, { recursive: true });
  try {
    return await secondsOf(`${TIDE} mount "$1" "$2"`, [volume, directory]);
  } finally {
    await shell(`${TIDE} umount "$1"`, [directory]);
  }
}

/** Milliseconds of the slowest of the small files made, one after the other, while something else goes on and for a while after. */
async function slowestWhile({ peer, sizes }: Session, line: string): Promise<number> {
  statSync(peer.directory);
  const slowest = command(process.execPath, [workPath, "slowest", peer.directory, String(sizes.probeMs), "probe"]);
  await new Promise((settle) => {
    setTimeout(settle, sizes.probeMs / 4);
  });
  await shell(line, [peer.directory]);
  return Number(await slowest);
}
