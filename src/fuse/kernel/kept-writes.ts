/**
 * WRITEs of the kernel's cache, and RELEASEs, kept until nobody else waits.
 *
 * The kernel hands over all requests in one queue, as they came. Behind a WRITE of its cache waits who wrote back, or nobody, and
 * nobody behind a RELEASE; behind all others there is an application. So the loop reads on, keeps those, and handles one when no
 * other request waits or enough have gone ahead. The kernel has RELEASEs in the background with the WRITEs, so that many come
 * together where files were closed while it wrote back.
 *
 * That changes no order that anybody relies on. Requests that are under way together have none: what must come after a
 * WRITE (a change of the length, a RELEASE, an FSYNC, a read of what is not in the cache any more) the kernel sends after its
 * reply, and close(2) returns before a RELEASE is sent.
 */
import { opcode, requestHeader, WRITE_CACHE, writeRequest } from "./abi.ts";
import { BACKGROUND_MAX, type RequestBuffer } from "./connection.ts";
import { type KeptRequests, keptRequests } from "./kept-requests.ts";

/** As many as there can be: what the kernel has under way in the background. */
const COUNT_MAX = BACKGROUND_MAX;
/** Other requests that are answered before a WRITE that was kept: who writes back is not to starve. */
const PASSED_MAX = 2;

export function keptWrites(connection: RequestBuffer): KeptRequests {
  return keptRequests(connection, { countMax: COUNT_MAX, passedMax: PASSED_MAX });
}

/** Whether the request in hand is a WRITE of the kernel's cache, or a RELEASE. */
export function canWait({ requestView: view }: RequestBuffer, lengthBytes: number): boolean {
  if (lengthBytes < requestHeader.size) return false;
  const code = requestHeader.get.opcode(view, 0);
  if (code === opcode.RELEASE || code === opcode.RELEASEDIR) return true;
  if (code !== opcode.WRITE || lengthBytes < requestHeader.size + writeRequest.size) return false;
  return (writeRequest.get.writeFlags(view, requestHeader.size) & WRITE_CACHE) !== 0;
}
