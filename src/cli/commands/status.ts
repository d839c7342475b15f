import { type DaemonStatus, type DamageSummary, damageText } from "../../daemon/daemon-status.ts";
import type { SpaceHolders } from "../../daemon/space-holders.ts";
import type { VolumeSummary } from "../../daemon/volume-verbs.ts";
import { command } from "../command.ts";
import { formatAge, formatBytes, formatCount } from "../options.ts";
import { type FieldValue, fields, makeOutput, paragraphs, table } from "../output.ts";

const BLOCK_BYTES = 4096;

export const statusCommand = command({
  command: "status [volume]",
  usage: "status [VOLUME]",
  summary: "Show a volume and its mounts, or all mounted volumes of this host.",
  examples: [
    ["$0 status", "every volume that is mounted"],
    ["$0 status /srv/data.tm --json", "one volume, for a script"],
  ],
  exits: ["no-volume", "corrupt", "unreachable"],
  options: (yargs) => yargs.positional("volume", { type: "string", describe: "Block file or block device" }),
  async run({ volume, json }) {
    const { daemonStatuses, silentError } = await import("../../daemon/control-client.ts");
    const output = makeOutput({ json });
    const { mounts, silent } = await daemonStatuses(volume);
    for (const socket of silent) output.note(`a daemon does not answer: ${socket}`);
    if (volume === undefined) {
      output.result({ mounts, silent }, () => (mounts.length === 0 ? ["no volume is mounted"] : mountTable(mounts)));
      return;
    }
    const writer = mounts.find((mount) => mount.mode === "write");
    if (writer?.details === undefined && silent.length > 0) throw silentError(volume);
    const summary = writer?.details ?? (await readSummary(volume));
    output.result({ volume: { path: volume, ...summary }, mounts, silent }, () =>
      paragraphs([volumeLines(volume, summary), ...mounts.map(mountLines)]),
    );
  },
});

async function readSummary(volume: string): Promise<VolumeSummary> {
  const { withVolume } = await import("../../daemon/volume-access.ts");
  return withVolume(volume, { writable: false }, (access) => access.call("volume-status", {}));
}

function mountTable(mounts: readonly DaemonStatus[]): readonly string[] {
  const rows = mounts.map(({ volume, mountPoint, mode, state, pid, details }) => [
    volume,
    mountPoint,
    mode,
    state,
    details === undefined ? "?" : String(details.cpCount),
    details === undefined ? "?" : formatBytes(details.freeBlocks * BLOCK_BYTES),
    String(pid),
  ]);
  return table([["VOLUME", "MOUNTED ON", "MODE", "STATE", "CP", "FREE", "PID"], ...rows]);
}

function volumeLines(path: string, summary: VolumeSummary): readonly string[] {
  return fields([
    ["volume", path],
    ["label", summary.label === "" ? undefined : summary.label],
    ["uuid", summary.uuid],
    ["role", summary.role],
    ["size", formatBytes(summary.blockCount * BLOCK_BYTES)],
    ["used", formatBytes(summary.usedBlocks * BLOCK_BYTES)],
    ["free", formatBytes(summary.freeBlocks * BLOCK_BYTES)],
    ["held by snapshots", heldText(summary.space)],
    ["inodes", summary.usedInodes],
    ["snapshots", summary.snapshotCount],
    ["consistency point", `${summary.cpCount} of ${summary.cpAt}`],
    ["not yet in it", summary.dirtyBytes === 0 ? undefined : formatBytes(summary.dirtyBytes)],
    ["change log", logText(summary)],
  ]);
}

function logText({ changeSeq, cpChangeSeq, logUsedBlocks, logBlocks }: VolumeSummary): string {
  if (logBlocks === 0) return "none";
  const size = `${formatBytes(logUsedBlocks * BLOCK_BYTES)} of ${formatBytes(logBlocks * BLOCK_BYTES)}`;
  return `${size}; ${formatCount(changeSeq - cpChangeSeq, "change")} since the consistency point`;
}

function mountLines(mount: DaemonStatus): readonly string[] {
  const lastMs = mount.cpLastMs === undefined ? "" : `, the last in ${mount.cpLastMs.toFixed(1)} ms`;
  return fields([
    ["mounted on", mount.mountPoint],
    ["mode", mount.snapshot === undefined ? mount.mode : `snapshot ${mount.snapshot}`],
    ["state", mount.failure === undefined ? mount.state : `read-only until it is mounted again: ${mount.failure}`],
    ["last error", lastErrorText(mount)],
    ["damage met", damageSummary(mount.damage)],
    ["daemon", `${mount.pid}, since ${mount.startedAt}`],
    ["consistency points", mount.mode === "write" ? `${mount.cpsCommitted}${lastMs}` : undefined],
    ["because of", mount.cpsCommitted === 0 ? undefined : causesText(mount)],
    ["made durable by the log", durableText(mount)],
  ]);
}

function lastErrorText({ lastError, lastErrorAt }: DaemonStatus): string | undefined {
  if (lastError === undefined || lastErrorAt === undefined) return undefined;
  return `${formatAge(Date.now() - Date.parse(lastErrorAt))} ago, at ${lastErrorAt}: ${lastError}`;
}

function causesText({ cpCauses }: DaemonStatus): string {
  return Object.entries(cpCauses)
    .map(([cause, count]) => `${cause} ${count}`)
    .join(", ");
}

/** Calls that come together share a write. */
function durableText({ logCounts }: DaemonStatus): string | undefined {
  if (logCounts === undefined || logCounts.frames === 0) return undefined;
  const { answers, frames, writes } = logCounts;
  return `${formatCount(answers, "call")} in ${formatCount(writes, "write")} of ${formatCount(frames, "frame")}`;
}

/** Named only where space is short. */
function heldText({ snapshotBlocks, holders }: SpaceHolders): FieldValue {
  if (snapshotBlocks === 0) return undefined;
  const each = holders.map(({ name, blocks }) => `${formatBytes(blocks * BLOCK_BYTES)} by ${name} alone`);
  return [formatBytes(snapshotBlocks * BLOCK_BYTES), ...each];
}

const PLACES_SHOWN = 5;

function damageSummary({ checksum, unreadable, structure, places }: DamageSummary): FieldValue {
  if (checksum + unreadable + structure === 0) return undefined;
  const counts = `places: ${checksum} with a wrong checksum, ${unreadable} that cannot be read, ${structure} with impossible contents`;
  const shown = places.slice(0, PLACES_SHOWN).map((place) => damageText(place));
  const more = places.length > PLACES_SHOWN ? [`and ${formatCount(places.length - PLACES_SHOWN, "place")} more`] : [];
  return [counts, ...shown, ...more];
}
