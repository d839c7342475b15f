import { command } from "../command.ts";
import { interruption } from "../interrupt.ts";
import { formatBytes } from "../options.ts";
import { makeOutput } from "../output.ts";
import { progressLine } from "../progress.ts";

const BLOCK_BYTES = 4096;

export const imageReceiveCommand = command({
  command: "receive <volume> [files..]",
  usage: "image receive VOLUME [FILE...]",
  summary: "Make a volume from an image stream, or bring one forward; several files are a chain.",
  examples: [
    ["$0 image receive /srv/copy.tm full.img monday.img tuesday.img", "a new volume, or one that has a part of them"],
    ["$0 image send /srv/data.tm monday | $0 image receive /srv/copy.tm", "from a pipe"],
  ],
  exits: ["in-use", "corrupt", "mismatch", "interrupted"],
  lists: ["files"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file, made when it is not there" })
      .positional("files", { type: "string", array: true, default: [] as string[], describe: "Stream files, in order" })
      .option("drop-snapshots", {
        type: "boolean",
        default: false,
        describe: "Let snapshots of VOLUME go that the source has deleted, or never had",
      })
      .option("force", { type: "boolean", default: false, describe: "Overwrite a file that is no volume" }),
  async run({ volume, files, force, dropSnapshots, json }) {
    const { receiveImages } = await import("../../image/receive-images.ts");
    const { refuseMounted } = await import("../../daemon/format-volume.ts");
    const { systemClock } = await import("../../daemon/system.ts");
    const { hostWriteBack } = await import("../../daemon/host-write-back.ts");
    const output = makeOutput({ json });
    const progress = progressLine({ json, what: "receive" });
    await refuseMounted(volume, { evenReadOnly: false });
    const { images } = await receiveImages({
      volume,
      files,
      force,
      dropSnapshots,
      writeBack: hostWriteBack(),
      clock: systemClock(),
      signal: interruption(),
      onProgress: ({ blocksDone, blocksTotal }) =>
        progress.update({ doneBytes: blocksDone * BLOCK_BYTES, totalBytes: blocksTotal * BLOCK_BYTES }),
    });
    progress.end();
    const received = images.map(({ file, top, blocks, dropped }) => ({
      file,
      snapshot: top.name,
      cpCount: top.cpCount,
      blocks,
      dropped,
    }));
    output.result({ type: "summary", volume, images: received }, () =>
      received.map(({ file, snapshot, blocks, dropped }) => {
        const gone = dropped.length === 0 ? "" : `; gone: ${dropped.join(", ")}`;
        return `${file}: ${volume} is at ${snapshot}, ${formatBytes(blocks * BLOCK_BYTES)}${gone}`;
      }),
    );
  },
});
