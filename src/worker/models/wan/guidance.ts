import type { Expert } from "../../../protocol/expert.js";
import type { Context } from "../../comm/context.js";
import { copy } from "../../ops/copy.js";
import { combine } from "../../ops/elementwise.js";
import { Replays } from "../../runtime/replays.js";
import type { Tap } from "../../runtime/tap.js";
import { elements, partOf, type Tensor, tensor, tensorBytes } from "../../runtime/tensor.js";
import type { TextSlot, WanTransformer } from "./transformer.js";

/** Up to so many tokens both forwards run at the same time, unless the plan says otherwise (bench/NOTES.md, Guidance). */
const FEW_TOKENS = 8192;

/**
 * Classifier-free guidance (arXiv 2207.12598): velocity = uncond + scale · (cond - uncond) of the transformer's two outputs.
 * One rank computes both, one after the other or (see the plan's guidance.together) at the same time; under cfg 2 each half of
 * the ranks computes one, and they exchange them.
 * Scale 1 needs the prompt's output only.
 */
export class Guidance {
  /** float32, like the latent; whole on every rank. */
  readonly velocity: Tensor;
  /** What this rank computes. */
  readonly slots: readonly TextSlot[];
  /** Slots whose forwards are queued, and timed, together. */
  readonly #batches: readonly (readonly TextSlot[])[];
  /** float32 [1 or 2, channels, frames, height, width]. */
  readonly #predictions: Tensor;
  readonly #names: readonly TextSlot[];
  /** By slots and precision. */
  readonly #replays: Replays;
  #quantised = true;
  #expert: Expert = "high";

  /**
   * @param latent the transformer's input, float32 [channels, frames, height, width]: always this tensor.
   * @param guided whether any step will look at the negative prompt; by default where this scale does.
   */
  constructor(
    private readonly context: Context,
    private readonly transformer: WanTransformer,
    private readonly latent: Tensor,
    private scale: number,
    private readonly guided = scale !== 1,
  ) {
    const { device, cfg, plan } = context;
    this.#replays = new Replays(device, plan.graph);
    this.#names = guided ? ["cond", "uncond"] : ["cond"];
    this.#predictions = device.allocatePersistent("fp32", [this.#names.length, ...latent.shape]);
    this.velocity = device.allocatePersistent("fp32", latent.shape);
    this.slots = this.#names.filter((_, index) => cfg.size === 1 || index % cfg.size === cfg.rank);
    const together = context.world.size === 1 && (plan.guidance.together ?? transformer.tokens <= FEW_TOKENS);
    this.#batches = together ? [this.slots] : this.slots.map((slot) => [slot]);
  }

  /**
   * The scale of the steps to come, and whose weights are in place: graphs hold numbers of theirs. With 1 in a guidance that looks at the
   * negative prompt elsewhere, its forwards are left out.
   */
  use(expert: Expert, scale: number): void {
    if (scale !== 1 && !this.guided) throw new Error("There is no room for a forward of the negative prompt.");
    this.scale = scale;
    this.#expert = expert;
  }

  /** Part of the body of Context.prepare. */
  measure(): void {
    for (const slot of this.slots) this.transformer.embedText(slot);
    for (const quantised of this.transformer.precisions) {
      for (const batch of this.#batches) this.transformer.inPrecision(quantised, () => this.#queueAll(batch));
    }
    this.#join();
  }

  /**
   * Queues the forwards of one step and leaves the velocity. Where the plan says so, forwards are a graph from their second time on.
   * @param quantised one of the transformer's precisions.
   * @param recorded launched one by one, for a recording.
   * @returns one function per forward (one for both where they run at the same time) which, once the device is synchronized, gives its milliseconds.
   */
  forward(quantised = true, recorded = false): (() => number)[] {
    const { device } = this.context;
    this.#quantised = quantised;
    const times = this.#batches.flatMap((batch) => {
      const wanted = batch.filter((slot) => this.#counts(slot));
      if (wanted.length === 0) return [];
      const queue = () => this.transformer.inPrecision(quantised, () => this.#queueAll(wanted));
      const named = () => device.spanOf("forward", `forward ${wanted.join(" + ")}`, queue);
      return [device.time(recorded ? named : this.#replays.of(`${wanted}, ${quantised}, ${this.#expert}`, queue))];
    });
    this.#join();
    return times;
  }

  /** Queues the forwards of the last step once more, without graphs, and tells a tap of their activations. */
  replay(tapOf: (slot: TextSlot) => Tap): void {
    for (const slot of this.slots.filter((each) => this.#counts(each))) {
      this.transformer.inPrecision(this.#quantised, () => this.#queue(slot, tapOf(slot)));
    }
  }

  /** Frees the graphs, which are captured anew where they are wanted again; the device must be idle. */
  freeGraphs(): void {
    this.#replays.close();
  }

  /** How many forwards one of the times that `forward` gives is for. */
  get forwardsAtOnce(): number {
    return this.#batches[0]?.length ?? 1;
  }

  #counts(slot: TextSlot): boolean {
    return slot === "cond" || this.scale !== 1;
  }

  #queueAll([first, second]: readonly TextSlot[]): void {
    if (first !== undefined && second !== undefined) {
      this.context.device.beside(
        () => this.#queue(first),
        () => this.#queue(second),
      );
    } else if (first !== undefined) this.#queue(first);
  }

  #queue(slot: TextSlot, tap?: Tap): void {
    this.transformer.forward(slot, this.latent, this.#prediction(slot), tap);
  }

  #prediction(slot: TextSlot): Tensor {
    return partOf(this.#predictions, this.#names.indexOf(slot));
  }

  /** Exchanges predictions over cfg, and combines them. */
  #join(): void {
    const { device, cfg } = this.context;
    const [own] = this.slots;
    if (cfg.size > 1 && own !== undefined) {
      const columns = this.latent.shape.at(-1) ?? 1;
      const rows = Array<number>(cfg.size).fill(elements(this.latent.shape) / columns);
      device.arena.scope(() => {
        const part = cfg.gatherPart(rows, columns, "fp32");
        copy(device, part, this.#prediction(own), tensorBytes("fp32", this.latent.shape), "communication");
        const all = tensor(this.#predictions.address, "fp32", [cfg.size * (rows[0] ?? 0), columns]);
        cfg.allGather(part, rows, all);
      });
    }
    const terms =
      this.scale === 1
        ? [{ coefficient: 1, x: this.#prediction("cond") }]
        : [
            { coefficient: this.scale, x: this.#prediction("cond") },
            { coefficient: 1 - this.scale, x: this.#prediction("uncond") },
          ];
    combine(device, this.velocity, terms);
  }
}
