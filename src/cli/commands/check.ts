import { command } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { findingText } from "../findings.ts";
import { interruption } from "../interrupt.ts";
import { declareLog, logFileOf } from "../mount-options.ts";
import { formatCount } from "../options.ts";
import { makeOutput } from "../output.ts";
import { progressLine } from "../progress.ts";

const BLOCK_BYTES = 4096;

export const checkCommand = command({
  command: "check <volume>",
  usage: "check VOLUME",
  summary: "Verify every block of a volume; while it is mounted, of its state now and of its snapshots.",
  examples: [
    ["$0 check /srv/data.tm", "everything, file data too"],
    ["$0 check /srv/data.tm --metadata-only", "much faster: all but the contents of files"],
    ["$0 check /srv/data.tm --log /fast/data.log", "after a crash, with the change log, which is apart"],
  ],
  exits: ["findings", "no-volume", "corrupt", "mismatch", "unreachable", "interrupted"],
  options: (yargs) =>
    declareLog(yargs)
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .option("metadata-only", { type: "boolean", default: false, describe: "Do not read the contents of files" }),
  async run({ volume, metadataOnly, log, options, json }) {
    const logFile = logFileOf({ log, options });
    const { checkPath } = await import("../../daemon/check-path.ts");
    const output = makeOutput({ json });
    const progress = progressLine({ json, what: "check" });
    const report = await checkPath(volume, {
      readData: !metadataOnly,
      logFile,
      signal: interruption(),
      onProgress: ({ blocksDone, blocksTotal }) =>
        progress.update({ doneBytes: blocksDone * BLOCK_BYTES, totalBytes: blocksTotal * BLOCK_BYTES }),
    });
    progress.end();
    const { findings, leftOut, notes, cpCount, statesChecked, blocksRead } = report;
    output.result({ type: "summary", volume, ...report }, () => {
      const more = leftOut > 0 ? [`and ${leftOut} more`] : [];
      const result =
        findings.length === 0 ? "is consistent" : `has ${formatCount(findings.length + leftOut, "finding")}`;
      const extent = `${formatCount(statesChecked, "state")}, ${formatCount(blocksRead, "block")} read`;
      return [
        ...findings.map(findingText),
        ...more,
        ...notes.map((note) => `note: ${note}`),
        `${volume} ${result} (consistency point ${cpCount}, ${extent})`,
      ];
    });
    if (findings.length > 0) process.exitCode = exitCodes.findings.code;
  },
});
