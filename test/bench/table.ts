/** The table: medians over the rounds, and beside each peer's how many times better Tidemark did. */
import type { Row, Value } from "./rows.ts";

/** What one row gave one peer in one round. */
export interface Measured {
  readonly row: string;
  readonly peer: string;
  readonly round: number;
  readonly values: readonly number[];
  readonly cpuSeconds: number;
  readonly peakMib: number;
}

export interface Line {
  readonly row: string;
  readonly unit: Value["unit"];
  readonly medians: Readonly<Record<string, number>>;
  /** Tidemark against each peer: above 1 is better, whatever the unit. */
  readonly ratios: Readonly<Record<string, number>>;
  /** Peers against which a goal was missed. */
  readonly missed: readonly string[];
  readonly cpuSeconds: Readonly<Record<string, number>>;
  readonly peakMib: Readonly<Record<string, number>>;
}

export function linesOf(rows: readonly Row[], peers: readonly string[], all: readonly Measured[]): readonly Line[] {
  const [ours = ""] = peers;
  const lines: Line[] = [];
  for (const row of rows) {
    for (const [i, { label, unit, goals = {} }] of row.values.entries()) {
      const of = (pick: (one: Measured) => number | undefined): Record<string, number> => {
        const found: Record<string, number> = {};
        for (const peer of peers) {
          const numbers = all.filter((one) => one.row === row.name && one.peer === peer).map(pick);
          const middle = median(numbers.filter((one) => one !== undefined));
          if (middle !== undefined) found[peer] = middle;
        }
        return found;
      };
      const medians = of(({ values }) => values[i]);
      const ratios: Record<string, number> = {};
      const own = medians[ours];
      for (const [peer, value] of Object.entries(medians)) {
        if (own === undefined || peer === ours) continue;
        ratios[peer] = unit.endsWith("/s") ? own / value : value / own;
      }
      lines.push({
        row: label === "" ? row.name : `${row.name}: ${label}`,
        unit,
        medians,
        ratios,
        missed: Object.entries(goals)
          .filter(([peer, goal]) => (ratios[peer] ?? goal) < goal)
          .map(([peer, goal]) => `${peer} ${shortRatio(goal)}`),
        cpuSeconds: of(({ cpuSeconds }) => cpuSeconds),
        peakMib: of(({ peakMib }) => peakMib),
      });
    }
  }
  return lines;
}

/** In Markdown, so that it can be kept as it is. */
export function tableOf(lines: readonly Line[], peers: readonly string[]): string {
  const [ours = "", ...others] = peers;
  const head = ["row", "unit", ours, ...others, `${ours}: CPU s`, "peak MiB", "aim missed"];
  const body = lines.map((line) => [
    line.row,
    line.unit,
    number(line.medians[ours]),
    ...others.map((peer) => {
      const value = line.medians[peer];
      return value === undefined ? "-" : `${number(value)} (${shortRatio(line.ratios[peer] ?? Number.NaN)})`;
    }),
    number(line.cpuSeconds[ours]),
    number(line.peakMib[ours]),
    line.missed.join(", "),
  ]);
  const widths = head.map((title, column) =>
    Math.max(title.length, ...body.map((cells) => cells[column]?.length ?? 0)),
  );
  const text = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  return [text(head), `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`, ...body.map(text)].join("\n");
}

export function median(numbers: readonly number[]): number | undefined {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle];
  if (upper === undefined || sorted.length % 2 === 1) return upper;
  return ((sorted[middle - 1] as number) + upper) / 2;
}

function number(value: number | undefined): string {
  if (value === undefined) return "-";
  if (value >= 100) return value.toFixed(0);
  return value >= 1 ? value.toFixed(1) : value.toFixed(4).replace(/0{1,2}$/, "");
}

function shortRatio(ratio: number): string {
  return `${ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(2)}x`;
}
