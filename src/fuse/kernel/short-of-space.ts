/**
 * Requests that found no space while a deleted file was in use, kept until it is known whether it still is.
 *
 * The blocks of a deleted file are free when nobody has it open and the kernel has forgotten it, and of both it tells late.
 * close(2) returns before its RELEASE is sent, and unlink(2) before the FORGET is read: of those the kernel lets up to eight
 * requests go ahead (fuse_dev_do_read), and the loop a few of a RELEASE (kept-writes.ts). So who deletes a file and writes at once
 * where that was can be here first. What was on its way then has come when no other request waits: who found no space is asked
 * again, once, and what is said then holds.
 */
import type { RequestBuffer } from "./connection.ts";
import { type KeptRequests, keptRequests } from "./kept-requests.ts";

/** More than go ahead of a RELEASE and of the FORGET after it. */
const COUNT_MAX = 16;
/** The queue may never be empty. */
const PASSED_MAX = 256;

export function shortOfSpace(connection: RequestBuffer): KeptRequests {
  return keptRequests(connection, { countMax: COUNT_MAX, passedMax: PASSED_MAX });
}
