import { randomBytes } from "node:crypto";
import type { DeviceChoice } from "../engine/choose-device.js";
import { machineFor } from "../engine/machine.js";
import { DitrunError } from "../failure.js";
import type { Log } from "../launcher/logs.js";
import { isForGpu, tokenCount } from "../models/cost.js";
import { loadDitModel } from "../models/load.js";
import type { DitModel, Model } from "../models/schema.js";
import type { Choice } from "../plan/planner/choose.js";
import type { Machine } from "../plan/planner/device.js";
import { type PlanFlags, type PlanSetting, resolvePlan } from "../plan/resolve.js";
import type { Plan } from "../plan/schema.js";
import { type Seed, seedOf } from "../protocol/seed.js";
import { choiceSentence } from "../views/plan-report.js";
import type { Context } from "./command.js";
import type { ModelOptions } from "./options/model.js";
import { Session, type SessionOptions, surroundings } from "./session.js";

/** A session about a model and a plan. */
export class ModelSession extends Session {
  private constructor(
    override readonly options: SessionOptions & ModelOptions,
    device: DeviceChoice,
    log: Log,
    context: Context,
    /** Of all that is random. */
    readonly seed: Seed,
  ) {
    super(options, device, log, context);
  }

  /** @throws DitrunError as Session.open does. */
  static override async open(options: SessionOptions & ModelOptions, context: Context): Promise<ModelSession> {
    const { log, device } = await surroundings(options, context);
    return new ModelSession(options, device, log, context, chosenSeed(options.seed, log));
  }

  protected override get common(): object {
    return { seed: this.seed };
  }

  /** --model, else the benchmark on a GPU and its small sibling on a CPU. */
  async model(): Promise<DitModel> {
    if (this.options.model !== undefined) return loadDitModel(this.options.model);
    if (this.device.device === "cuda") return loadDitModel("dit");
    this.tellLater("No --model was given: the small dit-tiny runs on the CPU, the benchmark is --model dit.");
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

  /** What plans are chosen for, and predicted on. */
  machine(): Promise<Machine> {
    this.#machine ??= machineFor(this.device, this.hosts, process.env);
    return this.#machine;
  }
  #machine: Promise<Machine> | undefined;

  /**
   * The plan that the options describe; other flags may stand in for --plan and the mesh. A mesh that the planner chose is told of.
   * @param wanted the size of a video, and whether it is made without guidance. @throws DitrunError as refuseOnCpu does, too.
   */
  async plan(
    model: Model,
    flags: PlanFlags = this.options,
    wanted: Pick<PlanSetting, "size" | "oneForward"> = {},
  ): Promise<Plan> {
    this.refuseOnCpu(model, tokenCount(model, wanted.size));
    const { nproc } = this.options;
    if (nproc === "gpu" && this.device.device !== "cuda") {
      throw new DitrunError(
        "ERR_NPROC",
        "--nproc is gpu, but there is no GPU to run on: give a number, or use --device cuda.",
      );
    }
    const onChoice = (choice: Choice) => {
      const sentence = choiceSentence(choice);
      if (sentence !== undefined) this.tellLater(sentence);
    };
    const machine = await this.machine();
    return resolvePlan(flags, model, this.workers, this.devices, { ...wanted, machine, onChoice });
  }
}

/** Draws a seed for -1, below 2^63 as the published code does, and tells it. */
function chosenSeed(seed: bigint, { logger }: Log): Seed {
  if (seed >= 0n) return seedOf(seed);
  const drawn = BigInt.asUintN(63, randomBytes(8).readBigUInt64LE());
  logger.info(`--seed -1 drew the seed ${drawn}.`);
  return seedOf(drawn);
}
