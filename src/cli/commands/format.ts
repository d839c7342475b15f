import { command } from "../command.ts";
import { formatBytes, parseSize } from "../options.ts";
import { makeOutput } from "../output.ts";

export const formatCommand = command({
  command: "format <volume>",
  usage: "format VOLUME --size SIZE",
  summary: "Make an empty volume in a file or on a block device.",
  examples: [
    ["$0 format /srv/data.tm --size 10G", "a volume in a new, sparse file of 10 GiB"],
    ["$0 format /dev/sdb1 --size 500G --label data --force", "on a block device, overwriting what it holds"],
  ],
  exits: ["no-volume", "in-use"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .option("size", { type: "string", demandOption: true, requiresArg: true, describe: "Size, such as 512M or 10G" })
      .option("label", { type: "string", default: "", requiresArg: true, describe: "Name for people, up to 64 bytes" })
      .option("force", { type: "boolean", default: false, describe: "Overwrite what the file holds" }),
  async run({ volume, size, label, force, json }) {
    const { formatVolume } = await import("../../daemon/format-volume.ts");
    const output = makeOutput({ json });
    const made = await formatVolume({ path: volume, sizeBytes: parseSize(size), label, force });
    output.result(made, () => [`${volume}: ${formatBytes(made.sizeBytes)}, ${made.uuid}`]);
  },
});
