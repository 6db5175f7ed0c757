import { z } from "zod";
import { countNonfinite } from "../../ops/elementwise.js";
import type { Device } from "../../runtime/device.js";
import { partOf, type Tensor } from "../../runtime/tensor.js";
import type { Store } from "../../store.js";
import type { Guidance } from "./guidance.js";

/** More than the activations of both forwards of the largest model. */
const CAPACITY = 1024;

/** An activation that holds a NaN or an infinity. */
const culpritSchema = z.object({
  slot: z.enum(["cond", "uncond"]),
  /** Among the activations of its forward, in the order of computation. */
  index: z.int(),
  /** Named as the published code's modules: `block.0.ffn`. */
  layer: z.string(),
  rank: z.int(),
});
export type Culprit = z.infer<typeof culpritSchema>;

/** A block's residual stream is tapped after each branch: what it is the first to have came from that branch. */
export function branchOf(tapped: string): string {
  const [, block, point] = /^(block\.\d+)(\.before_cross_attn|\.after_cross_attn)?$/.exec(tapped) ?? [];
  if (block === undefined) return tapped;
  return `${block}.${point === undefined ? "ffn" : point === ".before_cross_attn" ? "self_attn" : "cross_attn"}`;
}

/** Counts values that are NaN or infinite, on the device. */
export class NonfiniteCounter {
  readonly #counts: Tensor;

  constructor(private readonly device: Device) {
    this.#counts = device.allocatePersistent("i32", [CAPACITY]);
  }

  /** How many values of a contiguous tensor are not finite, once all that is queued before has run. */
  async count(x: Tensor): Promise<number> {
    this.#queue(0, x);
    const [count = 0] = await this.#read(1);
    return count;
  }

  /**
   * Runs the step's forwards again and finds the first activation that is not finite, on any rank; undefined if all are.
   * Every rank calls it, and gets the same answer.
   */
  async findCulprit(guidance: Guidance, store: Store): Promise<Culprit | undefined> {
    const seen: Culprit[] = [];
    guidance.replay((slot) => {
      const start = seen.length;
      return (layer, x) => {
        this.#queue(seen.length, x);
        seen.push({ slot, index: seen.length - start, layer: branchOf(layer), rank: store.rank });
      };
    });
    const counts = await this.#read(seen.length);
    const own = seen.find((_, index) => (counts[index] ?? 0) > 0) ?? null;
    await store.put(`nonfinite/${store.rank}`, encode(own));
    // One rank reads what all have put, and tells them: were it every rank, the messages would grow with the square of the ranks.
    if (store.rank === 0) await store.put("nonfinite", encode(await this.#first(store)));
    return culpritSchema.nullable().parse(decode(await store.get("nonfinite"))) ?? undefined;
  }

  async #first(store: Store): Promise<Culprit | null> {
    const all: Culprit[] = [];
    for (let rank = 0; rank < store.size; rank++) {
      const theirs = culpritSchema.nullable().parse(decode(await store.get(`nonfinite/${rank}`)));
      if (theirs) all.push(theirs);
    }
    return all.sort((a, b) => a.slot.localeCompare(b.slot) || a.index - b.index || a.rank - b.rank)[0] ?? null;
  }

  #queue(index: number, x: Tensor): void {
    countNonfinite(this.device, partOf(this.#counts, index), x);
  }

  async #read(length: number): Promise<Uint32Array> {
    const bytes = await this.device.download({ ...this.#counts, shape: [length] });
    return new Uint32Array(bytes.buffer, bytes.byteOffset, length);
  }
}

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const decode = (value: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(value));
