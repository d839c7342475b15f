/** The `-o` options of mount: ours, and those that the kernel takes. */
import { UserError } from "../core/errors.ts";
import { CACHE_BYTES_MAX, CP_INTERVAL_MS, DIRTY_BYTES_MAX } from "../daemon/config.ts";
import type { AccessTimes } from "../fs/context.ts";
import { type Transport, transports } from "../fuse/transports.ts";
import { parseInterval, parseSize } from "./options.ts";

export interface MountSettings {
  readonly readOnly: boolean;
  readonly snapshot: string | undefined;
  readonly cpIntervalMs: number;
  readonly dirtyBytesMax: number;
  readonly cacheBytesMax: number;
  readonly accessTimes: AccessTimes;
  /** Undefined: the kernel transport, if it can be used. */
  readonly transport: Transport | undefined;
  readonly kernelOptions: readonly string[];
}

const kernelOptions = new Set(
  "nosuid suid nodev dev noexec exec sync dirsync nosymfollow nodiratime lazytime".split(" "),
);
/** Said by fstab and by habit; they mean nothing here. */
const ignored = new Set(["defaults", "rw", "auto", "noauto", "user", "nofail", "_netdev"]);

/** Reads lists such as "ro,cp-interval=1s". UserError "usage" names an option that there is not. */
export function parseMountOptions(lists: readonly string[]): MountSettings {
  const settings = {
    readOnly: false,
    snapshot: undefined as string | undefined,
    cpIntervalMs: CP_INTERVAL_MS,
    dirtyBytesMax: DIRTY_BYTES_MAX,
    cacheBytesMax: CACHE_BYTES_MAX,
    accessTimes: "relatime" as AccessTimes,
    transport: undefined as Transport | undefined,
    kernelOptions: [] as string[],
  };
  for (const option of lists.flatMap((list) => list.split(",")).filter((one) => one !== "")) {
    const equals = option.indexOf("=");
    const name = equals < 0 ? option : option.slice(0, equals);
    const value = equals < 0 ? undefined : option.slice(equals + 1);
    if (value === undefined) {
      if (name === "ro") settings.readOnly = true;
      else if (isAccessTimes(name)) settings.accessTimes = name;
      else if (kernelOptions.has(name)) settings.kernelOptions.push(name);
      else if (!ignored.has(name)) throw unknown(option);
      continue;
    }
    if (name === "snapshot") settings.snapshot = value;
    else if (name === "transport") settings.transport = parseTransport(value);
    else if (name === "cp-interval") settings.cpIntervalMs = parseInterval(value);
    else if (name === "dirty") settings.dirtyBytesMax = parseSize(value);
    else if (name === "cache") settings.cacheBytesMax = parseSize(value);
    else throw unknown(option);
  }
  return settings;
}

function isAccessTimes(name: string): name is AccessTimes {
  return name === "noatime" || name === "relatime" || name === "strictatime";
}

function parseTransport(text: string): Transport {
  const transport = transports.find((name) => name === text);
  if (transport !== undefined) return transport;
  throw new UserError("usage", `there is no transport ${JSON.stringify(text)}`, `there are: ${transports.join(", ")}`);
}

function unknown(option: string): UserError {
  return new UserError("usage", `unknown mount option ${JSON.stringify(option)}`, "see: tidemark mount --help");
}
