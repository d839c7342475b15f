/**
 * node dist/test/power/writer.js DIRECTORY SEED VOLUME
 *
 * Changes files in a directory of its own until it is killed or gets an error, and says on its stdout, which is outside, what it
 * is about to do and what has been acknowledged. Each line is written before the next call is made:
 *
 *     begin PATH STATE     from now on the path may be in this state
 *     done PATH            the last state of the path is durable: fsync of it and of its directory have returned
 *     done-all DIRECTORY   all states in it are: tidemark sync has returned
 *
 * It begins with what is there, which it says too.
 */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  constants,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { below, prng } from "../../src/core/prng.ts";
import { tidemarkPath } from "../support/mounts.ts";
import { ABSENT, logRecord, stateOf, textOf, wholeState } from "./states.ts";

const [directory = ".", seedText = "1", volume = ""] = process.argv.slice(2);
const random = prng(Number(seedText));
const FILES = 12;
const LOG_BYTES_MAX = 2 << 20;
const { O_CREAT, O_DIRECTORY, O_DSYNC, O_RDWR, O_TRUNC } = constants;

function say(line: string): void {
  writeSync(1, `${line}\n`);
}

/**
 * syncfs(2) would do for any other filesystem: the kernel does not tell one in user space of it. The command does without the
 * daemon when that is dead, and then it means nothing here: the mount must have been alive after it.
 */
function syncAll(): void {
  execFileSync(process.execPath, [tidemarkPath, "sync", volume], { stdio: "ignore" });
  fsyncSync(descriptor);
}

function begin(path: string, state: string): void {
  say(`begin ${path} ${state}`);
}

function syncDirectory(path: string): void {
  const descriptor = openSync(path, O_DIRECTORY);
  fsyncSync(descriptor);
  closeSync(descriptor);
}

function writeNew(path: string, content: Buffer, more = 0): void {
  const descriptor = openSync(path, O_RDWR | O_CREAT | O_TRUNC | more);
  const step = 1 + below(random, 70_000);
  for (let at = 0; at < content.length; at += step)
    writeSync(descriptor, content.subarray(at, at + step), 0, undefined, at);
  fsyncSync(descriptor);
  closeSync(descriptor);
}

/** A new version under another name, made durable, and then put in the place of the old one. */
function replace(path: string, version: string): void {
  const content = textOf(version, below(random, 4) === 0 ? below(random, 400_000) : below(random, 9000));
  writeNew(`${path}.new`, content, below(random, 3) === 0 ? O_DSYNC : 0);
  begin(path, wholeState(content));
  renameSync(`${path}.new`, path);
}

function remove(path: string): void {
  if (stateOf(path) === ABSENT) return;
  begin(path, ABSENT);
  unlinkSync(path);
}

function link(path: string, target: string): void {
  if (stateOf(path) !== ABSENT) return;
  begin(path, `link:${target}`);
  symlinkSync(target, path);
}

function move(from: string, into: string): void {
  const state = stateOf(from);
  if (state === ABSENT || from === into) return;
  begin(into, state);
  begin(from, ABSENT);
  renameSync(from, into);
}

const log = `${directory}/log`;
let logBytes = 0;

/** Records one after the other: what was acknowledged stays as it was. */
function append(descriptor: number): void {
  const record = logRecord(logBytes, 100 + below(random, 5000));
  writeSync(descriptor, record, 0, record.length, logBytes);
  logBytes += record.length;
  begin(log, `log:${logBytes}`);
  fdatasyncSync(descriptor);
  say(`done ${log}`);
  if (logBytes < LOG_BYTES_MAX) return;
  begin(log, "log:0");
  ftruncateSync(descriptor, 0);
  fsyncSync(descriptor);
  say(`done ${log}`);
  logBytes = 0;
}

mkdirSync(`${directory}/sub`, { recursive: true });
syncDirectory(directory);
syncDirectory(`${directory}/sub`);
const paths = Array.from({ length: FILES }, (_, i) => `${directory}/${i % 2 === 0 ? "" : "sub/"}f${i}`);
for (const path of paths) begin(path, stateOf(path));
const descriptor = openSync(log, O_RDWR | O_CREAT | O_TRUNC);
begin(log, "log:0");
fsyncSync(descriptor);
syncDirectory(directory);
syncAll();
say(`done-all ${directory}`);

for (let number = 0; ; number++) {
  const path = paths[below(random, FILES)] as string;
  const version = `${seedText}.${number}`;
  const changed = [path];
  switch (below(random, 10)) {
    case 0:
    case 1:
    case 2:
      append(descriptor);
      continue;
    case 3:
      remove(path);
      break;
    case 4:
      link(path, version);
      break;
    case 5: {
      const into = paths[below(random, FILES)] as string;
      move(path, into);
      changed.push(into);
      break;
    }
    default:
      replace(path, version);
  }
  // Not everything is made durable, and some of it together.
  if (below(random, 3) === 0) continue;
  if (below(random, 15) === 0) {
    syncAll();
    say(`done-all ${directory}`);
    continue;
  }
  syncDirectory(directory);
  syncDirectory(`${directory}/sub`);
  for (const one of changed) say(`done ${one}`);
}
