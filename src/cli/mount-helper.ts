/**
 * What mount(8) and umount(8) run for filesystems of the type fuse.tidemark: /sbin/mount.fuse.tidemark and
 * /sbin/umount.fuse.tidemark are scripts that lead here. So `mount -t fuse.tidemark`, fstab, systemd's mount units and
 * `umount` work as with any filesystem, and umount returns when everything is durable.
 *
 *     mount.fuse.tidemark SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
 *     umount.fuse.tidemark DIR [-fnlrv] [-N NAMESPACE] [-t TYPE]
 *
 * Exit codes are those of mount(8): 1 for a wrong use, 32 for what failed. Nothing is printed when it works.
 */
import { UserError } from "../core/errors.ts";
import { interruption } from "./interrupt.ts";
import { noteOfKept } from "./kept-note.ts";
import { configOf, usableTransport } from "./mount-config.ts";
import { parseMountOptions } from "./mount-options.ts";
import { makeOutput, printError } from "./output.ts";
import { refuseBytes } from "./refuse-bytes.ts";

const EXIT_USAGE = 1;
const EXIT_FAILED = 32;
/** Options of theirs that take a value. */
const WITH_VALUE = new Set(["o", "N", "t"]);

interface HelperLine {
  readonly operands: readonly string[];
  readonly flags: ReadonlySet<string>;
  readonly options: readonly string[];
}

/** Runs a helper with what mount(8) or umount(8) has given it. Returns the exit code. */
export async function mountHelper(kind: "mount" | "umount", args: readonly string[]): Promise<number> {
  try {
    refuseBytes(args);
    const line = parseLine(args, kind === "mount" ? "sfnv" : "fnlrv");
    if (kind === "mount") await mountAsAsked(line);
    else await unmountAsAsked(line);
    return 0;
  } catch (error) {
    printError(error, { json: false, debug: false });
    return error instanceof UserError && error.failure === "usage" ? EXIT_USAGE : EXIT_FAILED;
  }
}

async function mountAsAsked({ operands, flags, options }: HelperLine): Promise<void> {
  const [volume, dir, ...more] = operands;
  if (volume === undefined || dir === undefined || more.length > 0) {
    throw new UserError("usage", "a volume and a directory expected", "mount -t fuse.tidemark VOLUME DIR -o OPTIONS");
  }
  const isRemount = options.some((list) => list.split(",").includes("remount"));
  const settings = parseMountOptions(options, { sloppy: flags.has("s"), remount: isRemount });
  if (flags.has("f")) return; // fake: all but the mounting
  if (isRemount) {
    const { remountTarget } = await import("../daemon/unmount.ts");
    const forKernel = settings.kernelOptions.filter((one) => one !== "allow_other" && one !== "default_permissions");
    await remountTarget(dir, [settings.readOnly ? "ro" : "rw", settings.accessTimes, ...forKernel]);
    return;
  }
  const transport = settings.transport ?? (await usableTransport(makeOutput({ json: false })));
  const { startInBackground } = await import("../daemon/background.ts");
  const config = configOf({ volume, dir, transport, settings, daemonLog: undefined, foreground: false });
  await startInBackground(config, interruption());
}

async function unmountAsAsked({ operands, flags }: HelperLine): Promise<void> {
  const [target, ...more] = operands;
  if (target === undefined || more.length > 0) throw new UserError("usage", "a directory expected", "umount DIR");
  if (flags.has("l")) {
    const { unmount } = await import("../fuse/mount.ts");
    await unmount(target, { lazy: true, force: flags.has("f") });
    return;
  }
  const { unmountTarget } = await import("../daemon/unmount.ts");
  noteOfKept(await unmountTarget(target, { force: flags.has("f") }), makeOutput({ json: false }));
}

/** Options may come before, between and behind the operands, and flags together: -sn. */
function parseLine(args: readonly string[], known: string): HelperLine {
  const operands: string[] = [];
  const options: string[] = [];
  const flags = new Set<string>();
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? "";
    if (!arg.startsWith("-") || arg === "-") {
      operands.push(arg);
      continue;
    }
    if (arg === "--") return { operands: [...operands, ...args.slice(i + 1)], flags, options };
    for (let at = 1; at < arg.length; at++) {
      const letter = arg[at] ?? "";
      if (WITH_VALUE.has(letter)) {
        const value = at + 1 < arg.length ? arg.slice(at + 1) : args[(i += 1)];
        if (value === undefined) throw new UserError("usage", `-${letter} needs a value`);
        if (letter === "o") options.push(value);
        break;
      }
      if (!known.includes(letter)) throw new UserError("usage", `unknown option -${letter}`);
      flags.add(letter);
    }
  }
  return { operands, flags, options };
}
