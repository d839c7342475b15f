/**
 * What a daemon does for a volume, one step at a time, so that anything can happen between two steps: consistency points,
 * frames of the change log, and the callers that wait for their changes to be durable. This is the one place of the simulation that knows how changes
 * become durable; the rest only asks which have been acknowledged.
 */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import type { BlockDevice } from "../../src/device/block-device.ts";
import { logFrameHeader } from "../../src/format/change-record.ts";
import type { OpenFileSystem } from "../../src/fs/active.ts";
import type { DurableAt } from "../../src/fs/file-system.ts";
import { parseFrame } from "../../src/fs/replay.ts";
import { type LogFrame, writeFrames } from "../../src/volume/change-log/frames.ts";
import type { CpCause, FrozenCp, Volume } from "../../src/volume/volume.ts";

/** A consistency point on its way, and what has been done for it. */
interface InFlight {
  readonly frozen: FrozenCp;
  stage: Stage;
}

type Stage = "frozen" | "flushed" | "first copy" | "second copy";

/** Frames on their way: all that there were when the ones before had become durable. */
interface FramesInFlight {
  readonly frames: readonly LogFrame[];
  isFlushed: boolean;
}

/** Blocks that a frame on the disk refers to are not written before a consistency point has its changes. */
interface Referred {
  readonly seq: number;
  readonly vbns: ReadonlySet<number>;
}

interface Waiting {
  readonly at: DurableAt;
  readonly version: number;
}

export interface HostOptions {
  readonly volume: Volume;
  readonly fs: OpenFileSystem;
  readonly device: BlockDevice;
  /** Everything up to this version of the filesystem has been acknowledged as durable. */
  readonly onAcknowledged: (version: number) => void;
  readonly onFrozen: (frozen: FrozenCp) => void;
  /** One whole copy of fsinfo is on the disk: from here on a crash leaves the new state. */
  readonly onDurable: (cpCount: number) => void;
  readonly onCommitted: (cpCount: number) => void;
  readonly trace: (line: string) => void;
}

export interface Host {
  readonly cpInFlight: boolean;
  /** One copy of fsinfo is that of the consistency point on its way, the other is not. */
  readonly isBetweenCopies: boolean;
  /** Up to this change no rot in the log can pass for its end. */
  readonly provenSeq: number;
  /** The last change of the newest frame that refers to the block; 0: none does. */
  referredBy(vbn: number): number;
  /** Begins a consistency point; one must not be on its way. */
  freeze(cause: CpCause): void;
  /** One step of the consistency point on its way; with none on its way, begins one. */
  advance(): void;
  /** One step of the frames on their way; with none on its way, forms one. */
  advanceLog(): void;
  /** Until nothing is on its way. */
  settle(): void;
  /** Until everything changed so far is durable. */
  finish(cause?: CpCause): void;
  /** A caller waits until `at` is durable, which makes `version` durable. A frame is on its way to that, if it can be. */
  wait(at: DurableAt, version: number): void;
  /** Until that is so, by whatever makes it so. */
  waitFor(at: DurableAt): void;
}

export function openHost(options: HostOptions): Host {
  const { volume, fs, device, trace } = options;
  let inFlight: InFlight | undefined;
  /** Frames that are formed and not on their way yet. */
  let line: LogFrame[] = [];
  let writing: FramesInFlight | undefined;
  let referred: Referred[] = [];
  let framedSeq = 0;
  let provenSeq = 0;
  let waiting: Waiting[] = [];

  function isDurable(at: DurableAt): boolean {
    return at <= Math.max(framedSeq, volume.committed.logSeq);
  }

  function acknowledge(): void {
    for (const { at, version } of waiting) if (isDurable(at)) options.onAcknowledged(version);
    waiting = waiting.filter(({ at }) => !isDurable(at));
  }

  function freeze(cause: CpCause): void {
    const frozen = volume.freezeCp(cause);
    trace(`  consistency point ${frozen.cpCount}: frozen`);
    options.onFrozen(frozen);
    inFlight = { frozen, stage: "frozen" };
  }

  function step(current: InFlight): void {
    const { frozen } = current;
    switch (current.stage) {
      case "frozen":
        device.flush();
        current.stage = "flushed";
        break;
      case "flushed":
        device.writeDurable(frozen.fsinfoVbns[0], frozen.fsinfo);
        current.stage = "first copy";
        referred = referred.filter(({ seq }) => seq > frozen.logSeq);
        options.onDurable(frozen.cpCount);
        break;
      case "first copy":
        device.writeDurable(frozen.fsinfoVbns[1], frozen.fsinfo);
        current.stage = "second copy";
        break;
      case "second copy":
        volume.commitCp(frozen);
        inFlight = undefined;
        options.onCommitted(frozen.cpCount);
        acknowledge();
        break;
    }
    trace(`  consistency point ${frozen.cpCount}: ${inFlight === undefined ? "committed" : current.stage}`);
  }

  function advance(): void {
    if (inFlight === undefined) freeze("timer");
    else step(inFlight);
  }

  /** True: all changes so far are in frames, some of them on their way. False: they need a consistency point. */
  function formFrame(): boolean {
    if (!volume.log.isOpen) return false;
    const frame = fs.logFrame();
    if (frame !== undefined) {
      trace(`  frame of the log: up to change ${frame.lastSeq}, ${frame.bytes.length / BLOCK_BYTES} blocks`);
      line.push(frame);
    }
    return volume.log.isOpen;
  }

  /** False: no frame is on its way. */
  function stepLog(): boolean {
    if (writing === undefined) {
      if (line.length === 0) return false;
      writing = { frames: line, isFlushed: !line.some(({ needsFlush }) => needsFlush) };
      line = [];
    }
    if (!writing.isFlushed) {
      device.flush();
      writing.isFlushed = true;
      return true;
    }
    const written = writing.frames;
    const provenBefore = framedSeq;
    framedSeq = writeFrames(written, framedSeq, (vbn, buffers) => {
      volume.logDevice.writeDurable(vbn, Uint8Array.from(Buffer.concat(buffers)));
    });
    provenSeq = provenBefore;
    writing = undefined;
    for (const frame of written) referred.push({ seq: frame.lastSeq, vbns: blocksOf(frame) });
    trace(`  ${written.length} frames of the log: changes up to ${framedSeq} are durable`);
    acknowledge();
    return true;
  }

  function settle(): void {
    while (inFlight !== undefined) step(inFlight);
  }

  return {
    get cpInFlight(): boolean {
      return inFlight !== undefined;
    },
    get isBetweenCopies(): boolean {
      return inFlight?.stage === "first copy";
    },
    get provenSeq(): number {
      return provenSeq;
    },
    referredBy: (vbn) => referred.findLast(({ vbns }) => vbns.has(vbn))?.seq ?? 0,
    advanceLog(): void {
      if (!stepLog()) formFrame();
    },
    freeze(cause): void {
      assert(inFlight === undefined, "one consistency point at a time");
      freeze(cause);
    },
    advance,
    settle,
    finish(cause = "sync"): void {
      settle();
      freeze(cause);
      settle();
    },
    wait(at, version): void {
      waiting.push({ at, version });
      acknowledge();
      if (!isDurable(at)) formFrame();
    },
    waitFor(at): void {
      while (!isDurable(at)) if (!stepLog()) advance();
    },
  };
}

/** The blocks of files that a frame names instead of carrying them. */
function blocksOf({ bytes }: LogFrame): ReadonlySet<number> {
  const header = logFrameHeader.decode(new DataView(bytes.buffer), 0);
  const payload = bytes.subarray(logFrameHeader.size, logFrameHeader.size + header.payloadBytes);
  const vbns = new Set<number>();
  for (const { record } of parseFrame({ header, payload }).extents) {
    for (let i = 0; record.vbn !== 0 && i < record.blockCount; i++) vbns.add(record.vbn + i);
  }
  return vbns;
}
