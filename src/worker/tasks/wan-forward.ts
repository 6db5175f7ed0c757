import { DitrunError } from "../../failure.js";
import { toFloat32 } from "../../formats/numbers.js";
import { openSafetensors, writeSafetensors } from "../../formats/safetensors.js";
import type { WanForwardTask } from "../../protocol/job.js";
import type { ForwardRank } from "../../protocol/results.js";
import type { Store } from "../store.js";
import { requireFinite, requireFiniteInput } from "./finite.js";
import type { Frame } from "./frame.js";
import { loadTextEncoder, loadTransformer } from "./wan-session.js";

/** Encodes one prompt and runs the transformer once; rank 0 writes both results to the task's file. */
export async function runWanForward(frame: Frame, task: WanForwardTask, store: Store): Promise<ForwardRank> {
  const { model, plan, weights, loras } = task;
  const inputs = await readInputs(task);
  return frame.alone(plan, store, async (context) => {
    const { device } = context;
    const encoder = await loadTextEncoder(context, model, weights);
    const { frames, height, width } = inputs.size;
    const transformer = await loadTransformer(context, { model, weights, loras }, encoder.model.width, inputs.size);
    const latent = device.allocatePersistent("fp32", [model.channels, frames, height, width]);
    const output = device.allocatePersistent("fp32", latent.shape);
    await context.prepare(() => {
      encoder.forward();
      transformer.embedText("cond");
      transformer.forward("cond", latent, output);
    });

    await device.upload(latent, inputs.latent);
    const text = await encoder.encode(inputs.ids);
    requireFinite("The text encoder's output", await device.download(text));
    await transformer.setText("cond", text);
    await transformer.setTime(task.t);
    const milliseconds = device.time(() => {
      context.world.barrier();
      transformer.forward("cond", latent, output);
    });
    await device.synchronize();
    const result = await device.download(output);
    requireFinite(`The output of ${model.name}`, result);
    if (store.rank === 0) {
      await writeSafetensors(task.output, {
        context: { dtype: "F32", shape: text.shape, data: await device.download(text) },
        output: { dtype: "F32", shape: output.shape, data: result },
      });
    }
    const rank: ForwardRank = {
      rank: store.rank,
      device: device.info.name,
      milliseconds: milliseconds(),
      peakMemoryBytes: device.kernels.memoryUsed().peak,
    };
    return rank;
  });
}

/** @throws DitrunError when a tensor is missing or does not fit the model. */
async function readInputs({ inputs, model }: WanForwardTask) {
  const file = await openSafetensors(inputs.file);
  try {
    const { dtype, shape } = file.info(inputs.latent);
    const [channels, frames = 0, height = 0, width = 0] = shape;
    if (shape.length !== 4 || channels !== model.channels) {
      throw new DitrunError(
        "ERR_TENSOR_SHAPE",
        `${inputs.file}: ${inputs.latent} has the shape [${shape}]; it must be [${model.channels}, frames, height, width].`,
      );
    }
    const values = toFloat32(dtype, await file.read(inputs.latent));
    requireFiniteInput(inputs.file, inputs.latent, values);
    const stored = file.info(inputs.ids);
    if (stored.dtype !== "I64")
      throw new DitrunError("ERR_TENSOR_DTYPE", `${inputs.file}: ${inputs.ids} is ${stored.dtype}; it must be I64.`);
    const bytes = await file.read(inputs.ids);
    const ids = Array.from(new BigInt64Array(bytes.slice().buffer), Number);
    const latent = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return { latent, ids, size: { frames, height, width } };
  } finally {
    await file.close();
  }
}
