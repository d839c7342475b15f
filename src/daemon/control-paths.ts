/**
 * How the daemons of this host name their sockets. The writer's name is that of the volume and nothing more: the lock of the
 * volume says that there is one at most. A read-only mount adds its process id, as there may be many.
 */
import type { FileIdentity } from "../device/file-device.ts";
import { type FoundSocket, foundSockets, socketNamed, volumeKey } from "../mirror/socket-directory.ts";

export interface SocketFile extends FoundSocket {
  readonly volumeKey: string;
  /** Of a read-only mount; undefined: the writer. */
  readonly pid: number | undefined;
}

export function socketPath(identity: FileIdentity, pid: number | undefined): string {
  return socketNamed(`${volumeKey(identity)}${pid === undefined ? "" : `-${pid}`}.sock`);
}

/** Those of all daemons of this user, also of daemons that were killed. */
export function socketFiles(): readonly SocketFile[] {
  return foundSockets().flatMap((found) => {
    const match = /^([0-9a-f]{16})(?:-(\d+))?\.sock$/.exec(found.name);
    const key = match?.[1];
    if (key === undefined) return [];
    return [{ ...found, volumeKey: key, pid: match?.[2] === undefined ? undefined : Number(match[2]) }];
  });
}
