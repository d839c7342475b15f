import { command } from "../command.ts";
import { interruption } from "../interrupt.ts";
import { parseInterval } from "../options.ts";
import { makeOutput } from "../output.ts";

export const mirrorRunCommand = command({
  command: "run <volume>",
  usage: "mirror run VOLUME --to HOST:PORT --key FILE",
  summary: "Ship a volume to its mirror: once in full, then what changes, until SIGINT or SIGTERM stop it.",
  examples: [
    ["$0 mirror run /srv/data.tm --to 10.0.0.2:7400 --key mirror.key", "the newest state, each second"],
    ["$0 mirror run /srv/data.tm --to 10.0.0.2:7400 --key mirror.key --interval 1m", "less often"],
  ],
  exits: ["no-volume", "corrupt", "mismatch", "interrupted"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file of the source" })
      .option("to", { type: "string", demandOption: true, requiresArg: true, describe: "Mirror, as HOST:PORT" })
      .option("key", { type: "string", demandOption: true, requiresArg: true, describe: "File that both ends have" })
      .option("interval", { type: "string", default: "1s", requiresArg: true, describe: "Time between updates" }),
  async run({ volume, to, key, interval, json }) {
    const signal = interruption(); // from the start: it is asked to stop, whenever it is
    const { runMirror } = await import("../../mirror/run.ts");
    const { parsePeer } = await import("../../mirror/connection.ts");
    const { readKey } = await import("../../mirror/key.ts");
    const { hostReading } = await import("../../daemon/host-calls.ts");
    const { snapshotHolder } = await import("../../daemon/snapshot-holder.ts");
    const { systemClock, systemRandom } = await import("../../daemon/system.ts");
    // It outlives the installation that it was started from, and may find the volume unmounted then: loaded now.
    await import("../../daemon/unmounted-volume.ts");
    const output = makeOutput({ json });
    await runMirror({
      volume,
      to: parsePeer(to),
      key: readKey(key),
      intervalMs: parseInterval(interval),
      holder: snapshotHolder(volume),
      findReading: hostReading,
      clock: systemClock(),
      random: systemRandom,
      log: (line) => output.event("log", line),
      signal,
    });
  },
});
