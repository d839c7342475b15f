/**
 * Who remembers, outside of the volume, what its writers were told. A path may be found in the state that was acknowledged last,
 * or in any later one.
 */
export interface Witness {
  /** A line of a writer. */
  hear(line: string): void;
  /** What is wrong with what was found; undefined: nothing. */
  judge(path: string, found: string): string | undefined;
  readonly paths: readonly string[];
  readonly acknowledged: number;
  /** Writers whose beginning is durable. */
  readonly ready: number;
}

const HEARD_MAX = 12;

export function openWitness(): Witness {
  const possible = new Map<string, string[]>();
  let acknowledged = 0;
  const ready = new Set<string>();
  /** What was heard of each path, for who looks for a mistake. */
  const heard = new Map<string, string[]>();

  function note(path: string, line: string): void {
    const lines = heard.get(path) ?? [];
    heard.set(path, [...lines.slice(1 - HEARD_MAX), line]);
  }

  /** All states of a path before the last one are over. */
  function settle(path: string): void {
    const states = possible.get(path);
    if (states !== undefined) states.splice(0, states.length - 1);
    note(path, "durable");
    acknowledged += 1;
  }

  return {
    get paths(): readonly string[] {
      return [...possible.keys()];
    },
    get acknowledged(): number {
      return acknowledged;
    },
    get ready(): number {
      return ready.size;
    },
    hear(line): void {
      const [what, path = "", state = ""] = line.split(" ");
      if (what === "begin") note(path, state);
      if (what === "begin") possible.set(path, [...(possible.get(path) ?? []), state]);
      else if (what === "done") settle(path);
      else if (what === "done-all") {
        ready.add(path);
        for (const each of possible.keys()) if (each.startsWith(`${path}/`)) settle(each);
      }
    },
    judge(path, found): string | undefined {
      const states = possible.get(path) ?? [];
      if (found.startsWith("log:")) {
        const lengths = states.map((state) => Number(state.slice(4)));
        const isRestarted = lengths.includes(0) && lengths.length > 1;
        if (isRestarted || Number(found.slice(4)) >= Math.min(...lengths)) return undefined;
      } else if (states.includes(found)) return undefined;
      return `${path} is ${found}, and may be ${states.join(" or ")}; heard before: ${(heard.get(path) ?? []).join(", ")}`;
    },
  };
}
