/**
 * The command line: which commands there are, and how each run ends.
 *
 * A command file declares its options and loads the rooms that do the work only when it runs, so that a short command
 * starts as fast as the parser. All errors come here and become one message and one exit code.
 */
import { existsSync, readFileSync } from "node:fs";
import yargs, { type Argv } from "yargs";
import { UserError } from "../core/errors.ts";
import { type Command, type GlobalOptions, noun } from "./command.ts";
import { checkCommand } from "./commands/check.ts";
import { formatCommand } from "./commands/format.ts";
import { imageInspectCommand } from "./commands/image-inspect.ts";
import { imageReceiveCommand } from "./commands/image-receive.ts";
import { imageSendCommand } from "./commands/image-send.ts";
import { imageVerifyCommand } from "./commands/image-verify.ts";
import { mirrorKeyCommand } from "./commands/mirror-key.ts";
import { mirrorPromoteCommand } from "./commands/mirror-promote.ts";
import { mirrorRunCommand } from "./commands/mirror-run.ts";
import { mirrorServeCommand } from "./commands/mirror-serve.ts";
import { mirrorStatusCommand } from "./commands/mirror-status.ts";
import { mountCommand } from "./commands/mount.ts";
import { snapshotCreateCommand } from "./commands/snapshot-create.ts";
import { snapshotDeleteCommand } from "./commands/snapshot-delete.ts";
import { snapshotDiffCommand } from "./commands/snapshot-diff.ts";
import { snapshotListCommand } from "./commands/snapshot-list.ts";
import { snapshotRenameCommand } from "./commands/snapshot-rename.ts";
import { snapshotRestoreCommand } from "./commands/snapshot-restore.ts";
import { statusCommand } from "./commands/status.ts";
import { syncCommand } from "./commands/sync.ts";
import { umountCommand } from "./commands/umount.ts";
import { exitCodeHelp, exitCodes } from "./exit-codes.ts";
import { exitWhenInterrupted } from "./interrupt.ts";
import { printError } from "./output.ts";

const commands: readonly Command[] = [
  formatCommand,
  mountCommand,
  umountCommand,
  statusCommand,
  syncCommand,
  checkCommand,
  noun("snapshot", "Keep states of the filesystem, and go back to them.", [
    snapshotCreateCommand,
    snapshotDeleteCommand,
    snapshotRestoreCommand,
    snapshotRenameCommand,
    snapshotListCommand,
    snapshotDiffCommand,
  ]),
  noun("image", "Ship snapshots, or what changed between two, as streams of blocks.", [
    imageSendCommand,
    imageReceiveCommand,
    imageInspectCommand,
    imageVerifyCommand,
  ]),
  noun("mirror", "Keep a copy of a volume on another host up to date.", [
    mirrorKeyCommand,
    mirrorServeCommand,
    mirrorRunCommand,
    mirrorStatusCommand,
    mirrorPromoteCommand,
  ]),
];

/** For mount(8) and umount(8), which have their own ways with options; no command for people. */
const helpers = new Map([
  ["mount-helper", "mount"],
  ["umount-helper", "umount"],
] as const) as ReadonlyMap<string, "mount" | "umount">;

/** Runs one command line, without the name of the program. Returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  process.stdout.on("error", onBrokenPipe);
  const helper = helpers.get(args[0] ?? "");
  if (helper !== undefined) {
    const { mountHelper } = await import("./mount-helper.ts");
    return mountHelper(helper, args.slice(1));
  }
  exitWhenInterrupted();
  try {
    await parser(args).parseAsync();
    return typeof process.exitCode === "number" ? process.exitCode : 0;
  } catch (error) {
    return printError(error, { json: args.includes("--json"), debug: args.includes("--debug") });
  }
}

function parser(args: readonly string[]): Argv<GlobalOptions> {
  const root = yargs([...args])
    .scriptName("tidemark")
    .usage("$0 COMMAND\n\nA copy-on-write filesystem in one block file, with snapshots, image streams and mirrors.")
    .option("json", { type: "boolean", default: false, describe: "Print JSON", global: true })
    .option("debug", { type: "boolean", default: false, describe: "Show where an error arose", global: true })
    .parserConfiguration({ "boolean-negation": false, "dot-notation": false, "parse-numbers": false })
    .example("$0 format /srv/data.tm --size 10G", "make a volume")
    .example("$0 mount /srv/data.tm /mnt/data", "and mount it")
    .epilogue(
      `${exitCodeHelp(Object.keys(exitCodes) as (keyof typeof exitCodes)[])}\n\nOf one command: tidemark COMMAND --help`,
    )
    .strict()
    .demandCommand(1, "name a command")
    .completion("completion", "Print a completion script for bash or zsh")
    .recommendCommands()
    .version(version())
    .help()
    .wrap(Math.min(120, process.stdout.columns ?? 120))
    .exitProcess(false)
    .fail((message, error) => {
      const isOurs = error !== undefined && error !== null && error.name !== "YError"; // what a command has thrown
      if (isOurs) throw error;
      throw new UserError("usage", message ?? error.message, "see: tidemark --help, tidemark COMMAND --help");
    });
  for (const one of commands) root.command(one);
  return root;
}

/** Of the package; a build that lies elsewhere has none. */
function version(): string {
  const path = new URL("../../../package.json", import.meta.url);
  if (!existsSync(path)) return "0.0.0";
  return (JSON.parse(readFileSync(path, "utf8")) as { readonly version: string }).version;
}

/** Whoever reads our output has had enough, as head(1) does. */
function onBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(exitCodes.failed.code);
  throw error;
}
