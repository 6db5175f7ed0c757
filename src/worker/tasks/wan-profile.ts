import { DitrunError } from "../../failure.js";
import type { WanProfileTask } from "../../protocol/job.js";
import type { ProfileRank } from "../../protocol/results.js";
import type { Context } from "../comm/context.js";
import { matrixShape } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import { fillRandom } from "../weights/source.js";
import type { Frame } from "./frame.js";
import { profileForward } from "./profile.js";
import { WanDump } from "./wan-dump.js";
import { loadTransformer } from "./wan-session.js";

const TIME = 500;

/** Times one forward of the transformer; under cfg 2 both halves of the ranks run it, each for a text of its own. */
export async function runWanProfile(frame: Frame, task: WanProfileTask, store: Store): Promise<ProfileRank> {
  const { plan, seed } = task;
  return frame.alone(plan, store, async (context) => {
    const { device } = context;
    const { transformer, latent, text, output } = await buildForward(context, task);
    await context.allocate();
    for (const [name, out] of [
      ["latent", latent],
      ["text", text],
    ] as const) {
      const fullColumns = matrixShape(out).columns;
      fillRandom(device, { out, seed, name, fullColumns, init: { kind: "normal", std: 1 } });
    }
    await transformer.setText("cond", text);
    await transformer.setTime(TIME);
    const subject = {
      forward: () => transformer.forward("cond", latent, output),
      output,
      flops: transformer.flops * context.cfg.size,
      takeRingWaits: () => transformer.takeRingWaits(),
    };
    const rank = await profileForward(context, subject, task, store);
    await device.synchronize();
    const dump = new WanDump(task.dump, store.rank);
    for (const [name, tensor] of Object.entries({ latent, text, output })) {
      await dump.add(name, tensor.shape, () => device.download(tensor));
    }
    await dump.add("t", [1], async () => new Uint8Array(new Float32Array([TIME]).buffer));
    await dump.write();
    return rank;
  });
}

/** Loads the transformer, and measures a forward: its memory is to be allocated. @throws DitrunError for a model without the encoder's sizes. */
export async function buildForward(context: Context, { model, seed, size }: WanProfileTask) {
  const { textEncoder } = model;
  if (!textEncoder) {
    throw new DitrunError(
      "ERR_MODEL_CONFIG",
      `${model.name} has no textEncoder sizes, which random weights need: add them to the model.`,
    );
  }
  const { device } = context;
  const textWidth = textEncoder.width;
  const transformer = await loadTransformer(context, { model, weights: { from: "random", seed } }, textWidth, size);
  const latent = device.allocatePersistent("fp32", [model.channels, size.frames, size.height, size.width]);
  const text = device.allocatePersistent("fp32", [model.textLength, textWidth]);
  const output = device.allocatePersistent("fp32", latent.shape);
  context.measure(() => {
    transformer.embedText("cond");
    transformer.forward("cond", latent, output);
  });
  return { transformer, latent, text, output };
}
