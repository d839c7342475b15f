import { command } from "../command.ts";
import { noteOfKept } from "../kept-note.ts";
import { makeOutput } from "../output.ts";

export const umountCommand = command({
  command: "umount <target>",
  usage: "umount VOLUME|DIR",
  summary: "Unmount a volume, and return when everything in it is durable.",
  examples: [
    ["$0 umount /mnt/data", "by its directory"],
    ["$0 umount /srv/data.tm", "by its block file"],
  ],
  exits: ["no-volume", "in-use", "unreachable"],
  options: (yargs) =>
    yargs
      .positional("target", { type: "string", demandOption: true, describe: "Block file or directory" })
      .option("force", { type: "boolean", default: false, describe: "Cut off the processes that use it" }),
  async run({ target, force, json }) {
    const { unmountTarget } = await import("../../daemon/unmount.ts");
    const output = makeOutput({ json });
    const unmounted = await unmountTarget(target, { force });
    noteOfKept(unmounted, output);
    output.result(unmounted, () => []);
  },
});
