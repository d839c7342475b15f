import { escaped, octal } from "../../core/escaped.ts";
import { command } from "../command.ts";

/** As `zfs diff` has them. */
const signs = { created: "+", deleted: "-", changed: "M", renamed: "R" } as const;

const types = new Map([
  [1, "fifo"],
  [2, "character device"],
  [4, "directory"],
  [6, "block device"],
  [8, "file"],
  [10, "symbolic link"],
  [12, "socket"],
]);
const DT_DIR = 4;

export const snapshotDiffCommand = command({
  command: "diff <volume> <snapshot> [later]",
  usage: "snapshot diff VOLUME SNAPSHOT [LATER]",
  summary:
    "Tell which files were created (+), deleted (-), changed (M) and renamed (R) between two snapshots, or since one.",
  examples: [
    ["$0 snapshot diff /srv/data.tm monday tuesday", "between two snapshots"],
    ["$0 snapshot diff /srv/data.tm monday --json", "since one, a JSON document a line"],
  ],
  exits: ["no-volume", "corrupt", "unreachable"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file or block device" })
      .positional("snapshot", { type: "string", demandOption: true, describe: "Name of the snapshot to begin with" })
      .positional("later", { type: "string", describe: "Name of the other; without it, the filesystem as it is now" }),
  async run({ volume, snapshot, later, json }) {
    const { diffPath } = await import("../../daemon/diff-path.ts");
    for (const found of await diffPath(volume, { before: snapshot, after: later })) {
      const { kind, path, type } = found;
      const from = kind === "renamed" ? found.from : undefined;
      const what = kind === "changed" ? found.what : undefined;
      if (json) {
        const line = { type: kind, path: decoded(path), from: from === undefined ? undefined : decoded(from), what };
        process.stdout.write(`${JSON.stringify({ ...line, file: types.get(type) ?? "unknown" })}\n`);
        continue;
      }
      const slash = type === DT_DIR && path !== "/" ? "/" : "";
      const names = from === undefined ? `${shown(path)}${slash}` : `${shown(from)}${slash} -> ${shown(path)}${slash}`;
      process.stdout.write(`${signs[kind]}\t${names}\n`);
    }
  },
});

/** Paths are bytes. What is no UTF-8 is lost in JSON, which cannot hold it. */
function decoded(path: string): string {
  return Buffer.from(path, "latin1").toString("utf8");
}

/** One line for every path: control characters, backslashes and what is no UTF-8 as three octal digits a byte. */
function shown(path: string): string {
  const text = decoded(path);
  const isText = Buffer.from(text, "utf8").toString("latin1") === path;
  return isText
    ? escaped(text, /[\p{Cc}\\]/gu)
    : path.replaceAll(/[\p{Cc}\\\u0080-\u00ff]/gu, (char) => octal(char.charCodeAt(0)));
}
