/** The options of mount: ours, of which those with a value are `-o NAME=VALUE` and `--NAME VALUE`, and those that the kernel takes. */
import { resolve } from "node:path";
import type { Argv } from "yargs";
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
  "defaults async auto noauto user nouser users nousers owner noowner group nogroup nofail _netdev diratime nolazytime symfollow silent loud".split(
    " ",
  ),
);
/** For other programs that read fstab, systemd for one. */
const forOthers = /^([xX]-|comment(=|$))/;
/** What the mount table has, and mount(8) repeats when it remounts. */
const fromMountTable = /^(remount$|uhelper=|user=|fd=|rootmode=|user_id=|group_id=|max_read=|blksize=)/;

/** While options are being read. */
type Draft = { -readonly [N in keyof MountSettings]: MountSettings[N] };

interface Valued {
  readonly describe: string;
  readonly choices?: readonly string[];
  /** UserError "usage". */
  set(to: Draft, value: string): void;
}

const snapshotDirectories: readonly SnapshotDirectories[] = ["hidden", "root", "visible", "none"];

const valued = {
  snapshot: {
    describe: "Show this snapshot, read-only",
    set(to, value) {
      if (value === "") throw new UserError("usage", "snapshot= needs a name", "see: tidemark snapshot list VOLUME");
      to.snapshot = value;
    },
  },
  snapdir: {
    describe: "Which directories list .snapshot; none: there is none",
    choices: snapshotDirectories,
    set(to, value) {
      to.snapshotDirectories = oneOf(snapshotDirectories, "snapdir", value);
    },
  },
  durability: {
    describe: "Changes are durable when fsync returns, or when each call does (op)",
    choices: durabilities,
    set(to, value) {
      to.durability = oneOf(durabilities, "durability", value);
    },
  },
  log: {
    describe: "The change log is in this file or block device; discard: give up what a crash has left in one",
    set(to, value) {
      to.changeLog = parseChangeLog(value);
    },
  },
  "cp-interval": {
    describe: "Time between consistency points: 10s",
    set(to, value) {
      to.cpIntervalMs = parseInterval(value);
    },
  },
  memory: {
    describe: "Bound of request buffers, caches and unwritten changes: 256M",
    set(to, value) {
      to.memoryBytesMax = parseMemory(value);
    },
  },
  sleep: {
    describe: "How deep processors may sleep while requests follow one another closely",
    choices: processorSleeps,
    set(to, value) {
      to.processorSleep = oneOf(processorSleeps, "sleep", value);
    },
  },
  transport: {
    describe: "How requests come in; fuse-native where kernel cannot be used",
    choices: transports,
    set(to, value) {
      to.transport = oneOf(transports, "transport", value);
    },
  },
} as const satisfies Readonly<Record<string, Valued>>;

type ValuedName = keyof typeof valued;
const valuedNames = Object.keys(valued) as ValuedName[];

/** What a command line says of them by their own names. */
export type GivenValues = { readonly [N in ValuedName]?: string | undefined };

/** Declares each option that has a value by its own name. */
export function declareValued<O>(yargs: Argv<O>): Argv<O & GivenValues> {
  for (const name of valuedNames) declareOne(yargs, name);
  return yargs as Argv<O & GivenValues>;
}

function declareOne(yargs: Argv<unknown>, name: ValuedName, describe: string = valued[name].describe): void {
  const { choices }: Valued = valued[name];
  yargs.option(name, { type: "string", requiresArg: true, describe, ...(choices === undefined ? {} : { choices }) });
}

export interface ParseHow {
  /** What options by their own names say: they count more than the lists. */
  readonly given?: GivenValues;
  /** Options that there are not are passed over: `mount -s`. */
  readonly sloppy?: boolean;
  /** Options are those of a mount that is there. */
  readonly remount?: boolean;
}

/** Reads lists such as "ro,cp-interval=1s". UserError "usage" names an option that there is not. */
export function parseMountOptions(
  lists: readonly string[],
  { given = {}, sloppy = false, remount = false }: ParseHow = {},
): MountSettings {
  const settings: Draft = {
    readOnly: false,
    snapshot: undefined,
    durability: "fsync",
    changeLog: { kind: "volume" },
    processorSleep: "light",
    cpIntervalMs: CP_INTERVAL_MS,
    memoryBytesMax: MEMORY_BYTES_MAX,
    accessTimes: "relatime",
    snapshotDirectories: "hidden",
    transport: undefined,
    kernelOptions: [],
  };
  for (const option of lists.flatMap((list) => list.split(",")).filter((one) => one !== "")) {
    if (forOthers.test(option) || (remount && fromMountTable.test(option))) continue;
    const equals = option.indexOf("=");
    const name = equals < 0 ? option : option.slice(0, equals);
    if (equals >= 0 && isValued(name)) valued[name].set(settings, option.slice(equals + 1));
    else if (!(equals < 0 && setFlag(settings, name)) && !sloppy) throw unknown(option);
  }
  for (const name of valuedNames) {
    const value = given[name];
    if (value !== undefined) valued[name].set(settings, value);
  }
  return settings;
}

function isValued(name: string): name is ValuedName {
  return Object.hasOwn(valued, name);
}

/** False: there is no such option. */
function setFlag(to: Draft, name: string): boolean {
  if (name === "ro") to.readOnly = true;
  else if (name === "rw") to.readOnly = false;
  else if (isAccessTimes(name)) to.accessTimes = name;
  else if (kernelOptions.has(name)) to.kernelOptions = [...to.kernelOptions, name];
  else return ignored.has(name);
  return true;
}

/** Declares what a command that only looks takes of the options of mount. */
export function declareLog<O>(yargs: Argv<O>): Argv<O & Pick<GivenValues, "log"> & { options: string | undefined }> {
  const describe = "The change log is in this file or block device, as when mounting";
  declareOne(yargs, "log", describe);
  return yargs.option("options", { alias: "o", type: "string", requiresArg: true, describe: "log=FILE: the same" });
}

/** The file that is named, either way; by its own name, if both. UserError "usage" for all else. */
export function logFileOf({
  log,
  options,
}: {
  readonly log: string | undefined;
  readonly options: string | undefined;
}): string | undefined {
  const listed = options === undefined ? undefined : fileOf(options);
  return log === undefined ? listed : fileOf(`log=${log}`);
}

function fileOf(option: string): string {
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

function parseChangeLog(text: string): ChangeLogPlace {
  if (text === "") throw new UserError("usage", "log= needs a file", "a file, a block device, or the word discard");
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
