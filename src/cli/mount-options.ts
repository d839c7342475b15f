/** The `-o` options of mount: ours, and those that the kernel takes. */
import { resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import {
  type ChangeLogPlace,
  CP_INTERVAL_MS,
  type Durability,
  durabilities,
  MEMORY_BYTES_MAX,
  MEMORY_BYTES_MIN,
  type ProcessorSleep,
  processorSleeps,
} from "../daemon/config.ts";
import type { AccessTimes, SnapshotDirectories } from "../fs/context.ts";
import { type Transport, transports } from "../fuse/transports.ts";
import { formatBytes, parseInterval, parseSize } from "./options.ts";

export interface MountSettings {
  readonly readOnly: boolean;
  readonly snapshot: string | undefined;
  readonly durability: Durability;
  readonly changeLog: ChangeLogPlace;
  readonly processorSleep: ProcessorSleep;
  readonly cpIntervalMs: number;
  readonly memoryBytesMax: number;
  readonly accessTimes: AccessTimes;
  readonly snapshotDirectories: SnapshotDirectories;
  /** Undefined: the kernel transport, if it can be used. */
  readonly transport: Transport | undefined;
  readonly kernelOptions: readonly string[];
}

const kernelOptions = new Set(
  "nosuid suid nodev dev noexec exec sync dirsync nosymfollow nodiratime lazytime allow_other default_permissions".split(
    " ",
  ),
);
/** Said by fstab and by habit; they mean nothing here, or mount(8) has seen to them. */
const ignored = new Set(
  "defaults rw async auto noauto user nouser users nousers owner noowner group nogroup nofail _netdev diratime nolazytime symfollow silent loud".split(
    " ",
  ),
);
/** For other programs that read fstab, systemd for one. */
const forOthers = /^([xX]-|comment(=|$))/;
/** What the mount table has, and mount(8) repeats when it remounts. */
const fromMountTable = /^(remount$|uhelper=|user=|fd=|rootmode=|user_id=|group_id=|max_read=|blksize=)/;

export interface ParseHow {
  /** Options that there are not are passed over: `mount -s`. */
  readonly sloppy?: boolean;
  /** Options are those of a mount that is there. */
  readonly remount?: boolean;
}

/** Reads lists such as "ro,cp-interval=1s". UserError "usage" names an option that there is not. */
export function parseMountOptions(
  lists: readonly string[],
  { sloppy = false, remount = false }: ParseHow = {},
): MountSettings {
  const settings = {
    readOnly: false,
    snapshot: undefined as string | undefined,
    durability: "fsync" as Durability,
    changeLog: { kind: "volume" } as ChangeLogPlace,
    processorSleep: "light" as ProcessorSleep,
    cpIntervalMs: CP_INTERVAL_MS,
    memoryBytesMax: MEMORY_BYTES_MAX,
    accessTimes: "relatime" as AccessTimes,
    snapshotDirectories: "hidden" as SnapshotDirectories,
    transport: undefined as Transport | undefined,
    kernelOptions: [] as string[],
  };
  const refuse = (option: string): void => {
    if (!sloppy) throw unknown(option);
  };
  for (const option of lists.flatMap((list) => list.split(",")).filter((one) => one !== "")) {
    if (forOthers.test(option) || (remount && fromMountTable.test(option))) continue;
    const equals = option.indexOf("=");
    const name = equals < 0 ? option : option.slice(0, equals);
    const value = equals < 0 ? undefined : option.slice(equals + 1);
    if (value === undefined) {
      if (name === "ro") settings.readOnly = true;
      else if (name === "rw") settings.readOnly = false;
      else if (isAccessTimes(name)) settings.accessTimes = name;
      else if (kernelOptions.has(name)) settings.kernelOptions.push(name);
      else if (!ignored.has(name)) refuse(option);
      continue;
    }
    if (name === "snapshot") settings.snapshot = value;
    else if (name === "snapdir") settings.snapshotDirectories = oneOf(snapshotDirectories, name, value);
    else if (name === "transport") settings.transport = oneOf(transports, name, value);
    else if (name === "log") settings.changeLog = parseChangeLog(value);
    else if (name === "durability") settings.durability = oneOf(durabilities, name, value);
    else if (name === "sleep") settings.processorSleep = oneOf(processorSleeps, name, value);
    else if (name === "cp-interval") settings.cpIntervalMs = parseInterval(value);
    else if (name === "memory") settings.memoryBytesMax = parseMemory(value);
    else refuse(option);
  }
  return settings;
}

/** What a command takes of the options of mount that only looks. */
export const logOption = {
  alias: "o",
  type: "string",
  requiresArg: true,
  describe: "log=FILE: the change log is in this file, as when mounting",
} as const;

/** The file that it names. UserError "usage" for all else. */
export function parseLogOption(option: string | undefined): string | undefined {
  if (option === undefined) return undefined;
  const place = option.startsWith("log=") ? parseChangeLog(option.slice("log=".length)) : undefined;
  if (place?.kind === "file") return place.path;
  throw new UserError("usage", `${JSON.stringify(option)} is for mounting`, "here there is log=FILE only");
}

/** A bound of memory. UserError "usage" when it is too small to work with. */
export function parseMemory(text: string): number {
  const bytes = parseSize(text);
  if (bytes >= MEMORY_BYTES_MIN) return bytes;
  throw new UserError("usage", `${text} of memory is too little`, `at least ${formatBytes(MEMORY_BYTES_MIN)}`);
}

function isAccessTimes(name: string): name is AccessTimes {
  return name === "noatime" || name === "relatime" || name === "strictatime";
}

const snapshotDirectories: readonly SnapshotDirectories[] = ["hidden", "root", "visible", "none"];

function parseChangeLog(text: string): ChangeLogPlace {
  if (text === "") throw new UserError("usage", "log= needs a file, or the word discard");
  return text === "discard" ? { kind: "forget" } : { kind: "file", path: resolve(text) };
}

function oneOf<T extends string>(words: readonly T[], name: string, value: string): T {
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  throw new UserError("usage", `there is no ${name}=${value}`, `one of ${words.join(", ")}`);
}

function unknown(option: string): UserError {
  return new UserError("usage", `unknown mount option ${JSON.stringify(option)}`, "see: tidemark mount --help");
}
