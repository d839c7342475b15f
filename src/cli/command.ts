/** What a command file declares, and how the parsers are told of it. The work is in the rooms below, loaded when it runs. */
import type { ArgumentsCamelCase, Argv, CommandModule } from "yargs";
import { UserError } from "../core/errors.ts";
import { type ExitName, exitCodeHelp } from "./exit-codes.ts";
import { declaredOf, type PlainCommand } from "./plain-line.ts";

export interface GlobalOptions {
  readonly json: boolean;
  readonly debug: boolean;
}

export interface CommandSpec<O> {
  /** As typed after "tidemark", with the positionals in the notation of yargs: "create <volume> <name>". */
  readonly command: string;
  /** As shown: "snapshot create VOLUME NAME". */
  readonly usage: string;
  /** One sentence. */
  readonly summary: string;
  readonly examples: readonly (readonly [line: string, what: string])[];
  /** Besides done, failed and usage. */
  readonly exits: readonly ExitName[];
  /** Options that may be given more than once. */
  readonly lists?: readonly string[];
  options(yargs: Argv<GlobalOptions>): Argv<GlobalOptions & O>;
  run(options: ArgumentsCamelCase<GlobalOptions & O>): Promise<void>;
}

/** The form that yargs takes. Its types cannot hold commands of different options in one list, so they end here. */
type Module = CommandModule<GlobalOptions, GlobalOptions>;

export interface Command {
  readonly module: Module;
  /** What is declared, and how it runs with the options of a plain line. */
  readonly plain: PlainCommand;
  run(given: Readonly<Record<string, unknown>>): Promise<void>;
}

export function command<O>(spec: CommandSpec<O>): Command {
  const build = (yargs: Argv<GlobalOptions>): Argv<GlobalOptions & O> =>
    spec
      .options(yargs)
      .usage(`$0 ${spec.usage}\n\n${spec.summary}`)
      .example(spec.examples.map(([line, what]) => [line, what]))
      .epilogue(exitCodeHelp(spec.exits))
      .check((given) => {
        refuseTwice(given, spec.lists ?? []);
        return true;
      });
  const plain: PlainCommand = {
    notation: spec.command,
    declare: (to) => spec.options(to as unknown as Argv<GlobalOptions>),
  };
  const run = async (given: Readonly<Record<string, unknown>>): Promise<void> => {
    refuseEmpty(given, plain);
    await spec.run(camelCased(given) as ArgumentsCamelCase<GlobalOptions & O>);
  };
  return {
    module: {
      command: spec.command,
      describe: spec.summary,
      builder: build,
      handler: run,
    },
    plain,
    run,
  };
}

/** By both names, "read-only" and readOnly: here, for yargs would tell of an unknown option by both, too. */
function camelCased(given: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const names = Object.entries(given).map(([name, value]) => [
    name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase()),
    value,
  ]);
  return { ...given, ...Object.fromEntries(names) };
}

/** yargs makes a list of an option that is given twice; only one of the values could have been meant. */
function refuseTwice(given: object, lists: readonly string[]): void {
  for (const [name, value] of Object.entries(given)) {
    if (Array.isArray(value) && name !== "_" && name !== "$0" && !lists.includes(name)) {
      throw new UserError("usage", `option ${name.length === 1 ? "-" : "--"}${name} is given more than once`);
    }
  }
}

/** What a script made of a variable that is not set: as a path it would be the directory that one is in. */
function refuseEmpty(given: Readonly<Record<string, unknown>>, plain: PlainCommand): void {
  for (const [name, declared] of declaredOf(plain).options) {
    if (given[name] === "" && declared.default !== "") throw new UserError("usage", `option --${name} is empty`);
  }
  for (const [, name = ""] of plain.notation.matchAll(/[<[](\w+)/g)) {
    if ([given[name]].flat().includes("")) throw new UserError("usage", `the argument ${name.toUpperCase()} is empty`);
  }
}

/** A noun with its verbs. */
export function noun(name: string, summary: string, verbs: readonly Module[]): Module {
  return {
    command: name,
    describe: summary,
    builder: (yargs: Argv<GlobalOptions>) => {
      for (const verb of verbs) yargs.command(verb);
      return yargs
        .usage(`$0 ${name} COMMAND\n\n${summary}`)
        .demandCommand(1, 1, `name a command of ${name}`)
        .epilogue(exitCodeHelp([]));
    },
    handler: () => {},
  };
}
