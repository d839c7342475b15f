import { command } from "../command.ts";
import { interruption } from "../interrupt.ts";
import { makeOutput } from "../output.ts";

export const mirrorServeCommand = command({
  command: "serve <volume>",
  usage: "mirror serve VOLUME --listen HOST:PORT --key FILE",
  summary: "Receive a mirror, consistent at every instant and mountable read-only, until SIGINT or SIGTERM stop it.",
  examples: [
    ["$0 mirror serve /srv/mirror.tm --listen 0.0.0.0:7400 --key mirror.key", "on the host of the mirror"],
    ["$0 mount /srv/mirror.tm /mnt/mirror --read-only", "and see it move, at any time"],
  ],
  exits: ["no-volume", "in-use", "corrupt", "mismatch", "interrupted"],
  options: (yargs) =>
    yargs
      .positional("volume", { type: "string", demandOption: true, describe: "Block file, made when it is not there" })
      .option("listen", { type: "string", demandOption: true, requiresArg: true, describe: "Address, as HOST:PORT" })
      .option("key", { type: "string", demandOption: true, requiresArg: true, describe: "File that both ends have" }),
  async run({ volume, listen, key, json }) {
    const signal = interruption(); // from the start: it is asked to stop, whenever it is
    const { serveMirror } = await import("../../mirror/serve.ts");
    const { formatAddress, parseAddress } = await import("../../mirror/connection.ts");
    const { readKey } = await import("../../mirror/key.ts");
    const { hostWriteBack } = await import("../../daemon/host-write-back.ts");
    const { systemClock, systemRandom } = await import("../../daemon/system.ts");
    const output = makeOutput({ json });
    await serveMirror({
      volume,
      listen: parseAddress(listen),
      key: readKey(key),
      clock: systemClock(),
      random: systemRandom,
      writeBack: hostWriteBack(),
      log: (line) => output.event("log", line),
      onListening: (address) => output.event("listening", `listening on ${formatAddress(address)}`),
      signal,
    });
  },
});
