/**
 * What a command says to the daemon of a volume, and what it hears: one JSON document a line over a unix socket.
 *
 * A request is `{"verb": NAME, "arguments": {...}}`. The answer is any number of progress lines and one result or
 * error. Both sides read hostile input: a line has a bound, an unknown verb or argument is refused by its name, and
 * nothing of a message is used before all of it has been checked.
 */
import { type FailureClass, UserError } from "../core/errors.ts";

/** A line longer than this is refused, and the connection with it. */
export const CONTROL_LINE_BYTES_MAX = 1 << 20;
/** The same for what a daemon answers: the list of all snapshots that a volume can have is one line. */
export const CONTROL_REPLY_BYTES_MAX = 64 << 20;
/** Longest text that an argument may have. */
const TEXT_BYTES_MAX = 4096;

interface Argument<T> {
  readonly kind: string;
  /** The checked value; undefined when it is not one. */
  read(value: unknown): T | undefined;
}

const text: Argument<string> = {
  kind: "a text",
  read: (value) =>
    typeof value === "string" && Buffer.byteLength(value) <= TEXT_BYTES_MAX && !value.includes("\0")
      ? value
      : undefined,
};

/** Absent means no. */
const flag: Argument<boolean> = {
  kind: "true or false",
  read: (value) => (value === undefined ? false : typeof value === "boolean" ? value : undefined),
};

/** A list of names, bounded by the line. */
const texts: Argument<readonly string[]> = {
  kind: "a list of texts",
  read: (value) =>
    Array.isArray(value) && value.every((one) => text.read(one) !== undefined) ? (value as string[]) : undefined,
};

/** Every verb and its arguments: the whole surface on one screen. */
const verbs = {
  // Of the volume: the daemon performs them for a mounted volume, the command itself for another.
  "volume-status": {},
  sync: {},
  repair: {},
  "snapshot-list": { unique: flag },
  "snapshot-create": { name: text, mirror: flag },
  "snapshot-delete": { name: text },
  "snapshot-rename": { from: text, into: text },
  "snapshot-restore": { name: text },
  "snapshot-reclaimable": { names: texts },
  // Of the daemon.
  status: {},
  umount: { force: flag },
} as const satisfies Record<string, Readonly<Record<string, Argument<unknown>>>>;

export type Verb = keyof typeof verbs;
type Value<A> = A extends Argument<infer T> ? T : never;
export type ArgumentsOf<V extends Verb> = { readonly [K in keyof (typeof verbs)[V]]: Value<(typeof verbs)[V][K]> };

/** A checked request: the verb tells the type of its arguments. */
export type ControlRequest = { readonly [V in Verb]: { readonly verb: V; readonly arguments: ArgumentsOf<V> } }[Verb];

export interface ControlError {
  readonly failure: FailureClass;
  readonly message: string;
  readonly hint: string;
}

export interface Progress {
  readonly step: string;
  readonly done: number;
  readonly total: number;
}

export type ControlReply =
  | { readonly type: "progress"; readonly progress: Progress }
  | { readonly type: "result"; readonly value: unknown }
  | { readonly type: "error"; readonly error: ControlError };

export function encodeMessage(message: ControlRequest | ControlReply): string {
  return `${JSON.stringify(message)}\n`;
}

/** Checks a request. UserError "usage" names what is wrong with it. */
export function decodeRequest(line: string): ControlRequest {
  const message = decodeObject(line);
  const { verb, arguments: given = {} } = message;
  if (typeof verb !== "string" || !Object.hasOwn(verbs, verb)) throw refusal(`unknown verb ${quoted(verb)}`);
  if (!isObject(given)) throw refusal(`the arguments of ${verb} are no object`);
  for (const key of Object.keys(message)) {
    if (key !== "verb" && key !== "arguments") throw refusal(`unknown field ${quoted(key)}`);
  }
  const shape: Readonly<Record<string, Argument<unknown>>> = verbs[verb as Verb];
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(shape, name)) throw refusal(`${verb} has no argument ${quoted(name)}`);
  }
  const checked: Record<string, unknown> = {};
  for (const [name, argument] of Object.entries(shape)) {
    const value = argument.read(given[name]);
    if (value === undefined) throw refusal(`argument ${name} of ${verb} must be ${argument.kind}`);
    checked[name] = value;
  }
  return { verb, arguments: checked } as unknown as ControlRequest;
}

const failures: Readonly<Record<FailureClass, true>> = {
  failed: true,
  usage: true,
  findings: true,
  "no-volume": true,
  "in-use": true,
  corrupt: true,
  mismatch: true,
  unreachable: true,
};

/** Checks a reply. UserError "failed" when the other side is no daemon of ours. */
export function decodeReply(line: string): ControlReply {
  const message = decodeObject(line);
  const { type, progress, error } = message;
  if (type === "result") return { type, value: message["value"] };
  if (type === "progress" && isObject(progress)) {
    const { step, done, total } = progress;
    if (typeof step === "string" && typeof done === "number" && typeof total === "number") {
      return { type, progress: { step, done, total } };
    }
  }
  if (type === "error" && isObject(error)) {
    const { failure, message: what, hint } = error;
    if (typeof failure === "string" && Object.hasOwn(failures, failure) && typeof what === "string") {
      return {
        type,
        error: { failure: failure as FailureClass, message: what, hint: typeof hint === "string" ? hint : "" },
      };
    }
  }
  throw refusal(`not a reply: ${quoted(line)}`);
}

/** Cuts a byte stream into lines. `push` throws UserError when a line has no end within the bound. */
export function lineReader(
  onLine: (line: string) => void,
  { bytesMax = CONTROL_LINE_BYTES_MAX }: { readonly bytesMax?: number } = {},
): { push(chunk: Uint8Array): void } {
  let parts: Uint8Array[] = [];
  let bytes = 0;
  return {
    push(chunk): void {
      let from = 0;
      for (;;) {
        const end = chunk.indexOf(0x0a, from);
        const part = chunk.subarray(from, end < 0 ? chunk.length : end);
        bytes += part.length;
        if (bytes > bytesMax) throw refusal(`message is longer than ${bytesMax} bytes`);
        parts.push(part);
        if (end < 0) return;
        const line = Buffer.concat(parts).toString("utf8");
        parts = [];
        bytes = 0;
        from = end + 1;
        onLine(line);
      }
    },
  };
}

function decodeObject(line: string): Readonly<Record<string, unknown>> {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch (cause) {
    throw new UserError("usage", `control message is not JSON: ${quoted(line)}`, "", { cause });
  }
  if (!isObject(message)) throw refusal(`not an object: ${quoted(line)}`);
  return message;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refusal(what: string): UserError {
  return new UserError("usage", `control message refused: ${what}`);
}

function quoted(value: unknown): string {
  const shown = JSON.stringify(value) ?? "undefined";
  return shown.length <= 60 ? shown : `${shown.slice(0, 57)}...`;
}
