import { join } from "node:path";
import { openSafetensors } from "../../formats/safetensors.js";
import { ditLayerRules, splitOf } from "../../models/layer-rules.js";
import type { ForwardTask, ProfileTask, Weights } from "../../protocol/job.js";
import type { Context } from "../comm/context.js";
import type { Loader } from "../layers/linear.js";
import { Dit } from "../models/dit/dit.js";
import type { Device } from "../runtime/device.js";
import type { Store } from "../store.js";
import { CheckpointWeights } from "../weights/checkpoint.js";
import { RandomWeights, type WeightSource } from "../weights/source.js";
import { whileOpen } from "../weights/while-open.js";
import type { Frame } from "./frame.js";

/** A device, its groups and a loaded model: what every task starts from. */
export interface Session {
  readonly context: Context;
  readonly dit: Dit;
}

/** Opens this rank's device, makes the groups, loads the model, runs the body, and closes all of it again. */
export async function withSession<T>(
  frame: Frame,
  task: ProfileTask | ForwardTask,
  store: Store,
  body: (session: Session) => Promise<T>,
): Promise<T> {
  return frame.alone(task.plan, store, async (context) => {
    const dit = await buildDit(context, task);
    await context.allocate();
    return body({ context, dit });
  });
}

/** Loads the model, and measures a forward: its memory is to be allocated. */
export async function buildDit(context: Context, { model, plan, weights }: ProfileTask | ForwardTask): Promise<Dit> {
  const source = await openWeights(context.device, weights, model.depth);
  const loader: Loader = { context, source, splitOf: (path) => splitOf(plan, ditLayerRules, path) };
  const dit = await whileOpen(context.device, source, () => Dit.load(loader, model));
  context.measure(() => dit.forward());
  return dit;
}

async function openWeights(device: Device, weights: Weights, blocks: number): Promise<WeightSource> {
  if (weights.from === "random") return new RandomWeights(device, weights.seed, weights.wide ? blocks : undefined);
  return new CheckpointWeights(device, await openSafetensors(join(weights.directory, "model.safetensors")));
}
