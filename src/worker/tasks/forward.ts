import { writeSafetensors } from "../../formats/safetensors.js";
import type { ForwardTask } from "../../protocol/job.js";
import type { ForwardRank } from "../../protocol/results.js";
import type { Context } from "../comm/context.js";
import type { Dit } from "../models/dit/dit.js";
import type { Store } from "../store.js";
import { requireFinite } from "./finite.js";
import type { Frame } from "./frame.js";
import { randomInputs, readInputs } from "./inputs.js";
import { LayerSamples } from "./layer-samples.js";
import { withSession } from "./session.js";

/** One forward; rank 0 writes its output to the task's file. */
export function runForward(frame: Frame, task: ForwardTask, store: Store): Promise<ForwardRank> {
  return withSession(frame, task, store, async ({ context, dit }) => {
    const { device } = context;
    const inputs = task.inputs
      ? await readInputs(task.inputs, task.model)
      : await randomInputs(device, task.model, task.seed);
    await dit.setInputs(inputs);
    const milliseconds = device.time(() => {
      context.world.barrier();
      dit.forward();
    });
    await device.synchronize();
    const output = await device.download(dit.output);
    requireFinite(`The output of ${task.model.name}`, output);
    const layers = task.layers ? await sampled(context, dit, store) : {};
    if (store.rank === 0) {
      const { channels, imageSize } = task.model;
      const data = { dtype: "F32", shape: [1, channels, imageSize, imageSize], data: output } as const;
      await writeSafetensors(task.output, { output: data, ...layers });
    }
    return {
      rank: store.rank,
      device: device.info.name,
      milliseconds: milliseconds(),
      peakMemoryBytes: device.kernels.memoryUsed().peak,
    };
  });
}

/** The forward once more, with some tokens of each layer kept. */
async function sampled({ device, world }: Context, dit: Dit, store: Store) {
  const samples = new LayerSamples(device, dit.rows);
  world.barrier();
  dit.forward(samples.tap("image", (name) => name));
  await device.synchronize();
  return samples.collect(store);
}
