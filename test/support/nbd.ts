/** Disks that lose what they have not flushed, or fail when told to: behind nbdkit, mounted by nbdfuse. */
import assert from "node:assert/strict";
import { run, skipWithoutMounts } from "./mounts.ts";

/** For the `skip` of a test with such a disk. On CI nothing is skipped. */
export async function skipWithoutNbd(): Promise<string | false> {
  const { code } = await run("/bin/sh", ["-c", "command -v nbdkit && command -v nbdfuse"]);
  if (code === 0) return skipWithoutMounts();
  assert.notEqual(process.env["CI"], "true", "CI has nbdkit and nbdfuse");
  return "there is no nbdkit or no nbdfuse here";
}
