// Whose turn it is, without a mount: requests come from a list.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { FileSystem } from "../../src/fs/file-system.ts";
import * as abi from "../../src/fuse/kernel/abi.ts";
import { opcode, requestHeader } from "../../src/fuse/kernel/abi.ts";
import { BACKGROUND_MAX, makeConnection, PAYLOAD_BYTES_MAX } from "../../src/fuse/kernel/connection.ts";
import { keptWrites } from "../../src/fuse/kernel/kept-writes.ts";
import { type Kept, NOTHING, nextRequest, type Slices } from "../../src/fuse/kernel/next-request.ts";
import { putOffReads, READ_BYTES } from "../../src/fuse/kernel/put-off.ts";
import { shortOfSpace } from "../../src/fuse/kernel/short-of-space.ts";

interface Sent {
  readonly code: number;
  readonly tag: number;
  readonly bytes: number;
  readonly flags?: number;
}

const WRITE_BYTES = requestHeader.size + abi.writeRequest.size;
const fromCache = (tag: number, payload = 4096): Sent => ({
  code: opcode.WRITE,
  tag,
  bytes: WRITE_BYTES + payload,
  flags: abi.WRITE_CACHE,
});
const direct = (tag: number): Sent => ({ code: opcode.WRITE, tag, bytes: WRITE_BYTES + 4096, flags: 0 });
const released = (tag: number): Sent => ({ code: opcode.RELEASE, tag, bytes: 64 });
const small = (tag: number): Sent => ({ code: opcode.LOOKUP, tag, bytes: 60 });
const read = (tag: number): Sent => ({ code: opcode.READ, tag, bytes: READ_BYTES });

function stage({ canAsk = true, slices }: { readonly canAsk?: boolean; readonly slices?: Slices } = {}) {
  const connection = makeConnection({ fileSystem: {} as FileSystem, log: () => {} });
  const kept: Kept = {
    reads: putOffReads(),
    writes: keptWrites(connection),
    shortOfSpace: shortOfSpace(connection),
  };
  const waiting: Sent[] = [];
  const source = {
    receive(): number {
      const sent = waiting.shift();
      if (sent === undefined) return NOTHING;
      const { request, requestView: view } = connection;
      request.fill(sent.tag, 0, sent.bytes);
      requestHeader.set.opcode(view, 0, sent.code);
      if (sent.code === opcode.WRITE) abi.writeRequest.set.writeFlags(view, requestHeader.size, sent.flags ?? 0);
      return sent.bytes;
    },
    isRequestWaiting: canAsk ? () => waiting.length > 0 : undefined,
    slices,
  };
  /** The tag of the next one, which has come as it was sent. */
  function next(): number | undefined {
    const bytes = nextRequest(connection, kept, source);
    if (bytes === NOTHING) return undefined;
    const tag = connection.request[bytes - 1] as number;
    const code = requestHeader.get.opcode(connection.requestView, 0);
    if (code === opcode.WRITE) {
      assert(connection.request.subarray(WRITE_BYTES, bytes).every((byte) => byte === tag));
      assert.equal((connection.request.byteOffset + WRITE_BYTES) % 4096, 0, "the payload begins on a page boundary");
    }
    return tag;
  }
  function all(): number[] {
    const tags: number[] = [];
    for (let tag = next(); tag !== undefined; tag = next()) tags.push(tag);
    return tags;
  }
  return { connection, kept, waiting, next, all };
}

test("WRITEs of the cache let others go ahead, and stay in order and whole, however large", () => {
  const { waiting, next, all } = stage();
  waiting.push(fromCache(1, PAYLOAD_BYTES_MAX), fromCache(2), small(3));
  assert.equal(next(), 3);
  assert.equal(next(), 1);
  waiting.push(fromCache(4, PAYLOAD_BYTES_MAX), fromCache(5), small(6));
  assert.equal(next(), 6);
  waiting.push(direct(7));
  assert.equal(next(), 7, "somebody waits for that one");
  assert.deepEqual(all(), [2, 4, 5]);
});

test("RELEASEs let others go ahead with the WRITEs, in their order", () => {
  const { waiting, all } = stage();
  waiting.push(released(1), fromCache(2), released(3), small(4), small(5));
  assert.deepEqual(all(), [4, 5, 1, 2, 3]);
});

test("a WRITE is handled though others keep coming, after some of them", () => {
  const { waiting, all } = stage();
  waiting.push(fromCache(1), fromCache(2));
  for (let tag = 10; tag < 50; tag++) waiting.push(small(tag));
  const tags = all();
  assert.equal(tags.length, 42);
  const [first, second] = [tags.indexOf(1), tags.indexOf(2)];
  assert(first > 0 && first < 10, `the first one after ${first} others`);
  assert(second > first + 1 && second < 20, `the second one at ${second}`);
});

test("as many are kept as the kernel has in the background; then the first is handled", () => {
  const { waiting, kept, next, all } = stage();
  for (let tag = 1; tag <= BACKGROUND_MAX + 1; tag++) waiting.push(fromCache(tag));
  waiting.push(small(99));
  assert.equal(next(), 1);
  assert.equal(kept.writes.count, BACKGROUND_MAX - 1);
  assert.equal(next(), 2, "full again");
  assert.deepEqual(all()[0], 99);
});

test("who found no space is asked again, once, when no other request waits and the RELEASEs that were kept are handled", () => {
  const { connection, kept, waiting, next } = stage();
  waiting.push(direct(1));
  assert.equal(next(), 1);
  assert.equal(connection.mayAwaitSpace, true);
  kept.shortOfSpace.keep(WRITE_BYTES + 4096);
  waiting.push(small(2), released(3), small(4));
  assert.deepEqual([next(), next(), next()], [2, 4, 3]);
  assert.equal(next(), 1);
  assert.equal(connection.mayAwaitSpace, false, "what is said now holds");
  assert.equal(kept.shortOfSpace.count, 0);
});

test("who found no space is asked again though others keep coming, and when many have found none", () => {
  const { connection, kept, waiting, next, all } = stage();
  waiting.push(direct(1));
  next();
  kept.shortOfSpace.keep(WRITE_BYTES + 4096);
  for (let round = 0; round < 200; round++) waiting.push(small(2), fromCache(3));
  let passed = 0;
  while (next() !== 1) passed += 1;
  assert(passed > 16 && passed < 300, `after ${passed} others`);
  waiting.splice(0);
  all();
  for (let tag = 10; kept.shortOfSpace.count < 16; tag++) {
    waiting.unshift(direct(tag));
    assert.equal(next(), tag);
    kept.shortOfSpace.keep(WRITE_BYTES + 4096);
  }
  assert.equal(next(), 10);
  assert.equal(connection.mayAwaitSpace, false);
});

test("READs that were put off come after the WRITEs, but come, and may be put off again while others wait", () => {
  const { connection, kept, waiting, next, all } = stage();
  waiting.push(read(1));
  assert.equal(next(), 1);
  kept.reads.add(connection.request);
  waiting.push(fromCache(2));
  assert.equal(next(), 2);
  assert.equal(next(), 1);
  assert.equal(connection.mayPutOff, false, "nobody else waits");
  kept.reads.add(connection.request);
  for (let tag = 10; tag < 50; tag++) waiting.push(fromCache(tag));
  const at = all().indexOf(1);
  assert(at > 0 && at < 20, `after ${at} others`);
});

test("where it cannot be told whether others wait, all are handled as they come", () => {
  const { waiting, all } = stage({ canAsk: false });
  waiting.push(fromCache(1), small(2), fromCache(3), small(4));
  assert.deepEqual(all(), [1, 2, 3, 4]);
});

test("slices are done while no request waits, also behind those that were kept; one that is due comes first", () => {
  let left = 5;
  let isDue = false;
  const slices: Slices = {
    isMore: () => left > 0,
    isDue: () => isDue && left > 0,
    quietUs: () => 0,
    next: () => void (left -= 1),
  };
  const { waiting, next } = stage({ slices });
  waiting.push(fromCache(1), small(2));
  assert.equal(next(), 2);
  assert.equal(next(), 1);
  assert.equal(left, 5);
  assert.equal(next(), undefined);
  assert.equal(left, 4);
  waiting.push(small(3), small(4));
  assert.equal(next(), 3);
  isDue = true;
  assert.equal(next(), undefined);
  assert.equal(left, 3);
  isDue = false;
  assert.equal(next(), 4);
  for (const then of [2, 1, 0]) {
    assert.equal(next(), undefined);
    assert.equal(left, then);
  }
});
