// Lines that are read without yargs: the same options as by yargs, for every command; and all others are left to it.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import yargs, { type Argv } from "yargs";
import type { Command } from "../../src/cli/command.ts";
import { commandTable } from "../../src/cli/command-table.ts";
import { parsing } from "../../src/cli/parser.ts";
import { type Declared, type Declaring, plainLine } from "../../src/cli/plain-line.ts";

/** What the command declares: its options by name, and their types. */
function optionsOf({ plain }: Command): [string, Declared][] {
  const options: [string, Declared][] = [["json", { type: "boolean" }]];
  const declaring: Declaring = {
    positional: () => declaring,
    option(name, declared) {
      options.push([name, declared]);
      return declaring;
    },
  };
  plain.declare(declaring);
  return options;
}

async function byYargs({ module }: Command, args: readonly string[]): Promise<Record<string, unknown>> {
  let found: Record<string, unknown> = {};
  const parser = yargs([]) as unknown as Argv<{ json: boolean; debug: boolean }>;
  await parser
    .option("json", { type: "boolean", default: false })
    .option("debug", { type: "boolean", default: false })
    .parserConfiguration(parsing)
    .strict()
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? new Error(message);
    })
    .command({
      ...module,
      handler: (given) => {
        found = given;
      },
    })
    .parseAsync([(module.command as string).split(" ", 1)[0] as string, ...args]);
  return found;
}

const word = fc.oneof(
  fc.stringMatching(/^[a-zA-Z0-9/._@:=, -]{1,12}$/).filter((text) => !text.startsWith("-")),
  fc.constantFrom("007", "1e3", "true", "false", "x--y", "a=b", "0x10", "10G", " "),
);

for (const row of commandTable) {
  test(`a plain line of ${row.name} gives the same options with and without yargs`, async () => {
    const command = await row.load();
    const { plain } = command;
    const required = [...plain.notation.matchAll(/<\w+/g)].length;
    const most = /\.\./.test(plain.notation) ? 4 : [...plain.notation.matchAll(/[<[]\w+/g)].length;
    const option = fc
      .tuple(fc.constantFrom(...optionsOf(command)), word, fc.nat())
      .map(([[name, { type, choices, alias }], value, at]): string[] =>
        type === "boolean"
          ? [`--${name}`]
          : [
              alias !== undefined && at % 2 === 0 ? `-${alias}` : `--${name}`,
              (choices?.[at % choices.length] as string | undefined) ?? value,
            ],
      );
    const line = fc
      .tuple(
        fc.array(word, { minLength: Math.max(0, required - 1), maxLength: most + 1 }),
        fc.uniqueArray(option, { selector: (words) => words[0], maxLength: 5 }),
      )
      .chain(([words, options]) => {
        const groups = [...words.map((one) => [one]), ...options];
        return fc.shuffledSubarray(groups, { minLength: groups.length });
      })
      .map((groups) => groups.flat());
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(line, async (args) => {
        const given = plainLine(args, plain);
        if (given === undefined) return;
        taken += 1;
        const expected = await byYargs(command, args);
        for (const [name, value] of Object.entries(given))
          assert.deepEqual(value, expected[name], `${name} of ${args.join(" ")}`);
        for (const [name, value] of Object.entries(expected)) {
          const isName = /^[a-z][a-z-]*$/.test(name) && name !== "o";
          if (isName && value !== undefined) assert.deepEqual(given[name], value, `${name} of ${args.join(" ")}`);
        }
      }),
      { numRuns: 60 },
    );
    assert(taken > 0, "no line was plain");
  });
}

async function read(line: string): Promise<Record<string, unknown> | undefined> {
  const words = line.split(" ");
  const row = commandTable.find(({ name }) => line.startsWith(`${name} `));
  assert(row !== undefined);
  return plainLine(words.slice(row.name.split(" ").length), (await row.load()).plain);
}

test("what follows -- is an argument, whatever it begins with", async () => {
  assert.deepEqual((await read("snapshot create v --json -- -x"))?.["name"], "-x");
  assert.deepEqual((await read("image verify a -- --json"))?.["files"], ["a", "--json"]);
  assert.deepEqual((await read("umount -- m"))?.["target"], "m");
  const { options, volume, dir } = (await read("mount -o ro,noatime --options nodev -- -v m")) ?? {};
  assert.deepEqual({ options, volume, dir }, { options: ["ro,noatime", "nodev"], volume: "-v", dir: "m" });
});

test("whatever is not plain is left to yargs", async () => {
  const row = commandTable.find(({ name }) => name === "image send");
  assert(row !== undefined);
  const { plain } = await row.load();
  assert.deepEqual(plainLine(["v", "s", "--base", "b"], plain), {
    volume: "v",
    snapshot: "s",
    base: "b",
    force: false,
    json: false,
    debug: false,
  });
  for (const args of [
    [],
    ["v"],
    ["v", "s", "t"],
    ["v", "s", "--help"],
    ["v", "s", "-h"],
    ["v", "s", "--base"],
    ["v", "s", "--base", "--force"],
    ["v", "s", "--base=b"],
    ["v", "s", "--base", "b", "--base", "c"],
    ["v", "s", "--nonsense"],
    ["v", "--"],
    ["v", "s", "--", "--force"],
    ["v", ""],
    ["v", '"s"'],
    ["v", "-"],
  ]) {
    assert.equal(plainLine(args, plain), undefined, args.join(" "));
  }
});
