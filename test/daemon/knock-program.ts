// A program of knock.test.ts: mounts on FOLDER, knocks, reads the request that comes of it, and never answers.
import { readSync, writeSync } from "node:fs";
import { knocker } from "../../src/daemon/knock.ts";
import { systemClock } from "../../src/daemon/system.ts";
import { opcode, requestHeader } from "../../src/fuse/kernel/abi.ts";
import { makeConnection } from "../../src/fuse/kernel/connection.ts";
import { dispatch } from "../../src/fuse/kernel/dispatch.ts";
import { WAKE_WORDS } from "../../src/fuse/kernel/loop.ts";
import { mount } from "../../src/fuse/mount.ts";
import { memoryFileSystem } from "../support/memory-file-system.ts";

const directory = process.argv[2] ?? "";
const { descriptor } = await mount({ source: "memory", directory, readOnly: false, options: [] });
const connection = makeConnection({
  fileSystem: memoryFileSystem({ clock: systemClock() }),
  canSend: false,
  log: () => {},
});

function receive(): number {
  const lengthBytes = readSync(descriptor, connection.request, 0, connection.request.length, null);
  const code = requestHeader.get.opcode(connection.requestView, 0);
  if (code === opcode.INIT || code === opcode.GETATTR) {
    writeSync(descriptor, connection.reply, 0, dispatch(connection, lengthBytes));
  }
  return code;
}

receive();
knocker(directory, new SharedArrayBuffer(4 * WAKE_WORDS), () => Promise.resolve(directory)).knock();
setTimeout(() => {
  while (receive() === opcode.GETATTR);
  process.stdout.write("read\n");
}, 100);
setInterval(() => {}, 1000);
