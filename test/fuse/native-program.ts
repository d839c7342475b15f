// A program of native-mount.test.ts: serves a filesystem in memory on FOLDER by the transport fuse-native, in one thread.
// "bug" throws, "never" is not answered, SIGUSR1 abandons. Its child sleeps: it must not have the descriptor of the mount.
import { spawn } from "node:child_process";
import { systemClock } from "../../src/daemon/system.ts";
import { mountNatively } from "../../src/fuse/mount.ts";
import { withoutFuse } from "../../src/fuse/native/inherited-descriptors.ts";
import { pathServer } from "../../src/fuse/native/path-server.ts";
import { memoryFileSystem } from "../support/memory-file-system.ts";

const log = (): void => {};
const server = pathServer({
  fileSystem: memoryFileSystem({ clock: systemClock() }),
  caller: { uid: 0, gid: 0 },
  log,
});
const { abandon } = await mountNatively({
  source: "memory",
  directory: process.argv[2] ?? "",
  log,
  ask(request, answer): void {
    if ("path" in request && request.path === "/bug") throw new TypeError("planted");
    if ("path" in request && request.path === "/never") process.stdout.write("asked\n");
    else answer(server.handle(request).reply);
  },
});
process.on("SIGUSR1", () => abandon());
// It is killed by the test; it must outlive the server.
const child = withoutFuse(["ignore", "ignore", "ignore"], (stdio) => spawn("sleep", ["300"], { stdio }));
process.stdout.write(`ready ${child.pid}\n`);
