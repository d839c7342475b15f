/** node dist/test/power/reader.js PATH ...      prints the states of paths as a list in JSON. */
import { stateOf } from "./states.ts";

process.stdout.write(JSON.stringify(process.argv.slice(2).map(stateOf)));
