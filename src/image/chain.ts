/**
 * Chains: the base of each increment is a snapshot that the streams before it bring. Links are checked by identity
 * before any of them is applied, so that a restore from five files does not stop at the fourth.
 *
 * The base need not be the top of the stream just before: `level0, level1 of June 9` is as good a chain as
 * `level0, level1 of June 5, level2`, as long as the base is there and its blocks have not been given up.
 */
import { UserError } from "../core/errors.ts";
import { formatUuid, sameBytes } from "../core/uuid.ts";
import { type ImageHeader, identityOf, type SnapshotIdentity } from "../format/image-frame.ts";

export interface ChainLink {
  /** File of the stream, for messages. */
  readonly name: string;
  readonly header: ImageHeader;
}

/** What is there before the first link. */
export interface ChainStart {
  readonly name: string;
  readonly volumeUuid: Uint8Array;
  readonly volumeBlocks: number;
  readonly snapshots: readonly SnapshotIdentity[];
}

/**
 * The first broken link, in words; undefined: none. `start` is the destination; "empty": there is none yet;
 * "any": unknown, and assumed to have what the first link needs.
 */
export function brokenLink(links: readonly ChainLink[], start: ChainStart | "empty" | "any"): string | undefined {
  let state: ChainStart | undefined = typeof start === "string" ? undefined : start;
  for (const [index, link] of links.entries()) {
    const assumed = start === "any" && index === 0;
    const problem = assumed ? undefined : problemOf(link, state);
    if (problem !== undefined) return problem;
    state = after(link, state);
  }
  return undefined;
}

/** Throws UserError "mismatch" that names the broken link. */
export function checkChain(links: readonly ChainLink[], start: ChainStart | "empty"): void {
  const problem = brokenLink(links, start);
  if (problem !== undefined) throw new UserError("mismatch", problem, "give the files in the order they were made");
}

function problemOf({ name, header }: ChainLink, state: ChainStart | undefined): string | undefined {
  const { base, volumeUuid, volumeBlocks, tops } = header;
  if (base === undefined) {
    return state === undefined ? undefined : `${name} is a full image, but there is a volume already: ${state.name}`;
  }
  if (state === undefined)
    return `${name} is an increment to snapshot ${formatUuid(base.uuid)}, but no volume is there`;
  if (!sameBytes(volumeUuid, state.volumeUuid)) {
    return `${name} is of volume ${formatUuid(volumeUuid)}, but ${state.name} of volume ${formatUuid(state.volumeUuid)}`;
  }
  if (volumeBlocks < state.volumeBlocks) {
    return `${name} is of a volume of ${volumeBlocks} blocks, but ${state.name} has ${state.volumeBlocks} already`;
  }
  const found = state.snapshots.find(({ uuid }) => sameBytes(uuid, base.uuid));
  if (found === undefined || found.rootChecksum !== base.rootChecksum) {
    const there = state.snapshots.at(-1);
    const has = there === undefined ? "no snapshot" : `snapshot ${formatUuid(there.uuid)} of CP ${there.cpCount}`;
    return `${name} needs snapshot ${formatUuid(base.uuid)} of CP ${base.cpCount} as its base, but after ${state.name} there is ${has}`;
  }
  const newest = tops.at(-1);
  if (newest !== undefined && state.snapshots.some(({ uuid }) => sameBytes(uuid, newest.uuid))) {
    return `${name} brings snapshot ${JSON.stringify(newest.name)}, which is there after ${state.name} already`;
  }
  return undefined;
}

/** What is there when the link has been received: its tops, and those of before that its source still had. */
function after({ name, header }: ChainLink, state: ChainStart | undefined): ChainStart {
  const held = new Set(header.held.map(({ uuid }) => formatUuid(uuid)));
  const before = header.base === undefined ? [] : [...(state?.snapshots ?? []), header.base];
  const brought = header.tops.map((top) => identityOf(top));
  const all = new Map(
    [...before.filter(({ uuid }) => held.has(formatUuid(uuid))), ...brought].map((id) => [formatUuid(id.uuid), id]),
  );
  return { name, volumeUuid: header.volumeUuid, volumeBlocks: header.volumeBlocks, snapshots: [...all.values()] };
}
