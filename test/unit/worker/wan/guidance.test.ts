import { expect, it, vi } from "vitest";
import { toFloat32 } from "../../../../src/formats/numbers.js";
import { loadWanModel } from "../../../../src/models/load.js";
import { builtKernels } from "../../../../src/paths.js";
import { planSchema } from "../../../../src/plan/schema.js";
import { Context } from "../../../../src/worker/comm/context.js";
import { Guidance } from "../../../../src/worker/models/wan/guidance.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { noTap } from "../../../../src/worker/runtime/tap.js";
import { isQuantised } from "../../../../src/worker/tasks/wan-generate.js";
import { loadTransformer } from "../../../../src/worker/tasks/wan-session.js";
import { readTensor, relativeL2 } from "../../../compare.js";
import { caseFile, checkpointOf, soloStore, weightsOf } from "./golden.js";

const size = { frames: 3, height: 8, width: 12 };
const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** The guided velocity of the golden noise and texts, in each precision that is asked for, one after the other. */
async function velocities(
  linear: "e4m3" | "bf16",
  both: boolean,
  wanted: readonly boolean[],
  together = false,
): Promise<Float32Array[]> {
  const device = Device.open(builtKernels("cpu"), 0);
  const plan = planSchema.parse({
    dtype: "bf16",
    linear: { dtype: linear },
    ...(linear === "e4m3" && { attention: { dtype: linear } }),
    guidance: { together },
  });
  const model = await loadWanModel(await checkpointOf("original"));
  const store = soloStore();
  const context = await Context.create(device, store, plan);
  const precision = both ? { quantised: true } : undefined;
  const transformer = await loadTransformer(
    context,
    { model, weights: await weightsOf("original") },
    64,
    size,
    precision,
  );
  const latent = device.allocatePersistent("fp32", [16, 3, 8, 12]);
  const guidance = new Guidance(context, transformer, latent, 5);
  expect(guidance.forwardsAtOnce).toBe(together ? 2 : 1);
  await context.prepare(() => guidance.measure());
  await device.upload(latent, bytesOf(await readTensor(caseFile, "noise")));
  await transformer.setText("cond", await readTensor(caseFile, "t5.prompt"));
  await transformer.setText("uncond", await readTensor(caseFile, "t5.negative"));
  await transformer.setTime(567);
  const outputs: Float32Array[] = [];
  for (const quantised of wanted) {
    guidance.forward(quantised);
    outputs.push(toFloat32("F32", await device.download(guidance.velocity)));
    if (!both) continue;
    // What is run again, to look for a culprit, is what was run.
    const precisions = vi.spyOn(transformer, "inPrecision");
    guidance.replay(() => noTap);
    await device.synchronize();
    expect(precisions.mock.calls.map(([precision]) => precision)).toEqual([quantised, quantised]);
    precisions.mockRestore();
  }
  guidance.freeGraphs();
  await context.close();
  device.close();
  return outputs;
}

it("a transformer in two precisions computes what each alone does, bit by bit, as graphs too", async () => {
  const [bf16] = await velocities("bf16", false, [true]);
  const [fp8] = await velocities("e4m3", false, [true]);
  // The first time of each runs eagerly, the second is captured, the third replays.
  const order = [false, true, true, false, false, true, false];
  const outputs = await velocities("e4m3", true, order);
  order.forEach((quantised, index) => {
    expect(outputs[index]).toEqual(quantised ? fp8 : bf16);
  });
  expect(relativeL2(fp8 ?? [], bf16 ?? [])).toBeGreaterThan(1e-3);
});

it("both forwards at the same time give the same bits as in turn, as graphs too", async () => {
  const [inTurn] = await velocities("bf16", false, [true]);
  const outputs = await velocities("bf16", false, [true, true, true, true, true], true);
  for (const output of outputs) expect(output).toEqual(inTurn);
});

it("a transformer in one precision has no other", async () => {
  await expect(velocities("e4m3", false, [false])).rejects.toThrow("holds no weights in the plan's dtype");
});

it("the first and the last steps are not quantised", () => {
  const sampling = { solver: "unipc", steps: 7, shift: 5, guideScale: 5 } as const;
  const steps = (bf16Steps?: number) =>
    Array.from({ length: 7 }, (_, step) => isQuantised(step, { bf16Steps, sampling }));
  expect(steps(2)).toEqual([false, false, true, true, true, false, false]);
  expect(steps()).toEqual(Array(7).fill(true));
});
