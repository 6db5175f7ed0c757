import { DitrunError } from "../../failure.js";
import { toFloat32 } from "../../formats/numbers.js";
import { writeSafetensors } from "../../formats/safetensors.js";
import type { WanAccuracyTask } from "../../protocol/job.js";
import type { ForwardRank } from "../../protocol/results.js";
import type { Seed } from "../../protocol/seed.js";
import type { Context } from "../comm/context.js";
import { Guidance } from "../models/wan/guidance.js";
import { branchOf } from "../models/wan/nonfinite.js";
import type { WanTransformer } from "../models/wan/transformer.js";
import type { Device } from "../runtime/device.js";
import { matrixShape, type Tensor } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import { fillRandom } from "../weights/source.js";
import { requireFinite } from "./finite.js";
import type { Frame } from "./frame.js";
import { LayerSamples } from "./layer-samples.js";
import { loadTransformer } from "./wan-session.js";

const TIME = 500;
/** Both texts count about as much: the published 5 would make the difference of the two forwards, and its rounding, larger. */
const SCALE = 2;

/** One step of guidance with random weights and inputs; rank 0 writes its velocity to the task's file. */
export async function runWanAccuracy(frame: Frame, task: WanAccuracyTask, store: Store): Promise<ForwardRank> {
  const { model, plan, seed, size } = task;
  const { textEncoder } = model;
  if (!textEncoder) {
    throw new DitrunError(
      "ERR_MODEL_CONFIG",
      `${model.name} has no textEncoder sizes, which random weights need: add them to the model.`,
    );
  }
  return frame.alone(plan, store, async (context) => {
    const { device } = context;
    const { width } = textEncoder;
    const transformer = await loadTransformer(
      context,
      { model, weights: { from: "random", seed, wide: true } },
      width,
      size,
    );
    const latent = device.allocatePersistent("fp32", [model.channels, size.frames, size.height, size.width]);
    const guidance = new Guidance(context, transformer, latent, SCALE);
    const text = device.allocatePersistent("fp32", [model.textLength, width]);
    await context.prepare(() => guidance.measure());
    const draw = (name: string, out: Tensor) =>
      fillRandom(device, { out, seed, name, fullColumns: matrixShape(out).columns, init: { kind: "normal", std: 1 } });
    draw("latent", latent);
    await addTrend(device, latent, seed);
    for (const slot of guidance.slots) {
      draw(`text.${slot}`, text);
      await transformer.setText(slot, text);
    }
    await transformer.setTime(TIME);
    context.world.barrier();
    const times = guidance.forward();
    await device.synchronize();
    const output = await device.download(guidance.velocity);
    requireFinite(`The velocity of ${model.name}`, output);
    const layers = task.layers ? await sampled(context, guidance, transformer, store) : {};
    if (store.rank === 0) {
      const velocity = { dtype: "F32", shape: latent.shape, data: output } as const;
      await writeSafetensors(task.output, { output: velocity, ...layers });
    }
    const rank: ForwardRank = {
      rank: store.rank,
      device: device.info.name,
      milliseconds: times.reduce((sum, elapsed) => sum + elapsed(), 0),
      peakMemoryBytes: device.kernels.memoryUsed().peak,
    };
    guidance.freeGraphs();
    return rank;
  });
}

/** Layers by what computed them: a block's residual stream is tapped after each of its branches. */
const layerOf = (tapped: string) =>
  tapped === "patch_embedding"
    ? tapped
    : /^block\.\d+(?:\.(?:before|after)_cross_attn)?$/.test(tapped)
      ? branchOf(tapped)
      : undefined;

/** The step's forwards once more, with some tokens of each layer kept. */
async function sampled({ device, world }: Context, guidance: Guidance, transformer: WanTransformer, store: Store) {
  const samples = new LayerSamples(device, transformer.rows);
  world.barrier();
  guidance.replay((slot) => samples.tap(slot, layerOf));
  await device.synchronize();
  return samples.collect(store);
}

/**
 * Adds to each channel of a latent [channels, frames, height, width] a straight line along the tokens, with a slope of its own. In
 * plain noise all parts of a long sequence are alike, and attention to some of the keys is nearly that to all of them.
 */
async function addTrend(device: Device, latent: Tensor, seed: Seed): Promise<void> {
  const [channels = 1, frames = 1, height = 1, width = 1] = latent.shape;
  const slopes = device.allocatePersistent("fp32", [1, channels]);
  fillRandom(device, {
    out: slopes,
    seed,
    name: "latent.trend",
    fullColumns: channels,
    init: { kind: "normal", std: 2 },
  });
  const slopeOf = toFloat32("F32", await device.download(slopes));
  const values = toFloat32("F32", await device.download(latent));
  const lines = frames * height;
  values.forEach((value, index) => {
    const line = Math.floor(index / width);
    const along = (line % lines) / lines - 0.5;
    values[index] = value + (slopeOf[Math.floor(line / lines)] ?? 0) * along;
  });
  await device.upload(latent, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
}
