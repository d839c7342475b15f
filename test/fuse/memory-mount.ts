/** A memory filesystem, mounted for one test: served by a worker thread, accessed by children only. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { closeSync, mkdtempSync, rmdirSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { Worker } from "node:worker_threads";
import type { Errand } from "../../src/fuse/kernel/connection.ts";
import { invalidateInode } from "../../src/fuse/kernel/notify.ts";
import { mount, unmount } from "../../src/fuse/mount.ts";
import { isMounted } from "../support/mounts.ts";
import { counter, type ServerData, type ServerMessage } from "./server-worker.ts";

export interface MemoryMount {
  readonly directory: string;
  readonly descriptor: number;
  readonly shared: Int32Array;
  readonly log: readonly string[];
  /** The next held reply. */
  held(): Promise<Uint8Array>;
  /** Wakes the server; 2: to stop. */
  readonly knock: (word: 1 | 2) => Promise<void>;
  /** How serving ended. */
  readonly ended: Promise<string>;
  /** Unmounts and waits until the server has ended. */
  unmount(): Promise<void>;
}

export type MemoryMountOptions = Partial<Omit<ServerData, "descriptor" | "shared">> & {
  readonly options?: readonly string[];
};

export async function mountMemory(t: TestContext, how: MemoryMountOptions = {}): Promise<MemoryMount> {
  const { readOnly = false, holdsFsync = false, writeDelayMs = 0, flushes = true, bugIn = "", options = [] } = how;
  const directory = mkdtempSync(join(tmpdir(), "tidemark-test-"));
  const { descriptor } = await mount({ source: "/volumes/a volume.tidemark", directory, readOnly, options });
  const shared = new Int32Array(new SharedArrayBuffer(64));
  const workerData: ServerData = { descriptor, shared, readOnly, holdsFsync, writeDelayMs, flushes, bugIn };
  const worker = new Worker(new URL("server-worker.js", import.meta.url), { workerData });
  const log: string[] = [];
  const waiting: Uint8Array[] = [];
  const wanted: ((reply: Uint8Array) => void)[] = [];
  const ended = new Promise<string>((settle) => {
    worker.on("message", (message: ServerMessage) => {
      if (message.kind === "log") log.push(message.text);
      else if (message.kind === "errand") void run(message.errand, message.request);
      else if (message.kind === "ended") settle(message.why);
      else {
        const next = wanted.shift();
        if (next === undefined) waiting.push(message.reply);
        else next(message.reply);
      }
    });
    worker.on("error", (error) => settle(`the worker failed: ${String(error)}`));
  });
  async function run(errand: Errand, request: Uint8Array): Promise<void> {
    assert(errand.kind === "write-back"); // there are no snapshots here
    await invalidateInode(descriptor, errand.node, { offset: errand.offset, lengthBytes: 0 });
    worker.postMessage(request, []);
    await knock(1);
  }
  async function knock(word: 1 | 2): Promise<void> {
    Atomics.store(shared, counter.wake, word);
    await statfs(directory);
  }
  const exited = once(worker, "exit");
  t.after(async () => {
    if (isMounted(directory)) await unmount(directory, { force: true, lazy: true });
    await ended;
    await exited;
    closeSync(descriptor);
    rmdirSync(directory); // fails if anything was ever written beneath the mount
  });
  return {
    directory,
    descriptor,
    shared,
    log,
    ended,
    knock,
    async held(): Promise<Uint8Array> {
      return waiting.shift() ?? (await new Promise((settle) => wanted.push(settle)));
    },
    async unmount(): Promise<void> {
      await unmount(directory);
      assert.equal(await ended, "unmounted");
      assert(!isMounted(directory));
    },
  };
}
