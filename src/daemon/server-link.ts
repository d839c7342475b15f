/**
 * The main thread's end of the line to the server thread: starts it, posts messages and knocks, matches answers to
 * requests. It knows nothing of what they mean.
 */
import assert from "node:assert/strict";
import { setFlagsFromString } from "node:v8";
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import { UserError } from "../core/errors.ts";
import type { NodeId } from "../fs/file-system.ts";
import { WAKE_WORDS, WORD_WAKE } from "../fuse/kernel/loop.ts";
import type { Knocker } from "./knock.ts";
import { userError } from "./plain-error.ts";
import type { FromServer, ServerStart, ToServer } from "./thread-messages.ts";
import type { VerbResults, VolumeRequest, VolumeSummary, VolumeVerb } from "./volume-verbs.ts";

/** Of the server thread's heap: the 48 that it would have save no time, and are memory that --memory does not count. */
const YOUNG_MIB_MAX = 8;
/**
 * How far a heap may grow, from what was alive after the last full collection, before the next: V8 would let the 40 MiB of a busy server
 * become more than three times as many.
 */
const HEAP_GROWTH = "--heap-growing-percent=100";

export interface ServerLink {
  readonly wake: SharedArrayBuffer;
  /** Resolves when the volume is open; rejects with what is wrong with it. */
  readonly opened: Promise<VolumeSummary>;
  /** Resolves when the thread has closed the volume; rejects when it ended in an error or a bug. */
  readonly ended: Promise<void>;
  /** What rouses the thread from its read once there is a mount. */
  useKnocker(knocker: Knocker): void;
  post(message: ToServer): void;
  /** The files that the kernel may have dirty pages of; `deletedToo`: also those that have no name any more. */
  writers(which: { readonly deletedToo: boolean }): Promise<readonly NodeId[]>;
  perform<V extends VolumeVerb>(request: Extract<VolumeRequest, { verb: V }>): Promise<VerbResults[V]>;
}

interface Pending {
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
}

export type ServerOptions = Omit<ServerStart, "wake" | "port">;
/** Messages that are not answers. */
export type ServerEvent = Exclude<FromServer, { readonly kind: "opened" | "result" | "refused" | "ended" }>;

export function startServer(options: ServerOptions, onEvent: (event: ServerEvent) => void): ServerLink {
  const wake = new SharedArrayBuffer(WAKE_WORDS * Int32Array.BYTES_PER_ELEMENT);
  const word = new Int32Array(wake);
  const { port1: near, port2: far } = new MessageChannel();
  const start: ServerStart = { ...options, wake, port: far };
  setFlagsFromString(HEAP_GROWTH);
  const worker = new Worker(new URL("./server-thread.js", import.meta.url), {
    workerData: start,
    transferList: [far],
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB_MAX },
  });
  const pending = new Map<number, Pending>();
  const opened = deferred<VolumeSummary>();
  const ended = deferred<void>();
  let requestCount = 0;
  let knocker: Knocker | undefined;
  let gone: Error | undefined; // why there is nobody to ask any more

  function end(error: Error | undefined): void {
    if (gone !== undefined) return;
    gone = error ?? new UserError("unreachable", "the volume was unmounted meanwhile");
    opened.reject(gone);
    for (const { reject } of pending.values()) reject(gone);
    pending.clear();
    if (error === undefined) ended.resolve();
    else ended.reject(error);
    near.close();
  }

  function receive(message: FromServer): void {
    switch (message.kind) {
      case "opened":
        opened.resolve(message.status);
        return;
      case "result":
        pending.get(message.id)?.resolve(message.value as never);
        pending.delete(message.id);
        return;
      case "refused":
        pending.get(message.id)?.reject(userError(message.error));
        pending.delete(message.id);
        return;
      case "ended":
        end(message.error === undefined ? undefined : userError(message.error));
        return;
      case "busy":
      case "written":
      case "frozen":
      case "held":
      case "answered":
      case "failed":
      case "log":
      case "full":
      case "damage":
      case "errand":
      case "drain":
      case "allow":
      case "unfinished":
      case "stale":
        onEvent(message);
    }
  }

  /** Its last messages may wait still: the two events come in any order. */
  function exited(): void {
    for (let last = receiveMessageOnPort(near); last !== undefined; last = receiveMessageOnPort(near)) {
      receive(last.message as FromServer);
    }
    end(new UserError("failed", "the server thread ended unexpectedly"));
  }

  near.on("message", receive);
  worker.on("error", (error) => end(error));
  worker.on("exit", exited);

  const post = (message: ToServer): void => {
    if (gone === undefined) postTo(near, message, word, knocker);
  };
  async function ask(question: (id: number) => ToServer): Promise<unknown> {
    if (gone !== undefined) throw gone;
    requestCount += 1;
    const answer = deferred<unknown>();
    pending.set(requestCount, answer);
    post(question(requestCount));
    return answer.promise;
  }

  return {
    wake,
    opened: opened.promise,
    ended: ended.promise,
    useKnocker(given): void {
      knocker = given;
    },
    post,
    writers: async ({ deletedToo }) => (await ask((id) => ({ kind: "writers", id, deletedToo }))) as readonly NodeId[],
    perform: async (request) => (await ask((id) => ({ kind: "verb", id, request }))) as never,
  };
}

/** First the message, then the word, then the knock: see thread-messages.ts. */
function postTo(port: MessagePort, message: ToServer, word: Int32Array, knocker: Knocker | undefined): void {
  port.postMessage(message);
  if (knocker !== undefined) {
    knocker.knock();
    return;
  }
  Atomics.store(word, WORD_WAKE, 1);
  Atomics.notify(word, WORD_WAKE);
}

interface Deferred<T> extends Pending {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

/** A promise that is settled from outside, once. A rejection that nobody waits for yet is no crash. */
function deferred<T>(): Deferred<T> {
  let settle: Pick<Deferred<T>, "resolve" | "reject"> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  assert(settle !== undefined);
  promise.catch(() => {});
  return { promise, ...settle };
}
