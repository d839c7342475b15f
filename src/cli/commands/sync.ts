import { command } from "../command.ts";
import { makeOutput } from "../output.ts";

export const syncCommand = command({
  command: "sync <volume>",
  usage: "sync VOLUME",
  summary: "Take a consistency point now, and return when it is durable.",
  examples: [
    ["$0 sync /srv/data.tm", "everything written so far is safe"],
    ["$0 sync /srv/data.tm --json", "tells the number of the consistency point"],
  ],
  exits: ["no-volume", "in-use", "corrupt", "mismatch", "unreachable"],
  options: (yargs) =>
    yargs.positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" }),
  async run({ volume, json }) {
    const { withVolume } = await import("../../daemon/volume-access.ts");
    const output = makeOutput({ json });
    const result = await withVolume(volume, { writable: true }, (access) => access.call("sync", {}));
    output.result(result, () => [`consistency point ${result.cpCount}`]);
  },
});
