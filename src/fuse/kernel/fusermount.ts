/**
 * Mounting as an ordinary user: the setuid program fusermount3 opens /dev/fuse, mounts, and hands the descriptor back over
 * the socket that _FUSE_COMMFD names. What it allows is its own business (a directory of the user's, nosuid and nodev);
 * what it would pass over in silence or with a warning is refused here by name.
 *
 * Other users see the mount only where /etc/fuse.conf says user_allow_other; elsewhere it is private to its owner, from
 * whom even root is kept out.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { UserError } from "../../core/errors.ts";

const PROGRAM = "fusermount3";
const CONFIG = "/etc/fuse.conf";
/** fusermount3 leaves them out with a warning: a user's mount never has them. */
const FOR_ROOT_ONLY = new Set(["suid", "dev"]);
/** Options of mount(8) that it does not know, and that change nothing a user could tell. */
const NOT_KNOWN = new Set(["lazytime", "strictatime", "relatime"]);

export interface UserMount {
  readonly source: string;
  readonly subtype: string;
  readonly directory: string;
  readonly options: readonly string[];
}

/** Mounts and returns the descriptor to be served. Throws UserError with what fusermount3 says. */
export async function mountAsUser({ source, subtype, directory, options }: UserMount): Promise<number> {
  const refused = options.find((option) => FOR_ROOT_ONLY.has(option));
  if (refused !== undefined) throw new UserError("usage", `only root can mount with the option ${refused}`);
  const isShared = isSharingAllowed();
  if (!isShared && options.includes("allow_other")) {
    const hint = `let root add the line user_allow_other to ${CONFIG}`;
    throw new UserError("usage", "the mount option allow_other is not allowed to ordinary users here", hint);
  }
  const list = [
    `fsname=${escape(source)}`,
    `subtype=${subtype}`,
    "default_permissions",
    ...(isShared ? ["allow_other"] : []),
    ...options.filter((option) => option !== "allow_other" && !NOT_KNOWN.has(option)),
  ];
  // Native code, which unmounting does without.
  const { openDescriptorChannel } = await import("./receive-descriptor.ts");
  const channel = openDescriptorChannel();
  try {
    const ended = runProgram(["-o", list.join(","), "--", directory], channel.child);
    channel.closeChild();
    const { status, errors } = await ended;
    const descriptor = channel.receive();
    if (status !== 0 || descriptor === undefined) {
      if (status === 0) await unmountAsUser(directory, { lazy: true });
      throw new UserError("failed", `cannot mount on ${directory}: ${errors || `${PROGRAM} ended with ${status}`}`);
    }
    return descriptor;
  } finally {
    channel.close();
  }
}

export interface Unmounting {
  readonly status: number;
  readonly errors: string;
}

/** Unmounts what this user has mounted. */
export function unmountAsUser(directory: string, how: { readonly lazy: boolean }): Promise<Unmounting> {
  return runProgram(["-u", ...(how.lazy ? ["-z"] : []), "--", directory], undefined);
}

/** Does /etc/fuse.conf let ordinary users share their mounts? */
export function isSharingAllowed(path: string = CONFIG): boolean {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .some((line) => line.trim() === "user_allow_other");
  } catch {
    return false;
  }
}

/** In a list of options a comma ends one, unless a backslash stands before it. */
function escape(text: string): string {
  return text.replaceAll(/[\\,]/g, String.raw`\$&`);
}

/** Runs fusermount3, with our end of a connection as its descriptor 3. */
async function runProgram(args: readonly string[], connection: number | undefined): Promise<Unmounting> {
  const child = spawn(PROGRAM, args, {
    stdio: ["ignore", "ignore", "pipe", connection ?? "ignore"],
    env: { ...process.env, LC_ALL: "C", ...(connection === undefined ? {} : { _FUSE_COMMFD: "3" }) },
  });
  let errors = "";
  child.stdio[2]?.on("data", (chunk: Buffer) => {
    errors += chunk.toString("utf8");
  });
  const status = await new Promise<number>((settle, reject) => {
    child.once("error", (cause: NodeJS.ErrnoException) => {
      const hint = "install the package fuse3, or mount as root";
      const why = cause.code === "ENOENT" ? "there is no such program" : cause.message;
      reject(new UserError("failed", `cannot run ${PROGRAM}: ${why}`, hint, { cause }));
    });
    child.once("close", (code) => settle(code ?? -1));
  });
  return { status, errors: errors.trim().replaceAll("\n", "; ") };
}
