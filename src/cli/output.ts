/** What commands print: results to stdout, everything else to stderr; with --json, documents instead of text. */
import { UserError } from "../core/errors.ts";
import { type ExitName, exitCodes } from "./exit-codes.ts";
import { InterruptedError } from "./interrupt.ts";

export interface Output {
  readonly json: boolean;
  /** The result, once: the value as JSON, or its text for people; an empty text prints nothing. */
  result(value: unknown, text: () => string): void;
  /** Something that happened during long work: a line on stderr, or a JSON line on stdout. */
  event(type: string, text: string): void;
  /** A remark that is no result. */
  note(text: string): void;
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
    result(value, text): void {
      const shown = json ? JSON.stringify(value, undefined, 2) : text();
      if (shown !== "") stream.write(`${shown}\n`);
    },
    event(type, text): void {
      if (json) stream.write(`${JSON.stringify({ type, message: text })}\n`);
      else process.stderr.write(`${text}\n`);
    },
    note(text): void {
      if (!json) process.stderr.write(`${text}\n`);
    },
  };
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
    process.stderr.write(`tidemark: ${message}\n${hint === "" ? "" : `  ${hint}\n`}`);
  }
  if (debug && error instanceof Error) process.stderr.write(`${stackOf(error)}\n`);
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

/** One line, whatever it is made of: control characters as three octal digits a byte. */
export function escaped(text: string, unsafe = /\p{Cc}/gu): string {
  return text.replaceAll(unsafe, (char) => [...Buffer.from(char)].map(octal).join(""));
}

export function octal(byte: number): string {
  return `\\${byte.toString(8).padStart(3, "0")}`;
}

/** Columns for people: the first row is the heading; numbers to the right. */
export function table(cells: readonly (readonly (string | number)[])[]): string {
  const rows = cells.map((row) => row.map((cell) => (typeof cell === "number" ? cell : escaped(cell))));
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, String(cell).length);
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) => {
          const width = widths[column] ?? 0;
          return typeof cell === "number" ? String(cell).padStart(width) : cell.padEnd(width);
        })
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** What stands behind a name: a value, lines of which the first does, or nothing at all. */
export type FieldValue = string | number | readonly string[] | undefined;

/** "name   value" lines. */
export function fields(rows: readonly (readonly [name: string, value: FieldValue])[]): string {
  const shown = rows.filter(([, value]) => value !== undefined);
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${valueText(value)}`).join("\n");
}

function valueText(value: FieldValue): string {
  const lines = typeof value === "object" ? value : [String(value)];
  return lines.map((line) => escaped(line)).join("\n  ");
}
