import { command } from "../command.ts";
import { formatBytes } from "../options.ts";
import { makeOutput, table } from "../output.ts";

const BLOCK_BYTES = 4096;

export const snapshotListCommand = command({
  command: "list <volume>",
  usage: "snapshot list VOLUME",
  summary: "List the snapshots of a volume in the order they were taken.",
  examples: [
    ["$0 snapshot list /srv/data.tm", "names, times and sizes"],
    ["$0 snapshot list /srv/data.tm --unique", "and what deleting each would free"],
  ],
  exits: ["no-volume", "in-use", "corrupt", "mismatch", "unreachable"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .option("all", {
        type: "boolean",
        default: false,
        describe: "Also those that mirrors hold for the next increment",
      })
      .option("unique", { type: "boolean", default: false, describe: "Count the blocks that only it holds" }),
  async run({ volume, all, unique, json }) {
    const { withVolume } = await import("../../daemon/volume-access.ts");
    const output = makeOutput({ json });
    const held = await withVolume(
      volume,
      { writable: unique }, // counting needs the maps of a writer
      (access) => access.call("snapshot-list", { unique }),
    );
    const snapshots = all ? held : held.filter(({ mirror }) => !mirror);
    output.result({ volume, snapshots }, () => {
      if (snapshots.length === 0) return [];
      const rows = snapshots.map(({ name, createdAt, cpCount, activeBlocks, uniqueBlocks }) => [
        name,
        createdAt,
        String(cpCount),
        formatBytes(activeBlocks * BLOCK_BYTES),
        uniqueBlocks === undefined ? "" : formatBytes(uniqueBlocks * BLOCK_BYTES),
      ]);
      return table([["NAME", "CREATED", "CP", "SIZE", unique ? "ONLY HERE" : ""], ...rows]);
    });
  },
});
