import { command } from "../command.ts";
import { interruption } from "../interrupt.ts";
import { formatBytes, formatCount } from "../options.ts";
import { makeOutput } from "../output.ts";
import { progressLine } from "../progress.ts";

const BLOCK_BYTES = 4096;

export const imageSendCommand = command({
  command: "send <volume> <snapshot>",
  usage: "image send VOLUME SNAPSHOT",
  summary: "Write a snapshot as an image stream, whole or as its difference from an older one.",
  examples: [
    ["$0 image send /srv/data.tm monday --output /backup/monday.img", "a full image"],
    ["$0 image send /srv/data.tm tuesday --base monday | ssh host tidemark image receive /srv/copy.tm", "what changed"],
  ],
  exits: ["no-volume", "corrupt", "mismatch", "interrupted"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .positional("snapshot", { type: "string", demandOption: true, describe: "Snapshot to send" })
      .option("base", { type: "string", requiresArg: true, describe: "Snapshot that the receiver has" })
      .option("output", { type: "string", requiresArg: true, describe: "File to write; standard output without it" })
      .option("force", { type: "boolean", default: false, describe: "Replace an existing file, or write over a disk" }),
  async run({ volume, snapshot, base, output: file, force, json }) {
    const { sendImage } = await import("../../image/send-image.ts");
    const { hostReading } = await import("../../daemon/host-calls.ts");
    const { hostWriteBack } = await import("../../daemon/host-write-back.ts");
    const { widenPipe } = await import("../../daemon/widen-pipe.ts");
    const stdoutTaken = file === undefined;
    const output = makeOutput({ json, stdoutTaken });
    const progress = progressLine({ json, what: "send", stdoutTaken });
    const sent = await sendImage({
      volume,
      snapshots: [snapshot],
      base,
      output: file,
      force,
      widenPipe,
      writeBack: hostWriteBack(),
      findReading: hostReading,
      signal: interruption(),
      onProgress: ({ blocksDone, blocksTotal }) =>
        progress.update({ doneBytes: blocksDone * BLOCK_BYTES, totalBytes: blocksTotal * BLOCK_BYTES }),
    });
    progress.end();
    output.result({ type: "summary", ...sent }, () =>
      stdoutTaken
        ? []
        : [`${file}: ${sent.kind} image, ${formatCount(sent.blocks, "block")}, ${formatBytes(sent.bytes)}`],
    );
  },
});
