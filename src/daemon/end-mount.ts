/**
 * Taking the mount away, from inside its daemon. What unmounting the directory leaves:
 *
 *    nothing      the kernel tells the server thread, which ends: the answer comes when everything is durable
 *    a copy       another namespace (a container) or a bind mount has the filesystem still: it goes on being served there until
 *                 the last one is gone, as the kernel does with any filesystem; everything is made durable, and who has
 *                 it is told. By force it is cut off
 *    a busy mount is refused, and says who uses it. By force it is cut off
 *
 * Cutting off: the server thread stops and closes the volume, the descriptor of /dev/fuse goes with it, and from then on whoever
 * uses the mount gets ENOTCONN. That needs no privilege and no control filesystem of FUSE.
 */
import { setTimeout as delay } from "node:timers/promises";
import { UserError } from "../core/errors.ts";
import { mountDevice, unmount } from "../fuse/mount.ts";
import type { FrontDoor } from "./front-door.ts";
import { mountCopies, mountHolders } from "./holders.ts";
import type { ServerLink } from "./server-link.ts";

export interface EndingMount {
  readonly mountPoint: string;
  /** Its number, as the mount table has it. */
  readonly device: string;
  readonly writes: boolean;
  readonly link: ServerLink;
  readonly door: Pick<FrontDoor, "quietly" | "syncPages">;
  /** Is it mounted anywhere? False when it has ended. */
  readonly isServed: () => boolean;
  /** Resolves when the volume is closed and unlocked. */
  readonly ended: Promise<void>;
}

/** A namespace that is being made has copies of all mounts for a moment: so long they are waited for. */
const COPIES_MS_MAX = 5000;

const UNSEEN = "something that cannot be seen from here";

/** Resolves with nothing when the mount has ended, else with who keeps it. UserError "in-use" when it is busy. */
export async function endMount(mount: EndingMount, { force }: { readonly force: boolean }): Promise<readonly string[]> {
  const { mountPoint, device, isServed, ended } = mount;
  if (mountDevice(mountPoint) === device) await unmountHere(mount, force);
  if (isServed() && !force) await Promise.race([ended, delay(COPIES_MS_MAX, undefined, { ref: false })]);
  if (isServed()) {
    const copies = await mountCopies(device);
    const names = copies.length === 0 ? [UNSEEN] : copies.map(({ name }) => name);
    if (!force) return names;
    if (copies.length === 0) throw unreachable(mountPoint);
    await cutOff(mount);
  }
  await ended;
  return [];
}

/** Unmounts the directory. A copy of the mount may stay, so everything is durable before. */
async function unmountHere(mount: EndingMount, force: boolean): Promise<void> {
  const { mountPoint } = mount;
  await makeDurable(mount);
  try {
    await mount.door.quietly(() => unmount(mountPoint));
  } catch (error) {
    if (!(error instanceof UserError) || error.failure !== "in-use") throw error;
    if (!force) throw await busyError(mountPoint, error);
    if (mount.writes) await mount.door.syncPages().catch(() => {});
    await cutOff(mount);
    await unmount(mountPoint, { lazy: true });
  }
}

/** A volume that has failed is unmounted all the same. */
async function makeDurable({ writes, link }: EndingMount): Promise<void> {
  if (writes) await link.perform({ verb: "sync", arguments: {} }).catch(() => {});
}

/** Stops the server thread. It has to be reached by a way that leads into the mount, so the mount goes later. */
async function cutOff({ link }: EndingMount): Promise<void> {
  link.post({ kind: "stop" });
  await link.ended.catch(() => {}); // the daemon tells
}

function unreachable(mountPoint: string): UserError {
  const message = `${mountPoint} is unmounted, but ${UNSEEN} uses it, and cannot be cut off`;
  return new UserError("in-use", message, `end it, or end the daemon: kill -9 ${process.pid}`);
}

async function busyError(mountPoint: string, cause: UserError): Promise<UserError> {
  const holders = await mountHolders(mountPoint);
  const who = holders.length === 0 ? "" : `, by ${holders.join(", ")}`;
  const hint = "end what uses it, or cut it off with: tidemark umount --force DIR";
  return new UserError("in-use", `${mountPoint} is in use${who}`, hint, { cause });
}
