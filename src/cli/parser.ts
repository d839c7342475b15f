/** The whole command line as yargs sees it: help, completion, and what is wrong with a line. */
import { existsSync, readFileSync } from "node:fs";
import yargs, { type Argv } from "yargs";
import { UserError } from "../core/errors.ts";
import { type GlobalOptions, noun } from "./command.ts";
import { commandTable, nouns } from "./command-table.ts";
import { exitCodeHelp, exitCodes } from "./exit-codes.ts";
import { type Declared, declaredOf } from "./plain-line.ts";

/** Loads all commands; `parseAsync` runs the one that the line names. */
export async function parser(args: readonly string[], packageFile: URL): Promise<Argv<GlobalOptions>> {
  const root = yargs([...args])
    .scriptName("tidemark")
    .usage("$0 COMMAND\n\nA copy-on-write filesystem in one block file, with snapshots, image streams and mirrors.")
    .option("json", { type: "boolean", default: false, describe: "Print JSON", global: true })
    .option("debug", { type: "boolean", default: false, describe: "Show where an error arose", global: true })
    .parserConfiguration(parsing)
    .example("$0 format /srv/data.tm --size 10G", "make a volume")
    .example("$0 mount /srv/data.tm /mnt/data", "and mount it")
    .epilogue(
      `${exitCodeHelp(Object.keys(exitCodes) as (keyof typeof exitCodes)[])}\n\nOf one command: tidemark COMMAND --help`,
    )
    .strict()
    .demandCommand(1, "name a command")
    .completion("completion", "Print a completion script for bash or zsh")
    .recommendCommands()
    .updateStrings(messages)
    .version(versionIn(packageFile))
    .help()
    .wrap(Math.min(120, process.stdout.columns ?? 120))
    .exitProcess(false)
    .fail((message, error) => {
      const isOurs = error !== undefined && error !== null && error.name !== "YError"; // what a command has thrown
      if (isOurs) throw error;
      const line = (message ?? error.message).replaceAll("\n  ", " ");
      throw new UserError("usage", line, `see: tidemark ${commandIn(args)}--help`);
    });
  const loaded = await Promise.all(commandTable.map(async (row) => ({ name: row.name, command: await row.load() })));
  const named = loaded.find(({ name }) => `${name} ` === commandIn(args));
  if (named !== undefined) refuseValues(args, declaredOf(named.command.plain).options);
  for (const { name, command } of loaded) if (!name.includes(" ")) root.command(command.module);
  for (const [name, summary] of nouns) {
    const verbs = loaded.filter((row) => row.name.startsWith(`${name} `)).map(({ command }) => command.module);
    root.command(noun(name, summary, verbs));
  }
  return root;
}

/** yargs would take "--read-only=yes" for false. */
function refuseValues(args: readonly string[], options: ReadonlyMap<string, Declared>): void {
  for (const word of args) {
    if (word === "--") return;
    const [, name = "", value = ""] = /^--([^=]+)=(.*)$/s.exec(word) ?? [];
    if (options.get(name)?.type !== "boolean" || value === "true" || value === "false") continue;
    throw new UserError("usage", `option --${name} takes no ${JSON.stringify(value)}`, "it is given without a value");
  }
}

/** Names and values as they are typed. */
export const parsing = {
  "boolean-negation": false,
  "camel-case-expansion": false,
  "dot-notation": false,
  "parse-numbers": false,
} as const;

/** Some of what yargs says, in words for people. A text that depends on a number has two forms, which its types do not know. */
const messages = {
  "Not enough non-option arguments: got %s, need at least %s": either("too few arguments: %s given, %s needed"),
  "Too many non-option arguments: got %s, maximum of %s": either("too many arguments: %s given, %s taken"),
  "Missing required argument: %s": either("needed, and not given: %s"),
  "Unknown argument: %s": either("not known here: %s"),
  "Not enough arguments following: %s": "option %s needs a value",
  "Invalid values:": "there is no",
  "Argument: %s, Given: %s, Choices: %s": "%s %s, but one of %s",
  "Did you mean %s?": "there is no such command: did you mean %s?",
} as unknown as Readonly<Record<string, string>>;

function either(text: string): { readonly one: string; readonly other: string } {
  return { one: text, other: text };
}

/** The name of the command or noun that the line begins with, and a space; of none: that of any, for people to fill in. */
function commandIn(args: readonly string[]): string {
  const [first = "", second = ""] = args;
  const row = commandTable.find(({ name }) => name === first || name === `${first} ${second}`);
  if (row !== undefined) return `${row.name} `;
  return nouns.has(first) ? `${first} ` : "";
}

/** A build that lies elsewhere has none. */
function versionIn(packageFile: URL): string {
  if (!existsSync(packageFile)) return "0.0.0";
  return (JSON.parse(readFileSync(packageFile, "utf8")) as { readonly version: string }).version;
}
