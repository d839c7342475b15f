import { command } from "../command.ts";
import { confirm } from "../confirm.ts";
import { makeOutput } from "../output.ts";

export const mirrorPromoteCommand = command({
  command: "promote <volume>",
  usage: "mirror promote VOLUME",
  summary: "Make a mirror an ordinary volume, which takes no more updates of its source.",
  examples: [
    ["$0 mirror promote /srv/mirror.tm", "when the source is lost; asks first, on a terminal"],
    ["$0 mirror promote /srv/mirror.tm --force && $0 mount /srv/mirror.tm /mnt/data", "and goes on from there"],
  ],
  exits: ["no-volume", "in-use", "corrupt", "mismatch"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file of the mirror" })
      .option("force", { type: "boolean", default: false, describe: "Do not ask" }),
  async run({ volume, force, json }) {
    const { promoteMirror } = await import("../../daemon/promote.ts");
    const output = makeOutput({ json });
    if (!force) await confirm(`Make ${volume} an ordinary volume, that follows its source no more?`);
    const promoted = promoteMirror(volume);
    output.result(promoted, () => []);
    if (promoted.snapshots.length > 0) {
      output.note(
        `the last states that it got from its source are kept as snapshots: ${promoted.snapshots.join(", ")}`,
      );
    }
  },
});
