import { command } from "../command.ts";
import { confirm } from "../confirm.ts";
import { makeOutput } from "../output.ts";

export const snapshotRestoreCommand = command({
  command: "restore <volume> <name>",
  usage: "snapshot restore VOLUME NAME",
  summary: "Set the filesystem back to a snapshot; all snapshots stay, what was changed since is lost.",
  examples: [
    ["$0 snapshot restore /srv/data.tm monday", "asks first, on a terminal"],
    ["$0 snapshot create /srv/data.tm now && $0 snapshot restore /srv/data.tm monday --force", "loses nothing"],
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
    if (!force) await confirm(`Set ${volume} back to snapshot ${name}, and lose what was changed since?`);
    const restored = await withVolume(volume, { writable: true }, (access) =>
      access.call("snapshot-restore", { name }),
    );
    output.result(restored, () => []);
  },
});
