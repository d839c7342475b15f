// The files of src, and their text without what only looks like code.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const source = fileURLToPath(new URL("../../../src/", import.meta.url));

export interface SourceFile {
  /** Relative to src. */
  readonly path: string;
  readonly text: string;
}

export function sourceFiles(): readonly SourceFile[] {
  const paths = readdirSync(source, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ts"));
  return paths.map((path) => ({ path, text: readFileSync(join(source, path), "utf8") }));
}

// Alternatives in this order at every position: comment, quoted string, template, pattern. A slash begins a pattern
// where a value may begin, that is, after an operator, an opening bracket or one of a few words.
const token =
  /\/\/[^\n]*|\/\*[^]*?\*\/|"(?:[^"\\\n]|\\[^])*"|'(?:[^'\\\n]|\\[^])*'|`|[{}]|(?<=(?:^|[-(,=:[!&|?{};+*%~^<>]|=>|\b(?:return|typeof|case|in|of))\s*)\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/\w*/g;

export interface Scan {
  /** The source without comments; the text of the n-th string is replaced by n. */
  readonly code: string;
  readonly strings: readonly string[];
}

/** Takes out comments, patterns and the text of strings. Code inside the `${}` of a template stays code. */
export function scan(text: string): Scan {
  const strings: string[] = [];
  const templates: number[] = []; // for each open `${`, how many braces are open inside it
  let code = "";
  let from = 0;
  let match: RegExpExecArray | null;
  const held = (value: string): string => ` "${strings.push(value) - 1}" `;

  // Reads template text from `at` up to the closing back-quote or the next `${`.
  const template = (at: number): number => {
    const end = /(?:[^`\\$]|\\[^]|\$(?!\{))*/y;
    end.lastIndex = at;
    const chunk = end.exec(text)?.[0] ?? "";
    code += held(chunk);
    const next = at + chunk.length;
    if (text[next] !== "$") return next + 1;
    templates.push(0);
    code += "(";
    return next + 2;
  };

  token.lastIndex = 0;
  while ((match = token.exec(text)) !== null) {
    const [found] = match;
    const open = templates.at(-1);
    code += text.slice(from, match.index);
    from = match.index + found.length;
    if (found === "`") {
      from = template(from);
    } else if (found === "}" && open === 0) {
      templates.pop();
      code += ")";
      from = template(from);
    } else if (found === "{" || found === "}") {
      if (open !== undefined) templates[templates.length - 1] = open + (found === "{" ? 1 : -1);
      code += found;
    } else if (found.startsWith('"') || found.startsWith("'")) {
      code += held(found.slice(1, -1));
    } else {
      code += " ";
    }
    token.lastIndex = from;
  }
  return { code: code + text.slice(from), strings };
}
