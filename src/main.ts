#!/usr/bin/env node
import { main } from "./cli/main.ts";

/** Two folders up, as it was compiled and as it is bundled. */
const packageFile = new URL("../../package.json", import.meta.url);

void main(process.argv.slice(2), packageFile).then((exitCode) => {
  process.exitCode = exitCode;
});
