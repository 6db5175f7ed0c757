import type { LatentSize, WanModel } from "../../models/schema.js";
import { type Expert, guideScaleOf, isUnguided } from "../../protocol/expert.js";
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
import { type Store, scoped } from "../store.js";
import { KeptWeights } from "../weights/kept.js";
import { LoadMeter } from "../weights/load-meter.js";
import { agreed } from "./agree.js";
import { Program } from "./program.js";
import { tell } from "./stage-clock.js";
import { Budget, needOf } from "./wan-memory.js";
import { loadTextEncoder, loadVaeDecoder } from "./wan-session.js";
import { WanTransformers } from "./wan-transformers.js";

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
  JSON.stringify([size.frames, size.height, size.width, isUnguided(sampling), dump === undefined]);

/**
 * A Wan model that stays on this worker: its weights, the text encoder, and a program for each size of video that was asked for
 * and still fits. What memory is needed for something else goes first where it was used longest ago.
 */
export class OpenWan {
  readonly #encoderWeights: KeptWeights;
  readonly #transformers: WanTransformers;
  readonly #vaeWeights: KeptWeights;
  /** In the order in which they were last used. */
  readonly #programs = new Map<string, Program<VideoProgram>>();
  readonly #meter = new LoadMeter();
  #encoder: Program<TextEncoder> | undefined;
  /** Whether the transformer's linears are held in e4m3 and in the plan's dtype. */
  #bothPrecisions = false;
  #texts: Record<TextSlot, Tensor> | undefined;
  #textWidth = 0;
  #made = 0;
  /** How often room was asked for. */
  #rooms = 0;

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
    this.#encoderWeights = kept();
    this.#vaeWeights = kept();
    const free = () => this.#freeDiffusion();
    this.#transformers = new WanTransformers(device, this.#meter, model, weights, stays, free);
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
    if (await this.#transformers.layLoras(task, store))
      for (const { value } of this.#programs.values()) value.guidance.freeGraphs();
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
        hostBytes: this.#transformers.hostBytes,
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
    this.#transformers.assume(task);
    const bytesOf = async (name: string, build: (context: Context) => Promise<unknown>) => {
      const program = await Program.open(this.base, store, `program-${this.#made++}`);
      const bytes = await agreed(store, name, () => program.rehearse(build));
      await program.free();
      return bytes;
    };
    const encoder = await bytesOf("encoder", (context) => this.#buildEncoder(context));
    const video = await bytesOf("video", (context) => this.#buildVideo(context, task, task.size));
    const other = this.#transformers.two
      ? this.#transformers.bytesOfOther(
          await bytesOf("other transformer", (context) => this.#buildOther(context, task)),
        )
      : undefined;
    return needOf(store, budget, { used: this.#used + this.#textBytes, encoder, video, other });
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
    for (const weights of [this.#encoderWeights, this.#vaeWeights]) weights.free();
    this.#transformers.empty();
    this.device.free(this.own);
    await this.base.close();
  }

  get #used(): number {
    const programs = [...this.#programs.values(), ...(this.#encoder ? [this.#encoder] : [])];
    const weights = [this.#encoderWeights, this.#transformers, this.#vaeWeights];
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
    const transformers = this.#transformers;
    const own = scoped(store, must ? "video" : "video beside texts");
    const other = transformers.isEmpty && transformers.two ? await this.#rehearseOther(task, own) : undefined;
    const program = await Program.open<VideoProgram>(this.base, store, `program-${this.#made++}`);
    const build = (context: Context) => this.#buildVideo(context, task, task.size);
    this.#meter.next(other ? "the transformer for low noise and the VAE" : "the transformer and the VAE");
    const needed = await agreed(own, "rehearsal", () => program.rehearse(build));
    // The other transformer stays on the device only where the text encoder may stay there too: the host sends either.
    const beside =
      other !== undefined &&
      (await this.#makeRoom(needed + other.beside, store, budget, { diffusion: true, encoder: true }, false));
    const room = beside || (await this.#makeRoom(needed, store, budget, { diffusion: true, encoder: !must }, must));
    if (!room) return { program: undefined, needed };
    if (other && !beside) await transformers.requireHost(other.onHost, own);
    const loads = transformers.isEmpty;
    if (loads) await transformers.begin(own);
    await program.make(async (context) => {
      const made = await build(context);
      await made.vae.warmUp();
      await this.device.synchronize();
      return made;
    });
    this.#programs.set(keyOf(task), program);
    if (loads) await transformers.complete(beside ? "device" : "host", own);
    return { program, needed: 0 };
  }

  /** What the second of two transformers takes where it waits; each of its tensors is checked. */
  async #rehearseOther(task: Shape, store: Store) {
    const program = await Program.open(this.base, store, "other");
    const bytes = await agreed(store, "other rehearsal", () =>
      program.rehearse((context) => this.#buildOther(context, task)),
    );
    await program.free();
    return this.#transformers.bytesOfOther(bytes);
  }

  #buildOther(context: Context, { size }: Shape) {
    return this.#transformers.build(context, { textWidth: this.#textWidth, size, precision: this.#precision }, true);
  }

  get #precision() {
    return this.#bothPrecisions ? { quantised: true } : undefined;
  }

  /** Puts the weights of a transformer in place; its text has to be set anew. @returns milliseconds that it took. */
  async use(expert: Expert, { guidance }: VideoProgram, { sampling }: Shape, store: Store): Promise<number> {
    const began = performance.now();
    guidance.use(expert, guideScaleOf(expert, sampling));
    await this.#transformers.use(expert, store);
    return performance.now() - began;
  }

  async #buildVideo(context: Context, { sampling, dump }: Shape, size: LatentSize): Promise<VideoProgram> {
    const { model, weights } = this;
    const shape = { textWidth: this.#textWidth, size, precision: this.#precision };
    const { transformer, vae } = await this.#loading(async () => ({
      transformer: await this.#transformers.build(context, shape),
      vae: await loadVaeDecoder(context, weights, this.#vaeWeights),
    }));
    const sampler = new DeviceSampler(context.device, samplingPlan(sampling), [
      model.channels,
      size.frames,
      size.height,
      size.width,
    ]);
    const guided = !isUnguided(sampling);
    const guidance = new Guidance(context, transformer, sampler.sample, sampling.guideScale, guided);
    context.measure(() => {
      guidance.measure();
      vae.measureDecode(size, dump === undefined ? "u8" : "fp32");
    });
    return { transformer, vae, sampler, guidance };
  }

  /**
   * Frees programs, the one that was used longest ago first, sends a transformer that waits on the device to the host, and then frees
   * the text encoder or the other weights, until so many bytes fit: as much on every rank as on the one that has to free most.
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
    const { bytesBeside } = this.#transformers;
    if (bytesBeside > 0)
      victims.push({ bytes: bytesBeside, free: () => this.#transformers.toHost(scoped(store, `room ${this.#rooms}`)) });
    const others = this.#transformers.bytes - bytesBeside + this.#vaeWeights.bytes;
    if (!keep.encoder && this.#encoder) {
      const encoder = this.#encoder.bytes + this.#encoderWeights.bytes;
      victims.push({ bytes: encoder, free: () => this.#freeEncoder() });
    }
    if (!keep.diffusion && others > 0) victims.push({ bytes: others, free: () => this.#freeDiffusion() });
    const own = budget.victims(this.#used, bytes, victims, must);
    const most = await store.largest(`room ${this.#rooms++}`, own);
    if (most <= victims.length) {
      if (most > 0) await this.device.synchronize();
      for (const { free } of victims.slice(0, most)) await free();
      return true;
    }
    if (!must) return false;
    await agreed(store, `memory ${this.#rooms}`, async () => {
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
    this.#transformers.empty();
    this.#vaeWeights.free();
  }
}
