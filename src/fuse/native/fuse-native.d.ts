/** What is used of the package fuse-native 2.2.6, which brings no types; as its index.js and fuse-native.c have it. */

/** Ends a request. The first argument is a negative errno, 0, or a count; what follows depends on the operation. */
export type Signal = (result: number, ...values: readonly unknown[]) => void;

/** Called with the memory of the waiting libfuse thread, the number of the operation, and its arguments. */
export type NativeHandler = (threadMemory: Buffer, operation: number, ...values: readonly unknown[]) => unknown;

/** An object of its class. What begins with "_" is taken as it is in this version, which is pinned. */
export interface FuseObject {
  /** Calls back when the kernel has said INIT. */
  mount(callback: (error: Error | null) => void): void;
  /** The one argument of libfuse: "-oa,b,c". */
  _fuseOptions: () => string;
  /** By number of operation. */
  readonly _handlers: (NativeHandler | undefined)[];
  /** The memory of the mount, which libfuse uses until it has ended. */
  readonly _thread: Buffer | null;
}

/** `operations` says which there are: any true value for each. */
export type FuseClass = new (
  directory: string,
  operations: Readonly<Record<string, unknown>>,
  options: { readonly timeout: false },
) => FuseObject;

/** The addon itself. */
export interface Addon {
  readonly op_utimens: number;
  /** Unmounts nothing: lets the event loop end without it. */
  fuse_native_unmount(directory: string, thread: Buffer): void;
}
