import { command } from "../command.ts";
import { confirm } from "../confirm.ts";
import { formatBytes } from "../options.ts";
import { makeOutput } from "../output.ts";

export const snapshotDeleteCommand = command({
  command: "delete <volume> <name>",
  usage: "snapshot delete VOLUME NAME",
  summary: "Delete a snapshot, and free the blocks that only it holds.",
  examples: [
    ["$0 snapshot delete /srv/data.tm monday", "asks first, on a terminal"],
    ["$0 snapshot delete /srv/data.tm monday --force", "does not ask"],
  ],
  exits: ["no-volume", "in-use", "corrupt", "mismatch", "unreachable"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .positional("name", { type: "string", demandOption: true, describe: "Name of the snapshot" })
      .option("force", { type: "boolean", default: false, describe: "Do not ask" }),
  async run({ volume, name, force, json }) {
    const { withVolume } = await import("../../daemon/volume-access.ts");
    const output = makeOutput({ json });
    if (!force) await confirm(`Delete snapshot ${name} of ${volume}?`);
    const gone = await withVolume(volume, { writable: true }, (access) => access.call("snapshot-delete", { name }));
    output.result(gone, () => [`${formatBytes(gone.freedBlocks * 4096)} freed`]);
  },
});
