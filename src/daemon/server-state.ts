/** What the server thread holds while it lives, for the files that it consists of. */
import type { FsError } from "../core/errors.ts";
import type { OpenFileSystem } from "../fs/active.ts";
import type { DurableAt } from "../fs/file-system.ts";
import type { Writers } from "../fuse/kernel/connection.ts";
import type { CpCause, Volume } from "../volume/volume.ts";
import type { CpTurns } from "./cp-turns.ts";
import type { Gate } from "./gate.ts";
import type { Inbox } from "./inbox.ts";
import type { Beat } from "./light-sleep.ts";
import type { LogLine } from "./log-line.ts";
import type { FromServer } from "./thread-messages.ts";
import type { WriteBackRoom } from "./write-back-room.ts";

export interface Server {
  readonly volume: Volume;
  readonly fileSystem: OpenFileSystem;
  readonly turns: CpTurns;
  readonly gate: Gate;
  /** Tells of a full volume, now and then. */
  readonly onFull: (error: FsError) => void;
  readonly inbox: Inbox;
  /** To the log thread; undefined: the volume is not written to. */
  readonly line: LogLine | undefined;
  /** With durability "op": what the reply to the request just handled must wait for. */
  readonly holdAll: (() => DurableAt) | undefined;
  readonly dirtyBytesMax: number;
  /** Changes in memory from which the next slice of data is written ahead of a consistency point, whoever waits. */
  relieveAtBytes: number;
  /** What a consistency point would have to write at once is being written before, slice by slice; what freezes it waits. */
  easing: { slicesLeft: number; readonly waiting: (() => void)[]; wanted: CpCause | undefined } | undefined;
  /** The last change that somebody at the main thread waits for while a consistency point is in flight that has it not. */
  awaitedSeq: number;
  /** What is to wait for deleted files until they are freed, or until then. */
  readonly reclaiming: { readonly untilMs: number; readonly take: () => void }[];
  /** The main thread was told that there is something to go on with, and has not answered yet. */
  isUnfinished: boolean;
  /** A request has been answered since the last slice. */
  isAsked: boolean;
  /** The consistency point after which a deleted file could not be freed. */
  stuckAtCp: number | undefined;
  /** The files that the kernel may have dirty pages of. */
  readonly writers: Writers;
  /** Where the kernel may keep what is written: for pages that it has still. */
  room: WriteBackRoom | undefined;
  /** A clock that only goes forward. */
  readonly nowMs: () => number;
  /** To be called after each request. */
  readonly beat: Beat;
  readonly send: (message: FromServer) => void;
}
