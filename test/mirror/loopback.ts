// A source volume on a file, changed through the filesystem; a mirror of it in this process or another; and a link
// between them that can be cut, and can stop after so many bytes.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { manualClock } from "../../src/core/clock.ts";
import { FsError } from "../../src/core/errors.ts";
import { below, prng, type Random } from "../../src/core/prng.ts";
import { createFileDevice, openFileDevice } from "../../src/device/file-device.ts";
import { type OpenFileSystem, openFileSystem } from "../../src/fs/active.ts";
import { type Name, ROOT_NODE } from "../../src/fs/file-system.ts";
import { openReadOnly } from "../../src/image/open-state.ts";
import type { Address } from "../../src/mirror/connection.ts";
import { createKey, readKey } from "../../src/mirror/key.ts";
import { runMirror, type SnapshotHolder } from "../../src/mirror/run.ts";
import { type MirrorServeOptions, serveMirror } from "../../src/mirror/serve.ts";
import type { DestinationStatus, SourceStatus } from "../../src/mirror/status.ts";
import { mirrorStatuses } from "../../src/mirror/status-socket.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { createVolume } from "../../src/volume/create.ts";
import { openVolume } from "../../src/volume/open.ts";
import type { Volume } from "../../src/volume/volume.ts";
import { assertSameState } from "../image/histories.ts";

const PATIENCE_MS = 30_000;

/** Looks until it is so. Fails after half a minute. */
export async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  for (const endMs = performance.now() + PATIENCE_MS; performance.now() < endMs; await delay(5)) {
    if (await isSo()) return;
  }
  assert.fail(`waited in vain: ${what}`);
}

export interface SourceFile {
  readonly path: string;
  readonly volume: Volume;
  readonly fs: OpenFileSystem;
  readonly random: Random;
  readonly holder: SnapshotHolder;
  write(name: string, sizeBytes: number): void;
  remove(name: string): void;
  cp(): void;
}

export function makeSourceFile(t: TestContext, path: string, { blockCount = 4096, seed = 1 } = {}): SourceFile {
  const random = prng(seed);
  const clock = manualClock();
  const device = createFileDevice(path, blockCount);
  t.after(() => device.close());
  createVolume({ device, clock, random, label: "mirrored" });
  const volume = openVolume({ device, clock, random, writable: true });
  const fs = openFileSystem({ volume, clock });

  return {
    path,
    volume,
    fs,
    random,
    write(name, sizeBytes): void {
      clock.advanceMs(1 + below(random, 1000));
      const bytes = new Uint8Array(sizeBytes);
      const words = new Uint32Array(bytes.buffer, 0, sizeBytes >>> 2);
      for (let at = 0; at < words.length; at += 1) words[at] = random.u32();
      let handle;
      try {
        ({ handle } = fs.create(ROOT_NODE, name as Name, 0o100644, 2, { uid: 1000, gid: 1000 }));
      } catch (error) {
        if (!(error instanceof FsError) || error.code !== "EEXIST") throw error;
        ({ handle } = fs.open(fs.lookup(ROOT_NODE, name as Name).nodeId, 2));
      }
      fs.write(handle, 0, bytes, 0, bytes.length, { fromCache: false, killPriv: false });
      fs.release(handle);
    },
    remove: (name) => fs.unlink(ROOT_NODE, name as Name),
    cp: () => volume.takeCp("sync"),
    holder: {
      dirtyBytes: () => Promise.resolve(volume.dirtyBytes),
      take(name): Promise<void> {
        volume.createSnapshot(name, { mirror: true });
        volume.takeCp("snapshot");
        return Promise.resolve();
      },
      drop(name): Promise<void> {
        volume.deleteSnapshot(name);
        volume.takeCp("snapshot");
        return Promise.resolve();
      },
    },
  };
}

export function makeKey(directory: string, name = "key"): Uint8Array {
  const path = join(directory, name);
  createKey(path, { force: false });
  return readKey(path);
}

export interface Running {
  readonly lines: string[];
  /** Settles when it has ended; stops it first when asked to. */
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

function running(t: TestContext, start: (signal: AbortSignal, log: (line: string) => void) => Promise<void>): Running {
  const lines: string[] = [];
  const controller = new AbortController();
  const ended = start(controller.signal, (line) => void lines.push(line));
  ended.catch(() => {}); // told to who waits for it
  t.after(async () => {
    controller.abort();
    await ended.catch(() => {});
  });
  return {
    lines,
    ended,
    async stop(): Promise<void> {
      controller.abort();
      await ended;
    },
  };
}

/** `mirror serve` in this process. */
export async function startServe(
  t: TestContext,
  options: Pick<MirrorServeOptions, "volume" | "key" | "checkpointBytes"> & { readonly listen?: Address },
): Promise<Running & { readonly address: Address }> {
  let address: Address | undefined;
  const { listen = { host: "127.0.0.1", port: 0 } } = options;
  const serve = running(t, (signal, log) =>
    serveMirror({
      ...options,
      listen,
      clock: { now: wallClock },
      random: prng(99),
      log,
      signal,
      onListening: (bound) => {
        address = bound;
      },
    }),
  );
  let ended = false;
  serve.ended
    .catch(() => {})
    .finally(() => {
      ended = true;
    });
  await until("the mirror listens", () => address !== undefined || ended);
  if (address === undefined) await serve.ended;
  assert.ok(address !== undefined);
  return { ...serve, address };
}

/** `mirror run` in this process. */
export function startRun(
  t: TestContext,
  { path, holder }: Pick<SourceFile, "path" | "holder">,
  { to, key, intervalMs = 20, seed = 5 }: { to: Address; key: Uint8Array; intervalMs?: number; seed?: number },
): Running {
  return running(t, (signal, log) =>
    runMirror({
      volume: path,
      to,
      key,
      intervalMs,
      holder,
      clock: { now: wallClock },
      random: prng(seed),
      log,
      signal,
    }),
  );
}

function wallClock(): { seconds: number; nanoseconds: number } {
  const ms = Date.now();
  return { seconds: Math.floor(ms / 1000), nanoseconds: (ms % 1000) * 1e6 };
}

export async function sourceStatus(path: string): Promise<SourceStatus | undefined> {
  const found = await mirrorStatuses(path);
  return found.find((status) => status.role === "source");
}

export async function destinationStatus(path: string): Promise<DestinationStatus | undefined> {
  const found = await mirrorStatuses(path);
  return found.find((status) => status.role === "destination");
}

/** True when the mirror's active filesystem is the source's last consistency point. */
export function isCurrent(source: SourceFile, mirror: string): boolean {
  if (!existsSync(mirror)) return false;
  const device = openFileDevice(mirror, { writable: false });
  try {
    const { committed } = openReadOnly(device);
    return Buffer.compare(committed.inodeFile.pointers, source.volume.committed.inodeFile.pointers) === 0;
  } catch {
    return false; // not there yet
  } finally {
    device.close();
  }
}

/** The mirror checks clean and equals the source, block by block. */
export function assertMirrored(source: SourceFile, mirror: string): void {
  const device = openFileDevice(mirror, { writable: false });
  try {
    assert.deepEqual(checkVolume(device).findings, []);
    const { committed } = openReadOnly(device);
    assert.deepEqual(committed.inodeFile, source.volume.committed.inodeFile);
    assertSameState(source.volume.device, device, committed.inodeFile);
  } finally {
    device.close();
  }
}

/** Changes are committed and the mirror has them. */
export async function follow(source: SourceFile, mirror: string): Promise<void> {
  source.cp();
  await until("the mirror follows", () => isCurrent(source, mirror));
}

export interface Proxy {
  readonly address: Address;
  /** Bytes that went from the source to the destination. */
  readonly forwarded: number;
  /** Forwards so many bytes from now on, then nothing, and tells nobody. */
  allow(bytes: number): void;
  cut(): void;
}

/** A link between a source and the destination at `to`. */
export async function makeProxy(t: TestContext, to: Address): Promise<Proxy> {
  const sockets = new Set<Socket>();
  const paused = new Set<() => void>();
  let forwarded = 0;
  let allowed = Number.POSITIVE_INFINITY;
  const server: Server = createServer((near) => {
    const far = createConnection(to.port, to.host);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one);
      one.on("error", () => void other.destroy());
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
    far.pipe(near);
    near.on("data", (chunk: Uint8Array) => {
      const pass = (): void => {
        if (allowed <= 0) {
          near.pause();
          paused.add(pass);
          return;
        }
        forwarded += chunk.length;
        allowed -= chunk.length;
        if (far.write(chunk)) near.resume();
        else {
          near.pause();
          far.once("drain", () => near.resume());
        }
      };
      pass();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
    paused.clear();
  };
  t.after(() => {
    cut();
    server.close();
  });
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  return {
    address: { host: "127.0.0.1", port: bound.port },
    get forwarded() {
      return forwarded;
    },
    allow(bytes): void {
      allowed = bytes;
      const waiting = [...paused];
      paused.clear();
      for (const pass of waiting) pass();
    },
    cut,
  };
}

/** `mirror serve` or `mirror run` in a process of its own: mirror-process.ts. Killed when the test has ended. */
export function startProcess(
  t: TestContext,
  what: "serve" | "run",
  volume: string,
  address: string,
  { key, prefix = [] }: { readonly key: string; readonly prefix?: readonly string[] },
): ChildProcess {
  const script = fileURLToPath(new URL("mirror-process.js", import.meta.url));
  const [command, ...more] = [...prefix, process.execPath];
  assert.ok(command !== undefined);
  const child = spawn(command, [...more, "--enable-source-maps", script, what, volume, address, key], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  return child;
}
