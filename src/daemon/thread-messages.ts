/**
 * What the two threads of a daemon tell each other.
 *
 * The server thread sits in a read of /dev/fuse and sees no event. So a message to it is posted first, then the shared
 * wake word is set, then the thread is knocked awake with a request through its own mount. It clears the word before
 * it empties the queue: whatever was posted before a word that it saw is handled, and no message is lost between.
 */
import type { MessagePort } from "node:worker_threads";
import type { CpCount } from "../core/numbers.ts";
import type { ControlError } from "../format/control-message.ts";
import type { CpCause, FrozenCp } from "../volume/volume.ts";
import type { MountMode } from "./config.ts";
import type { VolumeRequest, VolumeSummary } from "./volume-verbs.ts";

/** What the server thread is started with. */
export interface ServerStart {
  readonly blockFile: string;
  /** The file that the main thread has opened and locked: the path must still name it. */
  readonly identity: { readonly dev: number; readonly ino: number };
  readonly mode: MountMode;
  readonly dirtyBytesMax: number;
  readonly cacheBytesMax: number;
  /** One word: 1 when messages wait. */
  readonly wake: SharedArrayBuffer;
  readonly port: MessagePort;
}

export type ToServer =
  /** The mount is there: serve requests from this descriptor. */
  | { readonly kind: "serve"; readonly descriptor: number }
  /** There will be no mount: close the volume. */
  | { readonly kind: "stop" }
  | { readonly kind: "verb"; readonly id: number; readonly request: VolumeRequest }
  | { readonly kind: "take-cp"; readonly cause: CpCause }
  /** Both copies of the fsinfo of the frozen consistency point are durable. */
  | { readonly kind: "committed"; readonly cpCount: CpCount }
  /** They could not be written: nothing will be durable any more. */
  | { readonly kind: "failed"; readonly message: string }
  /** The block file has a newer consistency point. */
  | { readonly kind: "follow" };

export type FromServer =
  | { readonly kind: "opened"; readonly status: VolumeSummary }
  | { readonly kind: "frozen"; readonly cp: FrozenCp }
  /** A reply to the kernel that must wait for a consistency point. */
  | { readonly kind: "held"; readonly durableAt: CpCount; readonly reply: Uint8Array }
  /** The answer to a verb: what it changed is committed. */
  | { readonly kind: "result"; readonly id: number; readonly value: unknown }
  | { readonly kind: "refused"; readonly id: number; readonly error: ControlError }
  | { readonly kind: "failed"; readonly message: string }
  | { readonly kind: "log"; readonly message: string }
  /** The volume is closed, everything is committed unless there is an error. The last message. */
  | { readonly kind: "ended"; readonly error: ControlError | undefined };
