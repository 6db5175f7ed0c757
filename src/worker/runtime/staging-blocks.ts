import type { Address, Handle } from "./abi.js";
import type { KernelCalls } from "./kernels.js";
import { type DType, type Tensor, tensor, tensorBytes } from "./tensor.js";

/** Enough for threads that read one tensor while another is worked on. */
const MOST_BLOCKS = 8;

interface Block {
  address: Address;
  bytes: number;
  taken: boolean;
}

/** Device memory for tensors that are only passed through: a few blocks that are used in turn, each as large as was ever asked of it. */
export class StagingBlocks {
  #blocks: Block[] = [];
  readonly #waiting: { readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = [];

  /** @param stream what is done with the tensors is queued on it. */
  constructor(
    private readonly kernels: KernelCalls,
    private readonly stream: Handle,
  ) {}

  /**
   * Waits while all blocks are taken. What is queued on the compute stream may use it; so may what is read.
   * @throws what kept the others from being given back.
   */
  async take(dtype: DType, shape: readonly number[]): Promise<Tensor> {
    const bytes = tensorBytes(dtype, shape);
    let block = this.#free(bytes);
    while (!block) {
      await new Promise<void>((resolve, reject) => this.#waiting.push({ resolve, reject }));
      block = this.#free(bytes);
    }
    block.taken = true;
    if (block.bytes < bytes) {
      if (block.bytes > 0) {
        await this.kernels.callBlocking("streamSynchronize", this.stream);
        this.kernels.call("free", block.address);
      }
      [block.address, block.bytes] = [this.kernels.create("malloc", bytes, 0), bytes];
    }
    return tensor(block.address, dtype, shape);
  }

  /** Gives a tensor back, once all that uses it is queued. */
  give({ address }: Tensor): void {
    const block = this.#blocks.find((each) => each.address === address);
    if (!block) return;
    block.taken = false;
    this.#waiting.shift()?.resolve();
  }

  /** Nobody will give back what is taken: who waits for it is told why. */
  abandon(error: unknown): void {
    for (const block of this.#blocks) block.taken = false;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  /** Frees what is not taken; nothing may be queued that still uses it. */
  free(): void {
    for (const { address, bytes } of this.#blocks.filter(({ taken }) => !taken)) {
      if (bytes > 0) this.kernels.call("free", address);
    }
    this.#blocks = this.#blocks.filter(({ taken }) => taken);
  }

  /** The smallest block that holds so many bytes, else a new one, else any. */
  #free(bytes: number): Block | undefined {
    const free = this.#blocks.filter(({ taken }) => !taken).toSorted((a, b) => a.bytes - b.bytes);
    const fits = free.find((block) => block.bytes >= bytes);
    if (fits || this.#blocks.length >= MOST_BLOCKS) return fits ?? free[0];
    const made = { address: 0, bytes: 0, taken: false };
    this.#blocks.push(made);
    return made;
  }
}
