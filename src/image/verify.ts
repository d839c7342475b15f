/** `image verify`: whether stream files are whole and form a chain, without a volume. */
import { CorruptionError } from "../core/errors.ts";
import { brokenLink, type ChainLink } from "./chain.ts";
import { openFrameReader } from "./frames-in.ts";
import { type BaseSummary, corrupt, type ImageSummary, summaryOf } from "./inspect.ts";
import type { Progress } from "./send.ts";
import { readNamed } from "./targets/pipe.ts";

export interface VerifyImagesOptions {
  /** In the order in which they would be received. */
  readonly files: readonly string[];
  readonly onProgress?: ((progress: Progress & { readonly file: string }) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface VerifiedFile {
  readonly file: string;
  /** What is wrong with it; undefined: nothing. */
  readonly problem: string | undefined;
  /** undefined when not even its header can be read. */
  readonly summary: ImageSummary | undefined;
}

export interface VerifyImagesResult {
  readonly files: readonly VerifiedFile[];
  /** The first broken link of the chain; undefined: none. */
  readonly chainProblem: string | undefined;
  /** What a volume must have before it can receive the first file; null: that is a full image, or cannot be read. */
  readonly needs: BaseSummary | null;
  /** Files that are broken, and broken links: what makes the command exit with findings. */
  readonly findings: number;
}

/** Reads every file completely: frames, checksums, order, totals, digest; then the links from each to the next. */
export async function verifyImages({ files, onProgress, signal }: VerifyImagesOptions): Promise<VerifyImagesResult> {
  const verified: VerifiedFile[] = [];
  const links: ChainLink[] = [];
  for (const file of files) {
    const { link, problem, bytes } = await readWhole(file, { onProgress, signal });
    if (link !== undefined && problem === undefined) links.push(link);
    verified.push({ file, problem, summary: link === undefined ? undefined : summaryOf(link.header, bytes) });
  }
  const broken = verified.filter(({ problem }) => problem !== undefined).length;
  const chainProblem = broken === 0 ? brokenLink(links, "any") : undefined;
  const needs = verified[0]?.summary?.base ?? null;
  return { files: verified, chainProblem, needs, findings: broken + (chainProblem === undefined ? 0 : 1) };
}

/** The header of a file that is whole. Throws UserError "corrupt" that names the file and the frame. */
export async function verifyFile(
  file: string,
  how: Omit<VerifyImagesOptions, "files"> = {},
): Promise<ChainLink & { readonly bytes: number }> {
  const { link, problem, bytes } = await readWhole(file, how);
  if (problem !== undefined || link === undefined) throw corrupt(file, problem ?? "it is empty");
  return { ...link, bytes };
}

interface Whole {
  readonly link: ChainLink | undefined;
  readonly problem: string | undefined;
  readonly bytes: number;
}

async function readWhole(file: string, { onProgress, signal }: Omit<VerifyImagesOptions, "files">): Promise<Whole> {
  const reader = openFrameReader({ header: () => {}, data: () => {} });
  let problem: string | undefined;
  try {
    for await (const chunk of readNamed(file, signal)) {
      signal?.throwIfAborted();
      reader.push(chunk);
      const blocksTotal = reader.header?.blockCount ?? 0;
      onProgress?.({ file, blocksDone: reader.blocksDone, blocksTotal, bytes: reader.bytes });
    }
    reader.end();
  } catch (error) {
    if (!(error instanceof CorruptionError)) throw error;
    problem = error.message;
  }
  return {
    link: reader.header === undefined ? undefined : { name: file, header: reader.header },
    problem,
    bytes: reader.bytes,
  };
}
