/**
 * Mounting: how a directory comes to be served.
 *
 * Theory. A FUSE mount is a descriptor of /dev/fuse that the kernel knows by number at mount time. Root needs no
 * native code for it: this process opens /dev/fuse, and mount(8), as a child, inherits it as its descriptor 3 and
 * passes `fd=3` on. From then on requests can be read from the descriptor; the first is INIT, and every access to
 * the directory waits until it is answered, so the server starts at once.
 *
 *     open /dev/fuse --> mount -i -t fuse.tidemark -o fd=3,... SOURCE DIR --> serve(descriptor) --> umount DIR
 *                        fails: UserError, descriptor closed                  reads ENODEV: "unmounted"
 *
 * Node opens with close-on-exec: no other child holds the descriptor, and when the process dies, however it dies, the
 * mount fails with ENOTCONN at once, rather than hang. What remains is the mount point, which umount(8) removes.
 *
 * The process must never touch its own mount synchronously: the thread would wait for itself. Therefore nothing here
 * looks at DIR once it is mounted but children, and /proc/self/mountinfo, which asks no filesystem.
 *
 * Permissions are the kernel's business (default_permissions), with the modes and owners that we report; other users
 * than the one who mounted are let in (allow_other), as on any filesystem. An ordinary user mounts through fusermount3
 * (kernel/fusermount.ts), and lets others in where the administrator has allowed that.
 *
 * Only mounting loads code when it is needed. A daemon may unmount months later, when a new installation has taken the
 * place of the files that it was started from.
 */
import { spawn } from "node:child_process";
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { UserError } from "../core/errors.ts";
import { dirtyPagesWanted, limitDirtyPages, readAhead } from "./kernel/backing-device.ts";
import { mountAsUser, unmountAsUser } from "./kernel/fusermount.ts";
import { withoutFuse } from "./native/inherited-descriptors.ts";
import type { Ask } from "./native/path-request.ts";
import type { NativeMount } from "./native/transport.ts";

const MOUNT_SUBTYPE = "tidemark";
export const MOUNT_TYPE = `fuse.${MOUNT_SUBTYPE}`;

export interface MountOptions {
  /** First column of the mount table: the path of the volume as the user gave it. */
  readonly source: string;
  readonly directory: string;
  /** What the kernel may keep of what is written, and not hand over yet. */
  readonly dirtyPagesBytesMax?: number;
  readonly readOnly?: boolean;
  /** Options of mount(8), such as noatime, nosuid, nodev. */
  readonly options?: readonly string[];
}

export interface Mounted {
  /** To be served, and closed when serving has ended. */
  readonly descriptor: number;
  readonly directory: string;
  /** What the kernel does keep, at most: more where it cannot be told. */
  readonly dirtyPagesBytesMax: number;
}

export interface NativeMountOptions extends MountOptions {
  /** Called in this thread, which must be the first of the process, for each request by path. */
  readonly ask: Ask;
  readonly log: (message: string) => void;
}

/** Its descriptor is libfuse's own, which serves and closes it. */
export type NativelyMounted = Omit<Mounted, "dirtyPagesBytesMax"> & Pick<NativeMount, "ended" | "abandon">;

/** Installed with the command, or not. With it umount(8) returns when everything is durable. */
const UMOUNT_HELPER = `/sbin/umount.${MOUNT_TYPE}`;
/** Set anyway, so they may be asked for. For an ordinary user allow_other is a wish that can be refused. */
const ALWAYS_SET = new Set(["allow_other", "default_permissions"]);
/** What the transport sets itself. */
const RESERVED_OPTIONS = /^(fd|rootmode|user_id|group_id|blksize|subtype|fsname|remount|bind|move)(=|$)/;

/** Mounts, and returns before anything is served. Throws UserError with the reason and what to do. */
export async function mount({
  source,
  directory,
  dirtyPagesBytesMax = dirtyPagesWanted(),
  readOnly = false,
  options = [],
}: MountOptions): Promise<Mounted> {
  const target = checkedTarget(directory, options);
  const descriptor = isRoot()
    ? await mountAsRoot(source, target, [
        readOnly ? "ro" : "rw",
        ...options.filter((option) => !ALWAYS_SET.has(option)),
      ])
    : await mountAsUser({
        source,
        subtype: MOUNT_SUBTYPE,
        directory: target,
        options: [readOnly ? "ro" : "rw", ...options.filter((option) => option !== "default_permissions")],
      });
  const device = mountOf(target)?.device ?? "";
  readAhead(device);
  return { descriptor, directory: target, dirtyPagesBytesMax: limitDirtyPages(device, dirtyPagesBytesMax) };
}

/** Mounts with fuse-native, and serves as long as the mount is there. Throws UserError. */
export async function mountNatively(how: NativeMountOptions): Promise<NativelyMounted> {
  const { source, directory, readOnly = false, options = [], ask, log } = how;
  const target = checkedTarget(directory, options);
  const { mountNative } = await import("./native/transport.ts");
  try {
    const mounted = await mountNative({
      source,
      subtype: MOUNT_SUBTYPE,
      directory: target,
      options: [readOnly ? "ro" : "rw", ...options],
      ask,
      log,
    });
    return { ...mounted, directory: target };
  } catch (error) {
    // libfuse mounts first and reads the rest of its options then: what it refuses late is mounted, and served by nobody.
    if (mountOf(target) !== undefined) await unmount(target, { lazy: true, force: true });
    throw error;
  }
}

/** Why the kernel transport cannot be used by this user on this machine; undefined: it can. */
export async function kernelTransportProblem(): Promise<string | undefined> {
  const program = isRoot() ? "mount" : "fusermount3";
  if (!isProgram(program)) return `there is no program ${program}`;
  if (isRoot()) return undefined;
  try {
    await import("./kernel/receive-descriptor.ts");
    return undefined;
  } catch (error) {
    return `koffi cannot be loaded: ${(error as Error).message.split("\n")[0]}`;
  }
}

function isProgram(name: string): boolean {
  return (process.env["PATH"] ?? "/usr/bin:/bin").split(":").some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The directory as the mount table will have it. Refuses what cannot be mounted on, and options that are not for users. */
function checkedTarget(directory: string, options: readonly string[]): string {
  const target = canonical(directory);
  const reserved = options.find((option) => RESERVED_OPTIONS.test(option));
  if (reserved !== undefined) throw new UserError("usage", `the mount option ${reserved} cannot be given`);
  const comma = options.find((option) => option.includes(","));
  if (comma !== undefined) throw new UserError("usage", `${comma} is more than one mount option`);
  checkMountPoint(target);
  return target;
}

/** The source goes into the mount table as it is, whether a file of that name is found from here or not. */
async function mountAsRoot(source: string, target: string, options: readonly string[]): Promise<number> {
  const descriptor = openFuse();
  const set = ["fd=3", "rootmode=40000", "user_id=0", `group_id=${process.getgid?.() ?? 0}`, ...ALWAYS_SET];
  // umount(8) asks the kernel for the type only, which says "fuse": it has to be told of its helper.
  const helper = existsSync(UMOUNT_HELPER) ? [`uhelper=${MOUNT_TYPE}`] : [];
  const list = [...set, ...helper, ...options].join(",");
  try {
    const args = ["-i", "-c", "-t", MOUNT_TYPE, "-o", list, "--", source, target];
    const { status, errors } = await run("mount", args, descriptor);
    if (status !== 0)
      throw new UserError("failed", `cannot mount on ${target}: ${errors || `mount exited with ${status}`}`);
    return descriptor;
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

export interface UnmountOptions {
  /** Take it out of the tree now, and end it when the last user has gone. */
  readonly lazy?: boolean;
  /** Cut the connection first: whoever waits for a request gets ECONNABORTED. For a server that is gone or hangs. */
  readonly force?: boolean;
}

/** Takes the mount away. The server thread must be running, unless it is forced. UserError "in-use" when it is busy. */
export async function unmount(directory: string, { lazy = false, force = false }: UnmountOptions = {}): Promise<void> {
  const target = canonical(directory);
  if (mountOf(target) === undefined) {
    throw new UserError("failed", `cannot unmount ${target}: nothing of Tidemark is mounted there`);
  }
  const { status, errors } = isRoot()
    ? await run("umount", ["-i", ...(lazy ? ["-l"] : []), ...(force ? ["-f"] : []), "--", target])
    : await unmountOwn(target, { lazy, force });
  if (status === 0) return;
  if (/not found in \/etc\/mtab/.test(errors)) {
    throw new UserError("failed", `cannot unmount ${target}: somebody else has mounted it`, "they can, and root");
  }
  const isBusy = /busy/.test(errors);
  const hint = isBusy ? `find who uses it with: fuser -vm ${target}; or unmount with --lazy` : "";
  throw new UserError(
    isBusy ? "in-use" : "failed",
    `cannot unmount ${target}: ${errors || `umount exited with ${status}`}`,
    hint,
  );
}

/** Changes what the kernel keeps of a mount: ro, rw, nosuid and the like. Throws UserError. */
export async function remount(directory: string, options: readonly string[]): Promise<void> {
  const target = canonical(directory);
  const row = mountOf(target);
  if (row === undefined) {
    throw new UserError("failed", `cannot remount ${target}: nothing of Tidemark is mounted there`);
  }
  const list = ["remount", ...options].join(",");
  const { status, errors } = await run("mount", ["-i", "-c", "-t", MOUNT_TYPE, "-o", list, "--", row.source, target]);
  if (status === 0) return;
  const failure = /busy/.test(errors) ? "in-use" : "failed";
  throw new UserError(failure, `cannot remount ${target}: ${errors || `mount exited with ${status}`}`);
}

/** What a user has mounted: fusermount3 takes it away, and the kernel lets its owner cut the connection. */
async function unmountOwn(target: string, { lazy, force }: Required<UnmountOptions>): Promise<Ran> {
  if (force) abortConnection(target);
  return unmountAsUser(target, { lazy: lazy || force });
}

/** By way of the control filesystem of FUSE: where that is not mounted, a forced unmount is a lazy one. */
function abortConnection(target: string): void {
  const [, minor = ""] = mountOf(target)?.device.split(":") ?? [];
  try {
    writeFileSync(`/sys/fs/fuse/connections/${minor}/abort`, "1");
  } catch {
    // The connection ends with its last user.
  }
}

export interface MountTableRow {
  readonly device: string;
  readonly directory: string;
  readonly type: string;
  readonly source: string;
}

/** What a process sees mounted, as the kernel tells without asking any filesystem. The newest on a directory comes last. */
export function mountTable(process = "self"): readonly MountTableRow[] {
  const rows: MountTableRow[] = [];
  for (const line of readFileSync(`/proc/${process}/mountinfo`, "utf8").split("\n")) {
    const [place = "", filesystem = ""] = line.split(" - ");
    const [, , device = "", , directory = ""] = place.split(" ");
    const [type = "", source = ""] = filesystem.split(" ");
    if (type !== "") rows.push({ device, directory: unescape(directory), type, source: unescape(source) });
  }
  return rows;
}

/** As the mount table has it. The native call reads links only: it asks a mounted filesystem nothing. */
export function canonical(directory: string): string {
  try {
    return realpathSync.native(directory);
  } catch {
    return resolve(directory); // why it cannot be, the next step finds out
  }
}

/** The number of the mount on a directory, if it is one of ours. */
export function mountDevice(directory: string): string | undefined {
  return mountOf(canonical(directory))?.device;
}

function mountOf(directory: string): MountTableRow | undefined {
  const row = mountTable().findLast((each) => each.directory === directory);
  return row?.type === MOUNT_TYPE ? row : undefined;
}

function checkMountPoint(target: string): void {
  if (target === "/") {
    const message = "cannot mount on /: programs would go on seeing what is there, and it could not be unmounted again";
    throw new UserError("failed", message, "name another directory");
  }
  if (mountOf(target) !== undefined) {
    throw new UserError("in-use", `cannot mount on ${target}: a volume is mounted there already`, "unmount it first");
  }
  try {
    if (!statSync(target).isDirectory()) throw notDirectory(target);
  } catch (cause) {
    switch ((cause as NodeJS.ErrnoException).code) {
      case "ENOENT":
        throw new UserError(
          "failed",
          `cannot mount on ${target}: there is no such directory`,
          `make it: mkdir -p ${target}`,
          { cause },
        );
      case "ENOTDIR":
        throw notDirectory(target, { cause });
      case "ENOTCONN":
        throw new UserError(
          "in-use",
          `cannot mount on ${target}: a mount whose server is gone is there`,
          `remove it: umount ${target}`,
          { cause },
        );
      case undefined:
      default:
        throw cause;
    }
  }
}

function notDirectory(target: string, options?: ErrorOptions): UserError {
  return new UserError("failed", `cannot mount on ${target}: it is not a directory`, "", options);
}

function openFuse(): number {
  try {
    return openSync("/dev/fuse", "r+");
  } catch (cause) {
    const hint = "load the kernel module: modprobe fuse; in a container, pass the device in";
    throw new UserError("failed", `cannot open /dev/fuse: ${(cause as Error).message}`, hint, { cause });
  }
}

export interface Ran {
  readonly status: number;
  readonly errors: string;
}

/** Runs a program to its end, without the descriptors of mounts but the one it is given, as its third. */
export async function run(command: string, args: readonly string[], descriptor?: number): Promise<Ran> {
  const child = withoutFuse(["ignore", "ignore", "pipe", descriptor ?? "ignore"], (stdio) =>
    spawn(command, args, { stdio }),
  );
  const stderr = child.stdio[2];
  let errors = "";
  stderr?.on("data", (chunk: Buffer) => {
    errors += chunk.toString("utf8");
  });
  const status = await new Promise<number>((settle, reject) => {
    child.once("error", reject);
    child.once("close", (code) => settle(code ?? -1));
  });
  return { status, errors: errors.trim().replaceAll("\n", "; ") };
}

/** mountinfo writes space, tab, newline and backslash as three octal digits. */
function unescape(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
