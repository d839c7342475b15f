/**
 * Receiving: makes a volume out of image streams, or advances one. (Interface; the rest is coming.)
 */
import type { Clock } from "../core/clock.ts";
import type { BlockDevice } from "../device/block-device.ts";
import type { ImageHeader } from "../format/image-frame.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import type { Progress } from "./send.ts";

/** Where a stream goes: a place for a block file, which may hold a volume already. See targets/volume-file.ts. */
export interface ReceiveTarget {
  /** For messages. */
  readonly name: string;
  /** The volume that is there; undefined: none yet. */
  readonly device: BlockDevice | undefined;
  /** A device of at least so many blocks: makes the block file or grows it. What it holds stays. */
  prepare(blockCount: number): BlockDevice;
}

/** What must be kept to go on with a transfer after an interruption. Good for the same destination, unchanged. */
export interface ResumePoint {
  /** Frame 0 of the stream. */
  readonly headerFrame: Uint8Array;
  /** The frame to go on with: all before it are durable at the destination. */
  readonly frameNumber: number;
  /** The digest of those. */
  readonly digest: Uint8Array;
  readonly blocksDone: number;
  /** All blocks so far lie below this one. */
  readonly vbnNext: number;
  /** CP count of the destination; 0: no volume yet. */
  readonly cpCount: number;
}

export interface ReceiveOptions {
  /** ROLE_ACTIVE (default): an ordinary volume. ROLE_MIRROR: one that only streams change. */
  readonly role?: number;
  readonly clock: Clock;
  readonly resume?: ResumePoint | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface ReceiveResult {
  /** What the active filesystem is now. */
  readonly top: SnapshotRecord;
  readonly blocksReceived: number;
  readonly cpCount: number;
  /** Snapshots of the destination that the source no longer has. */
  readonly dropped: readonly SnapshotRecord[];
}

/** A receiver of one stream. Synchronous; any error ends it, and leaves the destination as it was. */
export interface ImageReceiver {
  /** Known as soon as frame 0 is complete (or from the resume point). */
  readonly header: ImageHeader | undefined;
  /** The frame that is expected next. */
  readonly frameNumber: number;
  /** True when the trailer has come and everything agrees: `finish` may be called. */
  readonly complete: boolean;
  /**
   * Takes bytes of the stream, cut anywhere; writes blocks to places that nothing at the destination refers to.
   * Throws UserError "mismatch" (not for this destination), CorruptionError (broken stream), FsError (device).
   */
  push(chunk: Uint8Array): void;
  /** Makes what has come so far durable. The point from which another receiver goes on; frame 0 must have come. */
  checkpoint(): ResumePoint;
  /** Everything durable, then the one switch. Throws CorruptionError when the stream is not complete. */
  finish(): ReceiveResult;
}

/** Encoded for a file of the mirror: self-checking. */
export declare function encodeResumePoint(point: ResumePoint): Uint8Array;
/** undefined: does not verify, begin anew. */
export declare function decodeResumePoint(bytes: Uint8Array): ResumePoint | undefined;
/** A receiver at the header, or at the resume point. Throws UserError "mismatch" when that is not of this destination. */
export declare function openReceiver(target: ReceiveTarget, options: ReceiveOptions): ImageReceiver;
