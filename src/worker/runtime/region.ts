import type { Address, memoryKinds } from "./abi.js";

/** Memory that something owns, a model's weights or the buffers of one shape, and that is freed as one. */
export class Region {
  readonly #allocations: {
    readonly address: Address;
    readonly bytes: number;
    readonly kind: keyof typeof memoryKinds;
  }[] = [];

  /** Bytes that it holds. */
  get bytes(): number {
    return this.#allocations.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  get allocations(): readonly { readonly address: Address; readonly bytes: number }[] {
    return this.#allocations;
  }

  add(address: Address, bytes: number, kind: keyof typeof memoryKinds): void {
    this.#allocations.push({ address, bytes, kind });
  }

  /** Forgets its allocations. @returns the addresses, which the caller frees. */
  empty(): Address[] {
    return this.#allocations.splice(0).map(({ address }) => address);
  }
}
