import type { Seed } from "../../../protocol/seed.js";
import type { SamplingPlan } from "../../../sampling/scheduler.js";
import type { SolverTensor, Term } from "../../../sampling/solver-steps.js";
import { copy, copyRows } from "../../ops/copy.js";
import { combine } from "../../ops/elementwise.js";
import type { Device } from "../../runtime/device.js";
import { partOf, type Tensor, tensor, tensorBytes } from "../../runtime/tensor.js";
import { fillRandom } from "../../weights/source.js";

/**
 * Runs a sampling plan on the device: float32 state, each update one launch that sums in float32 in the order of its terms.
 * Every rank that does the same from the same noise and velocities gets the same bits.
 */
export class DeviceSampler {
  /** The model's input, updated in place: its address may be captured. */
  readonly sample: Tensor;
  /** Buffers that take turns: the data prediction of this step and of the two before it. */
  #x0: [now: Tensor, previous: Tensor, older: Tensor];
  #corrected: [now: Tensor, previous: Tensor];
  #seed: Seed = 0;

  /** @param shape of the sample, which the caller fills with noise. */
  constructor(
    private readonly device: Device,
    private plan: SamplingPlan,
    shape: readonly number[],
  ) {
    const buffer = () => device.allocatePersistent("fp32", shape);
    this.sample = buffer();
    this.#x0 = [buffer(), buffer(), buffer()];
    this.#corrected = [buffer(), buffer()];
  }

  /** The plan of the samples to come; the sample holds their initial noise. @param seed of noise that steps draw. */
  begin(plan: SamplingPlan, seed: Seed): void {
    this.plan = plan;
    this.#seed = seed;
  }

  /** Multiplies the sample, while it is the initial noise. */
  scale(factor: number): void {
    if (factor !== 1) combine(this.device, this.sample, [{ coefficient: factor, x: this.sample }]);
  }

  /** Queues the update of the sample with the model's output for it at this step. */
  step(index: number, velocity: Tensor): void {
    const step = this.plan.steps[index];
    if (!step) throw new RangeError(`There is no step ${index} among ${this.plan.steps.length}.`);
    const { sample } = this;
    const [x0, previousX0, olderX0] = this.#x0;
    const [corrected, previousCorrected] = this.#corrected;
    // A step with noise looks at no prediction of two steps before, whose place is free.
    const noise = olderX0;
    if (step.next.some(({ tensor }) => tensor === "noise")) this.#draw(noise, index);
    const tensors: Record<SolverTensor, Tensor> = { sample, velocity, previousX0, olderX0, previousCorrected, noise };
    const sum = (out: Tensor, terms: readonly Term[]) =>
      combine(
        this.device,
        out,
        terms.map(({ coefficient, tensor }) => ({ coefficient, x: tensors[tensor] })),
      );
    sum(x0, step.x0);
    if (step.corrected) sum(corrected, step.corrected);
    else copy(this.device, corrected, sample, tensorBytes("fp32", sample.shape));
    // Last, because all three are sums of the tensors as they were.
    sum(sample, step.next);
    this.#x0 = [olderX0, x0, previousX0];
    this.#corrected = [previousCorrected, corrected];
  }

  /**
   * The video as the last step expects it, some of its frames: float32 [frames, channels, height, width]. Until the next step it lies in
   * a buffer that nothing else needs then.
   */
  denoised(frames: readonly number[]): Tensor {
    const { device, sample } = this;
    // The next step overwrites the first of the three.
    const [spare, x0] = this.#x0;
    const [channels = 0, count = 0, height = 0, width = 0] = sample.shape;
    const out = tensor(spare.address, "fp32", [frames.length, channels, height, width]);
    const rowBytes = tensorBytes("fp32", [height, width]);
    frames.forEach((frame, index) => {
      const from = { address: x0.address + frame * rowBytes, pitch: count * rowBytes };
      copyRows(device, { address: partOf(out, index).address, pitch: rowBytes }, from, { rows: channels, rowBytes });
    });
    return out;
  }

  /** noise = standard normal numbers of seed and step: the same on every rank, layout and device, whatever was drawn before. */
  #draw(noise: Tensor, index: number): void {
    fillRandom(this.device, {
      out: noise,
      seed: this.#seed,
      name: `noise.${index + 1}`,
      fullColumns: noise.shape.at(-1) ?? 1,
      init: { kind: "normal", std: 1 },
    });
  }
}
