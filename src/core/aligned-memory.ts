/** Memory that begins on a page boundary, for reads and writes that need it or are faster with it. */

/** V8 places the memory of WebAssembly on a page boundary, and no other that JavaScript can have. */
export function alignedMemory(bytes: number): ArrayBuffer {
  const WASM_PAGE_BYTES = 65536;
  return new WebAssembly.Memory({ initial: Math.ceil(bytes / WASM_PAGE_BYTES) }).buffer;
}

/** Not among the types of Node, and only this of it is used. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => { readonly buffer: ArrayBuffer };
};
