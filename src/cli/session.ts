import { randomBytes } from "node:crypto";
import { chooseDevice, type DeviceChoice, hasNccl } from "../engine/choose-device.js";
import { type EmitHandler, runJob, Workers, type WorkersOptions } from "../engine/workers.js";
import { DitrunError } from "../failure.js";
import { type Log, openLog } from "../launcher/logs.js";
import { isForGpu } from "../models/cost.js";
import { loadDitModel } from "../models/load.js";
import type { DitModel, Model } from "../models/schema.js";
import { type PlanFlags, resolvePlan } from "../plan/resolve.js";
import { meshSize, type Plan } from "../plan/schema.js";
import type { Task } from "../protocol/job.js";
import { type Seed, seedOf } from "../protocol/seed.js";
import { counted } from "../text.js";
import { interruptSignals, unlessEnding } from "./interrupts.js";
import type { JsonDocument } from "./json-document.js";
import { type GlobalArguments, portNumber } from "./options.js";

/** What workers are started for: a kind of task, and the model or what else it is about. */
export interface Undertaking {
  readonly kind: Task["kind"];
  readonly subject: string;
}

/** What a command works with: the global options made real, and the ways to run jobs and to say what came out. */
export class Session {
  private constructor(
    readonly options: GlobalArguments,
    readonly device: DeviceChoice,
    readonly log: Log,
    private readonly document: JsonDocument,
    private readonly entry: string | undefined,
    /** Of all that is random. */
    readonly seed: Seed,
  ) {}

  /** @throws DitrunError when the log folder, the device or the kernel module cannot be had. */
  static async open(options: GlobalArguments, document: JsonDocument, entry?: string): Promise<Session> {
    const log = openLog(options.logLevel, options.logDir);
    const device = await chooseDevice(options.device, log, !options.dryRun);
    return new Session(options, device, log, document, entry, chosenSeed(options.seed, log));
  }

  /** --model, else the benchmark on a GPU and its small sibling on a CPU. */
  async model(): Promise<DitModel> {
    if (this.options.model !== undefined) return loadDitModel(this.options.model);
    if (this.device.device === "cuda") return loadDitModel("dit");
    this.log.logger.info("No --model was given: the small dit-tiny runs on the CPU, the benchmark is --model dit.");
    return loadDitModel("dit-tiny");
  }

  /**
   * Refuses work that is for a GPU where the CPU is all there is and nobody has chosen it. A dry run may look at it.
   * @param tokens of one forward, where they depend on more than the model. @throws DitrunError with the reason and both ways out.
   */
  refuseOnCpu(model: Model, tokens?: number): void {
    const { noGpu } = this.device;
    if (noGpu === undefined || this.options.dryRun || !isForGpu(model, tokens)) return;
    throw new DitrunError(
      "ERR_NO_DEVICE",
      `A forward of ${model.name} is work for a GPU. ${noGpu} Choose a smaller model or size, or add --device cpu to wait for the CPU.`,
    );
  }

  /**
   * The plan that the options describe; other flags may stand in for --plan and the mesh.
   * @param tokens of one forward, where they depend on more than the model. @throws DitrunError as refuseOnCpu does, too.
   */
  async plan(model: Model, flags: PlanFlags = this.options, tokens?: number): Promise<Plan> {
    this.refuseOnCpu(model, tokens);
    const { nproc } = this.options;
    if (nproc === "gpu" && this.device.device !== "cuda") {
      throw new DitrunError(
        "ERR_NPROC",
        "--nproc is gpu, but there is no GPU to run on: give a number, or use --device cuda.",
      );
    }
    const wanted = nproc === "gpu" ? this.device.count : nproc === "auto" ? undefined : nproc;
    const plan = await resolvePlan(flags, model, wanted, this.device.count, tokens);
    if (plan.ring.transport === "nccl" && !hasNccl(this.device) && meshSize(plan.mesh) > 1) {
      throw new DitrunError(
        "ERR_PLAN_TRANSPORT",
        `Plan ${plan.name} has ring.transport nccl, but the CPU module has no NCCL: use peer or auto, or --device cuda.`,
      );
    }
    return plan;
  }

  /** Runs a task on as many workers as its plan needs. @returns results by rank. @throws DitrunError as runJob does. */
  async run(task: Task, onEmit?: EmitHandler): Promise<unknown[]> {
    const subject = task.kind === "links" ? "messages" : task.model.name;
    return this.#launch(task.plan, { kind: task.kind, subject }, ({ settings, ...options }) =>
      runJob({ ...options, job: { ...settings, task }, onEmit }),
    );
  }

  /**
   * Starts the workers of a plan, has `body` run tasks on them one after the other, and ends them, whatever comes of it.
   * @param what is done, for the log. @param body is told by the signal that the user ends the workers.
   * @throws DitrunError as Workers does, and what `body` throws.
   */
  async withWorkers<T>(
    plan: Plan,
    what: Undertaking,
    body: (workers: Workers, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return this.#launch(plan, what, async (options) => {
      const workers = await Workers.start({ ...options, settings: { ...options.settings, stays: true } });
      let result: T;
      try {
        result = await body(workers, options.signal);
      } catch (error) {
        // What a worker does on its way out matters less than why.
        await workers.close().catch(() => undefined);
        throw error;
      }
      await workers.close();
      return result;
    });
  }

  /** Has `body` start workers; signals are theirs meanwhile. */
  async #launch<T>(
    plan: Plan,
    { kind, subject }: Undertaking,
    body: (options: WorkersOptions & { readonly signal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    await unlessEnding();
    const { device, kernels, count } = this.device;
    const nproc = meshSize(plan.mesh);
    const { timeout, masterPort } = this.options;
    const { MASTER_PORT } = process.env;
    const workers = `${counted(nproc, "worker")} on ${device}`;
    this.log.logger.info(`${kind}: ${subject}, plan ${plan.name}, ${workers}.`);
    if (device === "cuda" && nproc > count) {
      const gpus = count === 1 ? "the one GPU" : `${count} GPUs`;
      this.log.logger.info(`${nproc} workers share ${gpus}: each takes the GPU of its local rank modulo ${count}.`);
    }
    const id = `${kind}-${randomBytes(4).toString("hex")}`;
    const what = nproc === 1 ? "the worker" : workers;
    const interrupts = interruptSignals((sentence) => this.log.logger.info(sentence), what);
    try {
      const { signal, urgent } = interrupts;
      return await body({
        ...{ signal, urgent },
        settings: { id, device, kernels, timeoutSeconds: timeout },
        nproc,
        log: this.log,
        port: masterPort ?? portNumber("MASTER_PORT", MASTER_PORT) ?? 0,
        entry: this.entry,
      });
    } finally {
      interrupts.close();
    }
  }

  /** Text for people: on stdout, or on stderr where a JSON document was asked for. */
  print(text: string): void {
    const stream = this.options.json === undefined ? process.stdout : process.stderr;
    stream.write(`${text}\n`);
  }

  /** The JSON document of a command, if it was asked for. @throws DitrunError when its file cannot be written. */
  async emit(document: unknown): Promise<void> {
    await this.document.write(document);
  }
}

/** Draws a seed for -1, below 2^63 as the published code does, and tells it. */
function chosenSeed(seed: bigint, { logger }: Log): Seed {
  if (seed >= 0n) return seedOf(seed);
  const drawn = BigInt.asUintN(63, randomBytes(8).readBigUInt64LE());
  logger.info(`--seed -1 drew the seed ${drawn}.`);
  return seedOf(drawn);
}
