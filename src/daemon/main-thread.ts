/**
 * The daemon of one mount: one process, two threads.
 *
 *    commands                              applications
 *       | control socket                        | FUSE
 *   +---v-------------+   messages, knock   +---v----------------------------+
 *   | main thread     |-------------------->| server thread                  |
 *   |  lock, timers,  |                     |  FUSE loop, filesystem, volume |
 *   |  flush, fsinfo, |<--------------------|  all of it synchronous         |
 *   |  held replies   |   frozen CPs, held  +--------------------------------+
 *   +-----------------+   replies, results
 *
 * The life of a consistency point: the server thread writes its blocks and posts it here, frozen; this thread flushes
 * the block file, writes fsinfo to both places, lets go of the replies that waited for it, and tells the server thread,
 * which may from then on use the blocks that it freed. If any of this fails, the volume has failed: what waits is
 * answered with EIO, the last durable state stays on disk, nothing is written any more, and reads go on.
 *
 * This thread must never touch the mount synchronously: only it can give what the server thread may be waiting for.
 *
 * The end, whoever asks for it, is an unmount (end-mount.ts): the server thread then finds its mount gone, takes a last
 * consistency point and closes the volume; the lock goes, and last the answer to who asked. A daemon that is killed leaves the last
 * durable state, and a mount point that answers ENOTCONN until it is unmounted.
 */
import assert from "node:assert/strict";
import { fstatSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { BLOCK_BYTES } from "../core/block.ts";
import { errnoOf } from "../core/errors.ts";
import { assertNever } from "../core/numbers.ts";
import { type FileDevice, openFileDevice } from "../device/file-device.ts";
import { lockVolume } from "../device/volume-lock.ts";
import type { ControlRequest } from "../format/control-message.ts";
import type { Damage, DamageCounts } from "../fs/damage.ts";
import { type DurableAt, type Name, ROOT_NODE } from "../fs/file-system.ts";
import { limitDirtyPages } from "../fuse/kernel/backing-device.ts";
import type { Errand } from "../fuse/kernel/connection.ts";
import { errorReply, sendReply } from "../fuse/kernel/loop.ts";
import { invalidateEntry, invalidateInode } from "../fuse/kernel/notify.ts";
import { MOUNT_TYPE, mountDevice, mountTable, unmount } from "../fuse/mount.ts";
import type { PathReply } from "../fuse/native/path-request.ts";
import { identityOf } from "../mirror/socket-directory.ts";
import type { CpCause, FrozenCp } from "../volume/volume.ts";
import { openCommitter } from "./commit.ts";
import type { MountConfig } from "./config.ts";
import { socketPath } from "./control-paths.ts";
import { type ControlServer, listenForControl } from "./control-socket.ts";
import {
  DAMAGE_PLACES_MAX,
  type DaemonStatus,
  type DamageSummary,
  damageText,
  type Unmounted,
} from "./daemon-status.ts";
import { endMount } from "./end-mount.ts";
import { type FollowWatch, watchForCps } from "./follow-watch.ts";
import { type FrontDoor, openFrontDoor, pathRequests } from "./front-door.ts";
import { hostWriteBack } from "./host-write-back.ts";
import { openLightSleep } from "./light-sleep.ts";
import type { DaemonLog } from "./log.ts";
import { type LogLink, startLog } from "./log-link.ts";
import { type ServerEvent, type ServerLink, startServer } from "./server-link.ts";
import { isVolumeRequest, syncsFirst, type VolumeSummary } from "./volume-verbs.ts";
import { type WaitingRoom, waitingRoom } from "./waiting-room.ts";
import { keptBlocksOf } from "./write-back-room.ts";

/** How long the status waits for the server thread. */
const STATUS_MS_MAX = 5000;

/** A running daemon, seen from the process that it is. */
export interface Daemon {
  /** Resolves when the volume is unmounted and closed; rejects when it ended in a failure. */
  readonly ended: Promise<void>;
  /** Unmounts: see end-mount.ts. UserError "in-use" when the mount is busy, unless it is forced. */
  unmount(how: { readonly force: boolean }): Promise<Unmounted>;
  /** On its directory. If not, copies of the mount are what keeps the daemon. */
  isMounted(): boolean;
}

/** What the handlers of this file share. It changes only here. */
interface State {
  readonly config: MountConfig;
  readonly startedAt: string;
  readonly log: DaemonLog;
  phase: "serving" | "failed" | "ending";
  failure: string | undefined;
  lastError: { readonly message: string; readonly at: string } | undefined;
  cpsCommitted: number;
  cpLastMs: number | undefined;
  cpLastCause: CpCause | undefined;
  readonly cpCauses: Partial<Record<CpCause, number>>;
  damage: DamageSummary;
}

/**
 * Opens the volume, mounts it, serves it. Resolves when requests are being answered. UserError when that cannot be:
 * everything is then as it was before.
 */
export async function startDaemon(config: MountConfig, log: DaemonLog): Promise<Daemon> {
  const state: State = {
    config,
    startedAt: new Date().toISOString(),
    log,
    phase: "serving",
    failure: undefined,
    lastError: undefined,
    cpsCommitted: 0,
    cpLastMs: undefined,
    cpLastCause: undefined,
    cpCauses: {},
    damage: { checksum: 0, unreadable: 0, structure: 0, places: [] },
  };
  const writes = config.mode.kind === "write";
  const device = openFileDevice(config.volume, { writable: writes });
  try {
    if (writes) lockVolume(device);
    return await serveVolume(state, device);
  } catch (error) {
    device.close();
    throw error;
  }
}

async function serveVolume(state: State, device: FileDevice): Promise<Daemon> {
  const { config, log } = state;
  const { dev, ino } = fstatSync(device.descriptor);
  const { volume: blockFile, mode, dirtyBytesMax, cacheBytesMax, mountPoint } = config;
  const committer = mode.kind === "write" ? await openCommitter(blockFile, { dev, ino }) : undefined;
  const changeLog =
    mode.kind !== "write"
      ? undefined
      : startLog(
          {
            blockFile,
            identity: { dev, ino },
            logFile: config.changeLog.kind === "file" ? config.changeLog.path : blockFile,
          },
          { onDurable: (seq) => waiting.durable(seq), onFailure: (message) => failed(message) },
        );
  let door: FrontDoor | undefined;
  let mountedAs = "";
  const waiting: WaitingRoom = waitingRoom();
  const lightSleep = config.processorSleep === "light" ? openLightSleep() : undefined;
  const writeBack = hostWriteBack();
  const stale: Promise<void>[] = []; // notifications to the kernel that an answer must wait for

  const link = startServer(
    {
      blockFile,
      identity: { dev, ino },
      mode,
      accessTimes: config.accessTimes,
      snapshotDirectories: config.snapshotDirectories,
      dirtyBytesMax,
      cacheBytesMax,
      durability: config.durability,
      changeLog: config.changeLog,
      log: changeLog?.line,
      pulse: lightSleep?.shared,
    },
    (event) => void receive(event),
  );

  const requests = pathRequests((message) => link.post(message));
  const reportError = (error: unknown): void => report(state, String(error));

  async function receive(event: ServerEvent): Promise<void> {
    switch (event.kind) {
      case "busy":
        lightSleep?.hold();
        return;
      case "written":
        writeBack.begin(device.descriptor, event.vbn * BLOCK_BYTES, event.count * BLOCK_BYTES);
        return;
      case "frozen":
        await commit(event.cp);
        return;
      case "held":
        hold(event.durableAt, event.reply);
        return;
      case "answered":
        answerPath(event.id, event.durableAt, event.reply);
        return;
      case "failed":
        fail(event.message);
        return;
      case "log":
        report(state, event.message);
        return;
      case "full":
        report(state, event.message, { log: event.again ? () => {} : state.log });
        return;
      case "damage":
        noteDamage(state, event.counts, event.first);
        return;
      case "errand":
        await runErrand(event.errand, event.request);
        return;
      case "drain":
        await drain(event.dirtyPagesBytesMax, event.delayMs);
        return;
      case "allow":
        limitDirtyPages(mountedAs, event.dirtyPagesBytesMax);
        return;
      case "unfinished":
        link.post({ kind: "go-on" });
        return;
      case "stale":
        if (door !== undefined) stale.push(forgetRoot(door.descriptor, event.names).catch(reportError));
    }
  }

  /** Makes it durable, and only then says so: to the kernel, to the server thread. */
  async function commit(cp: FrozenCp): Promise<void> {
    const startMs = performance.now();
    try {
      await committer?.commit(cp);
    } catch (error) {
      failed(`cannot write ${blockFile}: ${error instanceof Error ? error.message : String(error)}`);
      return;
    }
    state.cpsCommitted += 1;
    state.cpLastMs = performance.now() - startMs;
    state.cpLastCause = cp.cause;
    state.cpCauses[cp.cause] = (state.cpCauses[cp.cause] ?? 0) + 1;
    waiting.durable(cp.logSeq);
    link.post({ kind: "committed", cpCount: cp.cpCount });
  }

  function hold(durableAt: DurableAt, reply: Uint8Array): void {
    waiting.hold(durableAt, { release: () => send(reply), fail: () => send(errorReply(reply)) });
  }

  function send(reply: Uint8Array): void {
    if (door !== undefined) sendReply(door.descriptor, reply);
  }

  function answerPath(id: number, durableAt: DurableAt, reply: PathReply): void {
    waiting.hold(durableAt, {
      release: () => requests.answered(id, reply),
      fail: () => requests.answered(id, { result: -errnoOf("EIO") }),
    });
  }

  async function runErrand(errand: Errand, request: Uint8Array): Promise<void> {
    if (errand.kind === "write-back") {
      const { node, offset } = errand;
      if (door !== undefined) {
        await invalidateInode(door.descriptor, node, { offset, lengthBytes: 0 }).catch(reportError);
      }
      link.post({ kind: "again", request, result: 0 });
      return;
    }
    const verb = errand.request;
    try {
      assert(isVolumeRequest(verb));
      if (syncsFirst(verb.verb)) await door?.syncPages();
      link.post({ kind: "errand-verb", verb, request });
    } catch (error) {
      reportError(error);
      link.post({ kind: "again", request, result: errnoOf("EIO") });
    }
  }

  async function drain(dirtyPagesBytesMax: number, delayMs: number): Promise<void> {
    const kept = limitDirtyPages(mountedAs, dirtyPagesBytesMax);
    if (delayMs > 0) await delay(delayMs);
    await door?.drainPages().catch(reportError);
    link.post({ kind: "drained", dirtyPagesBytesMax: kept });
  }

  /** Something could not be made durable: the server thread must know. */
  function failed(message: string): void {
    fail(message);
    link.post({ kind: "failed", message });
  }

  function fail(message: string): void {
    if (state.failure !== undefined) return; // the server thread says it too, when it is told
    if (state.phase === "serving") state.phase = "failed";
    state.failure = message;
    report(state, `the volume has failed, and is read-only until it is mounted again: ${message}`);
    waiting.failed(message);
  }

  let control: ControlServer | undefined;
  let watching: FollowWatch | undefined;
  try {
    const opened = await link.opened;
    if (mode.kind === "write") await clearAway(config);
    const dirtyPagesBytesMax = keptBlocksOf(opened) * BLOCK_BYTES;
    door = await openFrontDoor(config, link, {
      requests,
      dirtyPagesBytesMax,
      log: (message) => report(state, message),
    });
    await door.serve();
    mountedAs = mountDevice(mountPoint) ?? "";
    const path = socketPath({ dev, ino }, mode.kind === "write" ? undefined : process.pid);
    control = await listenForControl(path, (request) => answer(request));
    if (mode.kind === "follow") watching = await follow(link, blockFile, opened);
  } catch (error) {
    control?.close();
    if (door === undefined) link.post({ kind: "stop" });
    else await unmount(mountPoint, { lazy: true }).catch(() => {});
    await link.ended.catch(() => {});
    await changeLog?.close();
    lightSleep?.close();
    door?.close();
    await committer?.close();
    await writeBack.end();
    throw error;
  }
  log(`${blockFile} is mounted on ${mountPoint}`);

  const timer = setInterval(() => {
    if (state.phase === "serving") link.post({ kind: "take-cp", cause: "timer" });
  }, config.cpIntervalMs);
  if (mode.kind !== "write") clearInterval(timer);

  const ended = finish();
  ended.catch(() => {}); // who waits for it hears of it

  /** Waits for the end of the mount, and takes down everything else. */
  async function finish(): Promise<void> {
    try {
      await link.ended;
    } catch (error) {
      report(state, error instanceof Error ? error.message : String(error));
      throw error;
    } finally {
      state.phase = "ending";
      clearInterval(timer);
      control?.close();
      await watching?.close();
      await changeLog?.close();
      lightSleep?.close();
      await committer?.close();
      await writeBack.end();
      door?.close();
      device.close(); // and with it the lock
      log(`${blockFile} is unmounted from ${mountPoint}`);
    }
  }

  function isServed(): boolean {
    return state.phase !== "ending" && door?.isServed() === true;
  }

  async function end(how: { readonly force: boolean }): Promise<Unmounted> {
    assert(door !== undefined);
    const writes = mode.kind === "write";
    const keptBy = await endMount({ mountPoint, device: mountedAs, writes, link, door, isServed, ended }, how);
    if (keptBy.length > 0) log(`${blockFile} is unmounted from ${mountPoint}, and served to ${keptBy.join(", ")}`);
    return { volume: blockFile, mountPoint, keptBy };
  }

  async function answer(request: ControlRequest): Promise<unknown> {
    if (isVolumeRequest(request)) {
      if (mode.kind === "write" && syncsFirst(request.verb)) await door?.syncPages();
      const value = await link.perform(request);
      await Promise.all(stale.splice(0));
      return value;
    }
    switch (request.verb) {
      case "status":
        return status(state, { link, waiting, changeLog });
      case "umount":
        return end(request.arguments);
      default:
        return assertNever(request);
    }
  }

  return { ended, unmount: end, isMounted: () => mountDevice(mountPoint) === mountedAs };
}

/** Tells the server thread of each newer consistency point. */
async function follow(link: ServerLink, blockFile: string, opened: VolumeSummary): Promise<FollowWatch> {
  const watching = await watchForCps(blockFile, opened.cpCount, () => link.post({ kind: "follow" }));
  link.post({ kind: "follow" }); // what was committed between the opening and the watching
  return watching;
}

/** What a killed daemon of this volume has left on the directory: the lock, which we have, says that it is dead. */
async function clearAway({ volume, mountPoint }: MountConfig): Promise<void> {
  const row = mountTable().findLast(({ directory }) => directory === mountPoint);
  if (row?.type !== MOUNT_TYPE) return;
  // The source is a path as somebody gave it. One that was relative tells nothing, but the mount does.
  const isOurs = isAbsolute(row.source) ? isSameFile(row.source, volume) : await isDead(mountPoint);
  if (isOurs) await unmount(mountPoint, { lazy: true });
}

function isSameFile(one: string, other: string): boolean {
  const [a, b] = [identityOf(one), identityOf(other)];
  return a !== undefined && a.dev === b?.dev && a.ino === b.ino;
}

async function isDead(mountPoint: string): Promise<boolean> {
  try {
    await statfs(mountPoint);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOTCONN";
  }
}

/** The filesystem was set back: nothing that the kernel knows of the root holds any more. */
async function forgetRoot(descriptor: number, names: readonly Name[]): Promise<void> {
  await invalidateInode(descriptor, ROOT_NODE, { offset: 0, lengthBytes: 0 });
  for (const name of names) await invalidateEntry(descriptor, ROOT_NODE, name);
}

/** What knows of the daemon what its state does not. */
interface Parts {
  readonly link: ServerLink;
  readonly waiting: WaitingRoom;
  readonly changeLog: LogLink | undefined;
}

async function status(state: State, { link, waiting, changeLog }: Parts): Promise<DaemonStatus> {
  const { config } = state;
  return {
    volume: config.volume,
    mountPoint: config.mountPoint,
    mode: config.mode.kind,
    snapshot: config.mode.kind === "snapshot" ? config.mode.name : undefined,
    pid: process.pid,
    startedAt: state.startedAt,
    transport: config.transport,
    state: state.phase,
    failure: state.failure,
    lastError: state.lastError?.message,
    lastErrorAt: state.lastError?.at,
    cpIntervalMs: config.cpIntervalMs,
    cpsCommitted: state.cpsCommitted,
    cpLastMs: state.cpLastMs,
    cpLastCause: state.cpLastCause,
    cpCauses: state.cpCauses,
    logCounts: changeLog?.counts(),
    heldReplies: waiting.count,
    damage: state.damage,
    details: await detailsInTime(link),
  };
}

async function detailsInTime(link: ServerLink): Promise<VolumeSummary | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), STATUS_MS_MAX);
  });
  try {
    return await Promise.race([link.perform({ verb: "volume-status", arguments: {} }), late]);
  } finally {
    clearTimeout(timer);
  }
}

function report(state: State, message: string, { log }: Pick<State, "log"> = state): void {
  state.lastError = { message, at: new Date().toISOString() };
  log(message);
}

function noteDamage(state: State, counts: DamageCounts, first: Damage | undefined): void {
  const { places } = state.damage;
  const isListed = first !== undefined && places.length < DAMAGE_PLACES_MAX;
  state.damage = { ...counts, places: isListed ? [...places, first] : places };
  if (first !== undefined) report(state, `damage: ${damageText(first)}`);
}
