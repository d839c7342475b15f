/** What a check found: a list that stays bounded whatever is wrong. */
import { U32_MAX } from "../core/numbers.ts";
import { shaped } from "../core/shaped.ts";

/** What part of the volume is wrong. */
export type FindingKind =
  | "fsinfo"
  | "snapshot-table"
  | "change-log" // changes that had been made durable are missing
  | "checksum" // a block that is not what its parent expects
  | "unreadable" // the device answers with an error
  | "pointer" // a pointer out of the volume, beyond the end of its file, or one of two to the same block
  | "block-map" // the active map or a bit plane says something else than the tree
  | "inode"
  | "inode-map"
  | "directory"
  | "links" // link counts, parents, directories that are not reached
  | "orphan"
  | "xattr"
  | "counter";

export interface Finding {
  readonly kind: FindingKind;
  readonly message: string;
  /** State of the filesystem that it was found in: "active", or the name of a snapshot. */
  readonly state?: string;
  readonly path?: string;
  readonly ino?: number;
  readonly vbn?: number;
}

/** Where a finding is. */
export interface Place {
  readonly ino?: number;
  readonly vbn?: number;
}

export interface Report {
  readonly findings: readonly Finding[];
  /** Findings beyond the bound, counted only. */
  readonly leftOut: number;
  /** Name of the state that is being checked. */
  state: string | undefined;
  add(kind: FindingKind, message: string, place?: Place): void;
  /** Gives the findings of the present state their paths, as far as there are any. */
  resolvePaths(pathOf: (ino: number) => string | undefined): void;
}

export function openReport(findingsMax: number): Report {
  const findings: Finding[] = [];
  let leftOut = 0;
  let unresolved = 0;
  const report: Report = shaped({
    findings,
    get leftOut(): number {
      return leftOut;
    },
    state: undefined,
    add(kind, message, place = {}): void {
      if (findings.length >= findingsMax) {
        leftOut = Math.min(U32_MAX, leftOut + 1);
        return;
      }
      findings.push({ kind, message, ...(report.state === undefined ? {} : { state: report.state }), ...place });
    },
    resolvePaths(pathOf): void {
      for (; unresolved < findings.length; unresolved++) {
        const finding = findings[unresolved] as Finding;
        if (finding.ino === undefined) continue;
        const path = pathOf(finding.ino);
        if (path !== undefined) findings[unresolved] = { ...finding, path };
      }
    },
  });
  return report;
}
