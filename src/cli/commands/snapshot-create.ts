import { command } from "../command.ts";
import { makeOutput } from "../output.ts";

export const snapshotCreateCommand = command({
  command: "create <volume> <name>",
  usage: "snapshot create VOLUME NAME",
  summary: "Keep the filesystem as it is now, under a name.",
  examples: [
    ["$0 snapshot create /srv/data.tm monday", "also with everything that applications have just written"],
    ["$0 snapshot create /srv/data.tm $(date +%F)", "named by the day"],
  ],
  exits: ["no-volume", "in-use", "corrupt", "mismatch", "unreachable"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .positional("name", { type: "string", demandOption: true, describe: "Name of the snapshot" }),
  async run({ volume, name, json }) {
    const { withVolume } = await import("../../daemon/volume-access.ts");
    const output = makeOutput({ json });
    const made = await withVolume(volume, { writable: true }, (access) =>
      access.call("snapshot-create", { name, mirror: false }),
    );
    output.result(made, () => []);
  },
});
