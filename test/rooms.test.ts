// The rooms of src/ and what each may use, as data. Imports go downwards only; the rooms up to `fs` are synchronous;
// time, randomness, disk and network stay in the few places named here. The scan reads import lines and names, with
// comments and the text of strings taken out first: small enough to be sure of, and the last tests prove it can fail.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import { scan, source, sourceFiles } from "./support/source-scan.ts";

interface Room {
  readonly imports: readonly string[];
  readonly synchronous?: true;
}

const belowDaemon = ["core", "format", "device", "bitset", "tree", "volume", "fs", "fuse", "image", "mirror"];

const rooms = new Map<string, Room>([
  ["core", { imports: [], synchronous: true }],
  ["format", { imports: ["core"], synchronous: true }],
  ["device", { imports: ["core"], synchronous: true }],
  ["bitset", { imports: ["core"], synchronous: true }],
  ["tree", { imports: ["core", "format", "device"], synchronous: true }],
  ["volume", { imports: ["core", "format", "device", "bitset", "tree"], synchronous: true }],
  ["fs", { imports: ["core", "format", "tree", "volume"], synchronous: true }],
  ["fuse", { imports: ["core", "format", "fs"] }],
  ["image", { imports: ["core", "format", "device", "bitset", "volume"] }],
  ["mirror", { imports: ["core", "format", "device", "bitset", "volume", "fs", "image"] }],
  ["daemon", { imports: belowDaemon }],
  ["cli", { imports: [...belowDaemon, "daemon"] }],
]);

/** Files that lie in src/ itself, and the rooms they may import. */
const topLevel = new Map<string, Room>([["main.ts", { imports: ["cli"] }]]);

/** Packages, and the rooms that may import them. */
const packages = new Map<string, readonly string[]>([
  ["yargs", ["cli"]],
  ["fuse-native", ["fuse"]],
  ["koffi", ["fuse", "daemon"]],
  ["lru-cache", ["tree"]],
  ["chokidar", ["mirror", "daemon"]],
]);

/** Where the world comes in: the clock, randomness, the process, files, sockets, and with them every module of Node. */
const outside: readonly RegExp[] = [
  /^device\/([^/]*-device|volume-lock)\.ts$/,
  /^(fuse|image\/targets|mirror|daemon|cli)\//,
  /^main\.ts$/,
];

/** Modules of Node that compute and nothing else, and where they may be imported inside. */
const pureModules = new Map<string, RegExp>([
  ["node:assert", /^/],
  ["node:assert/strict", /^/],
  ["node:crypto", /^core\//],
  ["node:os", /^core\//], // the numbers of the errnos
  ["node:zlib", /^core\/(checksum|deflate)\.ts$/],
]);

const promises = /(?<![\w$])(async|await|Promise|setTimeout|setInterval|setImmediate|queueMicrotask)(?![\w$])/g;
const world = /(?<![\w$])(Date\s*\.\s*now|Math\s*\.\s*random|performance\s*\.\s*now|(?<!\.\s*)process(?=\s*[.[]))/g;
const specifiers = /(?<![\w$.])(?:from|import|require)\s*\(?\s*"(\d+)"/g;

test("src holds the rooms of the table and no other folder or file", () => {
  const strangers = readdirSync(source, { withFileTypes: true })
    .filter((entry) => (entry.isDirectory() ? !rooms.has(entry.name) : !topLevel.has(entry.name)))
    .map((entry) => entry.name)
    .filter((name) => name !== "README.md");
  assert.deepEqual(strangers, []);
});

test("every file of src uses only what its room may use", () => {
  const found = sourceFiles().flatMap(({ path, text }) => violations(path, text));
  assert.deepEqual(found, []);
});

test("the table of rooms goes downwards only", () => {
  const order = [...rooms.keys()];
  for (const [name, room] of rooms) {
    for (const used of room.imports) {
      assert.ok(order.indexOf(used) < order.indexOf(name), `${name} may import ${used}, which is above it`);
      if (room.synchronous === true) assert.ok(rooms.get(used)?.synchronous, `${name} is synchronous, ${used} is not`);
    }
  }
});

const planted: readonly (readonly [path: string, text: string, what: string])[] = [
  ["tree/a.ts", 'import { x } from "../volume/b.ts";', "tree may not import room volume"],
  ["tree/a.ts", 'import type {\n  X,\n} from "../volume/b.ts";', "tree may not import room volume"],
  ["tree/a.ts", 'export * from "../bitset/b.ts";', "tree may not import room bitset"],
  ["volume/space/a.ts", 'import "../../fs/b.ts";', "volume may not import room fs"],
  ["daemon/a.ts", 'const x = await import("../cli/b.ts");', "daemon may not import room cli"],
  ["daemon/a.ts", "const x = await import(`../cli/b.ts`);", "daemon may not import room cli"],
  ["daemon/a.ts", 'import { x } from "../main.ts";', "daemon may not import room main.ts"],
  ["cli/a.ts", 'import { x } from "../../test/b.ts";', "cli may not import room .."],
  ["image/a.ts", 'import yargs from "yargs";', "image may not import package yargs"],
  [
    "cli/a.ts",
    'import yargs from "yargs/helpers";\nimport { x } from "left-pad";',
    "cli may not import package left-pad",
  ],
  ["mirror/a.ts", 'const f = require("fuse-native");', "mirror may not import package fuse-native"],
  ["core/a.ts", 'import { crc32 } from "node:zlib";', "core may not import package node:zlib"],
  ["image/send.ts", 'import { open } from "node:fs/promises";', "image may not import package node:fs/promises"],
  ["device/plex-pair.ts", 'import { readSync } from "fs";', "device may not import package fs"],
  ["core/a.ts", "export async function f() {}", "core may not use async"],
  ["fs/a.ts", "let x: Promise<void>;", "fs may not use Promise"],
  ["volume/a.ts", "const x = `${await y}`;", "volume may not use await"],
  ["device/file-device.ts", "setTimeout(f, 1);", "device may not use setTimeout"],
  ["core/clock.ts", "return Date.now();", "core may not use Date.now"],
  ["image/a.ts", "const re = /[\"'`]/; Math.random();", "image may not use Math.random"],
  ["format/a.ts", "if (process.env.X) f();", "format may not use process"],
];

for (const [path, text, what] of planted) {
  test(`found in ${path}: ${what} (${JSON.stringify(text)})`, () => {
    assert.deepEqual(violations(path, text), [`${path}: ${what}`]);
  });
}

test("words in comments, strings, patterns and longer names are not found", () => {
  const text = [
    '// async Promise Date.now() from "../cli/a.ts"',
    "/* await\n import 'yargs' */",
    'const a = "process.env await \\" setTimeout" + \'import "yargs"\' + `Promise ${asyncDio} async`;',
    "const b = /async \\/ await/.test(a) ? request.process.id : 4 / 2 / 1; // Promise",
    'import { x } from "../core/x.ts";',
    'import assert from "node:assert/strict";',
  ].join("\n");
  assert.deepEqual(violations("volume/a.ts", text), []);
});

/** What the file `path`, relative to src/, uses and may not use: one line each. */
function violations(path: string, text: string): string[] {
  const name = path.includes("/") ? path.slice(0, path.indexOf("/")) : path;
  const room = rooms.get(name) ?? topLevel.get(name);
  if (room === undefined) return [`${path}: not in a room`];
  const isOutside = outside.some((place) => place.test(path));
  const { code, strings } = scan(text);
  const found: string[] = [];

  for (const [, index] of code.matchAll(specifiers)) {
    const specifier = strings[Number(index)] ?? "";
    if (specifier.startsWith(".")) {
      const target = normalize(join(dirname(path), specifier)).split("/", 1)[0] ?? "";
      if (target !== name && !room.imports.includes(target)) found.push(`import room ${target}`);
    } else if (!mayImport(path, name, specifier, isOutside)) {
      found.push(`import package ${specifier}`);
    }
  }
  if (room.synchronous === true) for (const [word] of code.matchAll(promises)) found.push(`use ${word}`);
  if (!isOutside) for (const [word] of code.matchAll(world)) found.push(`use ${word}`);
  return found.map((what) => `${path}: ${name} may not ${what}`);
}

function mayImport(path: string, room: string, specifier: string, isOutside: boolean): boolean {
  if (specifier.startsWith("node:")) return isOutside || pureModules.get(specifier)?.test(path) === true;
  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  return packages.get(name)?.includes(room) === true;
}
