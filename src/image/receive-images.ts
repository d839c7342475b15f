/** `image receive`: stream files, or one stream from a pipe, into a volume. */
import type { Clock } from "../core/clock.ts";
import { CorruptionError } from "../core/errors.ts";
import { identityOf } from "../format/image-frame.ts";
import type { SnapshotRecord } from "../format/snapshot-record.ts";
import { type ChainLink, type ChainStart, checkChain } from "./chain.ts";
import { checkNothingLost } from "./destination.ts";
import { corrupt } from "./inspect.ts";
import { openReadOnly } from "./open-state.ts";
import { openReceiver, type ReceiveResult, type ReceiveTarget } from "./receive.ts";
import type { Progress } from "./send.ts";
import { refuseToReadTwice, type WriteBack } from "./targets/file.ts";
import { readNamed, readPipe } from "./targets/pipe.ts";
import { openVolumeFile, type VolumeFile } from "./targets/volume-file.ts";
import { verifyFile } from "./verify.ts";

export interface ReceiveImagesOptions {
  /** Path of the block file: not there, empty, or a volume that is not in use. */
  readonly volume: string;
  /** A chain of stream files, each received in turn. None: one stream from standard input. */
  readonly files: readonly string[];
  readonly clock: Clock;
  /** ROLE_MIRROR or ROLE_ACTIVE. Default: as it is; a new volume is an ordinary one. */
  readonly role?: number | undefined;
  /** Overwrite a file that is not a volume. */
  readonly force?: boolean | undefined;
  /** Let snapshots of the volume go that the source has not. Default: refuse, before anything is written. */
  readonly dropSnapshots?: boolean | undefined;
  /** For the block file. It is ended. */
  readonly writeBack?: WriteBack | undefined;
  readonly onProgress?: ((progress: ReceiveProgress) => void) | undefined;
  /** Ends the receiving with the signal's reason; the volume stays as it is after the last whole stream. */
  readonly signal?: AbortSignal | undefined;
}

export interface ReceiveProgress extends Progress {
  readonly phase: "verify" | "receive";
  readonly file: string;
}

export interface ReceiveImagesResult {
  readonly volume: string;
  readonly images: readonly {
    readonly file: string;
    readonly top: SnapshotRecord;
    readonly blocks: number;
    readonly dropped: readonly string[];
  }[];
}

/** For messages, when the stream comes from standard input. */
const STANDARD_INPUT = "standard input";

/**
 * Files are read twice: the first time nothing is written, so a broken file or link anywhere in the chain leaves the
 * volume untouched. Throws UserError "corrupt" and "mismatch".
 */
export async function receiveImages(options: ReceiveImagesOptions): Promise<ReceiveImagesResult> {
  const { volume, files, force, dropSnapshots = false, writeBack, signal, onProgress } = options;
  const links: ChainLink[] = [];
  for (const file of files) {
    await refuseToReadTwice(file);
    links.push(
      await verifyFile(file, { signal, onProgress: (progress) => onProgress?.({ phase: "verify", ...progress }) }),
    );
  }
  const target = openVolumeFile(volume, { force, writeBack });
  try {
    if (files.length > 0) checkChain(links, startOf(target));
    // Of files, all headers are known already. What one of them brings and a later one drops was never the user's.
    if (!dropSnapshots && target.device !== undefined) {
      const before = openReadOnly(target.device);
      for (const { header } of links) checkNothingLost(target.name, before, header);
    }
    const images: ReceiveImagesResult["images"][number][] = [];
    for (const file of files.length > 0 ? files : [STANDARD_INPUT]) {
      const bytes = files.length > 0 ? readNamed(file, options.signal) : readPipe(undefined, options.signal);
      const { top, blocksReceived, dropped } = await receiveOne(target, { bytes, file, options });
      target.accept();
      images.push({ file, top, blocks: blocksReceived, dropped: dropped.map(({ name }) => name) });
    }
    return { volume, images };
  } catch (error) {
    target.abandon();
    throw error;
  } finally {
    await writeBack?.end();
    target.close();
  }
}

function startOf({ name, device }: VolumeFile): ChainStart | "empty" {
  if (device === undefined) return "empty";
  const volume = openReadOnly(device);
  const { uuid, blockCount } = volume.committed;
  return {
    name,
    volumeUuid: uuid,
    volumeBlocks: blockCount,
    snapshots: volume.snapshots().map((record) => identityOf(record)),
  };
}

interface Incoming {
  readonly bytes: AsyncIterable<Uint8Array>;
  readonly file: string;
  readonly options: ReceiveImagesOptions;
}

async function receiveOne(target: ReceiveTarget, { bytes, file, options }: Incoming): Promise<ReceiveResult> {
  const { clock, role, files, dropSnapshots = false, onProgress, signal } = options;
  const receiver = openReceiver(target, {
    clock,
    role,
    keepSnapshots: files.length === 0 && !dropSnapshots,
    onProgress: (progress) => onProgress?.({ phase: "receive", file, ...progress }),
  });
  try {
    for await (const chunk of bytes) {
      signal?.throwIfAborted();
      receiver.push(chunk);
    }
    return receiver.finish();
  } catch (error) {
    if (error instanceof CorruptionError) throw corrupt(file, error.message, error);
    throw error;
  }
}
