/**
 * What a daemon does for a volume, one step at a time, so that anything can happen between two steps: consistency points,
 * and the callers that wait for their changes to be durable. This is the one place of the simulation that knows how changes
 * become durable; the rest only asks which have been acknowledged.
 */
import assert from "node:assert/strict";
import type { BlockDevice } from "../../src/device/block-device.ts";
import type { DurableAt } from "../../src/fs/file-system.ts";
import type { CpCause, FrozenCp, Volume } from "../../src/volume/volume.ts";

/** A consistency point on its way, and what has been done for it. */
interface InFlight {
  readonly frozen: FrozenCp;
  stage: Stage;
}

type Stage = "frozen" | "flushed" | "first copy" | "second copy";

interface Waiting {
  readonly at: DurableAt;
  readonly version: number;
}

export interface HostOptions {
  readonly volume: Volume;
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
  /** Begins a consistency point; one must not be on its way. */
  freeze(cause: CpCause): void;
  /** One step of what is on its way; with nothing on its way, begins a consistency point. */
  advance(): void;
  /** Until nothing is on its way. */
  settle(): void;
  /** Until everything changed so far is durable. */
  finish(): void;
  /** A caller waits until `at` is durable, which makes `version` durable. */
  wait(at: DurableAt, version: number): void;
  /** Until that is so. */
  waitFor(at: DurableAt): void;
}

export function openHost(options: HostOptions): Host {
  const { volume, device, trace } = options;
  let inFlight: InFlight | undefined;
  let waiting: Waiting[] = [];

  function isDurable(at: DurableAt): boolean {
    return at <= volume.committed.cpCount;
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

  function settle(): void {
    while (inFlight !== undefined) step(inFlight);
  }

  return {
    get cpInFlight(): boolean {
      return inFlight !== undefined;
    },
    freeze(cause): void {
      assert(inFlight === undefined, "one consistency point at a time");
      freeze(cause);
    },
    advance,
    settle,
    finish(): void {
      settle();
      freeze("sync");
      settle();
    },
    wait(at, version): void {
      waiting.push({ at, version });
      acknowledge();
    },
    waitFor(at): void {
      while (!isDurable(at)) advance();
    },
  };
}
