/** Whether the transport fuse-native can be tested here. */
import assert from "node:assert/strict";
import { loadFuseNative } from "../../src/fuse/native/load.ts";
import { mountImpossible } from "./mounts.ts";

/** For the `skip` of a test; on CI it fails instead. */
export function skipWithoutNative(): string | false {
  const why = mountImpossible() ?? addonProblem();
  if (why === undefined) return false;
  assert.notEqual(process.env["CI"], "true", `${why}, and on CI that is a failure`);
  return why;
}

function addonProblem(): string | undefined {
  try {
    loadFuseNative();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
