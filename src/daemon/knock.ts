/**
 * Wakes the server thread, which sits in a read of /dev/fuse: somebody opens the root of the mount, which arrives there
 * as a request. One is under way at a time; when it comes back and the wake word is still set, the thread has not
 * seen it (the directory was unmounted, or another filesystem lies over ours), and it is tried again, more and more
 * slowly, in another place where the filesystem is mounted if there is one. After some of that the thread is told, by
 * another word, to look for itself from its next request on: who has a file open or a directory as its own is served, though
 * there is no way to the mount for anybody else.
 *
 * Somebody is a shell, for a thread of this process must not wait for an answer of its own mount: once the server has
 * read the request, that wait cannot be killed. After a kill -9 between the two the thread would stay, and with it
 * /dev/fuse, the lock of the volume, and everyone who uses the mount, for ever. The shell is another process: /dev/fuse is
 * closed, its request fails, and it ends as its input does. It opens the root because that waits for no lock of the kernel,
 * as looking a name up would, and because a shell can do it without a program.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { statfs } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { WORD_UNREACHED, WORD_WAKE } from "../fuse/kernel/loop.ts";
import { withoutFuse } from "../fuse/native/inherited-descriptors.ts";

const RETRY_MS_MIN = 5;
const RETRY_MS_MAX = 1000;
/** Whoever has been tried again at such intervals is not just slow to look. */
const UNREACHED_MS_MIN = 100;
/** A knock comes back when it is answered; where another filesystem that hangs lies over ours, it does not. */
const RETURN_MS_MAX = 1000;

/** It is told the place, says so when it has knocked, and lives as long as its input. */
const SHELL = 'trap "" INT TERM HUP; while IFS= read -r place; do { : < "$place"; } 2> /dev/null; echo; done';

export interface Knocker {
  /** To be called after the message was posted. Never blocks. */
  knock(): void;
  /** Has nobody of ours in the mount while something is done that finds it busy otherwise. Knocks come after it. */
  quietly<T>(doing: () => Promise<T>): Promise<T>;
}

export function knocker(
  mountPoint: string,
  wake: SharedArrayBuffer,
  findPlace: () => Promise<string | undefined>,
): Knocker {
  const words = new Int32Array(wake);
  let running = false;
  let again = false;
  let isQuiet = false;
  let onReturn: (() => void) | undefined;
  let asking = 0;
  let retryMs = RETRY_MS_MIN;
  let place = mountPoint;
  let shell: ChildProcess | undefined = openShell({
    knocked: () => void ended(),
    gone: () => {
      shell = undefined;
      if (running) void ended();
    },
  });

  function start(): void {
    running = true;
    again = false;
    shell?.stdin?.write(`${place}\n`);
    // The shell may not be there, or not be allowed to open the root.
    if (shell !== undefined && retryMs <= RETRY_MS_MIN) return;
    asking += 1;
    statfs(place, () => {
      asking -= 1;
      if (shell === undefined) void ended();
      else onReturn?.();
    });
  }

  async function ended(): Promise<void> {
    const seen = Atomics.load(words, WORD_WAKE) === 0;
    if (seen) retryMs = RETRY_MS_MIN;
    if (!seen && !again && !isQuiet) {
      await delay(retryMs, undefined, { ref: false });
      retryMs = Math.min(RETRY_MS_MAX, retryMs * 2);
      if (retryMs >= UNREACHED_MS_MIN) Atomics.store(words, WORD_UNREACHED, 1);
      place = (await findPlace()) ?? mountPoint;
    }
    running = false;
    onReturn?.();
    startIfWanted();
  }

  function startIfWanted(): void {
    if (!running && !isQuiet && Atomics.load(words, WORD_WAKE) === 1) start();
  }

  return {
    knock(): void {
      Atomics.store(words, WORD_WAKE, 1);
      Atomics.notify(words, WORD_WAKE); // it may be waiting for memory, and not in a read
      if (running) again = true;
      else startIfWanted();
    },
    async quietly(doing) {
      isQuiet = true;
      const returned = new Promise<void>((resolve) => {
        onReturn = () => (running || asking > 0 ? undefined : resolve());
      });
      onReturn?.();
      await Promise.race([returned, delay(RETURN_MS_MAX, undefined, { ref: false })]);
      try {
        return await doing();
      } finally {
        isQuiet = false;
        startIfWanted();
      }
    },
  };
}

interface ShellEvents {
  readonly knocked: () => void;
  readonly gone: () => void;
}

/** It keeps nothing alive: not this process, nor a mount by its working directory. */
function openShell({ knocked, gone }: ShellEvents): ChildProcess {
  let isGone = false;
  const leave = (): void => {
    if (!isGone) gone();
    isGone = true;
  };
  const shell = withoutFuse(["pipe", "pipe", "ignore"], (stdio) =>
    spawn("/bin/sh", ["-c", SHELL], { cwd: "/", stdio }),
  );
  shell.on("error", leave);
  shell.on("exit", leave);
  shell.stdin?.on("error", () => {}); // it has gone, as its exit tells
  shell.stdout?.on("data", knocked);
  shell.unref();
  for (const stream of [shell.stdin, shell.stdout]) (stream as unknown as { unref?: () => void }).unref?.();
  return shell;
}
