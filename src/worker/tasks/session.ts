import { join } from "node:path";
import { openSafetensors } from "../../formats/safetensors.js";
import { ditLayerRules, splitOf } from "../../models/layer-rules.js";
import { checkDtypes } from "../../plan/schema.js";
import type { ForwardTask, Job, ProfileTask, Weights } from "../../protocol/job.js";
import { Context } from "../comm/context.js";
import type { Loader } from "../layers/linear.js";
import { Dit } from "../models/dit/dit.js";
import { Device } from "../runtime/device.js";
import type { Store } from "../store.js";
import { CheckpointWeights, RandomWeights, type WeightSource } from "../weights/source.js";

/** A device, its groups and a loaded model: what every task starts from. */
export interface Session {
  readonly context: Context;
  readonly dit: Dit;
}

/** Opens this rank's device, makes the groups, loads the model, runs the body, and closes all of it again. */
export async function withSession<T>(
  job: Job,
  task: ProfileTask | ForwardTask,
  store: Store,
  body: (session: Session) => Promise<T>,
): Promise<T> {
  const { model, plan, weights } = task;
  checkDtypes(plan);
  const device = Device.open(job.kernels, Number(process.env.LOCAL_RANK ?? 0));
  const context = await Context.create(device, store, plan);
  const source = await openWeights(device, weights, model.depth);
  const loader: Loader = { context, source, splitOf: (path) => splitOf(plan, ditLayerRules, path) };
  const dit = await Dit.load(loader, model);
  await device.synchronize();
  await source.close();
  await context.prepare(() => dit.forward());
  // A failure ends the process, and with it everything that a tidy close would give back.
  const result = await body({ context, dit });
  await device.synchronize();
  await context.close();
  device.close();
  return result;
}

async function openWeights(device: Device, weights: Weights, blocks: number): Promise<WeightSource> {
  if (weights.from === "random") return new RandomWeights(device, weights.seed, weights.wide ? blocks : undefined);
  return new CheckpointWeights(device, await openSafetensors(join(weights.directory, "model.safetensors")));
}
