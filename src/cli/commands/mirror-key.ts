import { command } from "../command.ts";
import { makeOutput } from "../output.ts";

export const mirrorKeyCommand = command({
  command: "key <file>",
  usage: "mirror key FILE",
  summary: "Make the key that both ends of a mirror share.",
  examples: [
    ["$0 mirror key /etc/tidemark/mirror.key", "to be copied to the other host, by a safe way"],
    ["$0 mirror key /etc/tidemark/mirror.key --force", "a new one; both ends then need it"],
  ],
  exits: [],
  options: (yargs) =>
    yargs
      .positional("file", {
        type: "string",
        demandOption: true,
        describe: "File to write, readable by its owner alone",
      })
      .option("force", { type: "boolean", default: false, describe: "Replace an existing key" }),
  async run({ file, force, json }) {
    const { createKey } = await import("../../mirror/key.ts");
    const output = makeOutput({ json });
    createKey(file, { force });
    output.result({ file }, () => []);
  },
});
