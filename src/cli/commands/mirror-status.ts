import type { MirrorStatus } from "../../mirror/status.ts";
import { command } from "../command.ts";
import { formatBytes, formatCount } from "../options.ts";
import { fields, makeOutput, paragraphs } from "../output.ts";

export const mirrorStatusCommand = command({
  command: "status <volume>",
  usage: "mirror status VOLUME",
  summary: "Show how far a mirror is behind, from the host of its source or its own.",
  examples: [
    ["$0 mirror status /srv/data.tm", "lag in seconds, consistency points and bytes"],
    ["$0 mirror status /srv/data.tm --json", "for a monitor"],
  ],
  exits: ["no-volume", "corrupt"],
  options: (yargs) =>
    yargs.positional("volume", { type: "string", demandOption: true, describe: "Block file of either end" }),
  async run({ volume, json }) {
    const { mirrorStatuses } = await import("../../mirror/status-socket.ts");
    const output = makeOutput({ json });
    const ends = await mirrorStatuses(volume);
    output.result({ volume, mirrors: ends }, () =>
      ends.length === 0 ? [`no mirror of ${volume} is running on this host`] : paragraphs(ends.map(endLines)),
    );
  },
});

function endLines(end: MirrorStatus): readonly string[] {
  const { lag, transfer, counts } = end;
  const moved = end.role === "source" ? counts.updates : end.counts.updates;
  return fields([
    ["role", end.role],
    ["phase", end.phase],
    ["peer", end.peer ?? "not connected"],
    ["connected since", end.connectedSince],
    ["at consistency point", end.topCp],
    ["since", end.switchedAt],
    ["lag", lagText(lag)],
    ["updates", moved],
    [
      "transfer",
      transfer === undefined ? undefined : `${transfer.kind}, frame ${transfer.framesDone} of ${transfer.frames}`,
    ],
    ["last error", end.lastError],
  ]);
}

function lagText({ seconds, cps, bytes }: MirrorStatus["lag"]): string {
  if (seconds === undefined) return "not known yet";
  if (seconds === 0) return "none";
  return `${seconds.toFixed(1)} s, ${cps === undefined ? "? consistency points" : formatCount(cps, "consistency point")}, ${formatBytes(bytes)}`;
}
