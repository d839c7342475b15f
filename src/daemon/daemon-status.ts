/** What a daemon says of itself: the same object on the control socket, in `--json` and on the status page. */
import type { Damage, DamageCounts } from "../fs/damage.ts";
import type { Transport } from "../fuse/transports.ts";
import type { CpCause } from "../volume/volume.ts";
import type { LogCounts } from "./log-line.ts";
import type { VolumeSummary } from "./volume-verbs.ts";

export interface DaemonStatus {
  /** Path of the block file. */
  readonly volume: string;
  readonly mountPoint: string;
  readonly mode: "write" | "follow" | "snapshot";
  readonly snapshot: string | undefined;
  readonly pid: number;
  readonly startedAt: string;
  readonly transport: Transport;
  /** failed: the block file could not be written; changes are refused, reads go on. */
  readonly state: "serving" | "failed" | "ending";
  /** Why it has failed. */
  readonly failure: string | undefined;
  /** What went wrong last, and when: it may be over. */
  readonly lastError: string | undefined;
  readonly lastErrorAt: string | undefined;
  readonly cpIntervalMs: number;
  /** Consistency points that this daemon committed, and how long the last took to become durable. */
  readonly cpsCommitted: number;
  readonly cpLastMs: number | undefined;
  readonly cpLastCause: CpCause | undefined;
  /** How many there were of each cause. */
  readonly cpCauses: Partial<Record<CpCause, number>>;
  /** What the change log has made durable since it was mounted; undefined: nothing is written here. */
  readonly logCounts: LogCounts | undefined;
  /** Replies that wait for a consistency point. */
  readonly heldReplies: number;
  readonly damage: DamageSummary;
  /** Undefined when the server thread did not answer in time. */
  readonly details: VolumeSummary | undefined;
}

/** What reads of this mount have found wrong: how many places, and the first of them. */
export interface DamageSummary extends DamageCounts {
  readonly places: readonly Damage[];
}

export const DAMAGE_PLACES_MAX = 100;

/** For the log and for people: what is wrong, and where. */
export function damageText({ message, operation, ino, path, vbn }: Damage): string {
  const file = path ?? (ino === undefined ? undefined : `inode ${ino}`);
  const what = vbn === undefined ? message : message.replace(/^EIO: /, "");
  return `${file === undefined ? operation : `${operation} of ${file}`}: ${what}`;
}

/** What the daemon answers to umount. */
export interface Unmounted {
  readonly volume: string;
  readonly mountPoint: string;
  /** Who has a copy of the mount, and is still served: directories, and processes in other namespaces. */
  readonly keptBy: readonly string[];
}
