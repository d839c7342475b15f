/**
 * What the two threads of a daemon tell each other.
 *
 * The server thread sits in a read of /dev/fuse and sees no event. So a message to it is posted first, then the shared
 * wake word is set, then the thread is knocked awake with a request through its own mount. It clears the word before
 * it empties the queue: whatever was posted before a word that it saw is handled, and no message is lost between.
 */
import type { MessagePort } from "node:worker_threads";
import type { ChangeSeq, CpCount } from "../core/numbers.ts";
import type { FileIdentity } from "../device/file-device.ts";
import type { ControlError } from "../format/control-message.ts";
import type { AccessTimes, SnapshotDirectories } from "../fs/context.ts";
import type { Damage, DamageCounts } from "../fs/damage.ts";
import type { DurableAt, Name } from "../fs/file-system.ts";
import type { Errand } from "../fuse/kernel/connection.ts";
import type { PathReply, PathRequest } from "../fuse/native/path-request.ts";
import type { CpCause, FrozenCp } from "../volume/volume.ts";
import type { ChangeLogPlace, Durability, MountMode } from "./config.ts";
import type { VolumeRequest, VolumeSummary } from "./volume-verbs.ts";

/** What the server thread is started with. */
export interface ServerStart {
  readonly blockFile: string;
  /** The file that the main thread has opened and locked: the path must still name it. */
  readonly identity: FileIdentity;
  readonly mode: MountMode;
  readonly accessTimes: AccessTimes;
  readonly snapshotDirectories: SnapshotDirectories;
  readonly dirtyBytesMax: number;
  readonly cacheBytesMax: number;
  readonly durability: Durability;
  readonly changeLog: ChangeLogPlace;
  /** The line to the log thread: see log-line.ts. */
  readonly log: SharedArrayBuffer | undefined;
  /** Where requests are counted, for who keeps processors awake; undefined: nobody does. */
  readonly pulse: SharedArrayBuffer | undefined;
  /** Two words: see fuse/kernel/loop.ts. */
  readonly wake: SharedArrayBuffer;
  readonly port: MessagePort;
}

export type ToServer =
  /** The mount is there: serve requests from this descriptor. */
  | {
      readonly kind: "serve";
      readonly descriptor: number;
      readonly nodePrefix: string;
      readonly dirtyPagesBytesMax: number;
    }
  /** There will be a mount by the transport fuse-native: its requests come as messages. */
  | { readonly kind: "serve-paths" }
  /** A request by path, to be answered with the same number. */
  | { readonly kind: "ask"; readonly id: number; readonly request: PathRequest }
  /** The mount that is served by path is gone. */
  | { readonly kind: "unmounted" }
  /** There will be no mount: close the volume. */
  | { readonly kind: "stop" }
  /** Which files may the kernel have dirty pages of? */
  | { readonly kind: "writers"; readonly id: number; readonly deletedToo: boolean }
  | { readonly kind: "verb"; readonly id: number; readonly request: VolumeRequest }
  | { readonly kind: "take-cp"; readonly cause: CpCause }
  /** Both copies of the fsinfo of the frozen consistency point are durable. */
  | { readonly kind: "committed"; readonly cpCount: CpCount }
  /** They could not be written: nothing will be durable any more. */
  | { readonly kind: "failed"; readonly message: string }
  /** All pages of the mount have been written back that were dirty when "drain" asked for it, and no more than this are kept. */
  | { readonly kind: "drained"; readonly dirtyPagesBytesMax: number }
  /** There is time for another slice of what is unfinished. */
  | { readonly kind: "go-on" }
  /** The block file has a newer consistency point. */
  | { readonly kind: "follow" }
  /** A verb that a request through the mount comes to. */
  | { readonly kind: "errand-verb"; readonly verb: VolumeRequest; readonly request: Uint8Array }
  /** What this request depended on is done, or has failed with this errno: it can be answered. */
  | { readonly kind: "again"; readonly request: Uint8Array; readonly result: number };

export type FromServer =
  | { readonly kind: "opened"; readonly status: VolumeSummary }
  /** Requests follow one another closely. */
  | { readonly kind: "busy" }
  /** Long runs were written there: the disk may begin with them. */
  | { readonly kind: "written"; readonly vbn: number; readonly count: number }
  | { readonly kind: "frozen"; readonly cp: FrozenCp }
  /** A reply to the kernel that must wait for a consistency point with these changes. */
  | { readonly kind: "held"; readonly durableAt: ChangeSeq; readonly reply: Uint8Array }
  /** The reply to a request by path, which must wait until these changes are durable unless that is 0. */
  | { readonly kind: "answered"; readonly id: number; readonly durableAt: DurableAt; readonly reply: PathReply }
  /** A request that depends on something to be done first; then it is to be asked again. */
  | { readonly kind: "errand"; readonly errand: Errand; readonly request: Uint8Array }
  /** The kernel is to keep no more dirty pages of the mount than this, and after this time to write back what it has. */
  | { readonly kind: "drain"; readonly dirtyPagesBytesMax: number; readonly delayMs: number }
  /** It may keep so many. */
  | { readonly kind: "allow"; readonly dirtyPagesBytesMax: number }
  /** Deleted files are to be freed, or data to be written, slice by slice: the next one when "go-on" says so. */
  | { readonly kind: "unfinished" }
  /** The kernel's caches of the root and of these names in it are wrong: the filesystem was set back. */
  | { readonly kind: "stale"; readonly names: readonly Name[] }
  /** The answer to a verb: what it changed is committed; or to a question. */
  | { readonly kind: "result"; readonly id: number; readonly value: unknown }
  | { readonly kind: "refused"; readonly id: number; readonly error: ControlError }
  | { readonly kind: "failed"; readonly message: string }
  | { readonly kind: "log"; readonly message: string }
  /** There is no space, for this reason; `again`: it was said lately. */
  | { readonly kind: "full"; readonly message: string; readonly again: boolean }
  /** An operation met damage; `first`: at a place that was not known before. */
  | { readonly kind: "damage"; readonly counts: DamageCounts; readonly first: Damage | undefined }
  /** The volume is closed, everything is committed unless there is an error. The last message. */
  | { readonly kind: "ended"; readonly error: ControlError | undefined };
