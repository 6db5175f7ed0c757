import { randomBytes } from "node:crypto";
import { z } from "zod";
import { DitrunError, messageOf } from "../failure.js";
import { checkDocument } from "../files/documents.js";
import { marksOf } from "../files/file-mark.js";
import type { LoraFile } from "../formats/lora.js";
import { hubEnvironment } from "../hub/hub-cache.js";
import { type LaunchLog, type Log, openOwnLog } from "../launcher/logs.js";
import { wanTokens } from "../models/schema.js";
import type { SamplingPreset } from "../models/wan/few-steps.js";
import { findModel } from "../models/wan/find-model.js";
import { describeLora } from "../models/wan/lora/open-lora.js";
import { modelSource } from "../models/wan/model-source.js";
import { TokenizerThread } from "../models/wan/text/texts.js";
import { checkPlan } from "../plan/check.js";
import type { Machine } from "../plan/planner/device.js";
import { checkWorkers, resolvePlan, withoutGuidance } from "../plan/resolve.js";
import { meshSize, type Plan } from "../plan/schema.js";
import { isUnguided } from "../protocol/expert.js";
import type { WanGenerateTask } from "../protocol/job.js";
import { parseMessage } from "../protocol/messages.js";
import { unpackPreview } from "../protocol/preview.js";
import { type Progress, progressSchema, type WanGenerateRank, wanGenerateRankSchema } from "../protocol/results.js";
import { seedOf } from "../protocol/seed.js";
import { chooseDevice, type DeviceName } from "./choose-device.js";
import { machineFor } from "./machine.js";
import { absolute, type RequestBase, requireTwo, samplingFor, taskOf, type VideoRequest } from "./requests.js";
import { Workers } from "./workers.js";

export interface EngineOptions {
  /** A model of the Wan family by name, as `1.4B`, `14B` or `tiny`, a YAML file, or a checkpoint's folder. */
  readonly model: string;
  /** `random` needs no file: to measure, and for tests. */
  readonly weights?: "checkpoint" | "random" | undefined;
  /** The checkpoint's folder; by default it is looked for in the Hugging Face cache. */
  readonly directory?: string | undefined;
  /** Files of single parts, of any kind that docs/files.md lists; they stand in for those of the checkpoint. */
  readonly files?:
    | {
        readonly transformer?: string | undefined;
        /** The one for low noise, of a model with two. */
        readonly transformer2?: string | undefined;
        readonly textEncoder?: string | undefined;
        readonly vae?: string | undefined;
      }
    | undefined;
  /** Whether a checkpoint that is not there is downloaded. */
  readonly download?: boolean | undefined;
  /** A plan of loadPlan, or what loadPlan reads; by default all GPUs share the work. */
  readonly plan?: Plan | string | undefined;
  /** LoRAs of requests that name none; requests may name others. */
  readonly loras?: readonly LoraFile[] | undefined;
  /** The same for the second of two transformers. */
  readonly loras2?: readonly LoraFile[] | undefined;
  /** The video that the engine is ready for once it is open, the model's usual one by default. Others are made ready on their first request. */
  readonly first?: Pick<VideoRequest, "width" | "height" | "frames"> | undefined;
  /** The sampling of a distilled model, for requests that name none. Where it makes one forward a step, the plan's cfg becomes cp. */
  readonly preset?: SamplingPreset | undefined;
  /** Workers; the plan's mesh must fill them. */
  readonly nproc?: number | undefined;
  readonly device?: DeviceName | undefined;
  /** The GPU of the first worker, where other engines have those before it; 0 by default. */
  readonly firstDevice?: number | undefined;
  /** Bytes of device memory that each worker may use; by default what is free. */
  readonly memoryBytes?: number | undefined;
  /** Seconds that ranks wait for each other; 300 by default. */
  readonly timeoutSeconds?: number | undefined;
  /** The rendezvous's port on loopback; a free one by default. */
  readonly masterPort?: number | undefined;
  /** By default nothing is written anywhere. */
  readonly log?: LaunchLog | undefined;
  /** Ends the engine: its workers, and with its reason the requests at hand. */
  readonly signal?: AbortSignal | undefined;
}

/** What happens while a request runs. */
export type EngineEvent =
  /** A stage has ended: texts encoded, all steps sampled, all frames decoded. `prepare` is short once the video's size is known. */
  | {
      readonly kind: "stage";
      readonly stage: "prepare" | "encode" | "sample" | "decode";
      readonly milliseconds: number;
    }
  | {
      readonly kind: "step";
      readonly done: number;
      readonly total: number;
      /** Until all steps are done, as fast as those before. */
      readonly millisecondsLeft: number;
    }
  /** A frame of the video, RGB of 8 bits: [height, width, 3]. */
  | {
      readonly kind: "frame";
      readonly index: number;
      readonly width: number;
      readonly height: number;
      readonly pixels: Uint8Array;
    }
  /**
   * The video as the model expects it after a step, roughly coloured: RGB of 8 bits, [frames, height, width, 3]. A few of its frames,
   * from the first to the last, at an eighth of the video's size.
   */
  | {
      readonly kind: "preview";
      /** The step that left it, 1 for the first. */
      readonly step: number;
      readonly frames: number;
      readonly width: number;
      readonly height: number;
      readonly pixels: Uint8Array;
    }
  | { readonly kind: "warning"; readonly message: string };

export interface RunRequestOptions {
  /** Ends the request at its next step or decoded frames; the run is rejected with its reason, and the engine goes on. */
  readonly signal?: AbortSignal | undefined;
  /** So many milliseconds from now the request ends as by a signal, with ERR_DEADLINE. */
  readonly deadlineMs?: number | undefined;
  /** Asked before each step: whether the event `preview` is to show what it leaves. By default no step is shown. */
  readonly wantsPreview?: (() => boolean) | undefined;
  /** Called for each event, in order. Where it returns a promise, it is waited for. What it throws ends the request, and the run is rejected with it. */
  readonly onEvent?: ((event: EngineEvent) => void | Promise<void>) | undefined;
}

export interface VideoResult {
  readonly frames: number;
  readonly width: number;
  readonly height: number;
  readonly seed: bigint;
  /** What each rank measured. */
  readonly ranks: readonly WanGenerateRank[];
}

/** A model that stays loaded and makes one video after the other. */
export interface Engine extends AsyncDisposable {
  readonly plan: Plan;
  readonly device: "cpu" | "cuda";
  /** Resolves once all workers have ended, also between requests: with the reason where that was not by `close`. */
  readonly ended: Promise<DitrunError | undefined>;
  /** How a request would be sampled. @throws DitrunError ERR_SAMPLING for settings that no schedule has. */
  samplingOf(request: VideoRequest): WanGenerateTask["sampling"];
  /**
   * Makes a video; requests run in the order of their calls.
   * @throws DitrunError: a request that cannot be done fails alone, ERR_VIDEO_SIZE or ERR_NOT_FINITE for instance. Where a
   * worker fails, the engine has ended, and can be opened again.
   */
  run(request: VideoRequest, options?: RunRequestOptions): Promise<VideoResult>;
  /**
   * Asks all workers for a sign of life, at any time. @returns the ranks that have given none within so many milliseconds: stopped,
   * or stuck in a driver. None once the engine has ended.
   */
  silentRanks(milliseconds: number): Promise<readonly number[]>;
  /** Ends the workers, once the requests before have ended. @throws DitrunError where a worker fails on its way out. */
  close(): Promise<void>;
}

/**
 * Starts workers and loads a model's weights, once.
 * @throws DitrunError when the model, its files, the plan, the device or the workers cannot be had.
 */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const { model: name, signal, timeoutSeconds = 300, masterPort = 0 } = options;
  signal?.throwIfAborted();
  const log = openOwnLog(options.log);
  const found = await findModel(name);
  const source = await modelSource({
    ...{ found, weights: options.weights ?? "checkpoint", seed: seedOf(0n) },
    files: {
      ...{ transformer: options.files?.transformer, VAE: options.files?.vae },
      ...{ "text encoder": options.files?.textEncoder, "second transformer": options.files?.transformer2 },
    },
    ...{ directory: options.directory, download: options.download ?? false, verify: false },
    environment: hubEnvironment(),
    onProgress: () => undefined,
    onNote: (sentence) => log.logger.info(sentence),
  });
  const chosen = await chooseDevice(options.device ?? "auto", log);
  const { device, kernels } = chosen;
  const { model, weights } = source;
  const tokenizer = source.tokenizer === undefined ? undefined : new TokenizerThread(source.tokenizer);
  const machine = await machineFor(chosen, 1, hubEnvironment());
  const given = await planOf(options, model, chosen.count, machine);
  const [loras, loras2] = [absolute(options.loras ?? []), absolute(options.loras2 ?? [])];
  requireTwo(model, loras2);
  const own = { preset: found.preset, model, weights, loras, loras2, samplingPreset: options.preset };
  const described = await lorasAsTheyAre([...loras, ...loras2]);
  for (const lora of [...loras, ...loras2]) log.logger.info(await describeLora(lora, model));
  const { sampling, told } = samplingFor({}, own);
  if (told !== undefined) log.logger.info(told);
  const plan = isUnguided(sampling) && given.mesh.cfg > 1 ? withoutGuidance(given) : given;
  const base: RequestBase = { ...own, plan, tokenizer, memoryBytes: options.memoryBytes };
  const id = `engine-${randomBytes(4).toString("hex")}`;
  const workers = await Workers.start({
    settings: { id, device, kernels, timeoutSeconds, stays: true, firstDevice: options.firstDevice },
    ...{ nproc: meshSize(plan.mesh), log, port: masterPort, signal },
  });
  try {
    // The first video's texts, program and weights; they tell of every fault of the checkpoint.
    const { kind: _, ...first } = await taskOf({ ...options.first, prompt: "-" }, base);
    await workers.run({ ...first, kind: "wan-load" });
  } catch (error) {
    await Promise.all([workers.close().catch(() => undefined), tokenizer?.close()]);
    throw error;
  }
  return new WanEngine(workers, base, device, log, described);
}

async function planOf(
  { plan, nproc }: EngineOptions,
  model: RequestBase["model"],
  count: number,
  machine: Machine,
): Promise<Plan> {
  if (plan === undefined || typeof plan === "string") return resolvePlan({ plan }, model, nproc, count, { machine });
  checkPlan(plan, model, model.patch);
  if (nproc !== undefined) checkWorkers(plan, nproc);
  return plan;
}

class WanEngine implements Engine {
  /** Of the last request, as lorasAsTheyAre has them. */
  #loras: string;

  constructor(
    private readonly workers: Workers,
    private readonly base: RequestBase,
    readonly device: "cpu" | "cuda",
    private readonly log: Log,
    /** LoRAs that were described, as lorasAsTheyAre has it. */
    told: string,
  ) {
    this.#loras = told;
  }

  get plan(): Plan {
    return this.base.plan;
  }

  get ended(): Promise<DitrunError | undefined> {
    return this.workers.ended;
  }

  samplingOf(request: VideoRequest): WanGenerateTask["sampling"] {
    return samplingFor(request, this.base).sampling;
  }

  async run(request: VideoRequest, options: RunRequestOptions = {}): Promise<VideoResult> {
    const { signal, deadlineMs, onEvent, wantsPreview } = options;
    signal?.throwIfAborted();
    const task = await taskOf(request, this.base);
    await this.#checkLoras([...(task.loras ?? []), ...(task.loras2 ?? [])]);
    checkPlan(task.plan, task.model, wanTokens(task.model, task.size));
    const { height, width } = task.size;
    const pixels = { width: 8 * width, height: 8 * height };
    let frames = 0;
    const deadline = deadlineMs === undefined ? undefined : deadlineSignal(deadlineMs);
    const signals = [signal, deadline?.signal].filter((each) => each !== undefined);
    try {
      const results = await this.workers.run(task, {
        ...{ signal: AbortSignal.any(signals), wantsPreview },
        onEmit: async (_rank, name, value) => {
          if (name === "frame") await onEvent?.({ kind: "frame", index: frames++, ...pixels, pixels: value });
          else if (name === "preview") await onEvent?.(previewOf(value, task.size));
          else if (name === "progress") {
            const event = eventOf(parseMessage(progressSchema, value));
            if (event) await onEvent?.(event);
          }
        },
      });
      const ranks = checkDocument("The workers' results", results, z.array(wanGenerateRankSchema), "ERR_INTERNAL");
      return { frames, ...pixels, seed: BigInt(task.seed), ranks };
    } catch (error) {
      this.log.logger.debug(`A request failed: ${messageOf(error)}`);
      throw error;
    } finally {
      deadline?.close();
    }
  }

  /** Opens LoRAs that were not those of the last request, and logs what they change. @throws DitrunError as openLora does. */
  async #checkLoras(loras: readonly LoraFile[]): Promise<void> {
    const key = await lorasAsTheyAre(loras);
    if (key === this.#loras) return;
    for (const lora of loras) this.log.logger.info(await describeLora(lora, this.base.model));
    this.#loras = key;
  }

  silentRanks(milliseconds: number): Promise<readonly number[]> {
    return this.workers.silentRanks(milliseconds);
  }

  async close(): Promise<void> {
    await Promise.all([this.workers.close(), this.base.tokenizer?.close()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** LoRAs as text, with what tells their files apart: one may be written anew under its old name. @throws DitrunError where one is not there. */
async function lorasAsTheyAre(loras: readonly LoraFile[]): Promise<string> {
  return JSON.stringify([loras, ...(await marksOf(loras.map(({ file }) => file)))]);
}

function eventOf({ stage, done, total, milliseconds }: Progress): EngineEvent | undefined {
  if (stage === "prepare" || stage === "encode" || stage === "decode" || (stage === "sample" && done === total)) {
    return { kind: "stage", stage, milliseconds };
  }
  if (stage !== "sample") return undefined;
  return { kind: "step", done, total, millisecondsLeft: (milliseconds / done) * (total - done) };
}

function previewOf(value: Uint8Array, { height, width }: WanGenerateTask["size"]): EngineEvent {
  const { step, pixels } = unpackPreview(value);
  return { kind: "preview", step, frames: pixels.length / (3 * height * width), width, height, pixels };
}

function deadlineSignal(milliseconds: number): { readonly signal: AbortSignal; close(): void } {
  const controller = new AbortController();
  const timer = setTimeout(
    () => controller.abort(new DitrunError("ERR_DEADLINE", `The request was not done within ${milliseconds} ms.`)),
    milliseconds,
  );
  return { signal: controller.signal, close: () => clearTimeout(timer) };
}
