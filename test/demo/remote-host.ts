/**
 * The other host of the demo: a network namespace with an address of its own, reached over a veth pair, where the
 * machine allows one; else the loopback address.
 */
import { execFile } from "node:child_process";

export interface RemoteHost {
  readonly description: string;
  readonly address: string;
  /** The command line that runs `node script args` on that host. */
  command(args: readonly string[], script: string): readonly string[];
  remove(): Promise<void>;
}

export async function hostFor(timeoutMs: number): Promise<RemoteHost> {
  const name = `tidemark-demo-${process.pid}`;
  const link = `tm${process.pid % 100_000}`;
  const here = "10.97.0.1";
  const there = "10.97.0.2";
  const ip = (...args: readonly string[]): Promise<void> =>
    new Promise((resolve, reject) => {
      execFile("ip", [...args], { timeout: timeoutMs }, (error, _stdout, stderr) => {
        if (error === null) resolve();
        else reject(new Error(`ip ${args.join(" ")}: ${stderr}`, { cause: error }));
      });
    });
  const remove = (): Promise<void> => ip("netns", "delete", name); // and with it the link
  try {
    await ip("netns", "add", name);
  } catch {
    return {
      description: "loopback, since this machine makes no network namespaces",
      address: "127.0.0.1",
      command: (args, script) => [process.execPath, script, ...args],
      remove: () => Promise.resolve(),
    };
  }
  try {
    await ip("link", "add", `${link}a`, "type", "veth", "peer", "name", `${link}b`, "netns", name);
    await ip("addr", "add", `${here}/24`, "dev", `${link}a`);
    await ip("link", "set", `${link}a`, "up");
    await ip("-n", name, "addr", "add", `${there}/24`, "dev", `${link}b`);
    await ip("-n", name, "link", "set", `${link}b`, "up");
    await ip("-n", name, "link", "set", "lo", "up");
  } catch (error) {
    await remove();
    throw error;
  }
  return {
    description: `network namespace ${name}, address ${there}`,
    address: there,
    // Not `ip netns exec`: that makes a mount namespace too, which would keep what is unmounted here alive there.
    command: (args, script) => ["nsenter", `--net=/run/netns/${name}`, process.execPath, script, ...args],
    remove,
  };
}
