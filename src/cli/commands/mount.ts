import { transports } from "../../fuse/transports.ts";
import { command } from "../command.ts";
import { configOf, usableTransport } from "../mount-config.ts";
import { parseMountOptions } from "../mount-options.ts";
import { makeOutput } from "../output.ts";

export const mountCommand = command({
  command: "mount <volume> <dir>",
  usage: "mount VOLUME DIR",
  summary: "Mount a volume on a directory, and serve it until it is unmounted.",
  examples: [
    ["$0 mount /srv/data.tm /mnt/data", "read and write, in the background"],
    ["$0 mount /srv/mirror.tm /mnt/mirror --read-only", "follow a mirror while it is being updated"],
  ],
  exits: ["no-volume", "in-use", "corrupt"],
  lists: ["options", "o"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .positional("dir", { type: "string", demandOption: true, describe: "Directory to mount it on" })
      .option("read-only", {
        type: "boolean",
        default: false,
        describe: "Show the last consistency point, and follow to newer ones",
      })
      .option("snapshot", { type: "string", requiresArg: true, describe: "Show this snapshot, read-only" })
      .option("transport", {
        choices: transports,
        requiresArg: true,
        describe: "How requests come in; fuse-native where kernel cannot be used",
      })
      .option("memory", {
        type: "string",
        requiresArg: true,
        describe: "Bound of request buffers, caches and unwritten changes: 256M",
      })
      .option("foreground", { type: "boolean", default: false, describe: "Stay, and log to stderr" })
      .option("log", { type: "string", requiresArg: true, describe: "Append the daemon's log to this file" })
      .option("options", {
        alias: "o",
        type: "string",
        array: true,
        nargs: 1,
        default: [] as string[],
        describe:
          "ro, snapshot=NAME, snapdir=hidden|root|visible|none, " +
          "durability=fsync|op, log=FILE|discard, cp-interval=10s, memory=256M, sleep=light|deep, noatime, relatime, strictatime, " +
          "transport=kernel|fuse-native, nosuid, nodev, noexec, allow_other and what else mount(8) knows",
      }),
  async run({ volume, dir, readOnly, snapshot, transport, memory, foreground, log, options, json }) {
    const settings = parseMountOptions(memory === undefined ? options : [...options, `memory=${memory}`]);
    const output = makeOutput({ json });
    const chosen = transport ?? settings.transport ?? (await usableTransport(output));
    const config = configOf({ volume, dir, readOnly, snapshot, transport: chosen, log, foreground, settings });
    const text = `${config.volume} is mounted on ${config.mountPoint}`;
    if (foreground) {
      const { runDaemon } = await import("../../daemon/run.ts");
      await runDaemon(config, () => output.note(text));
      return;
    }
    const { startInBackground } = await import("../../daemon/background.ts");
    const pid = await startInBackground(config);
    output.result({ volume: config.volume, mountPoint: config.mountPoint, mode: config.mode.kind, pid }, () => "");
  },
});
