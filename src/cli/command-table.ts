/** Which commands there are. A file is loaded when its command runs, or when the help of all is asked for. */
import type { Command } from "./command.ts";

export interface TableRow {
  /** As typed: "format", "snapshot create". */
  readonly name: string;
  load(): Promise<Command>;
}

export const commandTable: readonly TableRow[] = [
  { name: "format", load: async () => (await import("./commands/format.ts")).formatCommand },
  { name: "mount", load: async () => (await import("./commands/mount.ts")).mountCommand },
  { name: "umount", load: async () => (await import("./commands/umount.ts")).umountCommand },
  { name: "status", load: async () => (await import("./commands/status.ts")).statusCommand },
  { name: "sync", load: async () => (await import("./commands/sync.ts")).syncCommand },
  { name: "check", load: async () => (await import("./commands/check.ts")).checkCommand },
  { name: "scrub", load: async () => (await import("./commands/scrub.ts")).scrubCommand },
  {
    name: "snapshot create",
    load: async () => (await import("./commands/snapshot-create.ts")).snapshotCreateCommand,
  },
  {
    name: "snapshot delete",
    load: async () => (await import("./commands/snapshot-delete.ts")).snapshotDeleteCommand,
  },
  {
    name: "snapshot restore",
    load: async () => (await import("./commands/snapshot-restore.ts")).snapshotRestoreCommand,
  },
  {
    name: "snapshot rename",
    load: async () => (await import("./commands/snapshot-rename.ts")).snapshotRenameCommand,
  },
  { name: "snapshot list", load: async () => (await import("./commands/snapshot-list.ts")).snapshotListCommand },
  { name: "snapshot diff", load: async () => (await import("./commands/snapshot-diff.ts")).snapshotDiffCommand },
  { name: "image send", load: async () => (await import("./commands/image-send.ts")).imageSendCommand },
  { name: "image receive", load: async () => (await import("./commands/image-receive.ts")).imageReceiveCommand },
  { name: "image inspect", load: async () => (await import("./commands/image-inspect.ts")).imageInspectCommand },
  { name: "image verify", load: async () => (await import("./commands/image-verify.ts")).imageVerifyCommand },
  { name: "mirror key", load: async () => (await import("./commands/mirror-key.ts")).mirrorKeyCommand },
  { name: "mirror serve", load: async () => (await import("./commands/mirror-serve.ts")).mirrorServeCommand },
  { name: "mirror run", load: async () => (await import("./commands/mirror-run.ts")).mirrorRunCommand },
  { name: "mirror status", load: async () => (await import("./commands/mirror-status.ts")).mirrorStatusCommand },
  { name: "mirror promote", load: async () => (await import("./commands/mirror-promote.ts")).mirrorPromoteCommand },
];

/** First words that are no commands by themselves, and what they are about. */
export const nouns: ReadonlyMap<string, string> = new Map([
  ["snapshot", "Keep states of the filesystem, and go back to them."],
  ["image", "Ship snapshots, or what changed between two, as streams of blocks."],
  ["mirror", "Keep a copy of a volume on another host up to date."],
]);
