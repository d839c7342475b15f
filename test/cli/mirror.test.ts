// Both ends of a mirror, as they are run.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { lineOf, startTidemark, tidemark, tidemarkOk } from "../support/mounts.ts";
import { temporaryDirectory } from "../support/temp.ts";

/** A volume, and both ends of its mirror. */
async function startBoth(t: TestContext) {
  const dir = temporaryDirectory(t);
  const [source, key] = [join(dir, "v.tm"), join(dir, "key")];
  await tidemarkOk(["format", source, "--size", "1M"]);
  await tidemarkOk(["snapshot", "create", source, "mine"]);
  await tidemarkOk(["mirror", "key", key]);
  const serve = startTidemark(t, ["mirror", "serve", join(dir, "m.tm"), "--listen", "127.0.0.1:0", "--key", key]);
  const listening = await lineOf(serve.stderr ?? assert.fail("no output"), /listening on (\S+)/);
  const to = listening.slice(listening.lastIndexOf(" ") + 1).trim();
  const runs = startTidemark(t, ["mirror", "run", source, "--to", to, "--key", key]);
  return { source, serve, runs };
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`both ends of a mirror have done their work when ${signal} stops them: 0`, async (t) => {
    const { serve, runs } = await startBoth(t);
    await lineOf(runs.stderr ?? assert.fail("no output"), /./);
    for (const end of [runs, serve]) {
      const ended = new Promise<number | null>((resolve) => end.once("exit", resolve));
      end.kill(signal);
      assert.equal(await ended, 0);
    }
  });
}

test("what a mirror holds is listed when asked for, and can be deleted when the mirror is gone for good", async (t) => {
  const { source, serve, runs } = await startBoth(t);
  await lineOf(serve.stderr ?? assert.fail("no output"), /at cp \d+/);
  const ended = new Promise((resolve) => runs.once("exit", resolve));
  runs.kill("SIGTERM");
  await ended;
  const namesOf = async (...more: readonly string[]): Promise<readonly string[]> => {
    const listed = await tidemarkOk(["snapshot", "list", source, "--json", ...more]);
    return (JSON.parse(listed) as { snapshots: { name: string }[] }).snapshots.map(({ name }) => name);
  };
  assert.deepEqual(await namesOf(), ["mine"]);
  const [mine, held = "", ...others] = await namesOf("--all");
  assert.equal(mine, "mine");
  assert.match(held, /^mirror-[0-9a-f]{8}-\d+$/);
  assert.deepEqual(others, []);
  await tidemarkOk(["snapshot", "delete", source, held, "--force"]);
  assert.deepEqual(await namesOf("--all"), ["mine"]);
});

test("a mirror that nobody has connected to leaves nothing behind, whatever it ends by", async (t) => {
  const dir = temporaryDirectory(t);
  const key = join(dir, "key");
  await tidemarkOk(["mirror", "key", key]);
  const line = ["mirror", "serve", join(dir, "m.tm"), "--key", key, "--listen"];
  const serve = startTidemark(t, [...line, "127.0.0.1:0"]);
  await lineOf(serve.stderr ?? assert.fail("no output"), /listening on/);
  const ended = new Promise<number | null>((resolve) => serve.once("exit", resolve));
  serve.kill("SIGINT");
  assert.equal(await ended, 0);
  assert.deepEqual(readdirSync(dir), ["key"]);
  const other = createServer().listen(0, "127.0.0.1");
  t.after(() => other.close());
  await new Promise((resolve) => {
    other.once("listening", resolve);
  });
  const bound = other.address();
  assert(bound !== null && typeof bound === "object");
  assert.equal((await tidemark([...line, `127.0.0.1:${bound.port}`])).code, 1);
  assert.deepEqual(readdirSync(dir), ["key"]);
});
