/** Who keeps a mount busy: the answer to the first question after "target is busy". And who has a copy of it. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { mountTable } from "../fuse/mount.ts";

const SHOWN_MAX = 5;

/** Processes with their directory, root, program, an open file or a mapping below the mount point, as "name (pid)". */
export async function mountHolders(mountPoint: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    if (await holds(pid, mountPoint)) found.push(`${await nameOf(pid)} (${pid})`);
    if (found.length >= SHOWN_MAX) break;
  }
  return found;
}

/** A place where a filesystem is mounted. */
export interface MountCopy {
  /** A directory here, or a process of another mount namespace: "name (pid)". */
  readonly name: string;
  /** How this process gets there, if it may. */
  readonly path: string;
}

/**
 * Where the filesystem of this number is mounted: directories here, and a process of each other mount namespace that
 * has it. Of the processes of other users only root is told.
 */
export async function mountCopies(device: string): Promise<readonly MountCopy[]> {
  const found: MountCopy[] = placesIn("self", device).map((path) => ({ name: path, path }));
  const seen = new Set(["", await readLinkOrNothing("/proc/self/ns/mnt")]);
  for (const pid of await readdir("/proc")) {
    if (found.length >= SHOWN_MAX) break;
    if (!/^\d+$/.test(pid)) continue;
    const namespace = await readLinkOrNothing(`/proc/${pid}/ns/mnt`);
    if (seen.has(namespace)) continue;
    seen.add(namespace);
    const [place] = placesIn(pid, device);
    if (place !== undefined) found.push({ name: `${await nameOf(pid)} (${pid})`, path: `/proc/${pid}/root${place}` });
  }
  return found;
}

/** A way to the filesystem of this number. */
export async function placeOf(device: string): Promise<string | undefined> {
  return placesIn("self", device)[0] ?? (await mountCopies(device))[0]?.path;
}

function placesIn(process: string, device: string): readonly string[] {
  try {
    const rows = mountTable(process).filter((row) => row.device === device);
    return rows.map(({ directory }) => directory);
  } catch {
    return []; // it has ended
  }
}

/** Reads links only: their text says where they point, and nothing of the mount is touched. */
async function holds(pid: string, mountPoint: string): Promise<boolean> {
  const links = [`/proc/${pid}/cwd`, `/proc/${pid}/root`, `/proc/${pid}/exe`];
  try {
    for (const fd of await readdir(`/proc/${pid}/fd`)) links.push(`/proc/${pid}/fd/${fd}`);
  } catch {
    return false; // it has ended, or is not ours
  }
  for (const link of links) {
    if (isBelow(await readLinkOrNothing(link), mountPoint)) return true;
  }
  try {
    const maps = await readFile(`/proc/${pid}/maps`, "utf8");
    return maps.split("\n").some((line) => isBelow(line.slice(line.indexOf("/")), mountPoint));
  } catch {
    return false;
  }
}

function isBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}

async function readLinkOrNothing(link: string): Promise<string> {
  try {
    return await readlink(link);
  } catch {
    return "";
  }
}

async function nameOf(pid: string): Promise<string> {
  try {
    return (await readFile(`/proc/${pid}/comm`, "utf8")).trim();
  } catch {
    return "?";
  }
}
