/** The file beside a mirror's volume that remembers who it is and how far a transfer got: VOLUME.transfer. */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { UserError } from "../core/errors.ts";
import { type Random, randomUuid } from "../core/prng.ts";
import { decodeTransferState, encodeTransferState } from "../format/transfer-state.ts";
import type { ResumePoint } from "../image/receive.ts";
import { decodeResumePoint, encodeResumePoint } from "../image/resume-point.ts";

export interface TransferFile {
  /** Identity of this mirror. */
  readonly mirror: Uint8Array;
  readonly resume: ResumePoint | undefined;
  /** Remembers a point, or forgets it, durably. What the point stands for must be durable before. */
  save(resume: ResumePoint | undefined): void;
  /** The identity is being told to somebody: from now on the file stays. */
  keep(): void;
  /** A new file, of which nobody has heard, goes away again. */
  close(): void;
}

/** Reads the file, or makes one with a new identity when there is none or it does not verify. */
export function openTransferFile(volumePath: string, random: Random): TransferFile {
  const path = transferPath(volumePath);
  const found = read(path);
  const mirror = found?.mirror ?? randomUuid(random);
  let resume = found === undefined || found.resume.length === 0 ? undefined : decodeResumePoint(found.resume);
  let isKept = found !== undefined;
  const file: TransferFile = {
    mirror,
    get resume() {
      return resume;
    },
    save(point): void {
      replaceFile(
        path,
        encodeTransferState({ mirror, resume: point === undefined ? new Uint8Array(0) : encodeResumePoint(point) }),
      );
      resume = point;
    },
    keep(): void {
      isKept = true;
    },
    close(): void {
      if (!isKept) removeTransferFile(volumePath);
    },
  };
  if (found === undefined) file.save(undefined);
  return file;
}

/** To be called when the volume is a mirror no more: there is nothing to resume. */
export function removeTransferFile(volumePath: string): void {
  const path = transferPath(volumePath);
  try {
    rmSync(draftPath(path), { force: true });
    rmSync(path, { force: true });
  } catch (cause) {
    throw new UserError("failed", `cannot remove ${path}: ${(cause as Error).message}`, "", { cause });
  }
}

function transferPath(volumePath: string): string {
  return `${volumePath}.transfer`;
}

function draftPath(path: string): string {
  return `${path}.new`;
}

function read(path: string): ReturnType<typeof decodeTransferState> {
  try {
    return decodeTransferState(new Uint8Array(readFileSync(path)));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new UserError("failed", `cannot read ${path}: ${(cause as Error).message}`, "", { cause });
  }
}

/** The old contents or the new, whatever happens, and the new ones when it returns. */
function replaceFile(path: string, contents: Uint8Array): void {
  const draft = draftPath(path);
  try {
    rmSync(draft, { force: true }); // what a crash has left, or a link that somebody has laid there
    withDescriptor(openSync(draft, "wx", 0o600), (descriptor) => {
      for (let at = 0; at < contents.length; ) at += writeSync(descriptor, contents, at);
      fsyncSync(descriptor);
    });
    renameSync(draft, path);
    withDescriptor(openSync(dirname(path), "r"), fsyncSync);
  } catch (cause) {
    throw new UserError("failed", `cannot write ${path}: ${(cause as Error).message}`, "", { cause });
  }
}

function withDescriptor(descriptor: number, use: (descriptor: number) => void): void {
  try {
    use(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
