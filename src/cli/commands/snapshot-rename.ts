import { command } from "../command.ts";
import { makeOutput } from "../output.ts";

export const snapshotRenameCommand = command({
  command: "rename <volume> <old> <new>",
  usage: "snapshot rename VOLUME OLD NEW",
  summary: "Give a snapshot another name.",
  examples: [
    ["$0 snapshot rename /srv/data.tm monday before-upgrade", "the state stays the same"],
    ["$0 snapshot rename /srv/data.tm monday tuesday --json", "tells what it is now"],
  ],
  exits: ["no-volume", "in-use", "corrupt", "mismatch", "unreachable"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .positional("old", { type: "string", demandOption: true, describe: "Name that it has" })
      .positional("new", { type: "string", demandOption: true, describe: "Name that it gets" }),
  async run({ volume, old, new: into, json }) {
    const { withVolume } = await import("../../daemon/volume-access.ts");
    const output = makeOutput({ json });
    const renamed = await withVolume(volume, { writable: true }, (access) =>
      access.call("snapshot-rename", { from: old, into }),
    );
    output.result(renamed, () => []);
  },
});
