import { command } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { interruption } from "../interrupt.ts";
import { makeOutput } from "../output.ts";
import { progressLine } from "../progress.ts";

const BLOCK_BYTES = 4096;

export const imageVerifyCommand = command({
  command: "verify <files..>",
  usage: "image verify FILE...",
  summary: "Verify image files block by block, that each continues the one before, and tell what the first needs.",
  examples: [
    ["$0 image verify full.img monday.img tuesday.img", "a chain, in the order of receiving"],
    ["$0 image verify full.img --json", "for a script"],
  ],
  exits: ["findings", "interrupted"],
  lists: ["files"],
  options: (yargs) =>
    yargs.positional("files", { type: "string", array: true, demandOption: true, describe: "Stream files, in order" }),
  async run({ files, json }) {
    const { verifyImages } = await import("../../image/verify.ts");
    const { baseText } = await import("../../image/inspect.ts");
    const output = makeOutput({ json });
    const progress = progressLine({ json, what: "verify" });
    const result = await verifyImages({
      files,
      signal: interruption(),
      onProgress: ({ blocksDone, blocksTotal }) =>
        progress.update({ doneBytes: blocksDone * BLOCK_BYTES, totalBytes: blocksTotal * BLOCK_BYTES }),
    });
    progress.end();
    output.result({ type: "summary", ...result }, () => {
      const lines = result.files.map(({ file, problem }) => `${file}: ${problem ?? "good"}`);
      if (result.chainProblem !== undefined) lines.push(result.chainProblem);
      if (result.needs !== null) lines.push(`to be received by a volume that has snapshot ${baseText(result.needs)}`);
      return lines;
    });
    if (result.findings > 0) process.exitCode = exitCodes.findings.code;
  },
});
