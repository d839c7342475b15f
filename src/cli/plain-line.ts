/**
 * Most command lines are plain: the command, its arguments, options each with its value in a word of its own. Such a line
 * is read here, from what the command declares for yargs, because loading yargs takes four times as long as everything
 * else a short command does. A line that is not plain is left to yargs, right or wrong: help, completion, abbreviations
 * and messages are its own. For a plain line both give the same options; test/cli/plain-line.test.ts compares them. Only
 * what follows "--" is read here and nowhere else: yargs does not count it among the arguments that a command must have.
 */

/** What is declared of an argument or option, as far as a plain line needs it. */
export interface Declared {
  readonly type?: string;
  readonly default?: unknown;
  readonly demandOption?: boolean;
  /** One letter. */
  readonly alias?: string;
  /** An option that may be given again, with one value each time. */
  readonly array?: boolean;
  readonly choices?: readonly unknown[];
}

/** The part of the interface of yargs with which commands declare their options. */
export interface Declaring {
  positional(name: string, declared: Declared): Declaring;
  option(name: string, declared: Declared): Declaring;
}

export interface PlainCommand {
  /** The arguments in the notation of yargs: "create <volume> <name>", "receive <volume> [files..]". */
  readonly notation: string;
  declare(to: Declaring): unknown;
}

const GLOBAL = new Map<string, Declared>([
  ["json", { type: "boolean", default: false }],
  ["debug", { type: "boolean", default: false }],
]);

export interface DeclaredOptions {
  readonly options: ReadonlyMap<string, Declared>;
  /** Names by their letters. */
  readonly letters: ReadonlyMap<string, string>;
}

/** What the command declares, and what all have. */
export function declaredOf(command: Pick<PlainCommand, "declare">): DeclaredOptions {
  const options = new Map(GLOBAL);
  const letters = new Map<string, string>();
  const declaring: Declaring = {
    positional: () => declaring, // what is to be known of one, the notation says
    option(name, declared) {
      options.set(name, declared);
      if (declared.alias !== undefined) letters.set(declared.alias, name);
      return declaring;
    },
  };
  command.declare(declaring);
  return { options, letters };
}

/** The options by their names; undefined: the line is not plain. `args` are those after the command. */
export function plainLine(args: readonly string[], command: PlainCommand): Record<string, unknown> | undefined {
  const { options, letters } = declaredOf(command);
  const given = new Map<string, unknown>();
  const words: string[] = [];
  for (let index = 0; index < args.length; index += 1) {
    const word = args[index] as string;
    if (word === "--") {
      words.push(...args.slice(index + 1));
      break;
    }
    if (!word.startsWith("-")) {
      if (!isPlain(word)) return undefined;
      words.push(word);
      continue;
    }
    const name = word.startsWith("--") ? word.slice(2) : (letters.get(word.slice(1)) ?? "");
    const declared = options.get(name);
    if (declared === undefined) return undefined;
    const before = given.get(name);
    if (before !== undefined && declared.array !== true) return undefined;
    const value = args[index + 1];
    if (declared.type === "boolean") {
      if (value === "true" || value === "false") return undefined;
      given.set(name, true);
      continue;
    }
    index += 1;
    if (value === undefined || !isPlain(value)) return undefined;
    if (declared.choices !== undefined && !declared.choices.includes(value)) return undefined;
    given.set(name, declared.array === true ? [...((before ?? []) as readonly string[]), value] : value);
  }
  for (const [name, { default: value, demandOption }] of options) {
    if (given.has(name)) continue;
    if (demandOption === true) return undefined;
    if (value !== undefined) given.set(name, value);
  }
  return placeWords(words, command.notation, given) ? Object.fromEntries(given) : undefined;
}

/** Gives each word to the argument at its place. False: too few, or too many. */
function placeWords(words: readonly string[], notation: string, given: Map<string, unknown>): boolean {
  let next = 0;
  for (const [, open, name, dots] of notation.matchAll(/([<[])(\w+)(\.\.)?[>\]]/g)) {
    const taken = dots === undefined ? words.slice(next, next + 1) : words.slice(next);
    next += taken.length;
    if (taken.length === 0 && open === "<") return false;
    if (dots !== undefined) given.set(name as string, taken);
    else if (taken.length > 0) given.set(name as string, taken[0]);
  }
  return next === words.length;
}

/** Neither an option nor something that yargs takes quotes off. */
function isPlain(word: string): boolean {
  return word !== "" && !/^[-"']/.test(word);
}
