import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { UserError } from "../../core/errors.ts";
import type { MountConfig, MountMode } from "../../daemon/config.ts";
import { type Transport, transports } from "../../fuse/transports.ts";
import { command } from "../command.ts";
import { type MountSettings, parseMountOptions } from "../mount-options.ts";
import { makeOutput, type Output } from "../output.ts";

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
      .option("foreground", { type: "boolean", default: false, describe: "Stay, and log to stderr" })
      .option("log", { type: "string", requiresArg: true, describe: "Append the daemon's log to this file" })
      .option("options", {
        alias: "o",
        type: "string",
        array: true,
        nargs: 1,
        default: [] as string[],
        describe: "ro, snapshot=NAME, cp-interval=10s, dirty=64M, cache=128M, noatime, nosuid, nodev, noexec",
      }),
  async run({ volume, dir, readOnly, snapshot, transport, foreground, log, options, json }) {
    const settings = parseMountOptions(options);
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

interface MountRequest {
  readonly volume: string;
  readonly dir: string;
  readonly readOnly: boolean;
  readonly snapshot: string | undefined;
  readonly transport: Transport;
  readonly log: string | undefined;
  readonly foreground: boolean;
  readonly settings: MountSettings;
}

function configOf({
  volume,
  dir,
  readOnly,
  snapshot,
  transport,
  log,
  foreground,
  settings,
}: MountRequest): MountConfig {
  return {
    volume: real(volume),
    mountPoint: real(dir),
    mode: modeOf(readOnly || settings.readOnly, snapshot ?? settings.snapshot),
    transport,
    cpIntervalMs: settings.cpIntervalMs,
    dirtyBytesMax: settings.dirtyBytesMax,
    cacheBytesMax: settings.cacheBytesMax,
    accessTimes: settings.accessTimes,
    kernelOptions: settings.kernelOptions,
    logFile: log === undefined ? (foreground ? "stderr" : undefined) : resolve(log),
  };
}

/** The kernel transport, or the other one with a line that says why. */
async function usableTransport(output: Output): Promise<Transport> {
  const { kernelTransportProblem } = await import("../../fuse/mount.ts");
  const problem = await kernelTransportProblem();
  if (problem === undefined) return "kernel";
  output.note(
    `${problem}: mounting with the transport fuse-native, which has limits (native-notes/fuse-transports.md)`,
  );
  return "fuse-native";
}

function modeOf(readOnly: boolean, snapshot: string | undefined): MountMode {
  if (snapshot === "") throw new UserError("usage", "--snapshot needs a name");
  if (snapshot !== undefined) return { kind: "snapshot", name: snapshot };
  return readOnly ? { kind: "follow" } : { kind: "write" };
}

/** The path without symbolic links, as the mount table has it; what does not exist is refused later, with its reason. */
function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}
