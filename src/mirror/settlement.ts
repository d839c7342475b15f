/** The end of something that runs for long: a promise, and the two ways to settle it. */

export interface Settlement {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export function settlement(): Settlement {
  const ways: { resolve?: () => void; reject?: (error: unknown) => void } = {};
  const promise = new Promise<void>((resolve, reject) => {
    ways.resolve = resolve;
    ways.reject = reject;
  });
  promise.catch(() => {}); // it may be rejected before anybody waits for it
  return { promise, resolve: () => ways.resolve?.(), reject: (error) => ways.reject?.(error) };
}
