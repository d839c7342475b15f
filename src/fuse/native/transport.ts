/**
 * The end of fuse-native in the thread that has the process's first event loop, the only one that its addon calls: each
 * call of libfuse becomes plain data (path-request.ts), is handed to `ask`, and ended when its answer comes.
 *
 *     libfuse thread, one a request: waits      event loop                             whoever has the filesystem
 *        read(path, handle, memory) ---------> ask({ op: "read", ... }) ------------>  path-server.ts
 *        goes on  <------- signal(count) ----- copies into memory  <----- answer ----
 *
 * What the package gets wrong is mended here, where it can be:
 *
 * - A call that is not ended leaves its caller in the kernel for ever, and one that is ended twice corrupts it. So every
 *   handler is wrapped: ended once, with EIO if it throws. When the server is gone, everything is answered with EIO.
 * - The memory of reads, writes and attributes is libfuse's, gone when the call is ended: it is copied before.
 * - utimens is given the access time twice. The modification time lies beside it in the memory of the waiting thread,
 *   which handlers are given; it is read there, if the access time is found where it must be.
 * - Without big_writes the kernel writes 4 KiB at a time; options can only be had by replacing what makes the list.
 * - The descriptor of /dev/fuse is inherited by children, which then keep the mount from failing when this process is
 *   killed: inherited-descriptors.ts covers it. Its unmounting calls fusermount in a shell and reports success on a
 *   busy mount: it is never used, mount.ts unmounts.
 * - Nothing says that the mount has ended. libfuse then closes its descriptor, after all calls have been ended.
 */
// oxlint-disable no-underscore-dangle -- names of the package that it keeps for itself; its version is pinned
import assert from "node:assert/strict";
import { errnoOf, UserError } from "../../core/errors.ts";
import type { FuseObject, Signal } from "./fuse-native.d.ts";
import { fuseDescriptors, isFuseDescriptor } from "./inherited-descriptors.ts";
import { type FuseNative, loadFuseNative } from "./load.ts";
import { failureValues, type Operation, type Operations, operationsOf, type ThreadTimes } from "./operations.ts";
import type { Ask, PathReply } from "./path-request.ts";

const WRITE_BYTES_MAX = 131_072;
/** fuse-native copies path and options into arrays of this size. */
const ARGUMENT_BYTES_END = 1024;
/** How often it is looked whether the mount is still there. */
const END_CHECK_MS = 100;
const EIO = -errnoOf("EIO");

export interface NativeMountOptions {
  readonly source: string;
  /** The type of the mount without "fuse.". */
  readonly subtype: string;
  readonly directory: string;
  /** Of mount(8), ro or rw among them. */
  readonly options: readonly string[];
  /** Called for each request, never again after the mount has ended. */
  readonly ask: Ask;
  readonly log: (message: string) => void;
}

export interface NativeMount {
  /** Of /dev/fuse, libfuse's own: for notifications only. */
  readonly descriptor: number;
  /** The mount is gone, and every request answered. */
  readonly ended: Promise<void>;
  /** There will be no answers any more: EIO to everybody, until the process ends, which nothing here keeps then. */
  abandon(): void;
}

/** Mounts and serves. Throws UserError. */
export async function mountNative(how: NativeMountOptions): Promise<NativeMount> {
  const { directory } = how;
  const native = loadFuseNative();
  const list = optionList(how);
  if (Buffer.byteLength(list) >= ARGUMENT_BYTES_END || Buffer.byteLength(directory) >= ARGUMENT_BYTES_END) {
    throw new UserError("failed", `cannot mount on ${directory}: fuse-native takes no path of more than 1000 bytes`);
  }
  const waiting = waitingRequests(how);
  const times: ThreadTimes = { memory: undefined };
  const operations = operationsOf(waiting.ask, times);
  const fuse = new native.Fuse(directory, operations, { timeout: false });
  fuse._fuseOptions = () => list;
  wrapHandlers(fuse, operations, how.log);
  noteTimes(native, fuse, times);
  const before = new Set(fuseDescriptors());
  try {
    await new Promise<void>((resolve, reject) => {
      fuse.mount((error) => (error === null || error === undefined ? resolve() : reject(error)));
    });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    const hint = "libfuse has written its reason to stderr: see it with --foreground";
    throw new UserError("failed", `cannot mount on ${directory} with fuse-native: ${why}`, hint, { cause });
  }
  const descriptor = fuseDescriptors().find((one) => !before.has(one));
  assert(descriptor !== undefined, "libfuse has mounted and has no descriptor of /dev/fuse");
  let isHeld = true;
  const letGo = (): void => {
    if (isHeld && fuse._thread !== null) native.addon.fuse_native_unmount(directory, fuse._thread);
    isHeld = false;
  };
  return {
    descriptor,
    ended: endOf(descriptor, letGo),
    abandon(): void {
      waiting.abandon();
      letGo();
    },
  };
}

/** Resolves when libfuse has closed its descriptor, which it does after the last call of a handler. */
function endOf(descriptor: number, letGo: () => void): Promise<void> {
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (isFuseDescriptor(descriptor)) return;
      clearInterval(timer);
      letGo(); // until here the addon keeps the event loop, and with it the process
      resolve();
    }, END_CHECK_MS);
    timer.unref(); // the addon keeps it
  });
}

interface WaitingRequests {
  readonly ask: Ask;
  abandon(): void;
}

/** Every request is answered once, whatever becomes of who answers it. */
function waitingRequests({ ask, log }: NativeMountOptions): WaitingRequests {
  const waiting = new Set<(reply: PathReply) => void>();
  let isAbandoned = false;
  return {
    ask(request, answer): void {
      if (isAbandoned) {
        answer({ result: EIO });
        return;
      }
      const once = (reply: PathReply): void => {
        if (waiting.delete(once)) answer(reply);
      };
      waiting.add(once);
      try {
        ask(request, once);
      } catch (error) {
        log(`${request.op}: a bug: ${String(error)}`);
        once({ result: EIO });
      }
    },
    abandon(): void {
      isAbandoned = true;
      for (const answer of waiting) answer({ result: EIO });
    },
  };
}

/** What libfuse 2.9 passes on to the kernel; anything else ends the mount, and it says so to nobody but stderr. */
const MOUNT_OPTIONS = new Set("ro rw suid nosuid dev nodev exec noexec async sync dirsync atime noatime".split(" "));
/** Set below, or about access times, which are the filesystem's business here and not the kernel's. */
const LEFT_OUT = new Set(
  "allow_other default_permissions relatime norelatime strictatime diratime nodiratime lazytime".split(" "),
);

/** What the kernel and libfuse are told. */
function optionList({ source, subtype, options }: NativeMountOptions): string {
  const isRoot = process.getuid?.() === 0;
  const asked = new Set(options.filter((option) => !LEFT_OUT.has(option)));
  const unknown = [...asked].find((option) => !MOUNT_OPTIONS.has(option));
  if (unknown !== undefined) throw new UserError("usage", `the transport fuse-native has no mount option ${unknown}`);
  const list = [
    `fsname=${escape(source)}`,
    `subtype=${subtype}`,
    "big_writes",
    `max_write=${WRITE_BYTES_MAX}`,
    "use_ino",
    "default_permissions",
    "nonempty",
    // libfuse has an inode for each name of a file: attributes that are kept for one are wrong for the others.
    "attr_timeout=0",
    // Unlike mount(8), libfuse takes devices and set-user-id away from root too, unless told otherwise.
    ...(isRoot ? ["allow_other", ...["dev", "suid"].filter((option) => !asked.has(`no${option}`))] : []),
  ];
  return `-o${[...list, ...asked].join(",")}`;
}

/** In a list of options a comma ends one, unless a backslash stands before it. */
function escape(text: string): string {
  return text.replaceAll(/[\\,]/g, String.raw`\$&`);
}

/** Puts our operations in the place of the package's, each ended once, also when it throws. */
function wrapHandlers(fuse: FuseObject, operations: Operations, log: (text: string) => void): void {
  const own = fuse as unknown as Record<string, Operation>;
  for (const [name, operation] of Object.entries(operations)) {
    own[`_op_${name}`] = (signal, ...values) => {
      let isEnded = false;
      const endOnce: Signal = (...given) => {
        if (isEnded) return;
        isEnded = true;
        signal(...given);
      };
      try {
        operation(endOnce, ...values);
      } catch (error) {
        log(`${name}: a bug: ${String(error)}`);
        endOnce(EIO, ...failureValues(name, values));
      }
    };
  }
}

/** The handlers of the package are given the memory of the thread, ours are not. */
function noteTimes({ addon }: FuseNative, fuse: FuseObject, times: ThreadTimes): void {
  const utimens = fuse._handlers[addon.op_utimens];
  fuse._handlers[addon.op_utimens] = (memory, ...given) => {
    times.memory = memory;
    return utimens?.(memory, ...given);
  };
}
