/** Who keeps a mount busy: the answer to the first question after "target is busy". */
import { readdir, readFile, readlink } from "node:fs/promises";

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
