import { command } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { findingText } from "../findings.ts";
import { interruption } from "../interrupt.ts";
import { declareLog, logFileOf } from "../mount-options.ts";
import { formatBytes, formatCount, parseSize } from "../options.ts";
import { makeOutput } from "../output.ts";
import { progressLine } from "../progress.ts";

const BLOCK_BYTES = 4096;

export const scrubCommand = command({
  command: "scrub <volume>",
  usage: "scrub VOLUME",
  summary: "Read all of a volume from its disk while it is in use, and repair what has a second copy.",
  examples: [
    ["$0 scrub /srv/data.tm", "at 100 MiB a second, beside applications"],
    ["$0 scrub /srv/data.tm --rate 20M", "slower"],
  ],
  exits: ["findings", "no-volume", "corrupt", "mismatch", "unreachable", "interrupted"],
  options: (yargs) =>
    declareLog(yargs)
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .option("rate", { type: "string", default: "100M", requiresArg: true, describe: "Bytes a second, at most" }),
  async run({ volume, rate, log, options, json }) {
    const logFile = logFileOf({ log, options });
    const bytesPerSecond = parseSize(rate);
    const { scrubPath } = await import("../../daemon/scrub-path.ts");
    const output = makeOutput({ json });
    const progress = progressLine({ json, what: "scrub" });
    const startMs = performance.now();
    const report = await scrubPath(volume, {
      bytesPerSecond,
      logFile,
      signal: interruption(),
      onProgress: ({ blocksDone, blocksTotal }) =>
        progress.update({ doneBytes: blocksDone * BLOCK_BYTES, totalBytes: blocksTotal * BLOCK_BYTES }),
    });
    progress.end();
    const seconds = (performance.now() - startMs) / 1000;
    const { findings, leftOut, notes, repaired, blocksRead, statesChecked } = report;
    output.result({ type: "summary", volume, seconds, ...report }, () => {
      const result =
        findings.length === 0 ? "nothing else is wrong" : formatCount(findings.length + leftOut, "finding");
      return [
        ...repaired.map(({ what, vbn, problem }) => `repaired: ${what} in block ${vbn}: ${problem}`),
        ...findings.map(findingText),
        ...(leftOut > 0 ? [`and ${leftOut} more`] : []),
        ...notes.map((note) => `note: ${note}`),
        `${volume}: ${formatCount(statesChecked, "state")}, ${formatBytes(blocksRead * BLOCK_BYTES)} read in ${seconds.toFixed(1)} s, ` +
          `${formatCount(repaired.length, "copy", "copies")} repaired, ${result}`,
      ];
    });
    if (findings.length > 0) process.exitCode = exitCodes.findings.code;
  },
});
