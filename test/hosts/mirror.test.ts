// Source and mirror on two hosts: network namespaces, joined by a pair of virtual cables that can be pulled.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createKey, readKey } from "../../src/mirror/key.ts";
import {
  assertMirrored,
  destinationStatus,
  isCurrent,
  makeSourceFile,
  sourceStatus,
  startProcess,
  startRun,
  until,
} from "../mirror/loopback.ts";
import { temporaryDirectory } from "../support/temp.ts";

const PORT = 7411;

interface Hosts {
  /** Runs a command on the other host. */
  readonly prefix: readonly string[];
  readonly address: string;
  pull(): void;
  plug(): void;
  /** Limits what the cable carries. */
  slow(): void;
}

/** The other host, as a namespace; this one is where the test runs. undefined, and the test skipped: not allowed. */
function twoHosts(t: TestContext): Hosts | undefined {
  const id = process.pid % 0xffff;
  const [there, near, far] = [`tidemark-${id}`, `tmn${id}`, `tmf${id}`];
  const subnet = `10.${200 + (id % 50)}.${(id >>> 4) % 250}`;
  if (process.getuid?.() !== 0 || !attempt(`ip netns add ${there}`)) {
    const why = "network namespaces need root and ip(8)";
    assert.notEqual(process.env["CI"], "true", why);
    t.skip(why);
    return undefined;
  }
  t.after(() => {
    attempt(`ip link del ${near}`);
    attempt(`ip netns del ${there}`);
  });
  must(`ip link add ${near} type veth peer name ${far} netns ${there}`);
  must(`ip addr add ${subnet}.1/24 dev ${near} && ip link set ${near} up`);
  must(
    `ip -n ${there} addr add ${subnet}.2/24 dev ${far} && ip -n ${there} link set ${far} up && ip -n ${there} link set lo up`,
  );
  return {
    // Not `ip netns exec`: its mount namespace would keep alive what other tests unmount.
    prefix: ["nsenter", `--net=/run/netns/${there}`],
    address: `${subnet}.2`,
    pull: () => must(`ip link set ${near} down`),
    plug: () => must(`ip link set ${near} up`),
    slow(): void {
      // Where there is no traffic control, the transfer is only faster than the hand that pulls the cable.
      attempt(`tc qdisc add dev ${near} root tbf rate 100mbit burst 64kb latency 50ms`);
    },
  };
}

test("between two hosts, the cable pulled in mid-transfer and plugged in again: the transfer goes on", async (t) => {
  const hosts = twoHosts(t);
  if (hosts === undefined) return;
  const directory = temporaryDirectory(t);
  const keyFile = join(directory, "key");
  createKey(keyFile, { force: false });
  const source = makeSourceFile(t, join(directory, "source.tm"), { blockCount: 32768 });
  const mirror = join(directory, "mirror.tm");
  source.write("small", 100_000);
  source.cp();
  startProcess(t, "serve", mirror, `${hosts.address}:${PORT}`, { key: keyFile, prefix: hosts.prefix });
  startRun(t, source, { to: { host: hosts.address, port: PORT }, key: readKey(keyFile) });
  await until("the mirror is there", () => isCurrent(source, mirror));
  assertMirrored(source, mirror);

  hosts.slow();
  source.write("large", 80 << 20);
  source.cp();
  let done = 0;
  await until("some of it is there", async () => {
    done = (await sourceStatus(source.path))?.transfer?.framesDone ?? 0;
    return done >= 10;
  });
  hosts.pull();
  done = (await sourceStatus(source.path))?.transfer?.framesDone ?? 0;
  assert.ok(done > 0 && !isCurrent(source, mirror), "it was pulled in mid-transfer");
  await until("the source notices", async () => (await sourceStatus(source.path))?.connectedSince === undefined);
  await until("the mirror notices", async () => (await destinationStatus(mirror))?.phase === "vacant");
  hosts.plug();
  let resumedAt = 0;
  await until("it goes on", async () => {
    resumedAt = (await sourceStatus(source.path))?.transfer?.resumedAt ?? 0;
    return resumedAt > 0;
  });
  assert.ok(resumedAt >= done, `resumed at ${resumedAt}, acknowledged were ${done}`);
  await until("the mirror follows", () => isCurrent(source, mirror));
  assertMirrored(source, mirror);
});

function attempt(command: string): boolean {
  return spawnSync("sh", ["-c", command], { stdio: "ignore" }).status === 0;
}

function must(command: string): void {
  assert.ok(attempt(command), command);
}
