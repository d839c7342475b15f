/** `image send`: one image of a volume's snapshots into a file or a pipe. */
import { UserError } from "../core/errors.ts";
import { type FileDevice, openFileDevice, type Reading } from "../device/file-device.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import type { Volume } from "../volume/volume.ts";
import { openReadOnly } from "./open-state.ts";
import { openSender, type Progress, planImage } from "./send.ts";
import { type ByteSink, openFileSink, type WriteBack } from "./targets/file.ts";
import { openFifoSink, openPipeSink } from "./targets/pipe.ts";

export interface SendImageOptions {
  /** Path of the block file, mounted or not. While it is mounted, its process must hold the snapshots. */
  readonly volume: string;
  /** Names of the snapshots to send, in any order: the newest becomes the destination's active filesystem. */
  readonly snapshots: readonly string[];
  /** Name of the snapshot that the destination has. Default: none, a full image. */
  readonly base?: string | undefined;
  /** File to write. Default: standard output, unless it is a terminal. */
  readonly output?: string | undefined;
  readonly force?: boolean | undefined;
  /** Makes the pipe at a descriptor larger, if the host can. Default: it stays as it is. */
  readonly widenPipe?: ((descriptor: number) => Promise<void>) | undefined;
  /** How the blocks of an image that is not small are read. Default: when they must. */
  readonly findReading?: ((volume: string) => Promise<Reading>) | undefined;
  /** For the file that is written. It is ended. */
  readonly writeBack?: WriteBack | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Ends the sending with the signal's reason; nothing stays behind. */
  readonly signal?: AbortSignal | undefined;
}

export interface SendImageResult {
  readonly kind: "full" | "incremental";
  readonly tops: readonly string[];
  readonly base: string | undefined;
  readonly output: string | undefined;
  readonly blocks: number;
  readonly frames: number;
  readonly bytes: number;
}

const STANDARD_OUTPUT = 1;
/** Fewer blocks, 64 MiB of them, are sent sooner than a pipe is widened. */
const LARGE_BLOCKS_MIN = 1 << 14;
/** Fewer blocks, 16 MiB of them, are mostly sent sooner than the calls for it are loaded. */
const AHEAD_BLOCKS_MIN = 1 << 12;

export async function sendImage(options: SendImageOptions): Promise<SendImageResult> {
  const device = openFileDevice(options.volume, { writable: false });
  let sending: FileDevice | undefined; // instead, where the disk reads ahead
  try {
    const volume = openReadOnly(device);
    const tops = options.snapshots
      .map((name) => findSnapshot(options.volume, volume, name))
      .toSorted((a, b) => a.id - b.id);
    const base = options.base === undefined ? undefined : findSnapshot(options.volume, volume, options.base);
    const plan = planImage(volume, { tops, base });
    const isLarge = plan.blockCount >= LARGE_BLOCKS_MIN;
    if (isLarge && options.output === undefined) await options.widenPipe?.(STANDARD_OUTPUT);
    if (plan.blockCount >= AHEAD_BLOCKS_MIN) {
      sending = openFileDevice(options.volume, { writable: false, ...(await options.findReading?.(options.volume)) });
    }
    let bytes = 0;
    const onProgress = (progress: Progress): void => {
      ({ bytes } = progress);
      options.onProgress?.(progress);
    };
    const sender = openSender(sending ?? device, plan, { onProgress });
    const sink = await openSink(options, device.descriptor);
    await drain(() => sender.next(), sink, options.signal);
    return {
      kind: base === undefined ? "full" : "incremental",
      tops: tops.map(({ name }) => name),
      base: base?.name,
      output: options.output,
      blocks: plan.blockCount,
      frames: plan.frameCount,
      bytes,
    };
  } finally {
    await options.writeBack?.end();
    sending?.close();
    device.close();
  }
}

async function openSink({ output, force, writeBack, signal }: SendImageOptions, source: number): Promise<ByteSink> {
  if (output === undefined) return openPipeSink(undefined, signal);
  return (await openFifoSink(output, signal)) ?? openFileSink(output, { force, source, writeBack });
}

async function drain(
  next: () => Uint8Array | undefined,
  sink: ByteSink,
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    let writing = Promise.resolve();
    for (let frame = next(); frame !== undefined; frame = next()) {
      await writing;
      signal?.throwIfAborted();
      writing = sink.write(frame); // beside the forming of the next one
      writing.catch(() => {}); // who waits for it hears of it
    }
    await writing;
    await sink.finish();
  } catch (error) {
    await sink.abandon();
    throw error;
  }
}

function findSnapshot(path: string, volume: Volume, name: string): SnapshotRecord {
  const record = volume.findSnapshot(name);
  if (record !== undefined) return record;
  throw new UserError(
    "failed",
    `${path} has no snapshot ${JSON.stringify(name)}: only a snapshot can be sent, or be a base`,
    `see them with: tidemark snapshot list ${path}`,
  );
}
