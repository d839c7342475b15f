/**
 * What the two ends of a mirror tell of themselves: the same objects on the status socket and in `--json`.
 */

export interface LagStatus {
  /** Since the mirror was last known to have everything the source had; 0: it has. undefined: not known yet. */
  readonly seconds: number | undefined;
  /** Consistency points of the source that the mirror has not. */
  readonly cps: number | undefined;
  /** Changed at the source and not yet at the mirror: an estimate. */
  readonly bytes: number;
}

export interface TransferStatus {
  readonly kind: "full" | "incremental";
  readonly cpCount: number;
  readonly baseCpCount: number | undefined;
  readonly blocks: number;
  readonly frames: number;
  readonly framesDone: number;
  readonly framesDurable: number;
  /** The frame it began with: above 0 for one that goes on after an interruption. */
  readonly resumedAt: number;
}

interface EndStatus {
  readonly volume: string | undefined;
  readonly peer: string | undefined;
  readonly connectedSince: string | undefined;
  readonly lastError: string | undefined;
  /** Consistency point that the mirror is at, and when it moved there. */
  readonly topCp: number | undefined;
  readonly switchedAt: string | undefined;
  readonly lag: LagStatus;
  readonly transfer: TransferStatus | undefined;
}

export interface SourceStatus extends EndStatus {
  readonly role: "source";
  readonly phase: "waiting" | "connecting" | "greeting" | "ready" | "in step" | "offered" | "shipping" | "ended";
  readonly counts: {
    readonly updates: number;
    readonly skippedCps: number;
    readonly framesSent: number;
    readonly bytesSent: number;
    readonly connections: number;
  };
}

export interface DestinationStatus extends EndStatus {
  readonly role: "destination";
  readonly phase: "vacant" | "ready" | "receiving" | "switching";
  readonly counts: {
    readonly updates: number;
    readonly framesReceived: number;
    readonly bytesReceived: number;
    readonly connections: number;
    readonly refused: number;
  };
}

export type MirrorStatus = SourceStatus | DestinationStatus;
