import type { Store } from "../../../src/worker/store.js";

// Several ranks in one process, where a test needs no processes: each has a device of its own, and these stores.

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((given) => {
    resolve = given;
  });
  return { promise, resolve };
}

/** A store for each rank: what one puts, the others get, and barriers wait for all. */
export function makeStores(size: number): Store[] {
  const values = new Map<string, Deferred<Uint8Array>>();
  const barriers = new Map<string, Deferred<void> & { come: number }>();
  const numbers = new Map<string, Deferred<number> & { readonly all: number[] }>();
  const slot = (key: string) => {
    const known = values.get(key) ?? deferred<Uint8Array>();
    values.set(key, known);
    return known;
  };
  return Array.from({ length: size }, (_, rank) => ({
    rank,
    size,
    put: async (key, value) => slot(key).resolve(value),
    get: (key) => slot(key).promise,
    barrier: (name) => {
      const barrier = barriers.get(name) ?? { ...deferred<void>(), come: 0 };
      barriers.set(name, { ...barrier, come: barrier.come + 1 });
      if (barrier.come + 1 === size) {
        barriers.delete(name);
        barrier.resolve();
      }
      return barrier.promise;
    },
    time: async () => Number(process.hrtime.bigint()) / 1e3,
    largest: async (name, value) => {
      const brought = numbers.get(name) ?? { ...deferred<number>(), all: [] };
      numbers.set(name, brought);
      brought.all.push(value);
      if (brought.all.length === size) {
        numbers.delete(name);
        brought.resolve(Math.max(...brought.all));
      }
      return brought.promise;
    },
    emit: async () => {},
    step: () => async () => ({ preview: false }),
    fault: async (error) => {
      throw error;
    },
  }));
}
