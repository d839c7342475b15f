/**
 * What commands print: results to stdout, everything else to stderr; with --json, documents instead of text. Text is given
 * in lines and made safe here: a name with a newline or a control sequence in it breaks no line, and commands no terminal.
 */
import { UserError } from "../core/errors.ts";
import { escaped } from "../core/escaped.ts";
import { type ExitName, exitCodes } from "./exit-codes.ts";
import { InterruptedError } from "./interrupt.ts";

export interface Output {
  readonly json: boolean;
  /** The result, once: the value as JSON, or lines for people; there may be none. */
  result(value: unknown, lines: () => readonly string[]): void;
  /** Something that happened during long work: a line on stderr, or a JSON line on stdout. */
  event(type: string, line: string): void;
  /** A remark that is no result. */
  note(line: string): void;
}

export interface OutputOptions {
  readonly json: boolean;
  /** stdout carries a stream: results go to stderr too. */
  readonly stdoutTaken?: boolean;
}

export function makeOutput({ json, stdoutTaken = false }: OutputOptions): Output {
  const stream = stdoutTaken ? process.stderr : process.stdout;
  return {
    json,
    result(value, lines): void {
      const shown = json ? `${JSON.stringify(value, undefined, 2)}\n` : printed(lines());
      if (shown !== "") stream.write(shown);
    },
    event(type, line): void {
      if (json) stream.write(`${JSON.stringify({ type, message: line })}\n`);
      else process.stderr.write(printed([line]));
    },
    note(line): void {
      if (!json) process.stderr.write(printed([line]));
    },
  };
}

function printed(lines: readonly string[]): string {
  return lines.map((line) => `${escaped(line)}\n`).join("");
}

/** Prints the error and returns the exit code that it means. */
export function printError(
  error: unknown,
  { json, debug }: { readonly json: boolean; readonly debug: boolean },
): number {
  const { failure, message, hint } = describe(error);
  const { code } = exitCodes[failure];
  if (json) {
    process.stderr.write(`${JSON.stringify({ type: "error", code: failure, exitCode: code, message, hint })}\n`);
  } else {
    process.stderr.write(printed([`tidemark: ${message}`, ...(hint === "" ? [] : [`  ${hint}`])]));
  }
  if (debug && error instanceof Error) process.stderr.write(printed(stackOf(error).split("\n")));
  return code;
}

interface Description {
  readonly failure: Exclude<ExitName, "done">;
  readonly message: string;
  readonly hint: string;
}

function describe(error: unknown): Description {
  if (error instanceof InterruptedError) return { failure: "interrupted", message: error.message, hint: "" };
  if (error instanceof UserError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const corrupt = error instanceof Error && error.name === "CorruptionError";
  return corrupt
    ? { failure: "corrupt", message, hint: "tidemark check VOLUME tells the extent of the damage" }
    : { failure: "failed", message, hint: "" };
}

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by: ${stackOf(error.cause)}` : "";
  return `${error.stack ?? error.message}${cause}`;
}

/** Columns for people, a line each row: the first is the heading; numbers to the right. */
export function table(cells: readonly (readonly (string | number)[])[]): readonly string[] {
  const rows = cells.map((row) => row.map((cell) => (typeof cell === "number" ? cell : escaped(cell))));
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, String(cell).length);
  }
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return typeof cell === "number" ? String(cell).padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd(),
  );
}

/** What stands behind a name: a value, lines of which the first does, or nothing at all. */
export type FieldValue = string | number | readonly string[] | undefined;

/** "name   value" lines. */
export function fields(rows: readonly (readonly [name: string, value: FieldValue])[]): readonly string[] {
  const shown = rows.filter(([, value]) => value !== undefined);
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.flatMap(([name, value]) => {
    const lines = typeof value === "object" ? value : [String(value)];
    return lines.map((line, i) => `${i === 0 ? name.padEnd(width) : ""}  ${line}`);
  });
}

/** With an empty line between each and the next. */
export function paragraphs(parts: readonly (readonly string[])[]): readonly string[] {
  return parts.flatMap((lines, i) => (i === 0 ? lines : ["", ...lines]));
}
