import { command } from "../command.ts";
import { formatBytes } from "../options.ts";
import { fields, makeOutput } from "../output.ts";

const BLOCK_BYTES = 4096;

export const imageInspectCommand = command({
  command: "inspect <file>",
  usage: "image inspect FILE",
  summary: "Tell what an image file holds, and what it needs, from its header.",
  examples: [
    ["$0 image inspect tuesday.img", "its volume, snapshots and base"],
    ["$0 image inspect tuesday.img --json", "for a script"],
  ],
  exits: ["corrupt"],
  options: (yargs) =>
    yargs.positional("file", { type: "string", demandOption: true, describe: "File that image send has written" }),
  async run({ file, json }) {
    const { baseText, inspectImage } = await import("../../image/inspect.ts");
    const output = makeOutput({ json });
    const image = await inspectImage(file);
    output.result(image, () =>
      fields([
        ["file", image.file],
        ["kind", image.kind],
        ["volume", image.volume.uuid],
        ["label", image.volume.label === "" ? undefined : image.volume.label],
        ["volume size", formatBytes(image.volume.blockCount * BLOCK_BYTES)],
        ...image.tops.map((top) => ["snapshot", `${top.name} of ${top.createdAt}, CP ${top.cpCount}`] as const),
        ["base", image.base === null ? undefined : baseText(image.base)],
        ["ends", image.hasTrailer ? "with its trailer" : "without a trailer: it was cut off"],
      ]),
    );
  },
});
