import type { LoraFile } from "../../formats/lora.js";
import type { LatentSize, WanModel } from "../../models/schema.js";
import type { WanGenerateTask, WanWeights } from "../../protocol/job.js";
import type { MemoryNeed, WanGenerateRank } from "../../protocol/results.js";
import { samplingPlan } from "../../sampling/scheduler.js";
import type { Context } from "../comm/context.js";
import { placeOnHost } from "../environment.js";
import { DeviceSampler } from "../models/wan/device-sampler.js";
import { Guidance } from "../models/wan/guidance.js";
import { NonfiniteCounter } from "../models/wan/nonfinite.js";
import type { TextEncoder } from "../models/wan/text-encoder.js";
import type { TextSlot, WanTransformer } from "../models/wan/transformer.js";
import type { WanVae } from "../models/wan/vae/vae.js";
import type { Device } from "../runtime/device.js";
import { Region } from "../runtime/region.js";
import type { Tensor } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import { KeptWeights } from "../weights/kept.js";
import { LoadMeter } from "../weights/load-meter.js";
import { agreed } from "./agree.js";
import { Program } from "./program.js";
import { tell } from "./stage-clock.js";
import { WanFiles } from "./wan-files.js";
import { Budget, needOf } from "./wan-memory.js";
import { loadTextEncoder, loadTransformer, loadVaeDecoder, withTransformerSource } from "./wan-session.js";

/** What makes videos of one size. */
export interface VideoProgram {
  readonly transformer: WanTransformer;
  readonly vae: WanVae;
  readonly sampler: DeviceSampler;
  readonly guidance: Guidance;
}

type Shape = Pick<WanGenerateTask, "size" | "sampling" | "bf16Steps" | "dump">;
type Request = Omit<WanGenerateTask, "kind">;

/** What a program is made for: requests that agree in this share one. */
const keyOf = ({ size, sampling, dump }: Shape) =>
  JSON.stringify([size.frames, size.height, size.width, sampling.guideScale === 1, dump === undefined]);

/**
 * A Wan model that stays on this worker: its weights, the text encoder, and a program for each size of video that was asked for
 * and still fits. What memory is needed for something else goes first where it was used longest ago.
 */
export class OpenWan {
  readonly #encoderWeights: KeptWeights;
  readonly #weights: { readonly transformer: KeptWeights; readonly vae: KeptWeights };
  /** In the order in which they were last used. */
  readonly #programs = new Map<string, Program<VideoProgram>>();
  readonly #meter = new LoadMeter();
  readonly #files: WanFiles;
  #encoder: Program<TextEncoder> | undefined;
  /** Whether the transformer's linears are held in e4m3 and in the plan's dtype. */
  #bothPrecisions = false;
  #texts: Record<TextSlot, Tensor> | undefined;
  #textWidth = 0;
  #made = 0;

  private constructor(
    private readonly device: Device,
    private readonly base: Context,
    private readonly model: WanModel,
    private readonly weights: WanWeights,
    /** Whether what has to go may be wanted again. */
    private readonly stays: boolean,
    /** What is neither weights nor a program's. */
    private readonly own: Region,
    readonly nonfinite: NonfiniteCounter,
  ) {
    const kept = () => new KeptWeights(device, this.#meter);
    this.#files = new WanFiles(model, weights);
    this.#encoderWeights = kept();
    this.#weights = { transformer: kept(), vae: kept() };
  }

  /** @param base a context of the plan, with nothing allocated; it is closed with this. */
  static async open(
    base: Context,
    { model, weights }: { readonly model: WanModel; readonly weights: WanWeights },
    stays: boolean,
  ): Promise<OpenWan> {
    const { device } = base;
    const own = new Region();
    const nonfinite = await device.within(own, async () => new NonfiniteCounter(device));
    return new OpenWan(device, base, model, weights, stays, own, nonfinite);
  }

  /**
   * Makes ready what the request needs: the text encoder, and with it, where both fit, the program of its shape.
   * @returns the encoder, how much memory all takes, and the program if it is there; else `program` makes it, once the texts are encoded.
   * @throws RequestFault on every rank where the request cannot be done.
   */
  async prepare(task: Request, store: Store) {
    const budget = new Budget(this.device, placeOnHost().size, task.memoryBytes);
    this.#meter.begin(({ what, bytes, total, milliseconds }) =>
      tell(store, { stage: "load", done: bytes, total, milliseconds, what }),
    );
    await this.#layLoras(task.loras ?? [], store);
    const encoder = await this.#prepareEncoder(task, store, budget);
    // Only now: the encoder may have taken the place of what was there.
    const known = this.#known(task);
    const { program, needed } = known
      ? { program: known, needed: 0 }
      : await this.#makeProgram(task, store, budget, false);
    return {
      encoder,
      program,
      memory: {
        neededBytes: this.#used + needed,
        availableBytes: budget.bytes,
        encoderFirst: program === undefined,
      } satisfies MemoryNeed,
    };
  }

  /** What was loaded since prepare was called. */
  get loaded(): WanGenerateRank["load"] {
    return this.#meter.loaded;
  }

  /**
   * What the request needs, with no weights loaded: the same rehearsals and the same decisions as `prepare` and `program`.
   * @throws RequestFault on every rank where it does not fit, or a file of the checkpoint cannot be read.
   */
  async rehearse(task: Request, store: Store): Promise<MemoryNeed> {
    const budget = new Budget(this.device, placeOnHost().size, task.memoryBytes);
    if (task.bf16Steps !== undefined) this.#bothPrecisions = true;
    this.#files.laid = { ...this.#files.laid, loras: task.loras ?? [] };
    const bytesOf = async (name: string, build: (context: Context) => Promise<unknown>) => {
      const program = await Program.open(this.base, store, `program-${this.#made++}`);
      const bytes = await agreed(store, name, () => program.rehearse(build));
      await program.free();
      return bytes;
    };
    const encoder = await bytesOf("encoder", (context) => this.#buildEncoder(context));
    const video = await bytesOf("video", (context) => this.#buildVideo(context, task, task.size));
    return needOf(store, budget, { used: this.#used + this.#textBytes, encoder, video });
  }

  /** The program of the request's shape, for which the text encoder may have to go. @throws RequestFault as prepare does. */
  async program(task: Request, store: Store): Promise<Program<VideoProgram>> {
    const budget = new Budget(this.device, placeOnHost().size, task.memoryBytes);
    const { program } = await this.#makeProgram(task, store, budget, true);
    if (!program) throw new Error("A program that must be made was not.");
    return program;
  }

  /** Room for both texts, float32 [text length, text width], from one request to the next. */
  get texts(): Record<TextSlot, Tensor> {
    if (!this.#texts) throw new Error("The text encoder was not made ready.");
    return this.#texts;
  }

  /** Frees everything. Every rank calls it. */
  async close(): Promise<void> {
    await this.device.synchronize();
    await this.#freePrograms(this.#programs.size);
    await this.#encoder?.free();
    for (const weights of [this.#encoderWeights, this.#weights.transformer, this.#weights.vae]) weights.free();
    this.device.free(this.own);
    await this.base.close();
  }

  get #used(): number {
    const programs = [...this.#programs.values(), ...(this.#encoder ? [this.#encoder] : [])];
    const weights = [this.#encoderWeights, this.#weights.transformer, this.#weights.vae];
    return [...programs, ...weights, this.own].reduce((sum, { bytes }) => sum + bytes, this.device.reader.bytes);
  }

  #known(task: Shape): Program<VideoProgram> | undefined {
    if (task.bf16Steps !== undefined && !this.#bothPrecisions) return undefined;
    const key = keyOf(task);
    const program = this.#programs.get(key);
    if (!program) return undefined;
    this.#programs.delete(key);
    this.#programs.set(key, program);
    return program;
  }

  /**
   * Lays other LoRAs over the transformer's weights: those that the old or the new ones change are loaded anew where they are, so nothing
   * of the old ones is left, and programs stay. @throws RequestFault on every rank where one cannot be read or does not fit.
   */
  async #layLoras(loras: readonly LoraFile[], store: Store): Promise<void> {
    const found = await this.#files.others(loras, store);
    if (!found) return;
    const { device, model, weights } = this;
    const { transformer } = this.#weights;
    const { changed } = this.#files.laid;
    if (!transformer.empty) await this.#files.requireBase(store);
    this.#files.laid = found;
    if (transformer.empty) return;
    this.#meter.next("the LoRAs");
    await device.synchronize();
    try {
      const numbersChanged = await agreed(store, "weights with LoRAs", () =>
        this.#loading(() =>
          withTransformerSource(device, { model, weights, loras }, (source) =>
            transformer.renew(source, (name) => found.changed.has(name) || changed.has(name)),
          ),
        ),
      );
      await this.#files.confirm(store);
      if (!numbersChanged) return;
      for (const { value } of this.#programs.values()) value.guidance.freeGraphs();
    } catch (error) {
      // Some weights have the new ones by now, and some do not.
      await this.#freeDiffusion();
      throw error;
    }
  }

  async #prepareEncoder(task: Request, store: Store, budget: Budget): Promise<TextEncoder> {
    if (this.#encoder) return this.#encoder.value;
    const program = await Program.open<TextEncoder>(this.base, store, `program-${this.#made++}`);
    const build = (context: Context) => this.#buildEncoder(context);
    this.#meter.next("the text encoder");
    const needed = await agreed(store, "encoder", () => program.rehearse(build));
    const texts = this.#texts ? 0 : this.#textBytes;
    await this.#makeRoom(needed + this.#encoderWeights.bytesOnHost + texts, store, budget, { encoder: true });
    await this.#loading(() => this.#encoderWeights.toDevice());
    const encoder = await program.make(build);
    this.#encoder = program;
    this.#texts ??= await this.device.within(this.own, async () => {
      const room = () => this.device.allocatePersistent("fp32", [this.model.textLength, this.#textWidth]);
      return { cond: room(), uncond: room() };
    });
    // The first encoding also loads kernels and picks GEMM algorithms.
    await program.enter(async () => {
      for (const ids of [task.ids.prompt, task.ids.negative]) await encoder.encode(ids);
      await this.device.synchronize();
    });
    return encoder;
  }

  async #buildEncoder(context: Context): Promise<TextEncoder> {
    const encoder = await this.#loading(() => loadTextEncoder(context, this.model, this.weights, this.#encoderWeights));
    this.#textWidth = encoder.model.width;
    context.measure(() => encoder.forward());
    return encoder;
  }

  /** Of both texts' room. */
  get #textBytes(): number {
    return 8 * this.model.textLength * this.#textWidth;
  }

  /** Runs work of the text encoder in its memory. */
  withEncoder<T>(body: () => Promise<T>): Promise<T> {
    if (!this.#encoder) throw new Error("The text encoder was not made ready.");
    return this.#encoder.enter(body);
  }

  /** Runs a part of loading, which is timed unless it is rehearsed. */
  #loading<T>(body: () => Promise<T>): Promise<T> {
    return this.device.rehearsing ? body() : this.#meter.during(body);
  }

  /** @param must false: only where it fits beside the text encoder. */
  async #makeProgram(
    task: Shape,
    store: Store,
    budget: Budget,
    must: boolean,
  ): Promise<{ program: Program<VideoProgram> | undefined; needed: number }> {
    if (task.bf16Steps !== undefined && !this.#bothPrecisions) {
      await this.#freeDiffusion();
      this.#bothPrecisions = true;
    }
    const program = await Program.open<VideoProgram>(this.base, store, `program-${this.#made++}`);
    const build = (context: Context) => this.#buildVideo(context, task, task.size);
    this.#meter.next("the transformer and the VAE");
    const needed = await agreed(store, must ? "video" : "video beside texts", () => program.rehearse(build));
    const room = await this.#makeRoom(needed, store, budget, { diffusion: true, encoder: !must }, must);
    if (!room) return { program: undefined, needed };
    const loads = this.#weights.transformer.empty;
    if (loads) await this.#files.begin(store);
    await program.make(async (context) => {
      const made = await build(context);
      await made.vae.warmUp();
      await this.device.synchronize();
      return made;
    });
    this.#programs.set(keyOf(task), program);
    if (loads) await this.#confirm(store);
    return { program, needed: 0 };
  }

  /** @throws RequestFault on every rank where a file has changed while it was read; nothing of it is kept then. */
  async #confirm(store: Store): Promise<void> {
    try {
      await this.#files.confirm(store);
    } catch (error) {
      await this.#freeDiffusion();
      throw error;
    }
  }

  async #buildVideo(context: Context, { sampling, dump }: Shape, size: LatentSize): Promise<VideoProgram> {
    const files = { model: this.model, weights: this.weights, loras: this.#files.laid.loras };
    const { model, weights } = files;
    const precision = this.#bothPrecisions ? { quantised: true } : undefined;
    const { transformer: kept, vae: keptVae } = this.#weights;
    const { transformer, vae } = await this.#loading(async () => ({
      transformer: await loadTransformer(context, files, this.#textWidth, size, precision, kept),
      vae: await loadVaeDecoder(context, weights, keptVae),
    }));
    const sampler = new DeviceSampler(context.device, samplingPlan(sampling), [
      model.channels,
      size.frames,
      size.height,
      size.width,
    ]);
    const guidance = new Guidance(context, transformer, sampler.sample, sampling.guideScale);
    context.measure(() => {
      guidance.measure();
      vae.measureDecode(size, dump === undefined ? "u8" : "fp32");
    });
    return { transformer, vae, sampler, guidance };
  }

  /**
   * Frees programs, the one that was used longest ago first, and then the text encoder or the other weights, until so many bytes
   * fit: as much on every rank as on the one that has to free most.
   * @param keep what is needed with those bytes. @returns false where they do not fit and need not.
   * @throws RequestFault where they must fit, and cannot on some rank.
   */
  async #makeRoom(
    bytes: number,
    store: Store,
    budget: Budget,
    keep: { readonly encoder?: boolean; readonly diffusion?: boolean },
    must = true,
  ): Promise<boolean> {
    const victims = [...this.#programs.values()].map((program) => ({
      bytes: program.bytes,
      free: () => this.#freePrograms(1),
    }));
    const others = this.#weights.transformer.bytes + this.#weights.vae.bytes;
    if (!keep.encoder && this.#encoder) {
      const encoder = this.#encoder.bytes + this.#encoderWeights.bytes;
      victims.push({ bytes: encoder, free: () => this.#freeEncoder() });
    }
    if (!keep.diffusion && others > 0) victims.push({ bytes: others, free: () => this.#freeDiffusion() });
    const own = budget.victims(this.#used, bytes, victims, must);
    const most = await store.largest(`room ${this.#made} ${must}`, own);
    if (most <= victims.length) {
      if (most > 0) await this.device.synchronize();
      for (const { free } of victims.slice(0, most)) await free();
      return true;
    }
    if (!must) return false;
    await agreed(store, "memory", async () => {
      if (own > victims.length)
        budget.refuse(store.rank, this.#used - victims.reduce((sum, each) => sum + each.bytes, 0) + bytes);
    });
    return false;
  }

  async #freePrograms(count: number): Promise<void> {
    for (const [key, program] of [...this.#programs].slice(0, count)) {
      this.#programs.delete(key);
      program.value.guidance.freeGraphs();
      program.value.vae.close();
      await program.free();
    }
  }

  async #freeEncoder(): Promise<void> {
    await this.#encoder?.free();
    this.#encoder = undefined;
    if (this.stays) await this.#encoderWeights.toHost();
    else this.#encoderWeights.free();
  }

  /** The transformer, the VAE, and all that was made with them. */
  async #freeDiffusion(): Promise<void> {
    await this.device.synchronize();
    await this.#freePrograms(this.#programs.size);
    this.#weights.transformer.free();
    this.#weights.vae.free();
  }
}
