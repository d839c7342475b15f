// The server thread's queue of messages.
import assert from "node:assert/strict";
import { test } from "node:test";
import { MessageChannel } from "node:worker_threads";
import { openInbox } from "../../src/daemon/inbox.ts";
import type { ToServer } from "../../src/daemon/thread-messages.ts";
import { WORD_WAKE } from "../../src/fuse/kernel/loop.ts";

test("what is put off while nobody empties the queue wakes the loop, and comes before what was sent", () => {
  const { port1, port2 } = new MessageChannel();
  const inbox = openInbox(port1, new SharedArrayBuffer(8));
  const [putOff, sent]: readonly ToServer[] = [{ kind: "follow" }, { kind: "stop" }];
  inbox.putOff(putOff as ToServer);
  port2.postMessage(sent);
  assert.equal(Atomics.load(inbox.word, WORD_WAKE), 1);
  inbox.clear();
  assert.deepEqual([inbox.take(), inbox.take(), inbox.take()], [putOff, sent, undefined]);

  inbox.putOff(putOff as ToServer);
  port2.postMessage(sent);
  assert.deepEqual(inbox.wait(), sent, "only what was sent is waited for");
  assert.equal(Atomics.load(inbox.word, WORD_WAKE), 1);
  port1.close();
});
