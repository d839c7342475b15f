/**
 * Keeps the descriptor of /dev/fuse that libfuse has opened from children. It is opened without close-on-exec, and a
 * mount fails with ENOTCONN only when nobody has its descriptor any more: a child that waits for the mount, as sync(1)
 * may, would otherwise wait for ever when this process is killed, because it has the descriptor itself.
 *
 * A child gets /dev/null under the same number instead. What Node opens is closed in children anyway.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";

const DEVICE = "/dev/fuse";
const O_CLOEXEC = 0o2000000;

export type ChildStdio = (number | "ignore" | "pipe" | "inherit")[];

/** Descriptors of this process that are open on /dev/fuse. */
export function fuseDescriptors(): readonly number[] {
  return readdirSync("/proc/self/fd").map(Number).filter(isFuseDescriptor);
}

export function isFuseDescriptor(descriptor: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`) === DEVICE;
  } catch {
    return false; // closed meanwhile
  }
}

/**
 * Calls `start`, which is to start a child, with its `stdio` and what covers the descriptors that it must not have;
 * they are duplicated by the time it returns.
 */
export function withoutFuse<T>(stdio: Readonly<ChildStdio>, start: (stdio: ChildStdio) => T): T {
  const isFree = (descriptor: number): boolean => (stdio[descriptor] ?? "ignore") === "ignore";
  const inherited = fuseDescriptors().filter((descriptor) => isFree(descriptor) && isInherited(descriptor));
  if (inherited.length === 0) return start([...stdio]);
  const nothing = openSync("/dev/null", "r");
  try {
    const covered: ChildStdio = [...stdio];
    while (covered.length <= Math.max(...inherited)) covered.push("ignore");
    for (const descriptor of inherited) covered[descriptor] = nothing;
    return start(covered);
  } finally {
    closeSync(nothing);
  }
}

function isInherited(descriptor: number): boolean {
  try {
    const [, flags = ""] = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, "utf8")) ?? [];
    return (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
  } catch {
    return false;
  }
}
