import { command } from "../command.ts";
import { interruption } from "../interrupt.ts";
import { configOf, usableTransport } from "../mount-config.ts";
import { declareValued, parseMountOptions } from "../mount-options.ts";
import { makeOutput } from "../output.ts";

export const mountCommand = command({
  command: "mount <volume> <dir>",
  usage: "mount VOLUME DIR",
  summary: "Mount a volume on a directory, and serve it until it is unmounted.",
  examples: [
    ["$0 mount /srv/data.tm /mnt/data", "read and write, in the background"],
    ["$0 mount /srv/mirror.tm /mnt/mirror --read-only", "follow a mirror while it is being updated"],
    ["$0 mount /srv/data.tm /mnt/data --log /fast/data.log", "with the change log on a faster disk"],
  ],
  exits: ["no-volume", "in-use", "corrupt", "mismatch"],
  lists: ["options", "o"],
  options: (yargs) =>
    declareValued(yargs)
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .positional("dir", { type: "string", demandOption: true, describe: "Directory to mount it on" })
      .option("read-only", {
        type: "boolean",
        default: false,
        describe: "Show the last consistency point, and follow to newer ones",
      })
      .option("foreground", { type: "boolean", default: false, describe: "Stay, and log to stderr" })
      .option("daemon-log", { type: "string", requiresArg: true, describe: "Append the daemon's log to this file" })
      .option("options", {
        alias: "o",
        type: "string",
        array: true,
        nargs: 1,
        default: [] as string[],
        describe:
          "NAME=VALUE for the options above that have a value; ro, noatime, relatime, strictatime, nosuid, nodev, noexec, " +
          "allow_other and what else mount(8) knows",
      }),
  async run({ volume, dir, readOnly, foreground, daemonLog, options, json, ...given }) {
    const settings = parseMountOptions(readOnly ? [...options, "ro"] : options, { given });
    const output = makeOutput({ json });
    const transport = settings.transport ?? (await usableTransport(output));
    const config = configOf({ volume, dir, transport, settings, daemonLog, foreground });
    const text = `${config.volume} is mounted on ${config.mountPoint}`;
    if (foreground) {
      const { runDaemon } = await import("../../daemon/run.ts");
      await runDaemon(config, () => output.note(text));
      return;
    }
    const { startInBackground } = await import("../../daemon/background.ts");
    const pid = await startInBackground(config, interruption());
    output.result({ volume: config.volume, mountPoint: config.mountPoint, mode: config.mode.kind, pid }, () => []);
  },
});
