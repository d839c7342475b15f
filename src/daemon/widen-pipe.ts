/** How much a pipe holds: a call of the host that Node does not have, by way of an FFI. */

const F_SETPIPE_SZ = 1031;
/** What Linux allows everybody by default (fs.pipe-max-size). */
const PIPE_BYTES = 1 << 20;

/** Lets the pipe behind a descriptor hold 1 MiB instead of 64 KiB. Without an FFI, or if the host refuses, it stays as it is. */
export async function widenPipe(descriptor: number): Promise<void> {
  try {
    const { default: koffi } = await import("koffi");
    const fcntl: unknown = koffi.load(null).func("fcntl", "int", ["int", "int", "..."]);
    (fcntl as (descriptor: number, what: number, type: "int", bytes: number) => number)(
      descriptor,
      F_SETPIPE_SZ,
      "int",
      PIPE_BYTES,
    );
  } catch {
    // it works without
  }
}
