/**
 * Receiving a descriptor from another process, which Node cannot: a pair of sockets, and recvmsg(2) for the message with
 * SCM_RIGHTS, by way of an FFI. Only an ordinary user's mount needs it, so it is loaded by that alone.
 */
import { closeSync } from "node:fs";
import koffi from "koffi";

/** Two connected ends: `child` is handed to the process that is to send, `own` receives. */
export interface DescriptorChannel {
  readonly child: number;
  /** To be called when the process has it, so that its end of the connection is the only other one. */
  closeChild(): void;
  /** The descriptor that has been sent, close-on-exec; undefined: none has. Does not wait. */
  receive(): number | undefined;
  close(): void;
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** The head of a control message, a size_t and two ints, and behind it the descriptor. */
const SIZE_BYTES = koffi.sizeof("size_t");
const HEAD_BYTES = SIZE_BYTES + 8;
/** Room for one descriptor, and for what the alignment adds. */
const CONTROL_BYTES = HEAD_BYTES + 8;

/** As recvmsg(2) wants it, and fills it. */
interface Message {
  readonly name: null;
  readonly nameBytes: number;
  readonly parts: readonly { readonly base: unknown; readonly length: number }[];
  readonly partCount: number;
  readonly control: unknown;
  controlBytes: number;
  flags: number;
}

interface Native {
  readonly socketpair: (domain: number, type: number, protocol: number, pair: [number, number]) => number;
  readonly recvmsg: (descriptor: number, message: Message, flags: number) => number;
}

/** Throws Error when there are no descriptors left. */
export function openDescriptorChannel(): DescriptorChannel {
  const { socketpair, recvmsg } = native();
  const pair: [number, number] = [-1, -1];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) !== 0) throw systemError("socketpair");
  const [own, child] = pair;
  let isChildOpen = true;

  function closeChild(): void {
    if (isChildOpen) closeSync(child);
    isChildOpen = false;
  }

  return {
    child,
    closeChild,
    receive(): number | undefined {
      const data: unknown = koffi.alloc("uint8_t", 1);
      const control: unknown = koffi.alloc("uint8_t", CONTROL_BYTES);
      try {
        const message: Message = {
          name: null,
          nameBytes: 0,
          parts: [{ base: data, length: 1 }],
          partCount: 1,
          control,
          controlBytes: CONTROL_BYTES,
          flags: 0,
        };
        if (recvmsg(own, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 1) return undefined;
        if ((message.flags & MSG_CTRUNC) !== 0 || message.controlBytes < HEAD_BYTES + 4) return undefined;
        const decoded: unknown = koffi.decode(control, "uint8_t", CONTROL_BYTES);
        return descriptorIn(Uint8Array.from(decoded as ArrayLike<number>));
      } finally {
        koffi.free(data);
        koffi.free(control);
      }
    },
    close(): void {
      closeChild();
      closeSync(own);
    },
  };
}

function descriptorIn(control: Uint8Array): number | undefined {
  const view = new DataView(control.buffer);
  const isRights = view.getInt32(SIZE_BYTES, true) === SOL_SOCKET && view.getInt32(SIZE_BYTES + 4, true) === SCM_RIGHTS;
  return isRights ? view.getInt32(HEAD_BYTES, true) : undefined;
}

/** The C library is there already; types are declared under names of ours, once. */
function native(): Native {
  const library = koffi.load(null);
  const part = koffi.struct({ base: "void *", length: "size_t" });
  const message = koffi.struct({
    name: "void *",
    nameBytes: "uint32_t",
    parts: koffi.pointer(part),
    partCount: "size_t",
    control: "void *",
    controlBytes: "size_t",
    flags: "int",
  });
  const socketpair: unknown = library.func("socketpair", "int", ["int", "int", "int", koffi.out("int *")]);
  const recvmsg: unknown = library.func("recvmsg", "intptr_t", ["int", koffi.inout(koffi.pointer(message)), "int"]);
  return { socketpair, recvmsg } as Native;
}

function systemError(call: string): Error {
  return new Error(`${call}: error ${koffi.errno()}`);
}
