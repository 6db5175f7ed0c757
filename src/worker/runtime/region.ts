import type { Address, memoryKinds } from "./abi.js";

export interface Allocation {
  readonly address: Address;
  readonly bytes: number;
  readonly kind: keyof typeof memoryKinds;
}

/** Memory that something owns, a model's weights or the buffers of one shape, and that is freed as one. */
export class Region {
  readonly #allocations: Allocation[] = [];

  /** Bytes that it holds. */
  get bytes(): number {
    return this.#allocations.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  get allocations(): readonly Allocation[] {
    return this.#allocations;
  }

  /** Memory of this region that stands in for new memory; here there is none. */
  again(_bytes: number): Address | undefined {
    return undefined;
  }

  add(address: Address, bytes: number, kind: keyof typeof memoryKinds): void {
    this.#allocations.push({ address, bytes, kind });
  }

  /** Forgets its allocations. @returns the addresses, which the caller frees. */
  empty(): Address[] {
    return this.#allocations.splice(0).map(({ address }) => address);
  }
}

/** Memory that is owned elsewhere, given out once more in the same order: what is loaded anew then has the addresses that it had. */
export class SameMemory extends Region {
  readonly #rest: Allocation[];

  constructor(allocations: readonly Allocation[]) {
    super();
    this.#rest = [...allocations];
  }

  override again(bytes: number): Address {
    const next = this.#rest.shift();
    if (next?.bytes !== bytes) throw new Error(`${bytes} bytes are asked for where there were ${next?.bytes}.`);
    return next.address;
  }
}
