/**
 * Text that is made of names and paths, for a terminal or a log: one line, whatever it is made of, and nothing in it commands
 * the terminal. Control characters, or what else is unsafe, become three octal digits a byte, as in the mount table.
 */
export function escaped(text: string, unsafe = /\p{Cc}/gu): string {
  return text.replaceAll(unsafe, (char) => [...Buffer.from(char)].map(octal).join(""));
}

export function octal(byte: number): string {
  return `\\${byte.toString(8).padStart(3, "0")}`;
}
