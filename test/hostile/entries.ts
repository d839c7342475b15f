/** The places where bytes come in from outside, and what is tried at each with a hostile input. */
import { type Choices, choicesOf } from "./choices.ts";
import { exerciseLines, exerciseMessages, hostileLines, hostileMessages } from "./messages.ts";
import { exerciseStream, hostileStream, sampleStreams } from "./streams.ts";
import { exerciseVolume, hostileVolume, sampleVolume } from "./volumes.ts";

/** Makes an input from the choices, and tries it. Throws what is a fault. */
export type Entry = (choices: Choices) => void;

const makers: Readonly<Record<string, () => Entry>> = {
  volume: () => {
    const sample = sampleVolume();
    return (choices) => exerciseVolume(hostileVolume(choices, sample));
  },
  stream: () => {
    const sample = sampleStreams();
    return (choices) => exerciseStream(choices, hostileStream(choices, sample), sample);
  },
  control: () => (choices) => exerciseLines(choices, hostileLines(choices)),
  mirror: () => (choices) => exerciseMessages(choices, hostileMessages(choices)),
};

export const entryNames: readonly string[] = Object.keys(makers);

export function makeEntry(name: string): Entry {
  const make = makers[name];
  if (make === undefined) throw new Error(`no entry ${name}: ${entryNames.join(", ")}`);
  return make();
}

/** One input from a seed. A fault comes out with the line that repeats it. */
export function tryInput(name: string, entry: Entry, genome: readonly number[], seed: number): Choices {
  const choices = choicesOf(genome, seed);
  try {
    entry(choices);
  } catch (cause) {
    const genomeText = genome.length === 0 ? "" : ` GENOME=${genome.map((n) => n.toString(16)).join(",")}`;
    throw new Error(`to repeat it: make fuzz-input ENTRY=${name} SEED=${seed}${genomeText}`, { cause });
  }
  return choices;
}
