/**
 * How requests reach the server thread, by either transport. The kernel's are read by the server thread itself. Those of
 * fuse-native come in at this thread, whose event loop is the only one that its addon calls; they go over as messages,
 * and their replies come back the same way, at once or when what they wait for is durable.
 */
import { randomUUID } from "node:crypto";
import { closeSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { assertNever } from "../core/numbers.ts";
import { type Name, type NodeId, ROOT_NODE } from "../fs/file-system.ts";
import { invalidateEntry, invalidateInode, isServed } from "../fuse/kernel/notify.ts";
import { mount, mountDevice, mountNatively, run } from "../fuse/mount.ts";
import { isFuseDescriptor } from "../fuse/native/inherited-descriptors.ts";
import type { Ask, PathReply } from "../fuse/native/path-request.ts";
import type { MountConfig } from "./config.ts";
import { placeOf } from "./holders.ts";
import { type Knocker, knocker } from "./knock.ts";
import { syncFiles } from "./mount-sync.ts";
import type { ServerLink } from "./server-link.ts";
import type { ToServer } from "./thread-messages.ts";

export interface FrontDoor {
  /** For notifications to the kernel. */
  readonly descriptor: number;
  /** Resolves when requests are being answered. To be called once, and at once. */
  serve(): Promise<void>;
  /**
   * Resolves when everything written to the mount before the call has reached the filesystem, but what is in files that have been
   * deleted: there can be thousands whose RELEASE waits in the kernel behind what it writes back.
   */
  syncPages(): Promise<void>;
  /**
   * The same, deleted files too, while requests wait for it: it takes no lock of a file or directory, as opening one would, which
   * they may hold. The pages are dropped from the kernel's cache.
   */
  drainPages(): Promise<void>;
  /** Nothing of this process uses the mount while something is done. */
  quietly<T>(doing: () => Promise<T>): Promise<T>;
  /** Is it mounted anywhere? Not to be asked once it is closed. */
  isServed(): boolean;
  /** To be called when the server thread has ended: whoever still asks gets an error. */
  close(): void;
}

export interface PathRequests {
  readonly ask: Ask;
  answered(id: number, reply: PathReply): void;
}

/** Matches replies to requests by path. */
export function pathRequests(post: (message: ToServer) => void): PathRequests {
  const waiting = new Map<number, (reply: PathReply) => void>();
  let count = 0;
  return {
    ask(request, answer): void {
      count += 1;
      waiting.set(count, answer);
      post({ kind: "ask", id: count, request });
    },
    answered(id, reply): void {
      waiting.get(id)?.(reply);
      waiting.delete(id);
    },
  };
}

export interface DoorOptions {
  readonly requests: PathRequests;
  readonly dirtyPagesBytesMax: number;
  readonly log: (message: string) => void;
}

/** Mounts. What the server thread may hold from then on can be sent through the door that this resolves with. */
export async function openFrontDoor(
  { source, mountPoint, mode, transport, kernelOptions }: MountConfig,
  link: ServerLink,
  { requests, dirtyPagesBytesMax, log }: DoorOptions,
): Promise<FrontDoor> {
  const place = {
    source,
    directory: mountPoint,
    readOnly: mode.kind !== "write",
    options: kernelOptions,
  };
  switch (transport) {
    case "kernel": {
      const { descriptor, dirtyPagesBytesMax: kept } = await mount({ ...place, dirtyPagesBytesMax });
      const drop = (node: NodeId) => invalidateInode(descriptor, node, { offset: 0, lengthBytes: 0 });
      const forget = (name: Name) => invalidateEntry(descriptor, ROOT_NODE, name);
      const nodePrefix = `.tidemark-${randomUUID()}-`;
      let knocks: Knocker | undefined;
      let device = "";
      return {
        descriptor,
        async serve(): Promise<void> {
          link.post({ kind: "serve", descriptor, nodePrefix, dirtyPagesBytesMax: kept });
          await statfs(mountPoint); // the first request is answered: it serves
          device = mountDevice(mountPoint) ?? "";
          knocks = knocker(mountPoint, link.wake, () => placeOf(device));
          link.useKnocker(knocks);
        },
        async syncPages(): Promise<void> {
          const nodes = await link.writers({ deletedToo: false });
          if (nodes.length > 0) await syncFiles({ place: await placeOf(device), nodePrefix, nodes, drop, forget });
        },
        async drainPages(): Promise<void> {
          const nodes = await link.writers({ deletedToo: true });
          const reached = await placeOf(device);
          if (reached !== undefined) await run("sync", ["-f", reached]); // begun in large requests, and not waited for
          for (const node of nodes) await drop(node);
        },
        quietly: (doing) => (knocks === undefined ? doing() : knocks.quietly(doing)),
        isServed: () => isServed(descriptor),
        close: () => closeSync(descriptor),
      };
    }
    case "fuse-native": {
      link.post({ kind: "serve-paths" });
      const { descriptor, ended, abandon } = await mountNatively({ ...place, ask: requests.ask, log });
      return {
        descriptor,
        async serve(): Promise<void> {
          void ended.then(() => link.post({ kind: "unmounted" }));
          await statfs(mountPoint);
        },
        syncPages: async () => {}, // libfuse 2 has no such cache
        drainPages: async () => {},
        quietly: (doing) => doing(),
        isServed: () => isFuseDescriptor(descriptor) && isServed(descriptor), // libfuse closes it
        close: abandon,
      };
    }
    default:
      return assertNever(transport);
  }
}
