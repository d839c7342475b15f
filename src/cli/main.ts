/**
 * The command line: how a run begins, and how it ends.
 *
 * Only the file of the command that runs is loaded, and it loads the rooms that do the work only then; of the parser there
 * are two, see plain-line.ts. All errors come here and become one message and one exit code.
 */
import { UserError } from "../core/errors.ts";
import { commandTable } from "./command-table.ts";
import { exitCodes } from "./exit-codes.ts";
import { exitWhenInterrupted, InterruptedError } from "./interrupt.ts";
import { printError } from "./output.ts";
import { plainLine } from "./plain-line.ts";
import { refuseBytes } from "./refuse-bytes.ts";

/** For mount(8) and umount(8), which have their own ways with options; no command for people. */
const helpers = new Map([
  ["mount-helper", "mount"],
  ["umount-helper", "umount"],
] as const) as ReadonlyMap<string, "mount" | "umount">;

/** Runs one command line, without the name of the program; the file tells its version. Returns the exit code. */
export async function main(args: readonly string[], packageFile: URL): Promise<number> {
  const how = { json: args.includes("--json"), debug: args.includes("--debug") };
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(outputFailed(error, how)));
  process.stderr.on("error", () => {}); // nobody is left to be told of it, and what runs goes on
  const helper = helpers.get(args[0] ?? "");
  if (helper !== undefined) {
    const { mountHelper } = await import("./mount-helper.ts");
    return mountHelper(helper, args.slice(1));
  }
  exitWhenInterrupted();
  try {
    refuseBytes(args);
    if (!(await runPlain(args))) {
      const { parser } = await import("./parser.ts");
      await (await parser(args, packageFile)).parseAsync();
    }
    return typeof process.exitCode === "number" ? process.exitCode : 0;
  } catch (error) {
    const code = printError(error, how);
    if (error instanceof InterruptedError) process.exit(code); // what a pipe is full of, nobody may ever read
    return code;
  }
}

/** False: the line is not plain, and nothing was done. */
async function runPlain(args: readonly string[]): Promise<boolean> {
  const row = commandTable.find(({ name }) => name === args[0] || name === `${args[0]} ${args[1]}`);
  if (row === undefined) return false;
  const command = await row.load();
  const given = plainLine(args.slice(row.name.split(" ").length), command.plain);
  if (given === undefined) return false;
  await command.run(given);
  return true;
}

/** Whoever reads our output has had enough, as head(1) does; or it goes into a file, and the disk is full. */
function outputFailed(error: NodeJS.ErrnoException, how: Parameters<typeof printError>[1]): number {
  if (error.code === "EPIPE") return exitCodes.failed.code;
  return printError(new UserError("failed", `cannot write what is to be told: ${error.message}`), how);
}
