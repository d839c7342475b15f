/**
 * Where the processes of this host that serve a volume listen for commands: daemons, and the ends of mirrors. One directory
 * a user, closed to others; a socket in it is named by the device and inode number of the block file, so that every path
 * to a volume finds who serves it.
 */
import { createHash } from "node:crypto";
import { existsSync, linkSync, lstatSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../core/errors.ts";
import type { FileIdentity } from "../device/file-device.ts";

/** Identity of the block file behind a path; undefined when there is none. */
export function identityOf(path: string): FileIdentity | undefined {
  try {
    const { dev, ino } = statSync(path);
    return { dev, ino };
  } catch {
    return undefined;
  }
}

/** What the names of the volume's sockets begin with: 16 hexadecimal digits. */
export function volumeKey({ dev, ino }: FileIdentity): string {
  return createHash("sha256").update(`${dev}:${ino}`).digest("hex").slice(0, 16);
}

/** The path of a socket that has this name. */
export function socketNamed(name: string): string {
  return join(socketDirectory(), name);
}

export interface FoundSocket {
  readonly name: string;
  readonly path: string;
  /** Its inode number: whoever listens there next makes another file. */
  readonly ino: number;
}

/** All sockets of this user, also those that processes left when they were killed. UserError "failed". */
export function foundSockets(): readonly FoundSocket[] {
  const directory = socketDirectory();
  if (!existsSync(directory)) return [];
  checkOurs(directory); // who else could put a socket there would be asked in the place of ours
  const found: FoundSocket[] = [];
  for (const name of readdirSync(directory).toSorted()) {
    const path = join(directory, name);
    const ino = lstatSync(path, { throwIfNoEntry: false })?.ino;
    if (ino !== undefined) found.push({ name, path, ino });
  }
  return found;
}

/** Between naming its socket and listening there a process refuses as a dead one does. */
const SOCKET_AGE_MS_MIN = 10_000;

/**
 * Removes a socket that has refused. A process may have put its own in the same place since: what is taken away is looked at
 * once nobody else can change it, and put back if it is another one.
 */
export function removeDeadSocket({ path, ino }: Pick<FoundSocket, "path" | "ino">): void {
  const aside = `${path}.dead-${process.pid}`;
  try {
    if (Date.now() - lstatSync(path).mtimeMs < SOCKET_AGE_MS_MIN) return;
    renameSync(path, aside);
    if (lstatSync(aside).ino !== ino) linkSync(aside, path);
    rmSync(aside);
  } catch {
    // Somebody else has removed it, or will: it does no harm where it is.
  }
}

/** Makes the directory of the sockets: ours, and closed to others. */
export function makeSocketDirectory(): void {
  const directory = socketDirectory();
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  checkOurs(directory);
}

function checkOurs(directory: string): void {
  const { uid, mode } = lstatSync(directory);
  if (uid !== process.getuid?.() || (mode & 0o022) !== 0) {
    throw new UserError(
      "failed",
      `${directory} belongs to someone else or is open to others`,
      `chmod 700 ${directory}`,
    );
  }
}

function socketDirectory(): string {
  const uid = process.getuid?.() ?? 0;
  if (uid === 0) return "/run/tidemark";
  const runtime = process.env["XDG_RUNTIME_DIR"];
  return runtime === undefined || runtime === "" ? `/tmp/tidemark-${uid}` : join(runtime, "tidemark");
}
