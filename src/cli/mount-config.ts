/** From what was asked for to what the daemon is told, for the command mount and for the helper of mount(8). */
import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { type MountConfig, type MountMode, memoryShares } from "../daemon/config.ts";
import type { AccessTimes } from "../fs/context.ts";
import type { Transport } from "../fuse/transports.ts";
import type { MountSettings } from "./mount-options.ts";
import type { Output } from "./output.ts";

/** One request to mount, from a command line or from mount(8). */
export interface MountRequest {
  readonly volume: string;
  readonly dir: string;
  readonly transport: Transport;
  readonly settings: MountSettings;
  /** File for what the daemon has to say. */
  readonly daemonLog: string | undefined;
  readonly foreground: boolean;
}

/** What the daemon is to be told. UserError "usage". */
export function configOf({ volume, dir, transport, settings, daemonLog, foreground }: MountRequest): MountConfig {
  return {
    volume: real(volume),
    source: volume,
    mountPoint: real(dir),
    mode: modeOf(settings),
    transport,
    durability: settings.durability,
    changeLog: settings.changeLog,
    processorSleep: settings.processorSleep,
    cpIntervalMs: settings.cpIntervalMs,
    ...memoryShares(settings.memoryBytesMax),
    accessTimes: settings.accessTimes,
    snapshotDirectories: settings.snapshotDirectories,
    kernelOptions: [...settings.kernelOptions, ...shownAccessTimes(settings.accessTimes, transport)],
    logFile: daemonLog === undefined ? (foreground ? "stderr" : undefined) : resolve(daemonLog),
  };
}

/** The kernel transport, or the other one with a line that says why. */
export async function usableTransport(output: Output): Promise<Transport> {
  const { kernelTransportProblem } = await import("../fuse/mount.ts");
  const problem = await kernelTransportProblem();
  if (problem === undefined) return "kernel";
  output.note(
    `${problem}: mounting with the transport fuse-native, which has limits (native-notes/fuse-transports.md)`,
  );
  return "fuse-native";
}

function modeOf({ readOnly, snapshot }: MountSettings): MountMode {
  if (snapshot !== undefined) return { kind: "snapshot", name: snapshot };
  return readOnly ? { kind: "follow" } : { kind: "write" };
}

/** The kernel leaves access times to us, and shows in the mount table what was asked for. libfuse 2 knows no such options. */
function shownAccessTimes(accessTimes: AccessTimes, transport: Transport): readonly string[] {
  return transport === "kernel" && accessTimes !== "relatime" ? [accessTimes] : [];
}

/** The path without symbolic links, as the mount table has it; what does not exist is refused later, with its reason. */
function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}
