// One end of a mirror as a process that can be killed: node mirror-process.js serve|run VOLUME HOST:PORT KEYFILE

import { snapshotHolder } from "../../src/daemon/snapshot-holder.ts";
import { systemClock, systemRandom } from "../../src/daemon/system.ts";
import { parseAddress } from "../../src/mirror/connection.ts";
import { readKey } from "../../src/mirror/key.ts";
import { runMirror } from "../../src/mirror/run.ts";
import { serveMirror } from "../../src/mirror/serve.ts";

const [what = "", volume = "", address = "", keyFile = ""] = process.argv.slice(2);
const controller = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => controller.abort());

const common = {
  volume,
  key: readKey(keyFile),
  clock: systemClock(),
  random: systemRandom,
  log: () => {},
  signal: controller.signal,
};
if (what === "serve") await serveMirror({ ...common, listen: parseAddress(address), checkpointBytes: 4 << 20 });
else await runMirror({ ...common, to: parseAddress(address), intervalMs: 50, holder: snapshotHolder(volume) });
