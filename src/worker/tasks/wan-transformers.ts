import type { LoraFile } from "../../formats/lora.js";
import type { LatentSize, WanModel } from "../../models/schema.js";
import { type Expert, experts } from "../../protocol/expert.js";
import type { WanGenerateTask, WanWeights } from "../../protocol/job.js";
import { seedAfter } from "../../protocol/seed.js";
import type { Context } from "../comm/context.js";
import type { Precision } from "../layers/precision.js";
import type { WanTransformer } from "../models/wan/transformer.js";
import type { Device } from "../runtime/device.js";
import { type Store, scoped } from "../store.js";
import { Experts, type Waiting } from "../weights/experts.js";
import { KeptWeights } from "../weights/kept.js";
import type { LoadMeter } from "../weights/load-meter.js";
import { agreed } from "./agree.js";
import { WanFiles } from "./wan-files.js";
import { requireHostMemory } from "./wan-memory.js";
import { loadTransformer, type TransformerFiles, withTransformerSource } from "./wan-session.js";

/** Which LoRAs are for which transformer. */
type Loras = Pick<WanGenerateTask, "loras" | "loras2">;

/** What a transformer is built for. */
interface Shape {
  readonly textWidth: number;
  readonly size: LatentSize;
  readonly precision: Precision | undefined;
}

/** The transformer of an open model, or the two that take turns: their files, and their weights on this worker. */
export class WanTransformers {
  readonly #kept: KeptWeights;
  readonly #files: Readonly<Record<Expert, WanFiles>>;
  readonly #experts: Experts | undefined;

  /**
   * @param stays whether a transformer that has had its turn will have another.
   * @param free frees the weights and all that was made with them, where some are new and some are not.
   */
  constructor(
    private readonly device: Device,
    private readonly meter: LoadMeter,
    private readonly model: WanModel,
    private readonly weights: WanWeights,
    stays: boolean,
    private readonly free: () => Promise<void>,
  ) {
    this.#kept = new KeptWeights(device, meter);
    const filesOf = (expert: Expert) => new WanFiles(model, weightsOf(expert, weights));
    this.#files = { high: filesOf("high"), low: filesOf("low") };
    this.#experts = model.boundary === undefined ? undefined : new Experts(device, this.#kept, stays);
  }

  /** Whether there are two. */
  get two(): boolean {
    return this.#experts !== undefined;
  }

  /** Whether nothing is loaded. */
  get isEmpty(): boolean {
    return this.#kept.empty;
  }

  /** Bytes on the device, of one that waits there too. */
  get bytes(): number {
    return this.#kept.bytes + this.bytesBeside;
  }

  /** Bytes of the one that waits on the device. */
  get bytesBeside(): number {
    return this.#experts?.bytes ?? 0;
  }

  /** For a rehearsal: these LoRAs will be laid over the weights. */
  assume(loras: Loras): void {
    for (const expert of this.#each) {
      const files = this.#files[expert];
      files.laid = { ...files.laid, loras: lorasOf(expert, loras) };
    }
  }

  /**
   * Lays other LoRAs over the weights: those that the old or the new ones change are loaded anew where they are, so nothing of the old
   * ones is left, and programs stay. @returns whether graphs hold numbers that have changed.
   * @throws RequestFault on every rank where one cannot be read or does not fit.
   */
  async layLoras(loras: Loras, store: Store): Promise<boolean> {
    let numbersChanged = false;
    for (const expert of this.#each) {
      const own = scoped(store, expert);
      const files = this.#files[expert];
      const found = await files.others(lorasOf(expert, loras), own);
      if (!found) continue;
      const { changed } = files.laid;
      if (!this.isEmpty) await files.requireBase(own);
      files.laid = found;
      if (this.isEmpty) continue;
      await this.use(expert, scoped(own, "before LoRAs"));
      this.meter.next("the LoRAs");
      await this.device.synchronize();
      const touched = (name: string) => found.changed.has(name) || changed.has(name);
      numbersChanged = (await this.#renew(expert, touched, own)) || numbersChanged;
    }
    return numbersChanged;
  }

  /**
   * Builds a transformer for latents of one size, with weights that are there or are loaded now: of two, the one for low noise, for
   * which `loadOther` then makes room. In a rehearsal, @param other builds the other one.
   */
  build(context: Context, { textWidth, size, precision }: Shape, other = false): Promise<WanTransformer> {
    const files = this.#filesOf(this.two && !other ? "low" : "high");
    return loadTransformer(context, files, textWidth, size, precision, this.#kept);
  }

  /** The checkpoint's files are about to be read. @throws RequestFault on every rank where one cannot be read. */
  async begin(store: Store): Promise<void> {
    for (const expert of this.#each) await this.#files[expert].begin(scoped(store, `begin ${expert}`));
  }

  /** What the other of two takes where it waits, on the device or on the host. @param bytes of its weights. */
  bytesOfOther(bytes: number): { readonly beside: number; readonly onHost: number } {
    return { beside: Experts.bytesBeside(bytes), onHost: this.#experts?.bytesOnHost(bytes) ?? 0 };
  }

  /** Bytes of the host that weights wait in. */
  get hostBytes(): number {
    return this.#experts?.hostBytes ?? 0;
  }

  /** @throws RequestFault on every rank where this host's memory would not hold so much for each of its workers. */
  async requireHost(bytes: number, store: Store): Promise<void> {
    await agreed(store, "host memory", async () => requireHostMemory(store.rank, bytes));
  }

  /**
   * After a transformer was built for the first time: of two, sets it aside and loads the other in its place.
   * @throws RequestFault on every rank where a file cannot be read or has changed meanwhile.
   */
  async complete(waiting: Waiting, store: Store): Promise<void> {
    try {
      await this.#files[this.two ? "low" : "high"].confirm(scoped(store, "loaded"));
    } catch (error) {
      await this.free();
      throw error;
    }
    if (!this.#experts) return;
    this.meter.next("the transformer for high noise");
    await this.device.synchronize();
    await this.#experts.setAside(waiting);
    await this.#renew("high", () => true, scoped(store, "high"));
  }

  /** Puts a transformer's weights in place, on every rank. @throws RequestFault where it has to be loaded anew and cannot be. */
  async use(expert: Expert, store: Store): Promise<void> {
    if (!this.#experts || this.#experts.inPlace === expert) return;
    await this.device.synchronize();
    if (await this.#experts.use(expert)) return;
    const own = scoped(store, `again ${expert}`);
    await this.#files[expert].requireBase(own);
    this.meter.next(`the transformer for ${expert} noise`);
    await this.#renew(expert, () => true, own);
  }

  /** Moves what waits on the device to the host. The device must be idle. */
  async toHost(store: Store): Promise<void> {
    await this.requireHost(this.bytesOfOther(this.#kept.bytes).onHost, store);
    await this.#experts?.toHost();
  }

  /** Forgets all weights. The device must be idle. */
  empty(): void {
    this.#experts?.free();
    this.#kept.free();
  }

  get #each(): readonly Expert[] {
    return this.two ? experts : ["high"];
  }

  #filesOf(expert: Expert): TransformerFiles {
    const { model, weights } = this;
    return { model, weights: weightsOf(expert, weights), loras: this.#files[expert].laid.loras };
  }

  /** Loads parameters of an expert anew where they are. @returns whether numbers changed that graphs hold. */
  async #renew(expert: Expert, changes: (parameter: string) => boolean, store: Store): Promise<boolean> {
    try {
      const numbersChanged = await agreed(store, "weights anew", () =>
        this.meter.during(() =>
          withTransformerSource(this.device, this.#filesOf(expert), (source) => this.#kept.renew(source, changes)),
        ),
      );
      await this.#files[expert].confirm(store);
      await this.#experts?.note(expert);
      return numbersChanged;
    } catch (error) {
      // Some weights are new by now, and some are not.
      await this.free();
      throw error;
    }
  }
}

/** A checkpoint, or the seed of weights, as one of two transformers sees it. */
export function weightsOf(expert: Expert, weights: WanWeights): WanWeights {
  if (expert === "high") return weights;
  if (weights.from === "random") return { ...weights, seed: seedAfter(weights.seed) };
  return { ...weights, transformer: weights.transformer2 ?? weights.transformer };
}

function lorasOf(expert: Expert, { loras = [], loras2 = [] }: Loras): readonly LoraFile[] {
  return expert === "high" ? loras : loras2;
}
